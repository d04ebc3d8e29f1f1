describe("classic_event", function()
  it("has seven fields", function()
    local result = plugin("transform", "classic_event")(event { response_body = "hello", duration_ms = 5 })
    expect(result):to_equal {
      RequestID = result.RequestID, Method = "POST", Path = "/v1/chat/completions", Status = 200, Duration = 5, ResponseHeaders = { ["content-type"] = "application/json" }, ResponseBody = "hello",
    }
  end)
end)
