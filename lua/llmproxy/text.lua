--- What one often wants of strings and Lua's own library has not.
local text = {}

local function expect(value, what)
  if type(value) ~= "string" then error(("llmproxy.text.%s: expected a string, got %s"):format(what, type(value)), 3) end
end

--- Without white space at both ends.
---@param value string
---@return string
function text.trim(value)
  expect(value, "trim: value")
  local first = value:find("%S")
  if not first then return "" end
  local last = #value
  while value:find("^%s", last) do last = last - 1 end
  return value:sub(first, last)
end

--- The pieces between separators, which stand for themselves; empty pieces too.
---@param value string
---@param separator string
---@return string[]
function text.split(value, separator)
  expect(value, "split: value")
  expect(separator, "split: separator")
  if separator == "" then error("llmproxy.text.split: separator: expected a string that is not empty", 2) end
  local pieces, position = {}, 1
  while true do
    local first, last = value:find(separator, position, true)
    pieces[#pieces + 1] = value:sub(position, (first or 0) - 1)
    if not first then return pieces end
    position = last + 1
  end
end

--- Whether it begins with this very text.
---@param value string
---@param beginning string
---@return boolean
function text.starts_with(value, beginning)
  expect(value, "starts_with: value")
  expect(beginning, "starts_with: beginning")
  return value:sub(1, #beginning) == beginning
end

--- Whether it ends with this very text.
---@param value string
---@param ending string
---@return boolean
function text.ends_with(value, ending)
  expect(value, "ends_with: value")
  expect(ending, "ends_with: ending")
  return ending == "" or #value >= #ending and value:sub(-#ending) == ending
end

--- As a Lua pattern that fits this very text.
---@param value string
---@return string
function text.escape_pattern(value)
  expect(value, "escape_pattern: value")
  return (value:gsub("%W", "%%%0"):gsub("%%%z", "%%z"))
end

--- At most that many bytes of it, cut between two characters of UTF-8; with an ending, if given, that counts among the bytes when something was cut.
---@param value string
---@param bytes integer
---@param ending? string such as "…"
---@return string
function text.truncate(value, bytes, ending)
  expect(value, "truncate: value")
  if type(bytes) ~= "number" or bytes < 0 then error("llmproxy.text.truncate: bytes: expected a number of at least 0", 2) end
  if #value <= bytes then return value end
  ending = ending or ""
  expect(ending, "truncate: ending")
  if #ending > bytes then ending = "" end
  local last = bytes - #ending
  while last > 0 and (value:byte(last + 1) or 0) >= 128 and (value:byte(last + 1) or 0) < 192 do last = last - 1 end
  return value:sub(1, last) .. ending
end

return text
