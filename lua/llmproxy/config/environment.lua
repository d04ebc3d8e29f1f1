--- Environment variables that are settings: checked as the key they stand for, and stronger than the file.
local settings = require "llmproxy.settings"
local words = require "llmproxy.settings.words"

local environment = {}

local BOOLEANS = { ["true"] = true, ["1"] = true, yes = true, on = true, ["false"] = false, ["0"] = false, no = false, off = false }

local function boolean(_)
  return {
    type = "string", expected = "true or false (true, false, 1, 0, yes, no, on, off)",
    check = function(text) return BOOLEANS[text:lower()] end,
  }
end

-- A text says false where the key takes it.
local function address_or_false(field)
  local address = field.types[1]
  return {
    type = "string", expected = address.expected .. ", or false",
    check = function(text)
      if text == "false" then return false end
      return address.check(text)
    end,
  }
end

-- As the key's field; the digits of a number are one.
local function as_field(field)
  return field
end

local VARIABLES = {
  { "OBSERVABILITY_ENABLED", { "observability", "enabled" }, boolean },
  { "OBSERVABILITY_BUFFER_SIZE", { "observability", "buffer_size" }, as_field },
  { "OBSERVABILITY_MAX_REQUEST_BODY_BYTES", { "observability", "max_request_body_bytes" }, as_field },
  { "OBSERVABILITY_MAX_RESPONSE_BODY_BYTES", { "observability", "max_response_body_bytes" }, as_field },
  { "LISTEN_ADDR", { "listen" }, as_field },
  { "ADMIN_ADDR", { "admin" }, address_or_false },
  { "LOG_LEVEL", { "log", "level" }, as_field },
  { "LOG_FORMAT", { "log", "format" }, as_field },
}

local NUMBERS = { integer = true, number = true, size = true, duration = true }

local function field_at(declaration, path)
  local field = { fields = declaration }
  for _, key in ipairs(path) do field = field.fields[key] end
  return field
end

local function put(checked, path, value)
  for index = 1, #path - 1 do
    checked = checked[path[index]]
    if not checked then return end -- the file has something else there, which is an error already
  end
  checked[path[#path]] = value
end

--- One variable, checked as a field; nil when it is unset or wrong.
---@param name string
---@param field llmproxy.settings.field
---@param value string?
---@param errors string[] is added to
---@param folder? string what relative paths are below
---@return any
function environment.check(name, field, value, errors, folder)
  if value == nil then return nil end
  if NUMBERS[field.type] and value:find("^%d+$") then value = tonumber(value) end
  local read, wrong = settings.check({ [name] = field }, { [name] = value }, { folder = folder })
  for _, message in ipairs(wrong) do errors[#errors + 1] = message end
  if wrong[1] then return nil end
  return read[name]
end

--- Puts what the environment says over what the file said.
---@param declaration table<string, llmproxy.settings.field>
---@param variable fun(name: string): string?
---@param checked table is changed
---@param errors string[] is added to
---@return table<string, string> origins "env NAME" by the key's path
function environment.apply(declaration, variable, checked, errors)
  local origins = {}
  for _, entry in ipairs(VARIABLES) do
    local name, path, kind = entry[1], entry[2], entry[3]
    local value = environment.check(name, kind(field_at(declaration, path)), variable(name), errors)
    if value ~= nil then
      put(checked, path, value)
      origins[table.concat(path, ".")] = "env " .. name
    end
  end
  return origins
end

--- A warning for each variable that looks like one of ours, but that nobody has asked for.
---@param names string[] of all variables
---@param answers table<string, string|false> those that were asked for, the configuration file included
---@return string[]
function environment.unknown(names, answers)
  local known, warnings = { "OBSERVABILITY_BUS", "OBSERVABILITY_FILE", "LLM_PROXY_CONFIG", "LLM_PROXY_PLUGINS" }, {} -- are read elsewhere
  for _, entry in ipairs(VARIABLES) do known[#known + 1] = entry[1] end
  table.sort(names)
  for _, name in ipairs(names) do
    if answers[name] == nil and (name:find("^OBSERVABILITY_") or name:find("^LLM_PROXY_")) then
      warnings[#warnings + 1] = ("unknown environment variable %s%s"):format(name, words.hint(name, known))
    end
  end
  return warnings
end

return environment
