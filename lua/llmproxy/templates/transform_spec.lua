describe("NAME", function()
  it("takes the team from the header", function()
    local transform = plugin("transform", "NAME")
    local result = transform(event { request_headers = { ["x-team"] = "red" } })
    expect(result.team):to_equal "red"
  end)

  it("drops calls without a team when one is required", function()
    expect(plugin("transform", "NAME")(event())):not_to_be_nil()
    expect(plugin("transform", "NAME", { required = true })(event())):to_be_nil()
  end)
end)
