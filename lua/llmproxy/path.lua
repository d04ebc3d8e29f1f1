--- Places in an event, as settings name them: keys with a dot between, as in Lua.
--
--     llm.usage.total_tokens          request_headers.x-team          llm.output[1].content          tags["a.b"]
--
-- A name is of letters, digits, "_" and "-"; any other key stands in brackets and quotes, a position in brackets. path.field() is a setting that takes one.
local arguments = require "llmproxy.arguments"

local path = {}

---@alias llmproxy.path (string|integer)[] the keys, from the outside in

-- The key that begins at a position, and the position behind it; nil and what is wrong.
local function next_key(text, position)
  local name, after = text:match("^([%w_-]+)()", position)
  if name then return name, after end
  local quote, quoted
  quote, quoted, after = text:match("^%[([\"'])(.-)%1%]()", position)
  if quote then return quoted, after end
  local index
  index, after = text:match("^%[([1-9]%d*)%]()", position)
  if index then return tonumber(index), after end
  return nil, ("expected a key at %q"):format(text:sub(position, position + 20))
end

--- The keys of a path.
---@param text string
---@return llmproxy.path?
---@return string? message what is wrong with it
function path.parse(text)
  arguments.expect(text, "string", "llmproxy.path.parse: text")
  local keys, position = {}, 1
  repeat
    local key, after = next_key(text, position)
    if key == nil then return nil, after --[[@as string]] end
    keys[#keys + 1], position = key, after
    local separator = text:sub(position, position)
    if separator == "." then
      position = position + 1
      if position > #text then return nil, "expected a key behind the last dot" end
      if text:sub(position, position) == "[" then return nil, "expected a name behind a dot, got a bracket" end
    elseif separator ~= "[" and separator ~= "" then
      return nil, ("expected a dot or a bracket at %q"):format(text:sub(position, position + 20))
    end
  until position > #text
  return keys
end

--- What stands there; nil when there is nothing, or something on the way is no table.
---@param value any
---@param keys llmproxy.path
---@return any
function path.get(value, keys)
  arguments.expect(keys, "table", "llmproxy.path.get: keys")
  for index = 1, #keys do
    if type(value) ~= "table" then return nil end
    value = value[keys[index]]
  end
  return value
end

local function check_place(target, keys, name)
  if type(target) ~= "table" then error(("%starget: expected a table, got %s"):format(name, type(target)), 3) end
  if type(keys) ~= "table" or keys[1] == nil then error(("%skeys: expected a path, got %s"):format(name, type(keys) == "table" and "an empty one" or type(keys)), 3) end
end

--- Puts a value there; tables on the way are made. Raises when something on the way is there and no table.
---@param target table
---@param keys llmproxy.path
---@param value any
function path.set(target, keys, value)
  check_place(target, keys, "llmproxy.path.set: ")
  for index = 1, #keys - 1 do
    local inner = target[keys[index]]
    if inner == nil then
      inner = {}
      target[keys[index]] = inner
    elseif type(inner) ~= "table" then
      error(("cannot set %s: %s is a %s"):format(table.concat(keys, "."), table.concat(keys, ".", 1, index), type(inner)), 0)
    end
    target = inner
  end
  target[keys[#keys]] = value
end

--- Takes away what stands there; from a list, so that no hole stays. Returns it; nil: there was nothing.
---@param target table
---@param keys llmproxy.path
---@return any
function path.remove(target, keys)
  check_place(target, keys, "llmproxy.path.remove: ")
  for index = 1, #keys - 1 do
    target = target[keys[index]]
    if type(target) ~= "table" then return nil end
  end
  local last = keys[#keys]
  local value = target[last]
  if type(last) == "number" and last <= #target then return table.remove(target, last) end
  target[last] = nil
  return value
end

local function check(text)
  local keys, message = path.parse(text)
  if not keys then return nil, ('expected a path as "llm.usage.total_tokens" or \'request_headers["x-team"]\', got %q: %s'):format(text, message) end
  return text
end

--- A field of a settings declaration that takes a path. The setting is its text: path.parse() cannot fail on it.
---@param doc string?
---@param default string?
---@return llmproxy.settings.field
function path.field(doc, default)
  return { type = "string", min = 1, check = check, doc = doc, default = default }
end

--- The paths of a list, parsed.
---@param texts string[]
---@return llmproxy.path[]
function path.parse_all(texts)
  arguments.expect(texts, "table", "llmproxy.path.parse_all: texts")
  local list = {}
  for index, text in ipairs(texts) do list[index] = assert(path.parse(text)) end
  return list
end

return path
