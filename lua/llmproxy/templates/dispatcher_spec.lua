describe("NAME", function()
  local settings = { "NAME", url = "https://collector.example/calls", token = "secret" }

  it("posts a list of records", function()
    local collector = http.fake("https://collector.example")
    local result = run_pipeline { dispatcher = settings, events = { event(), event { status = 500 } } }
    expect(result.outcomes[1].result):to_equal "delivered"
    local request = collector.requests[1]
    expect(request.path):to_equal "/calls"
    expect(request.headers.authorization):to_equal "Bearer secret"
    expect(request.json()[2].status):to_equal(500)
  end)

  it("tries again when the collector is down", function()
    local collector = http.fake("https://collector.example", { 503, { error = "Connection refused" }, 200 })
    local result = run_pipeline { dispatcher = settings, events = { event() } }
    expect(result.outcomes[1].result):to_equal "delivered"
    expect(collector.requests):to_have_length(3)
  end)
end)
