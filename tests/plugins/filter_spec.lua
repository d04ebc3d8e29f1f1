local EVENT = {
  id = "1", status = 429, duration_ms = 1500, path = "/v1/chat/completions", route = "openai", streamed = true,
  request_headers = { ["x-team"] = "red" }, llm = { usage = { total_tokens = 42 }, output = { { content = "hello" } } },
}

return {
  ["a rule in keep must hold"] = function(t)
    local function keeps(rule) return t.plugin("transforms/filter", { keep = { rule } })(EVENT) == EVENT end
    for _, rule in ipairs {
      { status = 429 }, { status = { 500, 429 } }, { status = { at_least = 429 } }, { status = { above = 428, below = 430 } }, { status = { at_most = 429 } }, { streamed = true },
      { path = { starts_with = "/v1/" } }, { path = { ends_with = "completions" } }, { path = { contains = "chat" } }, { path = { matches = "^/v%d/" } }, { path = { ends_with = "" } },
      { ["request_headers.x-team"] = "red" }, { ["request_headers[\"x-team\"]"] = { is_not = "blue" } }, { ["llm.usage.total_tokens"] = { above = 40 } },
      { ["llm.output[1].content"] = "hello" }, { error = { exists = false } }, { llm = { exists = true } }, { error = { is_not = "x" } },
      { status = 429, route = "openai", duration_ms = { above = 1000 } },
    } do t.equal(keeps(rule), true, (next(rule))) end
    for _, rule in ipairs {
      { status = 428 }, { status = { 500, 428 } }, { status = { at_least = 430 } }, { status = { above = 429 } }, { status = { below = 429 } }, { status = { at_most = 428 } }, { streamed = false },
      { path = { starts_with = "/v2/" } }, { path = { ends_with = "/" } }, { path = { contains = "Chat" } }, { path = { matches = "^/v%a/" } }, { ["llm.output[2].content"] = "hello" },
      { ["request_headers.x-team"] = "blue" }, { ["request_headers.x-team"] = { is_not = "red" } }, { error = "x" }, { error = { "x" } }, { error = { exists = true } }, { llm = { exists = false } },
      { status = { contains = "4" } }, { path = { above = 1 } }, { ["status.x"] = 1 }, { status = "429" },
      { status = 429, route = "anthropic" },
    } do t.equal(keeps(rule), false, (next(rule))) end
  end,

  ["one rule in keep is enough, and none in drop may hold"] = function(t)
    local filter = t.plugin("transforms/filter", { keep = { { status = 200 }, { status = 429 } }, drop = { { route = "internal" }, { duration_ms = { below = 100 } } } })
    t.ok(filter(EVENT) == EVENT)
    t.equal(filter { status = 429, route = "internal", duration_ms = 500 }, nil)
    t.equal(filter { status = 200, route = "openai", duration_ms = 50 }, nil)
    t.equal(filter { status = 500, route = "openai", duration_ms = 500 }, nil)
    local drop = t.plugin("transforms/filter", { drop = { { status = 200 } } })
    t.ok(drop(EVENT) == EVENT)
    t.equal(drop { status = 200 }, nil)
  end,

  ["settings are checked"] = function(t)
    local function wrong(rule) return t.settings_errors("transforms/filter", { keep = { rule } })[1] end
    t.matches(wrong { status = { at_lest = 1 } }, "keep[1]: status.at_lest: no such test, did you mean 'at_least'?", true)
    t.matches(wrong { status = { at_least = "500" } }, 'keep[1]: status.at_least: expected a number, got "500"', true)
    t.matches(wrong { path = { matches = "(" } }, "keep[1]: path.matches: unfinished capture", true)
    t.matches(wrong { ["a..b"] = 1 }, "keep[1]: a..b: expected the path of a field", true)
    t.matches(wrong { status = {} }, "keep[1]: status: expected a value, a list of values or a table of tests, got a table", true)
    t.matches(wrong { status = { 1, {} } }, "keep[1]: status[2]: expected a string, a number or true or false", true)
    t.matches(wrong {}, "keep[1]: expected a table of fields", true)
    t.matches(t.settings_errors("transforms/filter", { keep = { "status" } })[1], "keep[1]: expected a table of fields", true)
    t.raises("filter needs rules", t.plugin, "transforms/filter", {})
  end,
}
