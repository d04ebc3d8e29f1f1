--- Finds, loads and validates plugins: the plugin NAME of a kind is FOLDER/KIND/NAME.lua, the first folder wins.
--
-- A registry belongs to one Lua state and loads each plugin once. It gets at files through `host` (see src/config/host.h): plugins themselves cannot.
local settings = require "llmproxy.settings"
local file = require "llmproxy.config.file"

local plugins = {}

local API = 1
local SUBFOLDERS = { transform = "transforms", dispatcher = "dispatchers", bus = "buses" }
local KINDS = { "transform", "dispatcher", "bus" }

-- Settings that every bus has besides its own.
local RESERVED = { bus = { queue = true, publish = true } }

-- A dispatcher's, or a bus's, own defaults for its batches.
local BATCH_FIELD = {
  type = "table",
  default = {},
  fields = {
    max_events = { type = "integer", min = 1, max = 1000000 },
    max_bytes = { type = "size", min = 1, max = "1GiB" },
    max_wait = { type = "duration", max = 3600 },
  },
}

---@class llmproxy.plugin
---@field kind "transform"|"dispatcher"|"bus"
---@field api integer
---@field summary? string
---@field settings? table<string, llmproxy.settings.field>
---@field batch? table
---@field new fun(settings: table): any
---@field file string where it was found
---@field text string its source

---@param host table
---@param folders string[] in order of search
---@param trusted? string[] names of plugins that may use the interpreter's ffi
---@return table registry
function plugins.registry(host, folders, trusted)
  local names = {}
  for _, name in ipairs(trusted or {}) do names[name] = true end
  return { host = host, folders = folders, trusted = names, loaded = { transform = {}, dispatcher = {}, bus = {} } }
end

local function names_in(registry, kind)
  local names = {}
  for _, folder in ipairs(registry.folders) do
    for _, entry in ipairs(registry.host.list(("%s/%s"):format(folder, SUBFOLDERS[kind])) or {}) do
      local name = entry:match("^([^.].*)%.lua$")
      if name then names[#names + 1] = name end
    end
  end
  return names
end

local function find(registry, kind, name)
  if name == "" or name:find("[/%z]") or name:sub(1, 1) == "." then return nil end
  for _, folder in ipairs(registry.folders) do
    local path = ("%s/%s/%s.lua"):format(folder, SUBFOLDERS[kind], name)
    if registry.host.exists(path) then return path end
  end
end

local function unknown(registry, kind, name)
  local meant, hint = settings.nearest(name, names_in(registry, kind)), ""
  if meant then hint = (", did you mean '%s'?"):format(meant) end
  for _, other in ipairs(KINDS) do
    if other ~= kind and find(registry, other, name) then hint = (", it is a %s"):format(other) end
  end
  return ("no %s '%s'%s (searched: %s)"):format(kind, name, hint, table.concat(registry.folders, ", "))
end

local function describe(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) == "nil" then return "nothing" end
  return type(value) == "number" and tostring(value) or "a " .. type(value)
end

local function check_api(plugin)
  if plugin.api == API then return nil end
  if type(plugin.api) ~= "number" then return ("api: expected %d, got %s"):format(API, describe(plugin.api)) end
  local older = plugin.api < API
  return ("api: expected %d, got %s: the plugin was written for %s llm-proxy"):format(API, describe(plugin.api), older and "an older" or "a newer")
end

local KNOWN = { kind = true, api = true, summary = true, settings = true, batch = true, new = true }

local function check_keys(plugin, errors)
  local names = {}
  for name in pairs(KNOWN) do names[#names + 1] = name end
  table.sort(names)
  for key in pairs(plugin) do
    -- What begins with "_" is the plugin's own, for its tests.
    if type(key) ~= "string" or not KNOWN[key] and key:sub(1, 1) ~= "_" then
      local meant = settings.nearest(key, names)
      errors[#errors + 1] = ("%s: unknown key%s"):format(tostring(key), meant and (", did you mean '%s'?"):format(meant) or "")
    end
  end
end

local function add(list, more)
  for _, entry in ipairs(more) do list[#list + 1] = entry end
end

-- All that is wrong with what the file returned. Another api may mean other keys, so nothing else is looked at then.
local function faults(plugin, kind)
  if type(plugin) ~= "table" then return { ("expected the file to return a table, got %s"):format(describe(plugin)) } end
  local errors = { check_api(plugin) }
  if errors[1] then return errors end
  check_keys(plugin, errors)
  if plugin.kind ~= kind then errors[#errors + 1] = ("kind: expected %q in this folder, got %s"):format(kind, describe(plugin.kind)) end
  if plugin.summary ~= nil and type(plugin.summary) ~= "string" then errors[#errors + 1] = "summary: expected a string, got " .. describe(plugin.summary) end
  if type(plugin.new) ~= "function" then errors[#errors + 1] = "new: expected a function, got " .. describe(plugin.new) end
  if plugin.settings ~= nil then add(errors, settings.check_declaration(plugin.settings, "settings")) end
  for name in pairs(RESERVED[kind] or {}) do
    if type(plugin.settings) == "table" and plugin.settings[name] ~= nil then errors[#errors + 1] = ("settings.%s: every %s has a setting of that name"):format(name, kind) end
  end
  if plugin.batch ~= nil then
    if kind == "transform" then
      errors[#errors + 1] = "batch: only a dispatcher or a bus has batches"
    else
      local _, wrong = settings.check({ batch = BATCH_FIELD }, { batch = plugin.batch })
      add(errors, wrong)
    end
  end
  return errors
end

-- The plugin, or nil and its errors, each beginning with the file's name.
-- What a plugin sees; one that is trusted can require "ffi" as well.
local function globals_of(registry, name)
  if not registry.trusted[name] then return file.plugin_globals() end
  local shared = require
  return file.plugin_globals { require = function(module)
    if module == "ffi" then return registry.host.ffi() end
    return shared(module)
  end }
end

local function load_file(registry, kind, name, path)
  local text, message = registry.host.read(path)
  if not text then return nil, { message } end
  local plugin, wrong = file.run(text, path, globals_of(registry, name), registry.host.run)
  if wrong then return nil, { wrong } end
  local errors = faults(plugin, kind)
  for index, fault in ipairs(errors) do errors[index] = path .. ": " .. fault end
  if errors[1] then return nil, errors end
  local known = { file = path }
  for key, value in pairs(plugin) do known[key] = value end
  known.settings = known.settings or {}
  known.batch = (settings.check({ batch = BATCH_FIELD }, { batch = plugin.batch })).batch
  return known
end

--- The names of a kind's plugins, some perhaps more than once, without loading them.
---@param registry table
---@param kind "transform"|"dispatcher"|"bus"
---@return string[]
function plugins.names(registry, kind)
  return names_in(registry, kind)
end

--- Whether every plugin of the kind has a setting of that name, which is not its own.
---@param kind "transform"|"dispatcher"|"bus"
---@param name string
---@return boolean
function plugins.is_reserved(kind, name)
  return (RESERVED[kind] or {})[name] == true
end

--- The plugin of that name; nil and its errors. An error about a plugin that was found begins with its file.
---@param registry table
---@param kind "transform"|"dispatcher"|"bus"
---@param name string
---@return llmproxy.plugin?
---@return string[]? errors
---@return boolean? found whether there is such a file
function plugins.load(registry, kind, name)
  local known = registry.loaded[kind][name]
  if not known then
    local path = find(registry, kind, name)
    if not path then return nil, { unknown(registry, kind, name) }, false end
    local plugin, errors = load_file(registry, kind, name, path)
    known = { plugin = plugin, errors = errors }
    registry.loaded[kind][name] = known
  end
  return known.plugin, known.errors, true
end

--- Why there is no plugin of that name, of whatever kind; nil when there is one.
---@param registry table
---@param name string
---@return string?
function plugins.absent(registry, name)
  local known = {}
  for _, kind in ipairs(KINDS) do
    if find(registry, kind, name) then return nil end
    add(known, names_in(registry, kind))
  end
  local meant = settings.nearest(name, known)
  return ("no plugin '%s'%s (searched: %s)"):format(name, meant and (", did you mean '%s'?"):format(meant) or "", table.concat(registry.folders, ", "))
end

--- Every plugin there is, by kind and name, and the errors of those that are broken.
---@param registry table
---@return { kind: string, name: string, plugin: llmproxy.plugin }[]
---@return string[] errors
function plugins.all(registry)
  local found, errors = {}, {}
  for _, kind in ipairs(KINDS) do
    local names, seen = names_in(registry, kind), {}
    table.sort(names)
    for _, name in ipairs(names) do
      if not seen[name] then
        seen[name] = true
        local plugin, wrong = plugins.load(registry, kind, name)
        if plugin then found[#found + 1] = { kind = kind, name = name, plugin = plugin } end
        add(errors, wrong or {})
      end
    end
  end
  return found, errors
end

--- One line for each plugin: kind, name, what it does, where it lies.
---@param registry table
---@return string text
---@return string[] errors of broken plugins
function plugins.list_text(registry)
  local found, errors = plugins.all(registry)
  local lines, widest = {}, 4
  for _, entry in ipairs(found) do widest = math.max(widest, #entry.name) end
  for index, entry in ipairs(found) do
    lines[index] = ("%-10s  %-" .. widest .. "s  %s  (%s)\n"):format(entry.kind, entry.name, entry.plugin.summary or "", entry.plugin.file)
  end
  return table.concat(lines), errors
end

-- Reference in markdown ----------------------------------------------------------------------------------------------------------------------------------------------------

-- What the comment at the head of a plugin's file says, as markdown: code in it is indented there as here.
local function head_of(text)
  local lines = {}
  for line in text:gmatch("(.-)\n") do
    local comment = line:match("^%-%-%-? ?(.*)$")
    if not comment then break end
    lines[#lines + 1] = comment
  end
  return table.concat(lines, "\n")
end

local function cell(text)
  return (text:gsub("|", "\\|"):gsub("\n", " "))
end

local function settings_table(declaration)
  local fields = settings.describe(declaration)
  if not fields[1] then return "No settings.\n" end
  local lines = { "| setting | type | default | |", "|---|---|---|---|" }
  for _, field in ipairs(fields) do
    local default = field.required and "required" or field.default and "`" .. cell(field.default) .. "`" or ""
    if field.env then default = (default ~= "" and default .. ", " or "") .. "or `" .. field.env .. "`" end
    lines[#lines + 1] = ("| `%s` | %s%s | %s | %s |"):format(field.name, cell(field.type), field.secret and not field.type:find("^secret") and ", secret" or "", default, cell(field.doc or ""))
  end
  return table.concat(lines, "\n") .. "\n"
end

local TITLES = { transform = "Transforms", dispatcher = "Dispatchers", bus = "Buses" }

--- The reference of all plugins, in markdown.
---@param registry table
---@return string text
---@return string[] errors of broken plugins
function plugins.reference_text(registry)
  local found, errors = plugins.all(registry)
  local out, kind = { "# Stock plugins\n\nMade from the plugins themselves by `llm-proxy plugins reference`. Types of settings: [settings.md](settings.md).\n" }, nil
  for _, entry in ipairs(found) do
    local plugin = entry.plugin
    if entry.kind ~= kind then
      kind = entry.kind
      out[#out + 1] = ("## %s\n"):format(TITLES[kind])
    end
    local head = head_of(registry.host.read(plugin.file) or "")
    out[#out + 1] = ("### `%s`\n\n%s\n"):format(entry.name, head ~= "" and head or plugin.summary or "")
    out[#out + 1] = settings_table(plugin.settings)
  end
  return table.concat(out, "\n"), errors
end

local function show(entry)
  local plugin = entry.plugin
  local lines = { ("%s %s\n"):format(entry.kind, entry.name) }
  if plugin.summary then lines[#lines + 1] = ("  %s\n"):format(plugin.summary) end
  lines[#lines + 1] = ("  file: %s\n"):format(plugin.file)
  for _, name in ipairs { "max_events", "max_bytes", "max_wait" } do
    local value = (plugin.batch or {})[name]
    if value then lines[#lines + 1] = ("  batch.%s: %s\n"):format(name, tostring(value)) end
  end
  local fields = settings.describe(plugin.settings)
  lines[#lines + 1] = fields[1] and "  settings:\n" or "  settings: none\n"
  for _, field in ipairs(fields) do
    local notes = { field.type }
    if field.required then notes[#notes + 1] = "required" end
    if field.secret and not field.type:find("^secret") then notes[#notes + 1] = "secret" end
    if field.env then notes[#notes + 1] = "or from the environment's " .. field.env end
    if field.default then notes[#notes + 1] = "default " .. field.default end
    lines[#lines + 1] = ("    %s (%s)%s\n"):format(field.name, table.concat(notes, ", "), field.doc and ": " .. field.doc or "")
  end
  return table.concat(lines)
end

--- What there is to know about the plugins of that name (of any kind): text, or nil and errors.
---@param registry table
---@param name string
---@return string?
---@return string[]? errors
function plugins.show_text(registry, name)
  local texts, errors = {}, {}
  for _, kind in ipairs(KINDS) do
    local plugin, wrong, found = plugins.load(registry, kind, name)
    if plugin then
      texts[#texts + 1] = show { kind = kind, name = name, plugin = plugin }
    elseif found then
      add(errors, wrong or {})
    end
  end
  if not texts[1] and not errors[1] then errors[1] = plugins.absent(registry, name) end
  if errors[1] then return nil, errors end
  return table.concat(texts, "\n")
end

return plugins
