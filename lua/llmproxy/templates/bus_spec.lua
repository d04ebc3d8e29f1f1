local json = require "llmproxy.json"

local URL = "http://queue.example"

describe("NAME", function()
  local bus

  before_each(function() bus = plugin("bus", "NAME", { url = URL }) end)

  it("publishes one event a line", function()
    local queue = http.fake(URL)
    expect(bus:publish(batch { event(), event() }).verdict):to_be("ok")
    local _, count = queue.requests[1].body:gsub("\n", "")
    expect(count):to_be(2)
  end)

  it("fetches and acknowledges", function()
    local queue = http.fake(URL, function(request)
      return { status = 200, body = request.path:find("/messages$") and json.encode(json.array { { id = 7, event = '{"id":"a"}' } }) or "" }
    end)
    local subscription = bus:subscribe { name = "audit", consumer = "me", from = "oldest" }
    local messages = subscription:fetch(10, 1)
    expect(messages[1].event):to_be('{"id":"a"}')
    expect(subscription:ack(messages)):to_be_true()
    expect(queue.requests[3].body):to_be("[7]")
  end)

  it("says why it cannot", function()
    http.fake(URL, 503)
    local subscription, reason = bus:subscribe { name = "audit", consumer = "me", from = "oldest" }
    expect({ subscription, reason }):to_equal { nil, "answered 503" }
  end)
end)
