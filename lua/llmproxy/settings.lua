--- Settings are declared, not parsed: from one declaration come the check, the error messages and the reference.
--
-- A declaration is a table of fields by name:
--
--     { url     = { type = "url", required = true, doc = "where to" },
--       timeout = { type = "duration", default = "15s", min = 0.1, doc = "for the whole request" },
--       headers = { type = "map", items = { type = "string" }, default = {}, secret = true, doc = "headers to send along" },
--       batch   = { type = "table", default = {}, fields = { max_events = { type = "integer", min = 1, default = 100, doc = "events in one batch" } } } }
--
--     settings.check(declaration, given, { path, folder })  -> checked settings with defaults, list of errors (empty: fine)
--     settings.check_declaration(declaration, path)         -> list of errors
--     settings.describe(declaration)                        -> list of { name, type, default, required, secret, doc }, nested fields as "batch.max_events"
--     settings.nearest(name, names)                         -> the one of names that was probably meant, or nil
--     settings.duration(value), settings.size(value)        -> seconds, bytes; nil when it is none
--
-- The types, and what a checked value is:
--
--     string     min, max: bytes of it; pattern: a Lua pattern it must match
--     secret     a string whose value is never printed
--     integer, number     min, max; never NaN or infinite
--     boolean
--     url        a string, schemes { "http", "https" } unless `schemes` lists others; user_info = false refuses "user:password@"
--     path       a string; relative to options.folder when that is given
--     duration   seconds as a number; given as such or as "500ms", "10s", "10m", "1h", "14d". min, max in either form; 0 or more
--     size       bytes as a number; given as such or as "64KiB", "1MB", "1MiB", "1GiB". min, max in either form
--     enum       one of `values` (strings, numbers, booleans)
--     list       of `items` (a field; without it of anything); min, max: how many
--     map        string keys; `keys` (a field for each key) and `items` (for each value) are optional; min, max: how many
--     table      with `fields`, as above. Absent it stays absent, unless it has a default: default = {} fills in the defaults of its fields
--     one_of     the first of the list `types` (of fields) that takes the value
--     function
--     any
--
-- Every field may have: required, default (checked and converted like a given value), doc, secret = true (no value at or below it is ever printed), expected (words for the
-- error message instead of the type's own), check = function(value) -> value | nil, message (a last look after all else was fine; may return a better form of the value),
-- env = "NAME" (an environment variable that is asked when nothing was given; numbers and booleans are read from its text, from_text = function(text) -> value reads any other form).
local arguments = require "llmproxy.arguments"
local words = require "llmproxy.settings.words"

local below, hint, is_finite, is_integer, shown, sorted_keys = words.below, words.hint, words.is_finite, words.is_integer, words.shown, words.sorted_keys

local settings = { duration = words.duration, size = words.size, nearest = words.nearest }

---@class llmproxy.settings.field
---@field type string
---@field required? boolean
---@field default? any
---@field doc? string
---@field secret? boolean
---@field expected? string
---@field check? fun(value: any): any, string?
---@field env? string
---@field from_text? fun(text: string): any
---@field min? number|string
---@field max? number|string
---@field pattern? string
---@field schemes? string[]
---@field user_info? boolean
---@field values? any[]
---@field items? llmproxy.settings.field
---@field keys? llmproxy.settings.field
---@field types? llmproxy.settings.field[]
---@field fields? table<string, llmproxy.settings.field>

---@class llmproxy.settings.context
---@field errors string[]
---@field folder? string
---@field secret? boolean whether values are hidden here
---@field variable? fun(name: string): string? the environment

local function is_hidden(field)
  return field.secret == true or field.type == "secret"
end

-- Types ------------------------------------------------------------------------------------------------------------------------------------------------------------------

---@class llmproxy.settings.type
---@field words string | fun(field: table): string what is expected
---@field lua table<string, boolean> the Lua types it could take; decides which alternative of one_of speaks
---@field read fun(field: table, value: any, path: string, context: table): any, string? the value in its checked form; nil and perhaps a message
---@field measure? fun(value: any): number what min and max are about
---@field bound? fun(value: any): number? reads min and max
---@field unit? string of min and max

local check_value, words_for

local function plain(kind)
  return function(_, value)
    if type(value) == kind then return value end
  end
end

local function read_url(field, value)
  if type(value) ~= "string" or value:find("[%c%s]") then return nil end
  local scheme, authority = value:match("^(%a[%w+.-]*)://([^/?#]+)")
  if not scheme then return nil end
  local known = false
  for _, name in ipairs(field.schemes or { "http", "https" }) do known = known or name == scheme:lower() end
  local host = authority:gsub("^.*@", "")
  if not known or not (host:find("^[^:%[%]]+:?%d*$") or host:find("^%[[%x:.]+%]:?%d*$")) then return nil end
  if field.user_info == false and authority:find("@", 1, true) then return nil, "an address with user or password is not allowed here" end
  return value
end

local function read_path(_, value, _, context)
  if type(value) ~= "string" or value == "" or value:find("%z") then return nil end
  if not context.folder or value:sub(1, 1) == "/" then return value end
  return (context.folder:gsub("/+$", "")) .. "/" .. value
end

local function read_enum(field, value, _, context)
  local names = {}
  for _, known in ipairs(field.values) do
    if known == value then return value end
    names[#names + 1] = type(known) == "string" and known or nil
  end
  return nil, ("expected %s, got %s%s"):format(words_for(field), shown(value, context.secret), context.secret and "" or hint(value, names))
end

local function read_list(field, value, path, context)
  if type(value) ~= "table" then return nil end
  local list, length = {}, #value
  for key in pairs(value) do
    if not is_integer(key) or key < 1 or key > length then return nil, ("expected a list, got a table with the key %s"):format(tostring(key)) end
  end
  for index = 1, length do
    list[index] = check_value(field.items or { type = "any" }, value[index], below(path, index), context)
  end
  return list
end

local function read_map(field, value, path, context)
  if type(value) ~= "table" then return nil end
  local map = {}
  for _, key in ipairs(sorted_keys(value)) do
    if type(key) ~= "string" then return nil, ("expected a table with names as keys, got the key %s"):format(tostring(key)) end
    local name = check_value(field.keys or { type = "string" }, key, below(path, key), context)
    local item = check_value(field.items or { type = "any" }, value[key], below(path, key), context)
    if name ~= nil then map[name] = item end
  end
  return map
end

local function read_fields(field, value, path, context)
  if type(value) ~= "table" then return nil end
  local read, names = {}, sorted_keys(field.fields)
  for _, name in ipairs(names) do
    read[name] = check_value(field.fields[name], value[name], below(path, name), context)
  end
  for _, key in ipairs(sorted_keys(value)) do
    if type(key) ~= "string" or not field.fields[key] then
      table.insert(context.errors, ("%s: unknown key%s"):format(below(path, key), hint(key, names)))
    end
  end
  return read
end

local TYPES

-- The first alternative that takes the value; if none does, the errors of the one that it was probably meant for.
local function read_one_of(field, value, path, context)
  local fitting = {}
  for _, alternative in ipairs(field.types) do
    local try = { errors = {}, folder = context.folder, secret = context.secret, variable = context.variable }
    local read = check_value(alternative, value, path, try)
    if not try.errors[1] then return read end
    if TYPES[alternative.type].lua[type(value)] then fitting[#fitting + 1] = try.errors end
  end
  if #fitting ~= 1 then return nil end
  for _, message in ipairs(fitting[1]) do table.insert(context.errors, message) end
  return nil, ""
end

local function quoted_values(field)
  local values = {}
  for index, value in ipairs(field.values) do values[index] = shown(value) end
  return table.concat(values, ", ")
end

local function alternatives(field)
  local list = {}
  for index, alternative in ipairs(field.types) do list[index] = words_for(alternative) end
  return table.concat(list, ", or ")
end

local function enum_words(field)
  return (field.values[2] == nil and "" or "one of ") .. quoted_values(field)
end

local function url_words(field)
  return ("a URL that begins with %s://"):format(table.concat(field.schemes or { "http", "https" }, ":// or "))
end

local function length(value) return #value end
local function itself(value) return value end
local function count(map)
  local number = 0
  for _ in pairs(map) do number = number + 1 end
  return number
end

local STRING, NUMBER, TABLE = { string = true }, { number = true }, { table = true }
local TEXT_OR_NUMBER = { string = true, number = true }

---@type table<string, llmproxy.settings.type>
TYPES = {
  string = { words = "a string", lua = STRING, read = plain("string"), measure = length, unit = " bytes" },
  secret = { words = "a string", lua = STRING, read = plain("string"), measure = length, unit = " bytes" },
  integer = { words = "an integer", lua = NUMBER, read = function(_, value) return is_integer(value) and value or nil end, measure = itself },
  number = { words = "a number", lua = NUMBER, read = function(_, value) return is_finite(value) and value or nil end, measure = itself },
  boolean = { words = "true or false", lua = { boolean = true }, read = plain("boolean") },
  url = { words = url_words, lua = STRING, read = read_url },
  path = { words = "a path", lua = STRING, read = read_path },
  duration = {
    words = 'a duration (seconds, or "500ms", "10s", "10m", "1h", "14d")', lua = TEXT_OR_NUMBER, measure = itself, bound = settings.duration, unit = " s",
    read = function(_, value) return settings.duration(value) end,
  },
  size = {
    words = 'a size (bytes, or "64KiB", "1MiB", "1GiB")', lua = TEXT_OR_NUMBER, measure = itself, bound = settings.size, unit = " bytes",
    read = function(_, value) return settings.size(value) end,
  },
  enum = { words = enum_words, lua = STRING, read = read_enum },
  list = { words = "a list", lua = TABLE, read = read_list, measure = length, unit = " items" },
  map = { words = "a table", lua = TABLE, read = read_map, measure = count, unit = " entries" },
  table = { words = "a table", lua = TABLE, read = read_fields },
  one_of = { words = alternatives, lua = { string = true, number = true, boolean = true, table = true, ["function"] = true }, read = read_one_of },
  ["function"] = { words = "a function", lua = { ["function"] = true }, read = plain("function") },
  any = { words = "a value", lua = { string = true, number = true, boolean = true, table = true, ["function"] = true }, read = function(_, value) return value end },
}

local function bound(field, which)
  local kind = TYPES[field.type]
  if field[which] == nil or not kind.measure then return nil end
  return (kind.bound or itself)(field[which])
end

-- " from 1 to 5 s", or "" where there are no bounds.
local function bounds(field)
  local least, most, unit = bound(field, "min"), bound(field, "max"), TYPES[field.type].unit or ""
  if least and most then return (" from %.15g to %.15g%s"):format(least, most, unit) end
  if least then return (" of at least %.15g%s"):format(least, unit) end
  if most then return (" of at most %.15g%s"):format(most, unit) end
  return ""
end

-- A string about which is asked only that there be something.
local function is_filled(field)
  local kind = TYPES[field.type]
  return kind.lua == STRING and kind.unit ~= nil and bound(field, "min") == 1 and not bound(field, "max")
end

function words_for(field)
  if field.expected then return field.expected end
  local kind = TYPES[field.type]
  local expected = type(kind.words) == "function" and kind.words(field) or kind.words --[[@as string]]
  if is_filled(field) then return "a string that is not empty" end
  return expected .. bounds(field)
end

-- Checking ---------------------------------------------------------------------------------------------------------------------------------------------------------------

local function is_within(field, value)
  local kind = TYPES[field.type]
  if not kind.measure then return true end
  local least, most, measured = bound(field, "min"), bound(field, "max"), kind.measure(value)
  return not (least and measured < least or most and measured > most)
end

-- What is wrong with a value that is there: nil and a message; else its checked form.
local function read_value(field, value, path, context)
  local kind = TYPES[field.type] or error(("no type '%s' of settings"):format(tostring(field.type)))
  local errors_before = #context.errors
  local read, message = kind.read(field, value, path, context)
  if read == nil or not is_within(field, read) or field.pattern and not read:find(field.pattern) then
    return nil, message or ("expected %s, got %s"):format(words_for(field), shown(value, context.secret))
  end
  if field.check and #context.errors == errors_before then
    read, message = field.check(read)
    if read == nil or message then return nil, message or ("expected %s, got %s"):format(words_for(field), shown(value, context.secret)) end
  end
  return read
end

local BOOLEANS = { ["true"] = true, ["1"] = true, yes = true, on = true, ["false"] = false, ["0"] = false, no = false, off = false }

-- The value of the field's environment variable, nil when there is none; in the form that the type takes, or its text, which the type then refuses.
local function value_of_environment(field, context)
  local text = field.env and context.variable and context.variable(field.env)
  if not text then return nil end
  if field.from_text then return field.from_text(text) end
  if field.type == "integer" or field.type == "number" then return tonumber(text) or text end
  if field.type == "boolean" and BOOLEANS[text:lower()] ~= nil then return BOOLEANS[text:lower()] end
  return text
end

function check_value(field, value, path, context)
  local variable
  if value == nil then
    value = value_of_environment(field, context)
    variable = value ~= nil and field.env
  end
  if value == nil then value = field.default end
  local hidden_outside = context.secret
  context.secret = hidden_outside or is_hidden(field)
  local read, message
  if value ~= nil then
    read, message = read_value(field, value, path, context)
  elseif field.required then
    message = ("expected %s, got nothing"):format(words_for(field))
  end
  if message and message ~= "" then
    if variable then message = ("%s (from the environment's %s)"):format(message, variable) end
    table.insert(context.errors, path == "" and message or path .. ": " .. message)
  end
  context.secret = hidden_outside
  return read
end

--- Checks what was given against a declaration, all of it.
---@param declaration table<string, llmproxy.settings.field>
---@param given table? nil counts as {}
---@param options? { path?: string, folder?: string, variable?: fun(name: string): string? } path: in front of every key in errors; folder: of relative paths; variable: the environment
---@return table checked with defaults; to be used only when there are no errors
---@return string[] errors each "KEY.PATH: expected …, got …"
function settings.check(declaration, given, options)
  arguments.expect(declaration, "table", "llmproxy.settings.check: declaration")
  arguments.expect(options or {}, "table", "llmproxy.settings.check: options")
  options = options or {}
  local context = { errors = {}, folder = options.folder, variable = options.variable }
  local checked = check_value({ type = "table", fields = declaration }, given or {}, options.path or "", context)
  return checked or {}, context.errors
end

-- The declaration itself -------------------------------------------------------------------------------------------------------------------------------------------------

local COMMON = {
  type = "string", required = "boolean", default = "any", doc = "string", secret = "boolean", expected = "string", check = "function", env = "string", from_text = "function",
}
local ATTRIBUTES = {
  string = { min = "bound", max = "bound", pattern = "string" },
  secret = { min = "bound", max = "bound", pattern = "string" },
  integer = { min = "bound", max = "bound" },
  number = { min = "bound", max = "bound" },
  duration = { min = "bound", max = "bound" },
  size = { min = "bound", max = "bound" },
  url = { schemes = "table", user_info = "boolean" },
  enum = { values = "table" },
  list = { min = "bound", max = "bound", items = "field" },
  map = { min = "bound", max = "bound", keys = "field", items = "field" },
  table = { fields = "fields" },
  one_of = { types = "alternatives" },
}
local NEEDED = { enum = "values", table = "fields", one_of = "types" }

local check_field, check_fields

local function check_attribute(field, name, kind, path, errors)
  local value, place = field[name], below(path, name)
  if kind == "field" then
    check_field(value, place, errors)
  elseif kind == "fields" then
    check_fields(value, place, errors)
  elseif kind == "alternatives" and type(value) == "table" then
    for index, alternative in ipairs(value) do check_field(alternative, below(place, index), errors) end
  elseif kind == "bound" then
    if type(bound(field, name)) ~= "number" then errors[#errors + 1] = ("%s: expected %s, got %s"):format(place, TYPES[field.type].bound and TYPES[field.type].words or "a number", shown(value)) end
  elseif kind ~= "any" and type(value) ~= kind then
    errors[#errors + 1] = ("%s: expected %s, got %s"):format(place, kind == "alternatives" and "a list of fields" or "a " .. kind, shown(value))
  end
end

function check_field(field, path, errors)
  if type(field) ~= "table" then
    errors[#errors + 1] = ("%s: expected a table with a type, got %s"):format(path, shown(field))
    return
  end
  if type(field.type) ~= "string" or not TYPES[field.type] then
    errors[#errors + 1] = ("%s.type: expected one of %s, got %s%s"):format(path, table.concat(sorted_keys(TYPES), ", "), shown(field.type), hint(field.type, sorted_keys(TYPES)))
    return
  end
  local errors_before = #errors
  local known = {}
  for name, kind in pairs(COMMON) do known[name] = kind end
  for name, kind in pairs(ATTRIBUTES[field.type] or {}) do known[name] = kind end
  for _, name in ipairs(sorted_keys(field)) do
    if known[name] then
      check_attribute(field, name, known[name], path, errors)
    else
      errors[#errors + 1] = ("%s: unknown attribute of a %s%s"):format(below(path, name), field.type, hint(name, sorted_keys(known)))
    end
  end
  local needed = NEEDED[field.type]
  if needed and field[needed] == nil then errors[#errors + 1] = ("%s: a field of type %s needs %s"):format(path, field.type, needed) end
  if field.required and field.default ~= nil then errors[#errors + 1] = ("%s: what is required can have no default"):format(path) end
  if #errors == errors_before and field.default ~= nil then
    check_value(field, field.default, path .. ".default", { errors = errors })
  end
end

function check_fields(fields, path, errors)
  if type(fields) ~= "table" then
    errors[#errors + 1] = ("%s: expected a table of fields, got %s"):format(path, shown(fields))
    return
  end
  for _, name in ipairs(sorted_keys(fields)) do
    if type(name) ~= "string" then
      errors[#errors + 1] = ("%s: expected a name, got %s"):format(below(path, name), shown(name))
    else
      check_field(fields[name], below(path, name), errors)
    end
  end
end

--- Checks a declaration: unknown types and attributes, attributes of the wrong kind, defaults that would be refused.
---@param declaration any
---@param path? string in front of every error ("settings")
---@return string[] errors
function settings.check_declaration(declaration, path)
  local errors = {}
  check_fields(declaration, path or "settings", errors)
  return errors
end

-- For people -------------------------------------------------------------------------------------------------------------------------------------------------------------

local function type_name(field)
  if field.type == "list" then return "list of " .. type_name(field.items or { type = "any" }) end
  if field.type == "map" then return "map of " .. type_name(field.items or { type = "any" }) end
  if field.type == "enum" then return quoted_values(field) end
  if field.type ~= "one_of" then return field.type end
  local names = {}
  for index, alternative in ipairs(field.types) do names[index] = type_name(alternative) end
  return table.concat(names, " or ")
end

local function default_text(value)
  if type(value) ~= "table" then return shown(value) end
  local items = {}
  for _, key in ipairs(sorted_keys(value)) do
    local item = default_text(value[key])
    items[#items + 1] = type(key) == "number" and item or ("%s = %s"):format(tostring(key), item)
  end
  return items[1] and "{ " .. table.concat(items, ", ") .. " }" or "{}"
end

local function describe_fields(fields, prefix, list)
  for _, name in ipairs(sorted_keys(fields)) do
    local field = fields[name]
    list[#list + 1] = {
      name = below(prefix, name),
      type = type_name(field) .. (is_filled(field) and ", not empty" or bounds(field)),
      default = field.default ~= nil and default_text(field.default) or nil,
      required = field.required == true,
      secret = is_hidden(field),
      env = field.env,
      doc = field.doc,
    }
    if field.type == "table" then describe_fields(field.fields, below(prefix, name), list) end
  end
end

--- The fields of a declaration in order of their names, for `plugins show` and the reference.
---@param declaration table<string, llmproxy.settings.field>
---@return { name: string, type: string, default: string?, required: boolean, secret: boolean, env: string?, doc: string? }[]
function settings.describe(declaration)
  arguments.expect(declaration, "table", "llmproxy.settings.describe: declaration")
  local list = {}
  describe_fields(declaration, "", list)
  return list
end

return settings
