--- The small words of settings: durations and sizes, names that are alike, values and paths as messages show them.
local arguments = require "llmproxy.arguments"

local words = {}

local TIME_UNITS = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400 }
local SIZE_UNITS = { B = 1, KB = 1e3, MB = 1e6, GB = 1e9, TB = 1e12, KiB = 2 ^ 10, MiB = 2 ^ 20, GiB = 2 ^ 30, TiB = 2 ^ 40 }
local LARGEST_INTEGER = 2 ^ 53

--- Whether it is a number that one can reckon with.
---@param value any
---@return boolean
function words.is_finite(value)
  return type(value) == "number" and value == value and math.abs(value) ~= math.huge
end

--- Whether it is an integer that a double holds exactly.
---@param value any
---@return boolean
function words.is_integer(value)
  return words.is_finite(value) and value % 1 == 0 and math.abs(value) <= LARGEST_INTEGER
end

local function with_unit(value, units)
  if type(value) ~= "string" then return value end
  local number, unit = value:match("^(%d+%.?%d*)(%a+)$")
  return number and units[unit] and tonumber(number) * units[unit]
end

--- Seconds from a number or from text such as "500ms", "10s", "10m", "1h", "14d"; nil when it is no duration.
---@param value any
---@return number?
function words.duration(value)
  local seconds = with_unit(value, TIME_UNITS)
  return words.is_finite(seconds) and seconds >= 0 and seconds or nil
end

--- Bytes from a number or from text such as "64KiB", "1MB"; nil when it is no whole number of bytes.
---@param value any
---@return number?
function words.size(value)
  local bytes = with_unit(value, SIZE_UNITS)
  return words.is_integer(bytes) and bytes >= 0 and bytes or nil
end

--- The keys of a table in an order that is the same every time.
---@param map table
---@return any[]
function words.sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "string" or type(a) == "number") then return a < b end
    return tostring(a) < tostring(b)
  end)
  return keys
end

-- Insertions, deletions, replacements and swaps of neighbours that make one word of the other.
local function distance(a, b)
  local before, row = {}, {}
  for column = 0, #b do row[column] = column end
  for line = 1, #a do
    local now = { [0] = line }
    for column = 1, #b do
      local same = a:byte(line) == b:byte(column)
      now[column] = math.min(row[column] + 1, now[column - 1] + 1, row[column - 1] + (same and 0 or 1))
      if line > 1 and column > 1 and a:byte(line) == b:byte(column - 1) and a:byte(line - 1) == b:byte(column) then
        now[column] = math.min(now[column], before[column - 2] + 1)
      end
    end
    before, row = row, now
  end
  return row[#b]
end

--- The one of names that was probably meant by name: at most a third of it is different. nil if there is none.
---@param name any
---@param names string[]
---@return string?
function words.nearest(name, names)
  arguments.expect(names, "table", "llmproxy.settings.nearest: names")
  if type(name) ~= "string" or #name > 100 then return nil end
  local wanted = name:lower():gsub("-", "_")
  local found, fewest
  for _, candidate in ipairs(names) do
    local steps = distance(wanted, (candidate:lower():gsub("-", "_")))
    if steps <= math.floor(math.max(#name, #candidate) / 3) and (not found or steps < fewest or steps == fewest and candidate < found) then
      found, fewest = candidate, steps
    end
  end
  return found
end

--- The end of a message about an unknown name: ", did you mean 'x'?", or nothing.
---@param name any
---@param names string[]
---@return string
function words.hint(name, names)
  local meant = words.nearest(name, names)
  return meant and (", did you mean '%s'?"):format(meant) or ""
end

--- The path of a key in a table: "a.b", "a[2]", "a[\"x-y\"]".
---@param path string
---@param key any
---@return string
function words.below(path, key)
  if type(key) == "string" and key:find("^[%a_][%w_]*$") then return path == "" and key or path .. "." .. key end
  return ("%s[%s]"):format(path, type(key) == "string" and ("%q"):format(key) or tostring(key))
end

local function escaped(char)
  return (char == '"' or char == "\\") and "\\" .. char or ("\\x%02x"):format(char:byte())
end

local function quoted(text)
  if #text > 60 then text = text:sub(1, 57):gsub("[\192-\255][\128-\191]*$", "") .. "..." end -- no half character at the end
  return '"' .. text:gsub('[%c"\\]', escaped) .. '"'
end

-- An address may hold a password or a key: these are left out.
local function without_secrets(text)
  return (text:gsub("^(%a[%w+.-]*://)[^/?#]*@", "%1...@"):gsub("[?#].*$", "?..."))
end

--- A value as a message shows it: short, on one line, and nothing of it when hidden.
---@param value any
---@param hidden? boolean
---@return string
function words.shown(value, hidden)
  local kind = type(value)
  if kind == "nil" then return "nothing" end
  if kind == "table" or kind == "function" or kind == "boolean" and hidden then return "a " .. kind end
  if hidden then return "a " .. kind .. " (not shown)" end
  if kind == "string" then return quoted(without_secrets(value)) end
  return tostring(value)
end

return words
