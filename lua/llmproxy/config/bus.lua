--- Which bus there is, its settings, and where dead letters go: from what the file and the environment say.
--
-- A bus is given as a name or as a table that begins with one and goes on with its settings: { "disk", path = "spool" }. Which settings there are depends on the name, so the name is found first, and
-- the declaration of that bus takes the place of `observability.bus`.
--
-- What is neither of the built-in ones is a plugin. Besides its own settings it has those of `queue`, one of the built-in ones in front of it, and of `publish`, the pipeline that takes events
-- from there.
local plugins = require "llmproxy.plugins"
local settings = require "llmproxy.settings"
local words = require "llmproxy.settings.words"

local bus = {}

local LONGEST = 31536000 -- a year in seconds

-- Fields by the bus's name.
local BUSES = {
  memory = {},
  disk = {
    path = { type = "path", required = true, doc = "the folder" },
    max_bytes = { type = "size", default = "10GiB", min = "1MiB", doc = "on disk" },
    max_age = { type = "duration", default = "7d", min = 1, max = LONGEST, doc = "older events are given up" },
    commit_interval = { type = "duration", default = "5ms", max = 60, doc = "how long an event waits to be made durable together with others" },
    overflow = { type = "enum", values = { "drop_newest", "drop_oldest" }, default = "drop_newest", doc = "what goes when there is no room" },
    audit = { type = "boolean", default = false, doc = "the end of a response waits until its event is on disk" },
  },
}

-- Fields of what can be in front of a plugin. The end of a response cannot wait for more than the queue.
local QUEUES = { memory = {}, disk = {} }
for name, field in pairs(BUSES.disk) do
  if name ~= "audit" then QUEUES.disk[name] = field end
end

-- What of a pipeline's settings is said of publishing too.
local PUBLISHING = { "batch", "retry", "concurrency", "memory_limit", "watchdog" }

local function quoted(names)
  local list = {}
  for index, name in ipairs(names) do list[index] = ("%q"):format(name) end
  return table.concat(list, " or ")
end

-- A name and the settings behind it.
local function split(given)
  if type(given) ~= "table" then return given, {} end
  local own = {}
  for key, value in pairs(given) do
    if key ~= 1 then own[key] = value end
  end
  return given[1], own
end

-- A bus may be named by an address with a password in it: of what was given only a plain name is repeated.
local function unknown(name, names, what)
  if type(name) == "string" and name:find("^disk:") then return ('expected a %s as { "disk", path = "FOLDER" }: the form "disk:FOLDER" is for OBSERVABILITY_BUS'):format(what) end
  local plain = type(name) == "string" and name:find("^[%w_-]+$")
  return ("expected a %s (%s, or a table that begins with it)%s"):format(what, quoted(names), plain and (", got %q%s"):format(name, words.hint(name, names)) or "")
end

local function names_of_all(registry)
  local known = {}
  for name in pairs(BUSES) do known[name] = true end
  for _, name in ipairs(plugins.names(registry, "bus")) do known[name] = true end
  return words.sorted_keys(known)
end

-- What the environment says: a name and settings. nil: nothing. Of a wrong text only the scheme is repeated.
local function of_environment(text)
  if text == nil then return nil end
  local folder = text:match("^disk:(.+)$")
  if folder then return "disk", { path = folder } end
  if text == "memory" then return "memory", {} end
  return nil, ("expected \"memory\" or \"disk:FOLDER\", got %q"):format((text:gsub(":.*$", ":...")))
end

---@class llmproxy.config.bus
---@field name string
---@field plugin llmproxy.plugin? nil: it is one of the built-in ones
---@field queue "memory"|"disk" what the workers publish to: the bus itself, or what is in front of the plugin
---@field given table settings as given, by the file or the environment
---@field field llmproxy.settings.field the declaration of its settings
---@field origins table<string, string> "env NAME" by the key's path

-- The plugin of that name; nil: it is reported why not.
local function find_plugin(registry, name, report)
  local plain = type(name) == "string" and name:find("^[%w_-]+$")
  local plugin, errors, found
  if plain then plugin, errors, found = plugins.load(registry, "bus", name) end
  if plugin then return plugin end
  if not found then
    report("observability.bus", unknown(name, names_of_all(registry), "bus"))
    return nil
  end
  for _, message in ipairs(errors) do report(nil, message .. " (used by observability.bus)") end
end

local function queue_in_front(given, report)
  local name, own = split(given)
  if given == nil then name = "memory" end
  if QUEUES[name] then return name, own end
  report("observability.bus.queue", unknown(name, words.sorted_keys(QUEUES), "queue"))
  return "memory", {}
end

local function with_plugin(found, report)
  local queue, own = queue_in_front(found.given.queue, report)
  local fields = { queue = { type = "table", default = {}, fields = QUEUES[queue], doc = "between the workers and the bus" } }
  for name, field in pairs(found.plugin.settings) do fields[name] = field end
  found.queue, found.field.fields = queue, fields
  found.given.queue = found.given.queue ~= nil and own or nil
end

--- Finds the bus. Errors go to report(key, message); without a key it is one about a plugin's file.
---@param given any what the file has as observability.bus
---@param variable fun(name: string): string?
---@param report fun(key: string?, message: string)
---@param registry table of plugins
---@return llmproxy.config.bus
function bus.find(given, variable, report, registry)
  local name, own = split(given)
  if given == nil then name = "memory" end
  local origins = {}
  local stronger, of_variable = of_environment(variable "OBSERVABILITY_BUS")
  local plugin
  if not BUSES[name] then
    plugin = find_plugin(registry, name, report)
    if not plugin then name, own = "memory", {} end
  end
  if stronger then
    if stronger ~= name then own, plugin = {}, nil end
    name = stronger
    origins["observability.bus"] = "env OBSERVABILITY_BUS"
    for key, value in pairs(of_variable) do
      own[key] = value
      origins["observability.bus." .. key] = "env OBSERVABILITY_BUS"
    end
  elseif of_variable then
    report("OBSERVABILITY_BUS", of_variable)
  end
  local field = { type = "table", default = {}, fields = BUSES[name], doc = "between workers and pipelines" }
  local found = { name = name, plugin = plugin, queue = name, given = own, field = field, origins = origins }
  if plugin then with_plugin(found, report) end
  return found
end

--- Adds the settings of publishing to the declaration of a plugin's.
---@param found llmproxy.config.bus
---@param pipeline table<string, llmproxy.settings.field> the fields of a pipeline
function bus.add_publishing(found, pipeline)
  if not found.plugin then return end
  local fields = {}
  for _, name in ipairs(PUBLISHING) do fields[name] = pipeline[name] end
  fields.concurrency = {}
  for key, value in pairs(pipeline.concurrency) do fields.concurrency[key] = value end
  fields.concurrency.default, fields.concurrency.doc = 1, "batches being published at a time; more than one may change the order of events"
  found.field.fields.publish = { type = "table", default = {}, fields = fields, doc = "how events are published" }
end

--- The plugin as what pipelines use; nil: there is none, or its settings are faulty, which is reported where all settings are checked.
---@param found llmproxy.config.bus
---@param folder string? what relative paths are below
---@param variable fun(name: string): string? the environment
---@return llmproxy.config.use?
function bus.use(found, folder, variable)
  if not found.plugin then return nil end
  local given = {}
  for key, value in pairs(found.given) do
    if not plugins.is_reserved("bus", key) then given[key] = value end
  end
  local checked, wrong = settings.check(found.plugin.settings, given, { path = "observability.bus", folder = folder, variable = variable })
  if wrong[1] then return nil end
  return { kind = "bus", name = found.name, path = "observability.bus", plugin = found.plugin, given = given, settings = checked }
end

--- What the pipeline that publishes to a plugin is given as, to be checked as one.
---@param found llmproxy.config.bus
---@param checked table? the settings of the bus
---@return table
function bus.publisher(found, checked)
  local given = { name = "bus", dispatcher = found.name }
  for key, value in pairs((checked or {}).publish or {}) do given[key] = value end
  return given
end

--- The settings as something that can be compared as JSON: functions cannot, and count as equal.
---@param value any
---@return any
function bus.comparable(value)
  if type(value) == "function" then return "function" end
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = bus.comparable(item) end
  return copy
end

--- Whether events stay in the bus until they are acknowledged, also when the process ends.
---@param name string
---@return boolean
function bus.keeps_events(name)
  return name ~= "memory"
end

local DEAD_LETTERS = {
  path = { type = "path", doc = "the folder; dlq in the folder of a bus on disk" },
  bodies = { type = "boolean", default = true, doc = "whether events are kept with their bodies" },
  max_bytes = { type = "size", default = "1GiB", min = "1MiB", doc = "of each pipeline's" },
  max_age = { type = "duration", default = "14d", min = 1, max = LONGEST, doc = "older ones go" },
}

--- A folder, a table, or false. What is checked is always the table, `path` absent where there are none.
bus.DEAD_LETTERS = {
  type = "table", default = {}, fields = DEAD_LETTERS, expected = "a folder, a table { path, bodies, max_bytes, max_age }, or false", doc = "where events go that cannot be delivered",
}

--- dead_letters as its declaration takes it.
---@param given any what the file has as observability.dead_letters
---@return any given
---@return boolean off
function bus.dead_letters_given(given)
  if given == false then return nil, true end
  if type(given) == "string" then return { path = given }, false end
  return given, false
end

--- Checks across keys, and defaults that come from other keys.
---@param found llmproxy.config.bus
---@param observability table checked; is completed
---@param off boolean dead letters are switched off
---@param report fun(key: string, message: string)
function bus.finish(found, observability, off, report)
  local own, letters = observability.bus, observability.dead_letters
  local queue = own
  if found.plugin then queue = own and own.queue end
  local path = found.queue == "disk" and queue and queue.path or nil
  if letters then
    if off then
      letters.path = nil
    elseif not letters.path and path then
      letters.path = path .. "/dlq"
    elseif letters.path and letters.path == path then
      report("observability.dead_letters.path", "expected a folder of its own, not that of the bus")
    end
  end
  if found.name ~= "disk" or not own then return end
  own.audit = own.audit or false
  if own.audit and own.overflow == "drop_oldest" then
    report("observability.bus.overflow", "expected \"drop_newest\" with audit: a recorded exchange may not be dropped for another one")
  end
end

return bus
