--- From the configuration's list of pipelines to what a pipeline runs: plugins found, their settings checked, their `new` called.
--
-- A reference to a plugin is its name, a table that begins with its name and goes on with its settings, or a function.
local plugins = require "llmproxy.plugins"
local settings = require "llmproxy.settings"
local place = require("llmproxy.config.file").place

local pipelines = {}

local BATCH = { max_events = 100, max_bytes = 1048576, max_wait = 1 }

-- Others wait for what is published.
local PUBLISHED_BATCH = { max_events = 100, max_bytes = 1048576, max_wait = 0.1 }

-- How long events that wait in memory are tried, in seconds. Where the bus keeps them its own age decides.
local MAX_AGE = 3600

---@class llmproxy.config.context
---@field host table
---@field registry table of plugins
---@field place (fun(path: string): string)? the configuration file's name and perhaps a line, in front of errors about it
---@field folder string? of the configuration file: what relative paths are below
---@field variable (fun(name: string): string?)? the environment, for settings that ask it
---@field keeps_events boolean of the bus
---@field bus llmproxy.config.use? the bus, if it is a plugin
---@field errors string[]

--- A plugin or function as it is used in one place.
---@class llmproxy.config.use
---@field kind "transform"|"dispatcher"|"bus"
---@field name string
---@field path string the key's path
---@field plugin llmproxy.plugin?
---@field given table? the settings as given
---@field settings table? checked
---@field inline function?

local function place_of(context, path)
  return context.place and context.place(path) or ""
end

local function report(context, path, message)
  context.errors[#context.errors + 1] = place_of(context, path) .. (path ~= "" and path .. ": " or "") .. message
end

local function inline_use(context, kind, path, run)
  local source, line = context.host.origin(run)
  local name = source and ("%s:%d"):format(source:match("[^/]*$"), line) or "function"
  return { kind = kind, name = name, path = path, inline = run }
end

local function plugin_use(context, kind, path, name, given)
  local plugin, errors, found = plugins.load(context.registry, kind, name)
  if not plugin then
    for _, message in ipairs(errors or {}) do
      if found then
        context.errors[#context.errors + 1] = ("%s (used by %s)"):format(message, path)
      else
        report(context, path, message)
      end
    end
    return nil
  end
  local checked, wrong = settings.check(plugin.settings, given, { path = path, folder = context.folder, variable = context.variable })
  for _, message in ipairs(wrong) do
    context.errors[#context.errors + 1] = place_of(context, message:match("^(.-): ") or path) .. message
  end
  if wrong[1] then return nil end
  return { kind = kind, name = name, path = path, plugin = plugin, given = given, settings = checked }
end

local function use_of(context, kind, path, reference)
  if type(reference) == "function" then return inline_use(context, kind, path, reference) end
  if type(reference) == "string" then return plugin_use(context, kind, path, reference, {}) end
  local name = type(reference) == "table" and reference[1]
  if type(name) ~= "string" then
    local got = type(reference) == "table" and "a table without a name as its first value" or "a " .. type(reference)
    report(context, path, ("expected a %s (a plugin's name, a table that begins with one, or a function), got %s"):format(kind, got))
    return nil
  end
  local given = {}
  for key, value in pairs(reference) do
    if key ~= 1 then given[key] = value end
  end
  return plugin_use(context, kind, path, name, given)
end

--- Finds and loads what a pipeline uses, and checks the settings. Errors go to context.errors.
---@param context llmproxy.config.context
---@param pipeline table checked
---@param path string
---@return table resolved the pipeline with `transforms` and `dispatcher` as uses, and its batch complete
function pipelines.resolve(context, pipeline, path)
  local resolved = {}
  for key, value in pairs(pipeline) do resolved[key] = value end
  resolved.path, resolved.transforms, resolved.batch = path, {}, {}
  for index, reference in ipairs(pipeline.transforms) do
    resolved.transforms[index] = use_of(context, "transform", ("%s.transforms[%d]"):format(path, index), reference) or false
  end
  resolved.dispatcher = use_of(context, "dispatcher", path .. ".dispatcher", pipeline.dispatcher)
  local own = resolved.dispatcher and resolved.dispatcher.plugin and resolved.dispatcher.plugin.batch or {}
  for name, default in pairs(BATCH) do resolved.batch[name] = pipeline.batch[name] or own[name] or default end
  resolved.bus = context.bus
  if pipeline.retry and not pipeline.retry.max_age and not context.keeps_events then
    local retry = pipeline.retry
    resolved.retry = { min_delay = retry.min_delay, max_delay = retry.max_delay, max_age = MAX_AGE }
  end
  return resolved
end

--- What publishes to a bus that is a plugin: a pipeline whose dispatcher it is. Nothing gets too old for it, since the queue it takes events from is bounded.
---@param pipeline table checked
---@param use llmproxy.config.use the bus
---@return table resolved
function pipelines.resolve_publisher(pipeline, use)
  local resolved = {}
  for key, value in pairs(pipeline) do resolved[key] = value end
  resolved.path, resolved.transforms, resolved.batch, resolved.dispatcher, resolved.publishes = use.path, {}, {}, use, true
  for name, default in pairs(PUBLISHED_BATCH) do resolved.batch[name] = pipeline.batch[name] or use.plugin.batch[name] or default end
  return resolved
end

-- Calls the plugin's `new`; nil when it failed, which is reported.
local function construct(context, use)
  local fine, made = context.host.run(use.plugin.new, use.settings)
  if fine then return made end
  local message = place(made, use.plugin.file)
  if message:find("^[^\n]-:%d+: ") then
    context.errors[#context.errors + 1] = ("%s (new of %s)"):format(message, use.path)
  else
    report(context, use.path, use.name .. ": " .. message)
  end
  return nil
end

local function faulty(context, use, expected, got)
  context.errors[#context.errors + 1] = ("%s: new: expected %s, got %s (used by %s)"):format(use.plugin.file, expected, got == nil and "nothing" or "a " .. type(got), use.path)
end

local function construct_transform(context, use)
  if use.inline then return { name = use.name, run = use.inline } end
  local errors_before = #context.errors
  local run = construct(context, use)
  if #context.errors == errors_before and type(run) ~= "function" then faulty(context, use, "it to return a function of an event", run) end
  return { name = use.name, run = run }
end

local BUS_FUNCTIONS = { { "publish" }, { "subscribe" }, { "close", optional = true } }

local function construct_bus(context, use)
  local errors_before = #context.errors
  local object = construct(context, use)
  if #context.errors > errors_before then return nil end
  if type(object) ~= "table" then
    faulty(context, use, "it to return a table with the functions publish and subscribe", object)
    return nil
  end
  for _, known in ipairs(BUS_FUNCTIONS) do
    local value = object[known[1]]
    if type(value) ~= "function" and not (known.optional and value == nil) then
      faulty(context, use, known[1] .. " to be a function", value)
      return nil
    end
  end
  return object
end

local function construct_publisher(context, use)
  local object = construct_bus(context, use)
  if not object then return nil end
  local dispatcher = { deliver = function(_, batch) return object:publish(batch) end }
  if object.close then dispatcher.close = function() return object:close() end end
  return { name = use.name, object = dispatcher }
end

local function construct_dispatcher(context, use)
  if use.kind == "bus" then return construct_publisher(context, use) end
  if use.inline then
    local deliver = use.inline
    return { name = use.name, object = { deliver = function(_, batch) return deliver(batch) end } }
  end
  local errors_before = #context.errors
  local object = construct(context, use)
  if #context.errors > errors_before then return nil end
  if type(object) ~= "table" then
    faulty(context, use, "it to return a table with the function deliver", object)
  elseif type(object.deliver) ~= "function" then
    faulty(context, use, "deliver to be a function", object.deliver)
  elseif object.close ~= nil and type(object.close) ~= "function" then
    faulty(context, use, "close to be a function", object.close)
  end
  return { name = use.name, object = object }
end

--- Calls `new` of everything a resolved pipeline uses. Errors go to context.errors.
---@param context llmproxy.config.context
---@param resolved table
---@return table definition what the pipeline's loop runs
function pipelines.construct(context, resolved)
  local definition = {
    name = resolved.name,
    transforms = {},
    batch = resolved.batch,
    concurrency = resolved.concurrency,
    retry = resolved.retry,
    watchdog = resolved.watchdog,
    memory_limit = resolved.memory_limit,
  }
  for index, use in ipairs(resolved.transforms) do
    if use then definition.transforms[index] = construct_transform(context, use) end
  end
  if resolved.dispatcher then definition.dispatcher = construct_dispatcher(context, resolved.dispatcher) end
  if resolved.bus then
    definition.bus = { name = resolved.bus.name, object = construct_bus(context, resolved.bus), options = { name = resolved.name, from = resolved.from } }
  end
  return definition
end

--- One plugin by itself, for tools: { name, run } of a transform, { name, object } of a dispatcher or bus. nil: errors are in context.errors.
---@param context llmproxy.config.context
---@param kind "transform"|"dispatcher"|"bus"
---@param reference any as it would stand in the configuration
---@return table?
function pipelines.make(context, kind, reference)
  local use = use_of(context, kind, "", reference)
  if not use then return nil end
  local made
  if kind == "transform" then
    made = construct_transform(context, use)
  elseif kind == "bus" then
    made = { name = use.name, object = construct_bus(context, use) }
  else
    made = construct_dispatcher(context, use)
  end
  return not context.errors[1] and made or nil
end

return pipelines
