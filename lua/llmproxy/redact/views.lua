--- Other readings of a text: with its escapes undone, as JSON inside a string has them (\u0040, \/, \"), and with its percent signs undone.
--
-- A text is a reading of itself or of another one; positions in it lead back to those in the text it was made from:
--
--     a\u0040b.c   ->   a@b.c      "@" leads to the six bytes of its escape
--
-- Nobody knows whether a text is JSON that somebody has quoted, how often, and whether it is whole: so all readings are searched, not only those that make sense.
local views = {}

-- JSON in JSON in JSON in a string of a body.
local DEEPEST = 4

local SIMPLE = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

---@class llmproxy.redact.view
---@field text string
---@field inner llmproxy.redact.view? the reading it was made from; nil: the text itself
---@field at integer[] where each stretch of it begins
---@field from integer[] the first and last byte that a stretch was made from: as many as it has, or those of one escape
---@field to integer[]
---@field is_quoted boolean? there is a further reading, and the text is JSON: the "n" of "\nann@example.com" is no letter

local function utf8(code)
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(0xc0 + math.floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then return string.char(0xe0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64) end
  return string.char(0xf0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64, 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

-- What the escape at a position stands for, and its last byte; nil: it is none.
local function read_escape(text, position)
  local letter = text:sub(position + 1, position + 1)
  if SIMPLE[letter] then return SIMPLE[letter], position + 1 end
  if letter == "x" then
    local digits = text:match("^[0-7]%x", position + 2)
    if digits then return string.char(tonumber(digits, 16)), position + 3 end
  end
  if letter ~= "u" then return nil end
  local digits = text:match("^%x%x%x%x", position + 2)
  if not digits then return nil end
  local code = tonumber(digits, 16)
  local low = code >= 0xd800 and code < 0xdc00 and text:match("^\\u([dD][c-fC-F]%x%x)", position + 6)
  if low then return utf8(0x10000 + (code - 0xd800) * 1024 + tonumber(low, 16) - 0xdc00), position + 11 end
  return utf8(code), position + 5
end

local function read_percent(text, position)
  local digits = text:match("^%x%x", position + 1)
  if digits then return string.char(tonumber(digits, 16)), position + 2 end
end

-- Nil when there is nothing to undo.
local function undo(inner, sign, read)
  local text = inner.text
  local at, from, to, parts, size, done = {}, {}, {}, {}, 0, 0
  local function add(part, first, last)
    local count = #parts + 1
    parts[count], at[count], from[count], to[count] = part, size + 1, first, last
    size = size + #part
  end
  local position = text:find(sign, 1, true)
  while position do
    local meaning, last = read(text, position)
    if meaning then
      if position > done + 1 then add(text:sub(done + 1, position - 1), done + 1, position - 1) end
      add(meaning, position, last)
      done = last
    end
    position = text:find(sign, (last or position) + 1, true)
  end
  if done == 0 then return nil end
  if done < #text then add(text:sub(done + 1), done + 1, #text) end
  return { text = table.concat(parts), inner = inner, at = at, from = from, to = to }
end

-- The stretch that a position is in: the last that begins at it or before.
local function stretch(at, position)
  local low, high = 1, #at
  while low < high do
    local middle = math.ceil((low + high) / 2)
    if at[middle] <= position then low = middle else high = middle - 1 end
  end
  return low
end

--- Where the bytes first to last of a reading come from in the text.
---@param view llmproxy.redact.view
---@param first integer
---@param last integer
---@return integer first
---@return integer last
function views.origin(view, first, last)
  while view.inner do
    local at, from, to = view.at, view.from, view.to
    local index = stretch(at, first)
    local whole = (at[index + 1] or #view.text + 1) - at[index] == to[index] - from[index] + 1
    first = whole and from[index] + first - at[index] or from[index]
    index = stretch(at, last)
    whole = (at[index + 1] or #view.text + 1) - at[index] == to[index] - from[index] + 1
    last = whole and from[index] + last - at[index] or to[index]
    view = view.inner
  end
  return first, last
end

--- Whether a text, or what it is the beginning of, seems to be JSON.
---@param text string
---@return boolean
function views.is_json(text)
  return text:find '^%s*[%[{"]' ~= nil
end

--- Whether what begins there in a reading is the letter of an escape.
---@param view llmproxy.redact.view
---@param first integer
---@return boolean
function views.begins_in_escape(view, first)
  return view.is_quoted == true and first > 1 and view.text:find("^\\[bfnrtu]", first - 1) ~= nil
end

--- The readings to search.
---@param text string
---@return llmproxy.redact.view[]
function views.all(text)
  local plain = { text = text }
  local escaped, percent = text:find("\\", 1, true), text:find("%%%x%x")
  if not escaped and not percent then return { plain } end
  local list = { plain }
  local view = plain
  for _ = 1, escaped and DEEPEST or 0 do
    view = undo(view, "\\", read_escape)
    if not view then break end
    list[#list + 1] = view
  end
  if percent then table.insert(list, 1, undo(plain, "%", read_percent)) end
  if views.is_json(text) then
    for index = 1, #list - 1 do list[index].is_quoted = true end
  end
  return list
end

return views
