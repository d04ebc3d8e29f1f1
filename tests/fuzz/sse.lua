-- The SSE splitter: any text is split without an error; its events written again are the same events; the kind of line ends does not matter; and a text that is cut between two events is the events of
-- its parts.
local sse = require "llmproxy.sse"

local function check_event(event)
  assert(type(event.data) == "string" and not event.data:find("\r", 1, true), "data is one text, its lines joined by LF")
  assert(event.event == nil or (event.event ~= "" and not event.event:find("[\r\n]")), "a type is one line")
  assert(event.id == nil or (event.id ~= "" and not event.id:find("[\r\n%z]")), "an id is one line")
end

local function require_equal(a, b, what, but_ids)
  assert(#a == #b, what .. ": the number of events")
  for index, event in ipairs(a) do
    local other = b[index]
    assert(event.data == other.data and event.event == other.event and (but_ids or event.id == other.id), what)
  end
end

local function write(events)
  local lines = {}
  for _, event in ipairs(events) do
    lines[#lines + 1] = "id: " .. (event.id or "")
    if event.event then lines[#lines + 1] = "event: " .. event.event end
    for line in (event.data .. "\n"):gmatch("([^\n]*)\n") do lines[#lines + 1] = "data: " .. line end
    lines[#lines + 1] = "\n"
  end
  return table.concat(lines, "\n")
end

local function check_cut(text, at, events)
  local left, right = text:sub(1, at), text:sub(at + 1)
  if right:sub(1, 3) == "\239\187\191" then return end -- skipped at the beginning of a text only
  local joined, complete = sse.parse(left)
  assert(complete, "an empty line completes")
  for _, event in ipairs((sse.parse(right))) do joined[#joined + 1] = event end
  require_equal(joined, events, "joined", true)
end

return function(text)
  local events, complete = sse.parse(text)
  assert(type(complete) == "boolean")
  for _, event in ipairs(events) do check_event(event) end

  local again, whole = sse.parse(write(events))
  require_equal(again, events, "written again")
  assert(whole, "what was written is complete")

  local plain = text:gsub("\r\n?", "\n")
  require_equal((sse.parse(plain)), events, "LF")
  require_equal((sse.parse((plain:gsub("\n", "\r\n")))), events, "CRLF")
  require_equal((sse.parse((plain:gsub("\n", "\r")))), events, "CR")

  local from, cuts = 1, 0
  while cuts < 4 do
    local _, at = plain:find("\n\n", from, true)
    if not at then break end
    check_cut(plain, at, events)
    from, cuts = at, cuts + 1
  end
end
