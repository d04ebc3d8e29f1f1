local codec = require "llmproxy.codec"

local function event()
  return {
    id = "1", status = 200, request_headers = { ["x-team"] = "red", host = "h" },
    request_body = "hi", request_body_encoding = "utf8", response_body = "\255\0", response_body_encoding = "base64",
    llm = { usage = { input_tokens = 1, output_tokens = 2 }, output = { { content = "a" }, { content = "b" } } },
  }
end

return {
  ["keep makes another table of what is named"] = function(t)
    local result = t.plugin("transforms/fields", { keep = { "id", "llm.usage.input_tokens", "request_headers.x-team", "absent.too" } })(event())
    t.equal(result, { id = "1", llm = { usage = { input_tokens = 1 } }, request_headers = { ["x-team"] = "red" } })
  end,

  ["drop takes fields away, from a list without a hole"] = function(t)
    local given = event()
    local result = t.plugin("transforms/fields", { drop = { "request_body", "llm.output[1]", "request_headers.host", "absent.too" } })(given)
    t.ok(result == given, "it is still the event")
    t.equal(result.request_body, nil)
    t.equal(result.llm.output, { { content = "b" } })
    t.equal(result.request_headers, { ["x-team"] = "red" })
  end,

  ["rename moves, and may exchange names"] = function(t)
    local result = t.plugin("transforms/fields", {
      keep = { "id", "status", "llm.usage", "request_headers.x-team" },
      rename = { id = "status", status = "id", ["llm.usage"] = "tokens", ["request_headers.x-team"] = 'labels["team.name"]', absent = "x" },
    })(event())
    t.equal(result, { id = 200, status = "1", tokens = { input_tokens = 1, output_tokens = 2 }, labels = { ["team.name"] = "red" } })
  end,

  ["a body that is no text is base64 outside of an event"] = function(t)
    local text = codec.base64.encode "\255\0"
    t.equal(t.plugin("transforms/fields", { keep = { "request_body", "response_body", "response_body_encoding" } })(event()),
      { request_body = "hi", response_body = text, response_body_encoding = "base64" })
    t.equal(t.plugin("transforms/fields", { keep = { "response_body" }, rename = { response_body = "answer" } })(event()), { answer = text })
    local renamed = t.plugin("transforms/fields", { rename = { response_body = "answer", request_body = "question" } })(event())
    t.equal({ renamed.answer, renamed.question, renamed.response_body }, { text, "hi", nil })
  end,

  ["settings are checked"] = function(t)
    t.matches(t.settings_errors("transforms/fields", { keep = { "a[0]" } })[1], "keep[1]: expected a path as", true)
    t.matches(t.settings_errors("transforms/fields", { rename = { ["a b"] = "c" } })[1], "expected a path as", true)
    t.raises("cannot set id.x: id is a string", t.plugin("transforms/fields", { rename = { status = "id.x" } }), event())
  end,
}
