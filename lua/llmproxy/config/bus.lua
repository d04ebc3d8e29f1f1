--- Which bus there is, its settings, and where dead letters go: from what the file and the environment say.
--
-- A bus is given as a name or as a table that begins with one and goes on with its settings: { "disk", path = "spool" }. Which settings there are depends on the name, so the name is found first, and
-- the declaration of that bus takes the place of `observability.bus`.
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

local NAMES = words.sorted_keys(BUSES)

local function quoted(names)
  local list = {}
  for index, name in ipairs(names) do list[index] = ("%q"):format(name) end
  return table.concat(list, " or ")
end

-- A bus may be named by an address with a password in it: of what was given only a plain name is repeated.
local function unknown(name)
  if type(name) == "string" and name:find("^disk:") then return 'expected a bus as { "disk", path = "FOLDER" }: the form "disk:FOLDER" is for OBSERVABILITY_BUS' end
  local plain = type(name) == "string" and name:find("^[%w_-]+$")
  return ("expected a bus (%s, or a table that begins with it)%s"):format(quoted(NAMES), plain and (", got %q%s"):format(name, words.hint(name, NAMES)) or "")
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
---@field given table settings as given, by the file or the environment
---@field field llmproxy.settings.field the declaration of its settings
---@field origins table<string, string> "env NAME" by the key's path

--- Finds the bus. Errors go to report(key, message).
---@param given any what the file has as observability.bus
---@param variable fun(name: string): string?
---@param report fun(key: string, message: string)
---@return llmproxy.config.bus
function bus.find(given, variable, report)
  local name, own = given, {}
  if type(given) == "table" then
    name = given[1]
    for key, value in pairs(given) do
      if key ~= 1 then own[key] = value end
    end
  end
  if given == nil then name = "memory" end
  if not BUSES[name] then
    report("observability.bus", unknown(name))
    name, own = "memory", {}
  end
  local origins = {}
  local stronger, settings = of_environment(variable "OBSERVABILITY_BUS")
  if stronger then
    if stronger ~= name then own = {} end
    name = stronger
    origins["observability.bus"] = "env OBSERVABILITY_BUS"
    for key, value in pairs(settings) do
      own[key] = value
      origins["observability.bus." .. key] = "env OBSERVABILITY_BUS"
    end
  elseif settings then
    report("OBSERVABILITY_BUS", settings)
  end
  return { name = name, given = own, field = { type = "table", default = {}, fields = BUSES[name], doc = "between workers and pipelines" }, origins = origins }
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
---@param name string of the bus
---@param observability table checked; is completed
---@param off boolean dead letters are switched off
---@param report fun(key: string, message: string)
function bus.finish(name, observability, off, report)
  local own, letters = observability.bus, observability.dead_letters
  if letters then
    if off then
      letters.path = nil
    elseif not letters.path and name == "disk" and own and own.path then
      letters.path = own.path .. "/dlq"
    elseif letters.path and own and letters.path == own.path then
      report("observability.dead_letters.path", "expected a folder of its own, not that of the bus")
    end
  end
  if name ~= "disk" or not own then return end
  own.audit = own.audit or false
  if own.audit and own.overflow == "drop_oldest" then
    report("observability.bus.overflow", "expected \"drop_newest\" with audit: a recorded exchange may not be dropped for another one")
  end
end

return bus
