local codec = require "llmproxy.codec"
local crypto = require "llmproxy.crypto"
local time = require "llmproxy.time"

local function read(request)
  local head, body = request:match("^(.-\r\n)\r\n(.*)$")
  local headers = {}
  for name, value in head:gmatch("([^\r\n:]+): ?([^\r\n]*)\r\n") do headers[name:lower()] = value end
  return headers, body
end

local function deliver(t, settings, batch, answer)
  local server = t.listen { answers = { answer or t.answer(202) } }
  settings.url = ("http://127.0.0.1:%d/hook"):format(server:port())
  local verdict = t.plugin("dispatchers/webhook", settings):deliver(batch)
  return verdict, read(server:requests()[1])
end

return {
  ["a batch is posted as a JSON array, also one of one"] = function(t)
    local verdict, headers, body = deliver(t, { headers = { Authorization = "Bearer x" } }, t.batch { { id = "a1" } })
    t.equal(verdict, { verdict = "ok" })
    t.equal(body, '[{"id":"a1"}]')
    t.equal({ headers["content-type"], headers.authorization, headers["webhook-id"] }, { "application/json", "Bearer x", "evt_a1" })
    t.equal({ headers["webhook-signature"], headers["content-encoding"] }, {})
  end,

  ["several events have one id that follows from them"] = function(t)
    local events = { { id = "a1" }, { id = "a2" } }
    local _, first = deliver(t, {}, t.batch(events))
    local _, second = deliver(t, {}, t.batch(events))
    local _, other = deliver(t, {}, t.batch { { id = "a1" }, { id = "a3" } })
    t.matches(first["webhook-id"], "^evt_%x+$")
    t.equal(first["webhook-id"], second["webhook-id"])
    t.ok(first["webhook-id"] ~= other["webhook-id"])
  end,

  ["gzip compresses what is sent"] = function(t)
    local _, headers, body = deliver(t, { gzip = true }, t.batch { { id = "a1" } })
    t.equal(headers["content-encoding"], "gzip")
    t.equal(codec.gzip.decode(body), '[{"id":"a1"}]')
  end,

  ["each attempt is signed with every key, over the bytes that are sent"] = function(t)
    local old, new = ("o"):rep(24), ("n"):rep(24)
    local secret = "whsec_" .. codec.base64.encode(new) .. " whsec_" .. codec.base64.encode(old)
    local _, headers, body = deliver(t, { secret = secret, gzip = true }, t.batch { { id = "a1" } })
    t.ok(math.abs(tonumber(headers["webhook-timestamp"]) - time.now()) < 60)
    local signed = headers["webhook-id"] .. "." .. headers["webhook-timestamp"] .. "." .. body
    local expected = {}
    for index, key in ipairs { new, old } do expected[index] = "v1," .. codec.base64.encode(crypto.hmac_sha256(key, signed)) end
    t.equal(headers["webhook-signature"], table.concat(expected, " "))
  end,

  ["the answer decides"] = function(t)
    t.equal(deliver(t, {}, t.batch { { id = "1" } }, t.answer(429, "", "Retry-After: 9\r\n")), { verdict = "retry", after = 9, reason = "answered 429" })
    t.equal(deliver(t, {}, t.batch { { id = "1" } }, t.answer(413)), { verdict = "split", reason = "answered 413" })
    t.equal(deliver(t, {}, t.batch { { id = "1" } }, t.answer(401)), { verdict = "pause", reason = "answered 401" })
    t.equal(deliver(t, {}, t.batch { { id = "1" } }, t.answer(302, "", "Location: /x\r\n")), { verdict = "pause", reason = "answered 302" })
  end,

  ["a destination that is not there is tried again"] = function(t)
    local verdict = t.plugin("dispatchers/webhook", { url = "http://127.0.0.1:1/?key=hunter2" }):deliver(t.batch { { id = "1" } })
    t.equal(verdict, { verdict = "retry", reason = "POST http://127.0.0.1:1/: cannot connect: Connection refused" })
  end,

  ["headers that are the host's or made for each message are refused at the start"] = function(t)
    local headers = { ["Content-Length"] = "1", ["webhook-id"] = "x", authorization = "Bearer y" }
    t.equal(t.settings_errors("dispatchers/webhook", { url = "http://a", headers = headers }), {
      'headers["Content-Length"]: is not yours to set',
      'headers["webhook-id"]: is not yours to set',
    })
  end,

  ["what cannot work is refused at the start, without showing it"] = function(t)
    t.raises("secret: expected whsec_", t.plugin, "dispatchers/webhook", { url = "http://a", secret = "hunter2" })
    t.equal(t.settings_errors("dispatchers/webhook", { headers = { ["x y"] = "hunter2", z = "hunter2\n" }, timeout = "soon" }), {
      'headers["x y"]: expected the name of a header, got a string (not shown)',
      "headers.z: expected text without control characters, got a string (not shown)",
      'timeout: expected a duration (seconds, or "500ms", "10s", "10m", "1h", "14d"), got "soon"',
      "url: expected a URL that begins with http:// or https://, got nothing",
    })
  end,
}
