--- A text that is the same for two values exactly when they do the same, as far as can be told without running them: how a reload sees what has changed.
--
-- A function of the configuration file is its source lines and the values it closes over, so that a function that only moved, because a route was added above it, is still the same. A function from
-- elsewhere is the place it was written at.
local identity = {}

local write

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "string" or type(a) == "number") then return a < b end
    return type(a) < type(b)
  end)
  return keys
end

local function write_table(state, map)
  state.out[#state.out + 1] = "{"
  for _, key in ipairs(sorted_keys(map)) do
    write(state, key)
    state.out[#state.out + 1] = "="
    write(state, map[key])
  end
  state.out[#state.out + 1] = "}"
end

local function lines_of(text, first, last)
  local lines, number = {}, 0
  for line in (text .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    if number >= first and number <= last then lines[#lines + 1] = line end
  end
  return table.concat(lines, "\n")
end

local function write_function(state, run)
  local source, first, last = state.host.origin(run)
  if source ~= state.file then
    state.out[#state.out + 1] = source and ("function %s:%d-%d"):format(source, first, last) or "function of C"
    return
  end
  state.out[#state.out + 1] = "function " .. lines_of(state.text, first, last)
  write(state, state.host.upvalues(run))
end

function write(state, value)
  local kind = type(value)
  if kind == "string" then
    state.out[#state.out + 1] = ("%q"):format(value)
  elseif kind ~= "table" and kind ~= "function" then
    state.out[#state.out + 1] = (kind == "number" or kind == "boolean") and tostring(value) or kind
  elseif state.seen[value] then
    state.out[#state.out + 1] = "@" .. state.seen[value]
  else
    state.count = state.count + 1
    state.seen[value] = state.count
    if kind == "table" then write_table(state, value) else write_function(state, value) end
  end
end

--- The text for a value. file, text: name and text of the configuration file, for its functions.
---@param host table
---@param value any
---@param file string?
---@param text string?
---@return string
function identity.of(host, value, file, text)
  local state = { host = host, file = file, text = text, seen = {}, count = 0, out = {} }
  write(state, value)
  return table.concat(state.out, " ")
end

return identity
