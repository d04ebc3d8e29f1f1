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

  ["a long answer is read in one pass"] = function(t)
    local events, complete = sse.parse(("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\r\n\r\n"):rep(100000))
    t.equal(#events, 100000)
    t.equal(complete, true)
    events = sse.parse(("data: x\n"):rep(200000))
    t.equal(#events[1].data, 399999)
  end,
}
