--- The effective settings and where each came from, for people and for programs. Nothing secret is in it.
local json = require "llmproxy.json"

local describe = {}

local SECRET = "[secret]"

---@class llmproxy.config.leaf
---@field path string
---@field value any nil: none
---@field source string "default", "file", "flag" or "env NAME"

local function sorted_names(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = type(key) == "string" and key or nil end
  table.sort(keys)
  return keys
end

local function below(path, key)
  if key:find("^[%a_][%w_]*$") then return path == "" and key or path .. "." .. key end
  return ("%s[%q]"):format(path, key)
end

local function is_hidden(field)
  return field.secret == true or field.type == "secret"
end

local function at(given, key)
  if type(given) == "table" then return given[key] end
  return nil
end

local walk

-- An address without what may be a secret in it: user, password and query.
local function bare_url(url)
  return (url:gsub("^(%a[%w+.-]*://)[^/?#]*@", "%1" .. SECRET .. "@"):gsub("%?[^#]*", "?" .. SECRET))
end

-- A value without fields of its own. Functions and what holds them are only named.
local function shown(value, hidden, kind)
  if value == nil or value == false then return value end
  if hidden and not (type(value) == "table" and next(value) == nil) then return SECRET end
  if type(value) == "function" then return "function" end
  if (kind == "url" or kind == "any") and type(value) == "string" then return bare_url(value) end
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = shown(item, false, kind) end
  return #copy > 0 and json.array(copy) or copy
end

local function walk_field(state, field, checked, given, path, hidden)
  hidden = hidden or is_hidden(field)
  if type(checked) == "table" and field.type == "table" then
    walk(state, field.fields, checked, given, path, hidden)
  elseif type(checked) == "table" and field.type == "list" and field.items and field.items.type == "table" then
    for index, item in ipairs(checked) do
      walk(state, field.items.fields, item, at(given, index), ("%s[%d]"):format(path, index), hidden)
    end
  elseif type(checked) == "table" and field.type == "map" and next(checked) ~= nil then
    for _, key in ipairs(sorted_names(checked)) do
      walk_field(state, field.items or { type = "any" }, checked[key], at(given, key), below(path, key), hidden)
    end
  else
    local source = state.origins[path] or given ~= nil and (state.source or "file") or "default"
    local kind = field.type == "list" and field.items and field.items.type or field.type
    state.leaves[#state.leaves + 1] = { path = path, value = shown(checked, hidden, kind), source = source, list = field.type == "list" }
  end
end

function walk(state, fields, checked, given, path, hidden)
  for _, name in ipairs(sorted_names(fields)) do
    walk_field(state, fields[name], checked[name], at(given, name), below(path, name), hidden)
  end
end

local function walk_use(state, use, source)
  state.leaves[#state.leaves + 1] = { path = use.path, value = use.inline and "function " .. use.name or use.name, source = source }
  if not use.plugin then return end
  state.source = source -- of what was given to the plugin
  walk(state, use.plugin.settings, use.settings, use.given, use.path, false)
  state.source = nil
end

local function walk_pipeline(state, pipeline, given, fields)
  local plain = {}
  for name, field in pairs(fields) do
    if name ~= "transforms" and name ~= "dispatcher" then plain[name] = field end
  end
  walk(state, plain, pipeline, given, pipeline.path, false)
  for _, use in ipairs(pipeline.transforms) do walk_use(state, use, pipeline.source) end
  walk_use(state, pipeline.dispatcher, pipeline.source)
end

--- The leaves of all settings, in order of their paths; the pipelines' last.
---@param declaration table<string, llmproxy.settings.field>
---@param checked table
---@param given table? what the file returned
---@param origins table<string, string>
---@param resolved table[] pipelines
---@return llmproxy.config.leaf[]
function describe.leaves(declaration, checked, given, origins, resolved)
  local state = { origins = origins, leaves = {} }
  local observability = checked.observability
  local pipelines = observability.pipelines
  observability.pipelines = {}
  walk(state, declaration, checked, given, "", false)
  observability.pipelines = pipelines
  for _, pipeline in ipairs(resolved) do
    walk_pipeline(state, pipeline, pipeline.given, declaration.observability.fields.pipelines.items.fields)
  end
  return state.leaves
end

local function text_of(value)
  if value == nil then return "none" end
  if type(value) ~= "table" then return type(value) == "string" and ("%q"):format(value) or tostring(value) end
  local items = {}
  for _, item in ipairs(value) do items[#items + 1] = text_of(item) end
  for _, key in ipairs(sorted_names(value)) do
    items[#items + 1] = ("%s = %s"):format(key, text_of(value[key]))
  end
  return items[1] and "{ " .. table.concat(items, ", ") .. " }" or "{}"
end

--- One line for each setting: path, value, source.
---@param leaves llmproxy.config.leaf[]
---@return string
function describe.text(leaves)
  local lines = {}
  for index, leaf in ipairs(leaves) do
    lines[index] = ("%s = %s  (%s)\n"):format(leaf.path, leaf.value == SECRET and SECRET or text_of(leaf.value), leaf.source)
  end
  return table.concat(lines)
end

--- One object: { "settings": { PATH: { "value", "source" }, … } }.
---@param leaves llmproxy.config.leaf[]
---@return string
function describe.json(leaves)
  local members = {}
  for index, leaf in ipairs(leaves) do
    local value = leaf.value
    if value == nil then value = json.null elseif leaf.list and type(value) == "table" then value = json.array(value) end
    members[index] = ("    %s: {\"value\": %s, \"source\": %s}"):format(json.encode(leaf.path), json.encode(value), json.encode(leaf.source))
  end
  return ("{\n  \"settings\": {\n%s\n  }\n}\n"):format(table.concat(members, ",\n"))
end

return describe
