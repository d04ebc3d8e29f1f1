--- Server-sent events in a text, by the rules of the WHATWG's event stream: lines end in LF, CRLF or CR, a byte order mark is skipped, a colon begins a comment, an event ends at an empty line.
--
-- One pass with plain searches: an answer of many megabytes costs its length, not its square.
local sse = {}

---@class llmproxy.sse.event
---@field event? string the type, if one was sent
---@field data string its data lines joined by LF
---@field id? string the last id that was sent, with this event or before

-- Takes in one line of an event. What is no field of this format is ignored, as the rules say.
local function read_line(pending, line)
  local colon = line:find(":", 1, true)
  local name, value = line, ""
  if colon then
    name = line:sub(1, colon - 1)
    value = line:sub(line:byte(colon + 1) == 32 and colon + 2 or colon + 1)
  end
  if name == "data" then
    pending.lines = (pending.lines or 0) + 1
    pending[pending.lines] = value
  elseif name == "event" then
    pending.event = value
  elseif name == "id" and not value:find("%z") then
    pending.id = value
  end
end

local function close_event(events, pending)
  if not pending.lines then return end
  events[#events + 1] = {
    event = pending.event ~= "" and pending.event or nil,
    data = pending.lines == 1 and pending[1] or table.concat(pending, "\n"),
    id = pending.id ~= "" and pending.id or nil,
  }
end

--- The events of a text. One that lacks its empty line at the end (the text was cut there) is the last of the list, as far as it came.
---@param text string
---@return llmproxy.sse.event[] events
---@return boolean complete whether nothing was begun and not ended
function sse.parse(text)
  if text:find("\r", 1, true) then text = text:gsub("\r\n?", "\n") end
  local position = text:sub(1, 3) == "\239\187\191" and 4 or 1
  local events, pending, begun = {}, {}, false
  local size = #text
  while position <= size do
    local line_end = text:find("\n", position, true) or size + 1
    if line_end == position then
      close_event(events, pending)
      pending, begun = { id = pending.id }, false
    elseif text:byte(position) ~= 58 then
      begun = true
      read_line(pending, text:sub(position, line_end - 1))
    end
    position = line_end + 1
  end
  close_event(events, pending)
  return events, not begun
end

return sse
