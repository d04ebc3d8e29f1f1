local KEY = "a key that is long enough"

local function anonymised(changes)
  return plugin("transform", "anonymise", { key = KEY })(event(changes))
end

describe("anonymise", function()
  it("has the same pseudonym for the same person, and another under another key", function()
    local one, two = anonymised { client = "10.0.0.1:1" }, anonymised { client = "10.0.0.1:2" }
    expect(one.client):to_be(two.client)
    expect(one.client):not_to_be(anonymised({ client = "10.0.0.2:1" }).client)
    expect(one.client):not_to_be(plugin("transform", "anonymise", { key = KEY .. "!" })(event { client = "10.0.0.1:1" }).client)
  end)

  it("knows users by the ways in which callers name them", function()
    local named = anonymised { request_body = '{"user":"ada"}' }
    expect(named.user):to_match("^%x+$")
    expect(anonymised({ request_body = '{"metadata":{"user_id":"ada"}}' }).user):to_be(named.user)
    expect(anonymised({ request_body = "[]" }).user):to_be_nil()
    expect(anonymised({ request_body = '{"user":7,"metadata":3}' }).user):to_be_nil()
  end)

  it("keeps nothing that was said", function()
    local result = anonymised { request_headers = { ["x-user"] = "ada" } }
    for _, key in ipairs { "request_body", "response_body", "request_headers", "response_headers", "query", "request_id" } do expect(result[key]):to_be_nil() end
  end)

  it("refuses a key that is too short", function()
    expect(function() plugin("transform", "anonymise", { key = "short" }) end):to_raise "key: expected a string of at least 16 bytes, got a string (not shown)"
  end)
end)
