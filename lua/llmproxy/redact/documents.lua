--- A body as what it is made of: JSON documents, and text around them.
--
-- A body is one document, several one behind the other or in lines (NDJSON), the events of a stream (server-sent events), or text. All bytes of it are in its segments, in order:
-- put together again it is the same but for the documents that were changed, which are written anew. Nothing is left out: what cannot be read as JSON is text.
-- The last document of a body that was cut is closed, so that it can be read.
local json = require "llmproxy.json"

local documents = {}

---@class llmproxy.redact.segment
---@field text string as it came
---@field value any the document; nil: this is text
---@field json string? the document's own text, closed when it was cut
---@field after string? what stands behind it when it is written anew
---@field changed boolean?
---@field broken boolean? text that was meant to be JSON
---@field piece boolean? text that goes on in the next segment like it: the data of a stream that is not JSON

-- "[DONE]" does not.
local function looks_like_json(text)
  return text:find "^%s*{" ~= nil or text:find '^%s*%[%s*[%[%]{"%d%-tfn]' ~= nil
end

-- What is open at the end of a text: the closing brackets, outermost first, and the place to cut at when it ends within a string.
-- ended is called with the place of each bracket that leaves nothing open.
local function open_at_end(text, ended)
  local stack, position = {}, 1
  while true do
    local at = text:find('["{}%[%]]', position)
    if not at then break end
    local sign = text:sub(at, at)
    position = at + 1
    if sign == "{" or sign == "[" then
      stack[#stack + 1] = sign == "{" and "}" or "]"
    elseif sign ~= '"' then
      stack[#stack] = nil
      if ended and not stack[1] then ended(at) end
    else
      while true do
        at = text:find('["\\]', position)
        if not at then return stack, #text end
        if text:byte(at) == 34 then break end
        local escape = text:byte(at + 1) == 117 and 6 or 2
        if at + escape - 1 > #text then return stack, at - 1 end
        position = at + escape
      end
      position = at + 1
    end
  end
  return stack, nil
end

-- The document whose beginning the text is, and the text closed; nil when it is none.
local function read_cut(text)
  local stack, in_string = open_at_end(text)
  if #stack == 0 or #stack > 200 then return nil end
  local closing = table.concat(stack):reverse()
  local function try(beginning, middle)
    local whole = beginning .. middle .. closing
    local value = json.decode(whole)
    if value ~= nil then return { value, whole } end
  end
  if in_string then
    local beginning = text:sub(1, in_string)
    return unpack(try(beginning, '"') or try(beginning, '":null') or {})
  end
  local bare = text:gsub("[,%s]+$", "")
  local without_scalar = bare:gsub("[%w.+-]+$", "")
  return unpack(try(bare, "") or try(bare, ":null") or try(bare, "null") or try(without_scalar, "null") or {})
end

-- A segment of one document. may_be_cut: nothing comes after it.
local function read(text, may_be_cut)
  local value, whole = json.decode(text), text
  if value == nil and may_be_cut and looks_like_json(text) then value, whole = read_cut(text) end
  if type(value) == "table" then return { text = text, value = value, json = whole, after = "" } end
  return { text = text, broken = looks_like_json(text) }
end

-- Lines with their ends.
local function lines_of(text)
  local position, size = 1, #text
  return function()
    if position > size then return nil end
    local first = position
    local at = text:find("[\r\n]", first)
    if not at then
      position = size + 1
      return text:sub(first), ""
    end
    position = text:sub(at, at + 1) == "\r\n" and at + 2 or at + 1
    return text:sub(first, at - 1), text:sub(at, position - 1), position > size
  end
end

-- The data lines of one event: each a document, all together one, or text.
local function add_data(segments, lines, is_last)
  local count = #lines
  local function add(text, before, after, data, may_be_cut)
    local segment = read(data, may_be_cut)
    segments[#segments + 1] = { text = before }
    if segment.value ~= nil then
      segment.text, segment.after = text, after
      segments[#segments + 1] = segment
    else
      segments[#segments + 1] = { text = data, broken = segment.broken, piece = true }
      segments[#segments + 1] = { text = after }
    end
    return segment.value ~= nil
  end
  if count > 1 then
    local data, raw = {}, {}
    for index, line in ipairs(lines) do
      data[index] = line.data
      raw[#raw + 1] = (index > 1 and line.before or "") .. line.data .. line.after
    end
    local joined = table.concat(data, "\n")
    if looks_like_json(joined) and not json.decode(lines[1].data) then
      local value = read(joined, is_last)
      if value.value ~= nil then
        add(table.concat(raw), lines[1].before, lines[count].after, joined, is_last)
        return
      end
    end
  end
  for index, line in ipairs(lines) do
    add(line.data .. line.after, line.before, line.after, line.data, is_last and index == count)
  end
end

local function read_events(text)
  local segments, pending = {}, {}
  local function flush(is_last)
    if pending[1] then add_data(segments, pending, is_last) end
    pending = {}
  end
  for line, ending in lines_of(text) do
    local before, data = line:match "^(data: ?)(.*)$"
    if before then
      pending[#pending + 1] = { before = before, data = data, after = ending }
    else
      flush(false)
      segments[#segments + 1] = { text = line }
      segments[#segments + 1] = { text = ending }
    end
  end
  flush(true)
  return segments
end

-- Nil when the first line is no document.
local function read_lines(text)
  local segments = {}
  for line, ending, is_last in lines_of(text) do
    local segment = read(line, is_last or ending == "")
    if not segments[1] and (segment.value == nil or ending == "") then return nil end
    segments[#segments + 1] = segment
    segments[#segments + 1] = { text = ending }
  end
  return segments
end

-- Documents one behind the other, with nothing or white space between; nil when the first is none.
local function read_sequence(text)
  local segments, done = {}, 0
  local function add(last, may_be_cut)
    local space, document = text:sub(done + 1, last):match "^(%s*)(.*)$"
    if space ~= "" then segments[#segments + 1] = { text = space } end
    if document ~= "" then segments[#segments + 1] = read(document, may_be_cut) end
    done = last
  end
  open_at_end(text, function(last) add(last, false) end)
  if done == 0 or done == #text and not segments[2] then return nil end
  add(#text, true)
  return segments
end

--- The segments of a body.
---@param text string
---@return llmproxy.redact.segment[]
function documents.read(text)
  local mark = text:sub(1, 3) == "\239\187\191" and 3 or 0
  local segments
  if mark > 0 then text = text:sub(4) end
  if text:find "^%s*[%[{]" then
    local whole = read(text, false)
    segments = whole.value ~= nil and { whole } or read_lines(text) or read_sequence(text) or { read(text, true) }
  elseif text:find "^data:" or text:find "[\r\n]data:" then
    segments = read_events(text)
  else
    segments = { { text = text } }
  end
  if mark > 0 then table.insert(segments, 1, { text = "\239\187\191" }) end
  return segments
end

--- The body that is made of these segments.
---@param segments llmproxy.redact.segment[]
---@return string
function documents.write(segments)
  local parts = {}
  for index, segment in ipairs(segments) do
    parts[index] = segment.changed and assert(json.encode(segment.value)) .. segment.after or segment.text
  end
  return table.concat(parts)
end

return documents
