local URL = "http://collector.example:4318"

local function sent(settings, list, answers)
  local collector = http.fake(URL, answers or 200)
  local given = { "otlp", endpoint = URL, compression = "none" }
  for key, value in pairs(settings) do given[key] = value end
  local result = run_pipeline { transforms = { "llm" }, dispatcher = given, events = list, retry = { max_age = 600 } }
  return collector.requests, result
end

local function attributes(list)
  local map = {}
  for _, entry in ipairs(list) do map[entry.key] = entry.value end
  return map
end

describe("otlp", function()
  it("makes a span of a call", function()
    local requests = sent({ resource = { ["deployment.environment"] = "test" } }, { event { trace_id = ("5b"):rep(16), span_id = ("ee"):rep(8), duration_ms = 1500.25 } })
    expect({ requests[1].method, requests[1].path }):to_equal { "POST", "/v1/traces" }
    local resource = requests[1].json().resourceSpans[1]
    local names = attributes(resource.resource.attributes)
    expect({ names["service.name"].stringValue, names["deployment.environment"].stringValue }):to_equal { "llm-proxy", "test" }
    local span = resource.scopeSpans[1].spans[1]
    expect({ span.name, span.kind, span.traceId, span.parentSpanId, #span.spanId }):to_equal { "chat gpt-4o-mini", 3, ("5b"):rep(16), ("ee"):rep(8), 16 }
    expect({ span.startTimeUnixNano, span.endTimeUnixNano }):to_equal { "1767323045678901000", "1767323047179151000" }
    local values = attributes(span.attributes)
    expect({ values["gen_ai.operation.name"].stringValue, values["gen_ai.provider.name"].stringValue }):to_equal { "chat", "openai" }
    expect({ values["gen_ai.usage.input_tokens"].intValue, values["gen_ai.usage.output_tokens"].intValue }):to_equal { "10", "2" }
    expect(values["gen_ai.response.finish_reasons"].arrayValue.values[1].stringValue):to_be("stop")
    expect({ values["server.address"].stringValue, values["server.port"].intValue }):to_equal { "api.openai.com", "443" }
    expect(values["gen_ai.input.messages"]):to_be_nil()
    expect(span.status):to_equal {}
  end)

  it("gives the same ids to an event that comes again", function()
    local one = event { trace_id = nil }
    local first, second = sent({}, { one }), sent({}, { one })
    expect(first[1].body):to_be(second[1].body)
    expect(first[1].json().resourceSpans[1].scopeSpans[1].spans[1].traceId):to_match("^%x+$")
  end)

  it("says what failed", function()
    local span = sent({}, { event { status = 429, response_body = '{"error":{"message":"slow down","type":"rate_limit_error"}}' } })[1].json().resourceSpans[1].scopeSpans[1].spans[1]
    expect(span.status):to_equal { code = 2, message = "slow down" }
    expect(attributes(span.attributes)["error.type"].stringValue):to_be("rate_limit_error")
  end)

  it("takes messages along when asked", function()
    local span = sent({ content = true }, { event() })[1].json().resourceSpans[1].scopeSpans[1].spans[1]
    expect(attributes(span.attributes)["gen_ai.input.messages"].stringValue):to_be('[{"parts":[{"content":"Say hello.","type":"text"}],"role":"user"}]')
  end)

  it("makes log records too", function()
    local requests = sent({ signal = "logs", logs_endpoint = URL .. "/mine", content = true }, { event(), event { status = 500 } })
    expect(requests[1].path):to_be("/mine")
    local records = requests[1].json().resourceLogs[1].scopeLogs[1].logRecords
    expect({ records[1].severityText, records[2].severityText, records[1].eventName }):to_equal { "INFO", "ERROR", "gen_ai.client.inference.operation.details" }
    local message = attributes(records[1].attributes)["gen_ai.output.messages"].arrayValue.values[1].kvlistValue.values
    expect(attributes(message).role.stringValue):to_be("assistant")
  end)

  it("sends again what may be sent again", function()
    for _, answer in ipairs { 429, 502, 503, 504, { error = "Connection refused" } } do
      local requests, result = sent({}, { event() }, { answer, 200 })
      expect({ #requests, result.outcomes[1].result }):to_equal { 2, "delivered" }
    end
    local requests, result = sent({}, { event() }, { 500, 200 })
    expect({ #requests, result.outcomes[1].result }):to_equal { 1, "failed" }
  end)

  it("never sends again what was taken in part", function()
    local requests, result = sent({}, { event(), event() }, { status = 200, body = '{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too old"}}' })
    expect({ #requests, result.outcomes[2].result }):to_equal { 1, "delivered" }
    requests, result = sent({}, { event() }, { { status = 200, body = "<html>sign in</html>" }, { status = 200, body = "{}" } })
    expect({ #requests, result.outcomes[1].result, result.seconds > 50 }):to_equal { 2, "delivered", true }
  end)
end)
