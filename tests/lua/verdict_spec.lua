local time = require "llmproxy.time"
local verdict = require "llmproxy.verdict"

local function from_status(status, headers) return verdict.from_http { status = status, headers = headers or {}, body = "" } end

return {
  ["a verdict is a plain table"] = function(t)
    t.equal(verdict.ok(), { verdict = "ok" })
    t.equal(verdict.retry(), { verdict = "retry" })
    t.equal(verdict.retry { after = 3, reason = "busy" }, { verdict = "retry", after = 3, reason = "busy" })
    t.equal(verdict.reject("bad"), { verdict = "reject", reason = "bad" })
    t.equal(verdict.split(), { verdict = "split" })
    t.equal(verdict.pause("key"), { verdict = "pause", reason = "key" })
    t.equal(verdict.partial { retry = { 1, 3 }, reject = { [2] = "bad" } }, { verdict = "partial", retry = { 1, 3 }, reject = { [2] = "bad" } })
    t.equal(verdict.partial { reject = { [2] = "bad" } }, { verdict = "partial", retry = {}, reject = { [2] = "bad" } })
  end,

  ["a mistake in a verdict is told"] = function(t)
    t.raises("verdict.retry: expected a table, got a number", verdict.retry, 3)
    t.raises("verdict.retry: after: expected a number, got a string", verdict.retry, { after = "soon" })
    t.raises("verdict.reject: expected a string, got a table", verdict.reject, {})
    t.raises("verdict.partial: retry: expected a table, got a number", verdict.partial, { retry = 1 })
    t.raises("verdict.partial: retry: expected indexes, got a string", verdict.partial, { retry = { "1" } })
    t.raises("verdict.partial: retry: expected a list of indexes, got the key 'first'", verdict.partial, { retry = { first = 1 } })
    t.raises("verdict.partial: reject: expected indexes as keys, got 'second'", verdict.partial, { reject = { second = "bad" } })
    t.raises("verdict.partial: reject[2]: expected a reason, a string, got a boolean", verdict.partial, { reject = { [2] = true } })
  end,

  ["an option that is unknown is told, with the one that was meant"] = function(t)
    t.raises("verdict.partial: unknown key 'rety', did you mean 'retry'?", verdict.partial, { rety = { 1 } })
    t.raises("verdict.retry: unknown key 'aftr', did you mean 'after'?", verdict.retry, { aftr = 1 })
    t.raises("verdict.retry: unknown key '1'", verdict.retry, { 30 })
  end,

  ["a mistake in a verdict is told at the line that made it"] = function(t)
    for _, call in ipairs {
      function() local made = verdict.retry(3) return made end, function() local made = verdict.retry { after = "x" } return made end,
      function() local made = verdict.retry { aftr = 1 } return made end, function() local made = verdict.reject(3) return made end,
      function() local made = verdict.partial { retry = { "x" } } return made end,
    } do
      local _, message = pcall(call)
      t.ok(message:find("verdict_spec.lua:%d+: verdict%."), message)
    end
  end,

  ["what worked is ok"] = function(t)
    for _, status in ipairs { 200, 201, 202, 204, 207 } do t.equal(from_status(status), { verdict = "ok" }) end
  end,

  ["what may work later is tried again"] = function(t)
    for _, status in ipairs { 408, 425, 429, 500, 502, 503, 504, 599 } do t.equal(from_status(status), { verdict = "retry", reason = "answered " .. status }) end
    t.equal(verdict.from_http(nil, "cannot connect"), { verdict = "retry", reason = "cannot connect" })
    t.equal(verdict.from_http(nil), { verdict = "retry", reason = "no response" })
  end,

  ["what is too large, or has one bad event, is split"] = function(t)
    for _, status in ipairs { 400, 413 } do t.equal(from_status(status), { verdict = "split", reason = "answered " .. status }) end
  end,

  ["what can never work is rejected"] = function(t)
    t.equal(from_status(422), { verdict = "reject", reason = "answered 422" })
  end,

  ["wrong credentials and addresses pause, and so do redirects"] = function(t)
    for _, status in ipairs { 301, 302, 307, 308, 401, 403, 404, 405, 407, 410 } do t.equal(from_status(status), { verdict = "pause", reason = "answered " .. status }) end
  end,

  ["Retry-After in seconds is honoured, up to a day"] = function(t)
    t.equal(from_status(429, { ["retry-after"] = "7" }).after, 7)
    t.equal(from_status(503, { ["retry-after"] = "0" }).after, 0)
    t.equal(from_status(503, { ["retry-after"] = "99999999999" }).after, 86400)
    for _, odd in ipairs { "soon", "-1", "1.5", "" } do t.equal(from_status(503, { ["retry-after"] = odd }).after, nil, odd) end
  end,

  ["Retry-After as a date is honoured"] = function(t)
    local months = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }
    local year, month, day, clock = time.rfc3339(time.now() + 60):match("^(%d+)-(%d+)-(%d+)T(%d+:%d+:%d+)")
    local after = from_status(503, { ["retry-after"] = ("Mon, %s %s %s %s GMT"):format(day, months[tonumber(month)], year, clock) }).after
    t.ok(after > 50 and after <= 60, tostring(after))
    t.equal(from_status(503, { ["retry-after"] = "Fri, 02 Jan 2015 03:04:05 GMT" }).after, 0)
    t.equal(from_status(503, { ["retry-after"] = "Fri, 02 Jun 2015" }).after, nil)
    t.equal(from_status(503, { ["retry-after"] = "Fri, 99 Jan 2015 03:04:05 GMT" }).after, nil)
  end,
}
