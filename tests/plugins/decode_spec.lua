local json = require "llmproxy.json"

local function decoded(t, body, settings, event)
  event = event or { path = "/" }
  event.response_body = body
  return t.plugin("transforms/decode", settings or {})(event).response_body
end

-- What the event will say.
local function written(t, body) return json.encode(decoded(t, body)) end

return {
  ["a JSON body becomes its value, with all that JSON can say"] = function(t)
    local body = '{"a":[],"b":{},"c":null,"d":12345678901234567890,"e":0.7,"f":"\\u0000ä"}'
    t.equal(written(t, body), body)
    t.equal(written(t, ' \n[1, {"a" : "x"}]\n'), '[1,{"a":"x"}]')
    t.equal(written(t, '\239\187\191{"a":1}'), '{"a":1}')
  end,

  ["a stream becomes a list of its events"] = function(t)
    t.equal(written(t, 'event: start\ndata: {"a":[]}\n\nid: 7\ndata: [1]\n\n: ping\n\ndata: [DONE]\n\n'),
      '[{"data":{"a":[]},"event":"start"},{"data":[1],"id":"7"},{"data":"[DONE]","id":"7"}]')
    t.equal(written(t, ": nothing\n\n"), "[]")
  end,

  ["lines of JSON become a list"] = function(t)
    t.equal(written(t, '{"a":1}\n{"a":[]}\r\n\n{"b":null}\n'), '[{"a":1},{"a":[]},{"b":null}]')
  end,

  ["what is no JSON, or was cut, stays"] = function(t)
    for _, body in ipairs { "", "text", "12", '"text"', "true", '{"a":', '{"a":1}\n{"b', 'data: {"a":1}\n\ndata: {"b"', "{}x", "--b\r\nx", "\255\0" } do t.equal(decoded(t, body), body) end
    t.equal(decoded(t, nil), nil)
  end,

  ["a body that only some settings name"] = function(t)
    local event = t.plugin("transforms/decode", { bodies = { "request_body" } })({ path = "/", request_body = "{}", response_body = "{}" })
    t.equal({ event.request_body, event.response_body }, { {}, "{}" })
    t.matches(table.concat(t.settings_errors("transforms/decode", { bodies = { "reqest_body" } }), "\n"), "request_body", true)
  end,

  ["raise holds a body to what its content type says"] = function(t)
    local strict = { on_failure = "raise" }
    local function event(kind) return { path = "/", response_headers = { ["content-type"] = kind } } end
    t.raises("response_body: invalid JSON at byte 6", decoded, t, '{"a":', strict, event "application/json; charset=utf-8")
    t.raises("response_body: its last event is cut", decoded, t, "data: {", strict, event "text/event-stream")
    t.raises("response_body: it is no JSON object or list", decoded, t, "oops", strict, event "application/problem+json")
    t.equal(decoded(t, "oops", strict, event "text/plain"), "oops")
    t.equal(decoded(t, "oops", strict), "oops")
    t.equal(decoded(t, '{"a":1}', strict, event "application/json"), { a = 1 })
    t.equal(decoded(t, "", strict, event "application/json"), "")
  end,

  ["decoded bodies are redacted as others are"] = function(t)
    local redact = t.plugin("transforms/redact", { patterns = { "email" }, paths = { "response_body.user" } })
    local body = 'data: {"choices":[{"index":0,"delta":{"content":"to ann@exa"}}],"user":"u"}\n\ndata: {"choices":[{"index":0,"delta":{"content":"mple.com"}}]}\n\n'
    t.equal(redact({ path = "/", response_body = decoded(t, body) }).response_body, {
      { data = { choices = { { index = 0, delta = { content = "to [redacted:email]" } } }, user = "[redacted]" } },
      { data = { choices = { { index = 0, delta = { content = "" } } } } },
    })
  end,
}
