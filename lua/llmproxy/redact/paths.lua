--- Paths with wildcards: which values of an event are meant, whatever they are.
--
--     request_body.messages[*].content      llm.output[*].tool_calls      response_body.**.email      request_headers["x-team"]
--
-- As llmproxy.path, and more: `*` is any name, `[*]` any position of a list, `**` any way down, also none. The first name is a field of the event.
-- Inside a body the rest is looked for in each of its documents: in each event of a stream.
local json = require "llmproxy.json"

local paths = {}

---@class llmproxy.redact.path
---@field field string of the event
---@field keys (string|integer)[] "**", "*" and "[*]" are the wildcards; a name in quotes that looks like one begins with a NUL

---@class llmproxy.redact.selected
---@field owner table
---@field key string|integer

local function next_key(text, position)
  local name, after = text:match("^([%w_-]+)()", position)
  if not name then name, after = text:match("^(%*%*?)()", position) end
  if name then return name, after end
  name, after = text:match("^(%[%*%])()", position)
  if name then return name, after end
  local quote, quoted
  quote, quoted, after = text:match("^%[([\"'])(.-)%1%]()", position)
  if quote then return quoted:find "^%*" and "\0" .. quoted or quoted, after end
  local index
  index, after = text:match("^%[([1-9]%d*)%]()", position)
  if index then return tonumber(index), after end
end

--- Nil and what is wrong with it when it is no path.
---@param text string
---@return llmproxy.redact.path?
---@return string?
function paths.parse(text)
  local field, position = text:match "^([%w_]+)()"
  if not field then return nil, "it begins with a field of the event" end
  local keys = {}
  while position <= #text do
    local separator = text:sub(position, position)
    if separator == "." then position = position + 1
    elseif separator ~= "[" then return nil, ("expected a dot or a bracket at %q"):format(text:sub(position, position + 20)) end
    local bracket = text:sub(position, position) == "["
    local key, after = next_key(text, position)
    if not key or separator == "." and bracket then return nil, ("expected a key at %q"):format(text:sub(position, position + 20)) end
    keys[#keys + 1], position = key, after
  end
  return { field = field, keys = keys }
end

-- A state is how many keys are behind. Adds it, and those that "**" gives for nothing.
local function add_state(states, keys, state)
  if states.has[state] then return end
  states.has[state] = true
  states[#states + 1] = state
  if keys[state + 1] == "**" then add_state(states, keys, state + 1) end
end

local function matches(wanted, key)
  if wanted == key then return true end
  if type(key) == "number" then return wanted == "[*]" end
  return wanted == "*" or wanted == "\0" .. key
end

local function step(states, keys, key)
  local following = { has = {} }
  for _, state in ipairs(states) do
    local wanted = keys[state + 1]
    if wanted == "**" then add_state(following, keys, state) end
    if wanted ~= nil and wanted ~= "**" and matches(wanted, key) then add_state(following, keys, state + 1) end
  end
  return following
end

local function walk(value, states, keys, selected)
  for key, item in pairs(value) do
    local following = step(states, keys, key)
    if following.has[#keys] then
      if item ~= json.null then selected[#selected + 1] = { owner = value, key = key } end
    elseif following[1] and type(item) == "table" then
      walk(item, following, keys, selected)
    end
  end
end

--- Adds what the keys lead to from a value, outermost first: nothing inside of what is selected is selected too.
---@param value table
---@param keys (string|integer)[] at least one
---@param selected llmproxy.redact.selected[]
function paths.select(value, keys, selected)
  local states = { has = {} }
  add_state(states, keys, 0)
  walk(value, states, keys, selected)
end

return paths
