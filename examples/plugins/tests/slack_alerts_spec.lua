local URL = "https://hooks.slack.com/services/T/B/x"

local function alerts(list, settings, answers)
  local slack = http.fake("https://hooks.slack.com", answers or 200)
  local given = { "slack_alerts", url = URL }
  for key, value in pairs(settings or {}) do given[key] = value end
  local result = run_pipeline { transforms = { "llm" }, dispatcher = given, events = list, batch = { max_events = 3 } }
  return slack.requests, result
end

describe("slack_alerts", function()
  it("tells what failed, the most frequent first", function()
    local requests = alerts { event { status = 503 }, event { error = { kind = "client_aborted" } }, event { status = 503 } }
    expect(requests):to_have_length(1)
    expect(requests[1].json().text):to_equal "*3 LLM calls failed*\n• 2 × openai /v1/chat/completions: status 503\n• 1 × openai /v1/chat/completions: client_aborted"
  end)

  it("says nothing when nothing failed, or too little", function()
    expect(alerts { event(), event() }):to_have_length(0)
    expect(alerts({ event { status = 500 }, event() }, { at_least = 2 })):to_have_length(0)
  end)

  it("is quiet between two messages", function()
    local list = {}
    for index = 1, 6 do list[index] = event { status = 500 } end
    local requests, result = alerts(list, { interval = "1m" })
    expect(requests):to_have_length(2)
    expect(result.seconds):to_be_above(59)
  end)

  it("tries again when Slack is away", function()
    local requests, result = alerts({ event { status = 500 } }, nil, { 503, 200 })
    expect({ #requests, result.outcomes[1].result }):to_equal { 2, "delivered" }
  end)
end)
