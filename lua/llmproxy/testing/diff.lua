--- Values as text, and how two of them differ, for people.
local json = require "llmproxy.json"
local words = require "llmproxy.settings.words"

local diff = {}

local LONGEST_TEXT, MOST_LINES, DEEPEST = 300, 20, 8

local function quoted(text)
  if #text > LONGEST_TEXT then return ("%q... (%d bytes)"):format(text:sub(1, LONGEST_TEXT), #text) end
  return (("%q"):format(text):gsub("\\\n", "\\n"):gsub("\r", "\\r"))
end

--- A value on one line.
---@param value any
---@param depth? integer
---@return string
function diff.show(value, depth)
  depth = depth or 0
  if type(value) == "string" then return quoted(value) end
  if value == json.null then return "null" end
  if type(value) ~= "table" then return tostring(value) end
  if next(value) == nil then return "{}" end
  if depth > DEEPEST then return "{ ... }" end
  local items = {}
  for index, item in ipairs(value) do items[index] = diff.show(item, depth + 1) end
  for _, key in ipairs(words.sorted_keys(value)) do
    if type(key) ~= "number" or key < 1 or key > #value or key % 1 ~= 0 then
      local name = type(key) == "string" and key:find("^[%a_][%w_]*$") and key or "[" .. diff.show(key, depth + 1) .. "]"
      items[#items + 1] = name .. " = " .. diff.show(value[key], depth + 1)
    end
  end
  local text = "{ " .. table.concat(items, ", ") .. " }"
  return #text > 4 * LONGEST_TEXT and text:sub(1, 4 * LONGEST_TEXT) .. " ..." or text
end

--- Whether two values are the same, tables key by key.
---@return boolean
function diff.same(a, b)
  if a == b then return true end
  if type(a) ~= "table" or type(b) ~= "table" then return a ~= a and b ~= b end
  for key, value in pairs(a) do
    if not diff.same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

local function first_difference(a, b)
  local position = 1
  while position <= #a and a:byte(position) == b:byte(position) do position = position + 1 end
  return position
end

local function lines_of(text)
  local lines = {}
  for line in (text .. "\n"):gmatch("(.-)\n") do lines[#lines + 1] = line end
  return lines
end

-- Texts of several lines, from the first line that differs to the last one.
local function text_lines(out, expected, got)
  local a, b = lines_of(expected), lines_of(got)
  local first, ending = 1, 0
  while a[first] ~= nil and a[first] == b[first] do first = first + 1 end
  while #a - ending >= first and #b - ending >= first and a[#a - ending] == b[#b - ending] do ending = ending + 1 end
  if first > 1 then out[#out + 1] = ("  %s"):format(a[first - 1]) end
  for index = first, #a - ending do out[#out + 1] = "- " .. a[index] end
  for index = first, #b - ending do out[#out + 1] = "+ " .. b[index] end
  if ending > 0 then out[#out + 1] = ("  %s"):format(a[#a - ending + 1]) end
end

local function texts(out, place, expected, got)
  if expected:find("\n") and got:find("\n") then
    out[#out + 1] = place .. ": differs from line to line (- expected, + got):"
    return text_lines(out, expected, got)
  end
  local position = first_difference(expected, got)
  local from = math.max(1, position - 40)
  local before = from > 1 and "..." or ""
  out[#out + 1] = ("%s: differs at byte %d"):format(place, position)
  out[#out + 1] = "  expected " .. quoted(before .. expected:sub(from, position + 80))
  out[#out + 1] = "  got      " .. quoted(before .. got:sub(from, position + 80))
end

local function compare(out, place, expected, got, depth)
  if #out > MOST_LINES or diff.same(expected, got) then return end
  if type(expected) == "string" and type(got) == "string" then return texts(out, place, expected, got) end
  if type(expected) ~= "table" or type(got) ~= "table" or depth > DEEPEST then
    out[#out + 1] = place .. ":"
    out[#out + 1] = "  expected " .. (expected == nil and "nothing" or diff.show(expected))
    out[#out + 1] = "  got      " .. (got == nil and "nothing" or diff.show(got))
    return
  end
  local keys = {}
  for key in pairs(expected) do keys[key] = true end
  for key in pairs(got) do keys[key] = true end
  for _, key in ipairs(words.sorted_keys(keys)) do
    compare(out, words.below(place, key), expected[key], got[key], depth + 1)
  end
end

--- Lines that tell how two values differ.
---@param expected any
---@param got any
---@return string
function diff.lines(expected, got)
  local out = {}
  compare(out, "value", expected, got, 0)
  if #out > MOST_LINES then
    for index = #out, MOST_LINES + 1, -1 do out[index] = nil end
    out[#out + 1] = "..."
  end
  return table.concat(out, "\n")
end

return diff
