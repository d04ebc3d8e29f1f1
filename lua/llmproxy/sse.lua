--- Server-sent events, by the rules of the WHATWG's event stream: lines end in LF, CRLF or CR, a byte order mark is skipped, a colon begins a comment, an event ends at an empty line.
--
--     for _, event in ipairs(sse.parse(response.body)) do … event.data … end
--
-- One pass with plain searches: an answer of many megabytes costs its length, not its square, however it is cut into pieces.
local sse = {}

---@class llmproxy.sse.event
---@field event? string the type, if one was sent
---@field data string its data lines joined by LF
---@field id? string the last id that was sent, with this event or before

---@class llmproxy.sse.reader
---@field retry? integer milliseconds to wait before a new connection, as the server last asked for
---@field private pending table the event that was begun: its data lines, lines (how many), event, id
---@field private begun boolean whether the event has any line
---@field private pieces string[] of the line that has not ended
---@field private after_return boolean whether the last byte was a CR, which may be half of a CRLF
---@field private first boolean whether no line was read yet
local methods = {}
methods.__index = methods

-- Takes in one line of an event. What is no field of this format is ignored, as the rules say.
local function read_line(reader, line)
  local pending = reader.pending
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
  elseif name == "retry" and value:find("^%d+$") then
    reader.retry = tonumber(value)
  end
end

local function close_event(reader, events)
  local pending = reader.pending
  if pending.lines then
    events[#events + 1] = {
      event = pending.event ~= "" and pending.event or nil,
      data = pending.lines == 1 and pending[1] or table.concat(pending, "\n"),
      id = pending.id ~= "" and pending.id or nil,
    }
  end
  reader.pending, reader.begun = { id = pending.id }, false
end

local function take_line(reader, events, line)
  if reader.first then
    reader.first = false
    if line:sub(1, 3) == "\239\187\191" then line = line:sub(4) end
  end
  if line == "" then
    close_event(reader, events)
  elseif line:byte() ~= 58 then
    reader.begun = true
    read_line(reader, line)
  end
end

--- A reader of a stream that comes in pieces, cut anywhere.
---@return llmproxy.sse.reader
function sse.reader()
  return setmetatable({ pending = {}, begun = false, pieces = {}, after_return = false, first = true }, methods)
end

--- The events that end in this piece.
---@param bytes string
---@return llmproxy.sse.event[] events
function methods:feed(bytes)
  if type(bytes) ~= "string" then error(("llmproxy.sse.reader: feed: bytes: expected a string, got %s"):format(type(bytes)), 2) end
  local events = {}
  if bytes == "" then return events end
  local position = self.after_return and bytes:byte() == 10 and 2 or 1
  self.after_return = bytes:byte(-1) == 13
  if bytes:find("\r", position, true) then bytes, position = bytes:sub(position):gsub("\r\n?", "\n"), 1 end
  while true do
    local line_end = bytes:find("\n", position, true)
    if not line_end then break end
    local line = bytes:sub(position, line_end - 1)
    if self.pieces[1] then
      self.pieces[#self.pieces + 1] = line
      line, self.pieces = table.concat(self.pieces), {}
    end
    take_line(self, events, line)
    position = line_end + 1
  end
  if position <= #bytes then self.pieces[#self.pieces + 1] = bytes:sub(position) end
  return events
end

--- What the stream left unfinished at its end: the event that lacks its empty line, as far as it came, or none. The reader begins anew.
---@return llmproxy.sse.event[] events none or one
---@return boolean complete whether nothing was begun and not ended
function methods:finish()
  local events = {}
  local line = table.concat(self.pieces)
  if line ~= "" then take_line(self, events, line) end
  local complete = not self.begun
  close_event(self, events)
  self.pending, self.pieces, self.after_return, self.first = {}, {}, false, true
  return events, complete
end

--- The events of a text. One that lacks its empty line at the end (the text was cut there) is the last of the list, as far as it came.
---@param text string
---@return llmproxy.sse.event[] events
---@return boolean complete whether nothing was begun and not ended
function sse.parse(text)
  if type(text) ~= "string" then error(("llmproxy.sse.parse: text: expected a string, got %s"):format(type(text)), 2) end
  local reader = sse.reader()
  local events = reader:feed(text)
  local unfinished, complete = reader:finish()
  events[#events + 1] = unfinished[1]
  return events, complete
end

return sse
