local sse = require "llmproxy.sse"

local function check(t, text, events, complete)
  local got, whole = sse.parse(text)
  t.equal(got, events, ("%q"):format(text))
  t.equal(whole, complete, ("%q complete"):format(text))
end

return {
  ["lines end in LF, CRLF or CR"] = function(t)
    local events = { { data = "a" }, { data = "b" } }
    for _, ending in ipairs { "\n", "\r\n", "\r" } do
      check(t, table.concat({ "data: a", "", "data: b", "", "" }, ending), events, true)
    end
    check(t, "data: a\r\n\rdata: b\n\r", events, true)
  end,

  ["a byte order mark is skipped, once and at the beginning only"] = function(t)
    check(t, "\239\187\191data: a\n\n", { { data = "a" } }, true)
    check(t, "\239\187\191\239\187\191data: a\n\n", {}, true)
  end,

  ["comments and unknown fields are skipped"] = function(t)
    check(t, ": OPENROUTER PROCESSING\n\n: x\ndata: a\nretry: 10\nfoo: bar\nfoo\n\n", { { data = "a" } }, true)
  end,

  ["one space after the colon goes, no more"] = function(t)
    check(t, "data:a\n\ndata: a\n\ndata:  a \n\ndata\n\ndata:\n\n", { { data = "a" }, { data = "a" }, { data = " a " }, { data = "" }, { data = "" } }, true)
  end,

  ["data lines join with LF"] = function(t)
    check(t, "data: a\ndata:\ndata: b\n\n", { { data = "a\n\nb" } }, true)
  end,

  ["a type belongs to its event, an id to those that follow too"] = function(t)
    check(t, "event: x\nid: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\nid: a\0b\ndata: d\n\n", { { event = "x", id = "1", data = "a" }, { id = "1", data = "b" }, { data = "c" }, { data = "d" } }, true)
    check(t, "event: x\n\ndata: a\n\n", { { data = "a" } }, true)
  end,

  ["an event that was cut is there as far as it came, and said to be incomplete"] = function(t)
    check(t, "data: a\n\ndata: {\"b", { { data = "a" }, { data = "{\"b" } }, false)
    check(t, "data: a\n", { { data = "a" } }, false)
    check(t, "data: a\n\nevent: x\n", { { data = "a" } }, false)
    check(t, "data: a\n\n: comm", { { data = "a" } }, true)
  end,

  ["nothing is nothing"] = function(t)
    for _, text in ipairs { "", "\n\n\n", "\239\187\191", ": x" } do check(t, text, {}, true) end
  end,

  ["a stream may come in pieces, cut anywhere"] = function(t)
    local text = "\239\187\191: hello\r\nid: 1\r\ndata: a\r\ndata: ü\r\n\r\nevent: x\rdata: b\r\rdata: c\n\nretry: 250\r\n\r\ndata: d\r\n\ndata: cut"
    local expected, complete = sse.parse(text)
    t.equal(#expected, 5)
    t.equal(complete, false)
    for size = 1, #text do
      local reader, events = sse.reader(), {}
      for position = 1, #text, size do
        for _, event in ipairs(reader:feed(text:sub(position, position + size - 1))) do events[#events + 1] = event end
        t.equal(reader:feed "", {})
      end
      t.equal(#events, 4)
      t.equal(reader.retry, 250)
      local unfinished, whole = reader:finish()
      events[#events + 1] = unfinished[1]
      t.equal(events, expected, ("in pieces of %d bytes"):format(size))
      t.equal(whole, false)
    end
  end,

  ["an event is there as soon as its empty line is"] = function(t)
    local reader = sse.reader()
    t.equal(reader:feed "data: a\r\n", {})
    t.equal(reader:feed "\r", { { data = "a" } })
    t.equal(reader:feed "\ndata: b\n\n", { { data = "b" } }, "the LF of the CRLF is no empty line")
    t.equal({ reader:finish() }, { {}, true })
  end,

  ["after its end a reader begins anew"] = function(t)
    local reader = sse.reader()
    t.equal(reader:feed "id: 1\ndata: a\r", {})
    t.equal({ reader:finish() }, { { { data = "a", id = "1" } }, false })
    t.equal(reader:feed "\n\239\187\191data: b\n\n", {}, "a mark that is not at the beginning belongs to the name")
    t.equal({ reader:finish() }, { {}, true })
    t.equal(reader:feed "\239\187\191data: c\n\n", { { data = "c" } })
  end,

  ["what is no text is refused"] = function(t)
    t.raises("llmproxy.sse.parse: text: expected a string, got nil", sse.parse)
    t.raises("llmproxy.sse.reader: feed: bytes: expected a string, got table", function() sse.reader():feed {} end)
  end,

  ["a long line costs its length in however many pieces"] = function(t)
    local reader = sse.reader()
    reader:feed "data: "
    for _ = 1, 200000 do reader:feed "xy" end
    t.equal(#reader:feed("\n\n")[1].data, 400000)
  end,

  ["a long answer is read in one pass"] = function(t)
    local events, complete = sse.parse(("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\r\n\r\n"):rep(100000))
    t.equal(#events, 100000)
    t.equal(complete, true)
    events = sse.parse(("data: x\n"):rep(200000))
    t.equal(#events[1].data, 399999)
  end,
}
