local function kept(sample, event)
  return sample(event) ~= nil
end

local function share(sample, count, event_of)
  local number = 0
  for index = 1, count do
    if kept(sample, event_of(index)) then number = number + 1 end
  end
  return number / count
end

local function good(index, more)
  local event = { id = ("id-%d"):format(index), status = 200, duration_ms = 100 }
  for key, value in pairs(more or {}) do event[key] = value end
  return event
end

return {
  ["the share is kept, the same events each time"] = function(t)
    local sample = t.plugin("transforms/sample", { rate = 0.25 })
    t.ok(math.abs(share(sample, 4000, good) - 0.25) < 0.03)
    local again = t.plugin("transforms/sample", { rate = 0.25 })
    for index = 1, 200 do t.equal(kept(sample, good(index)), kept(again, good(index))) end
    t.equal(share(t.plugin("transforms/sample", { rate = 0 }), 100, good), 0)
    t.equal(share(t.plugin("transforms/sample", { rate = 1 }), 100, good), 1)
  end,

  ["a larger share keeps what a smaller one does"] = function(t)
    local small, large = t.plugin("transforms/sample", { rate = 0.1 }), t.plugin("transforms/sample", { rate = 0.5 })
    for index = 1, 500 do t.ok(not kept(small, good(index)) or kept(large, good(index))) end
  end,

  ["another seed keeps others"] = function(t)
    local one, other, both = t.plugin("transforms/sample", { rate = 0.5 }), t.plugin("transforms/sample", { rate = 0.5, seed = "x" }), 0
    for index = 1, 2000 do both = both + (kept(one, good(index)) and kept(other, good(index)) and 1 or 0) end
    t.ok(math.abs(both / 2000 - 0.25) < 0.05)
  end,

  ["events with the same value go together, and without it the id decides"] = function(t)
    local sample = t.plugin("transforms/sample", { rate = 0.5, by = "request_headers.x-session" })
    local seen = {}
    for session = 1, 50 do
      local first = kept(sample, good(1, { request_headers = { ["x-session"] = "s" .. session } }))
      for index = 2, 10 do t.equal(kept(sample, good(index, { request_headers = { ["x-session"] = "s" .. session } })), first) end
      seen[first] = true
    end
    t.ok(seen[true] and seen[false])
    t.ok(math.abs(share(sample, 2000, good) - 0.5) < 0.05)
  end,

  ["what failed is always kept"] = function(t)
    local sample = t.plugin("transforms/sample", { rate = 0 })
    t.equal(kept(sample, good(1, { status = 500 })), true)
    t.equal(kept(sample, good(1, { status = 404 })), true)
    t.equal(kept(sample, good(1, { status = 0 })), true)
    t.equal(kept(sample, good(1, { error = { kind = "client_aborted" } })), true)
    t.equal(kept(sample, good(1, { llm = { error = { message = "overloaded" } } })), true)
    t.equal(kept(sample, good(1, { llm = {} })), false)
    t.equal(kept(t.plugin("transforms/sample", { rate = 0, keep_errors = false }), good(1, { status = 500 })), false)
  end,

  ["what was slow, expensive or large is kept when asked for"] = function(t)
    local sample = t.plugin("transforms/sample", { rate = 0, keep_slower_than = "2s", keep_costlier_than = 0.5, keep_more_tokens_than = 1000 })
    t.equal(kept(sample, good(1, { duration_ms = 2000 })), false)
    t.equal(kept(sample, good(1, { duration_ms = 2001 })), true)
    t.equal(kept(sample, good(1, { cost = { total = 0.5 } })), false)
    t.equal(kept(sample, good(1, { cost = { total = 0.51 } })), true)
    t.equal(kept(sample, good(1, { llm = { usage = { total_tokens = 1000 } } })), false)
    t.equal(kept(sample, good(1, { llm = { usage = { total_tokens = 1001 } } })), true)
  end,

  ["the share can be written into the event"] = function(t)
    local sample = t.plugin("transforms/sample", { rate = 0.999999, rate_field = "sampling.rate" })
    t.equal(sample(good(1)).sampling.rate, 0.999999)
    t.equal(sample(good(1, { status = 500 })).sampling.rate, 1)
  end,

  ["settings are checked"] = function(t)
    t.equal(t.settings_errors("transforms/sample", {}), { "rate: expected a number from 0 to 1, got nothing" })
    t.matches(t.settings_errors("transforms/sample", { rate = 1, by = "a..b" })[1], "by: expected a path as", true)
  end,
}
