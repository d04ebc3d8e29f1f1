--- The configuration: from file, environment and defaults to what the parts of the program are started with. Stronger wins: flag > environment > file > default.
--
-- Runs in two kinds of states. On the main thread, config.load() checks everything and finds every fault in one go. In each pipeline's own state config.pipeline() evaluates the same text with the
-- same answers once more, to obtain the functions and plugins of that one pipeline. Both get at files, the environment and what only C can judge through `host` (see src/config/host.h).
local bus = require "llmproxy.config.bus"
local describe = require "llmproxy.config.describe"
local environment = require "llmproxy.config.environment"
local file = require "llmproxy.config.file"
local identity = require "llmproxy.config.identity"
local json = require "llmproxy.json"
local lines = require "llmproxy.config.lines"
local pipelines = require "llmproxy.config.pipelines"
local plugins = require "llmproxy.plugins"
local routes = require "llmproxy.config.routes"
local schema = require "llmproxy.config.schema"
local settings = require "llmproxy.settings"
local upstream = require "llmproxy.config.upstream"

local config = {}

local MOST_BODY_BYTES = 48 * 2 ^ 20 -- of both bodies: an event with them stays below 64 MiB wherever it goes
local UPSTREAM_URL = { type = "url", user_info = false, check = upstream.check, default = "https://api.openai.com" }

-- One load --------------------------------------------------------------------------------------------------------------------------------------------------------------

-- What all steps share: where things come from, and the errors found so far.
local function new_load(host, source)
  local load = { host = host, source = source, errors = {}, answers = source.answers or { environment = {}, files = {} } }
  function load.variable(name) return file.variable(host, load.answers, name) end
  --- "FILE:LINE: " of a key in the configuration file, or "FILE: "; "" where there is no file.
  function load.place(path)
    local line = load.text and lines.of(load.text, path)
    return load.file and load.file .. (line and ":" .. line or "") .. ": " or ""
  end
  function load.report(path, message)
    local origin = (load.origins or {})[path]
    local where = origin and origin:match("^env (.*)$") or load.place(path) .. path
    load.errors[#load.errors + 1] = where .. ": " .. message
  end
  return load
end

local function add_file_errors(load, errors)
  for _, message in ipairs(errors) do
    load.errors[#load.errors + 1] = load.place(message:match("^(.-): ") or "") .. message
  end
end

local function folder_of(path)
  local folder = path:match("^(.*)/[^/]*$")
  return folder == "" and "/" or folder
end

local function add_folder(load, folder, fault)
  local names, reason = load.host.list(folder)
  if names then
    table.insert(load.folders, #load.folders, folder) -- the stock folder stays the last
  else
    fault(("expected a folder, '%s' %s"):format(folder, reason and "cannot be read: " .. reason or "is none"))
  end
end

-- Finds, reads and evaluates the file; {} when there is none or it is broken. Libraries of the folders that the environment names can be used in it.
local function evaluate(load)
  local source = load.source
  load.file = source.flag or load.variable("LLM_PROXY_CONFIG")
  load.folder = load.file and folder_of(load.file)
  load.folders = source.folders or { source.stock }
  if not source.folders then
    file.extend_require(load.host, load.folders)
    for folder in (load.variable("LLM_PROXY_PLUGINS") or ""):gmatch("[^:]+") do
      add_folder(load, file.below(load.folder, folder), function(message) load.errors[#load.errors + 1] = "LLM_PROXY_PLUGINS: " .. message end)
    end
  end
  if not load.file then return {} end
  local given, message
  load.text = source.text
  if not load.text then load.text, message = load.host.read(load.file) end
  if load.text then
    given, message = file.evaluate(load.host, { file = load.file, folder = load.folder, text = load.text }, load.answers)
  end
  if not given then load.errors[#load.errors + 1] = message end
  return given or {}
end

-- The file's own folders come behind those of the environment.
local function add_plugin_path(load, plugin_path)
  for index, folder in ipairs(plugin_path or {}) do
    add_folder(load, folder, function(message) load.report(("plugin_path[%d]"):format(index), message) end)
  end
end

-- The registry of plugins. The folders that the file names are known before the rest of it is checked: plugins declare settings that are in it.
local function open_registry(load, given)
  local known = schema(load.host, { type = "any" })
  local checked = settings.check({ plugin_path = known.plugin_path, trusted_plugins = known.trusted_plugins },
    { plugin_path = given.plugin_path, trusted_plugins = given.trusted_plugins }, { folder = load.folder })
  if not load.source.folders then add_plugin_path(load, checked.plugin_path) end
  load.registry = plugins.registry(load.host, load.folders, checked.trusted_plugins)
  for index, name in ipairs(checked.trusted_plugins or {}) do
    local absent = type(name) == "string" and plugins.absent(load.registry, name)
    if absent then load.report(("trusted_plugins[%d]"):format(index), absent) end
  end
end

-- Finds the bus; its settings and dead_letters take the form that the declaration, made here, knows. Returns what the file gave in that form.
local function declare(load, given)
  local observability = given.observability
  local own = type(observability) == "table" and observability or {}
  load.bus = bus.find(own.bus, load.variable, function(key, message)
    local where = key and (not key:find("^OBSERVABILITY_") and load.place(key) or "") .. key .. ": " or ""
    load.errors[#load.errors + 1] = where .. message
  end, load.registry)
  load.declaration = schema(load.host, load.bus.field)
  bus.add_publishing(load.bus, load.declaration.observability.fields.pipelines.items.fields)
  if observability ~= nil and type(observability) ~= "table" then return given end
  local complete, inner = {}, {}
  for key, value in pairs(given) do complete[key] = value end
  for key, value in pairs(own) do inner[key] = value end
  inner.bus = (own.bus ~= nil or next(load.bus.given) ~= nil) and load.bus.given or nil
  inner.dead_letters, load.no_dead_letters = bus.dead_letters_given(own.dead_letters)
  complete.observability = next(inner) ~= nil and inner or observability
  return complete
end

-- Pipelines -------------------------------------------------------------------------------------------------------------------------------------------------------------

local function implied_pipeline(load, fields, name, dispatcher)
  local given = { name = name, transforms = { "llm" }, dispatcher = dispatcher }
  return (settings.check(fields, given, { folder = load.folder }))
end

-- The pipelines of the file, or the one there is without any, and the one that OBSERVABILITY_FILE asks for: { checked, given, path, source }. The last one publishes to the bus, if that is a plugin.
local function pipeline_list(load, fields, checked, given, own_bus)
  local list = {}
  for index = 1, type(given) == "table" and #given or 0 do
    list[index] = { checked = (checked or {})[index], given = given[index], path = ("observability.pipelines[%d]"):format(index), source = "file" }
  end
  local path = load.variable("OBSERVABILITY_FILE")
  local to_file = path and { "file", path = path }
  if path then
    local name = list[1] and "observability_file" or "default"
    list[#list + 1] = { checked = implied_pipeline(load, fields, name, to_file), path = ("observability.pipelines[%d]"):format(#list + 1), source = "env OBSERVABILITY_FILE" }
  elseif not list[1] then
    list[1] = { checked = implied_pipeline(load, fields, "default", "stdout"), path = "observability.pipelines[1]", source = "default" }
  end
  if load.bus.plugin then
    local publisher = settings.check(fields, bus.publisher(load.bus, own_bus), { folder = load.folder })
    list[#list + 1] = { checked = publisher, path = "observability.bus.publish", source = "default", publishes = true }
  end
  return list
end

local function check_names(load, list)
  local names = {}
  for _, entry in ipairs(list) do
    local name = entry.checked and entry.checked.name
    if name == "bus" and load.bus.plugin and not entry.publishes then
      load.report(entry.path .. ".name", "expected another name: 'bus' is that of what publishes to the bus")
    elseif name and names[name] then
      load.report(entry.path .. ".name", ("'%s' is the name of %s already"):format(name, names[name]))
    end
    if name then names[name] = entry.path end
  end
end

local function is_whole(pipeline)
  return pipeline and pipeline.name and pipeline.transforms and pipeline.dispatcher ~= nil and pipeline.batch and true
end

local function plugin_context(load)
  return {
    host = load.host, registry = load.registry, place = load.place, folder = load.folder, variable = load.variable, errors = load.errors,
    keeps_events = bus.keeps_events(load.bus.name), bus = bus.use(load.bus, load.folder, load.variable),
  }
end

local function resolve(context, entry)
  if entry.publishes then return context.bus and pipelines.resolve_publisher(entry.checked, context.bus) end
  return pipelines.resolve(context, entry.checked, entry.path)
end

-- Resolves and constructs every pipeline; what each of them is for the rest of the program.
local function load_pipelines(load, checked, given)
  local observability = checked.observability
  local fields = load.declaration.observability.fields.pipelines.items.fields
  local list = pipeline_list(load, fields, observability.pipelines, (given.observability or {}).pipelines, observability.bus)
  check_names(load, list)
  local context, all = plugin_context(load), {}
  for index, entry in ipairs(list) do
    local resolved = is_whole(entry.checked) and resolve(context, entry)
    if resolved then
      resolved.given, resolved.source = entry.given, entry.source
      resolved.buffer_size = resolved.buffer_size or observability.buffer_size
      if resolved.retry and resolved.retry.min_delay and resolved.retry.max_delay and resolved.retry.min_delay > resolved.retry.max_delay then
        load.report(entry.path .. ".retry", "expected min_delay to be at most max_delay")
      end
      pipelines.construct(context, resolved)
      all[index] = resolved
    end
  end
  return all
end

-- Checks across keys ----------------------------------------------------------------------------------------------------------------------------------------------------

-- listen as a list, and unix sockets below the file's folder like all relative paths.
local function absolute_sockets(load, checked)
  local function absolute(key, address)
    local path = address:match("^unix:(.+)$")
    local whole = path and "unix:" .. file.below(load.folder, path) or address
    if not load.host.address(whole) then load.report(key, ("'%s' is too long for a socket's path"):format(whole)) end
    return whole
  end
  if type(checked.listen) == "string" then checked.listen = { checked.listen } end
  for index, address in ipairs(checked.listen or {}) do checked.listen[index] = absolute("listen", address) end
  if checked.admin then checked.admin = absolute("admin", checked.admin) end
end

local function exposed_address(load, listen)
  for _, address in ipairs(listen) do
    local known, loopback = load.host.address(address)
    if known and not loopback then return address end
  end
end

local function check_admin(load, checked)
  if not checked.admin then return end
  local known, loopback = load.host.address(checked.admin)
  if known and not loopback and not load.variable("ADMIN_TOKEN") then
    load.report("admin", ("expected an address of this machine alone, got %s; to be reached from elsewhere it needs a token: set ADMIN_TOKEN"):format(checked.admin))
  end
end

local function check_bus(load, checked)
  local observability = checked.observability
  if not observability then return end
  bus.finish(load.bus, observability, load.no_dead_letters, load.report)
  if not (observability.bus and observability.bus.audit) then return end
  for index, route in ipairs(checked.routes or {}) do
    if route.capture == false then
      load.report(("routes[%d].capture"):format(index), "expected true with observability.bus.audit: every exchange is to be recorded")
    end
  end
end

local function check_sizes(load, checked)
  local observability, limits = checked.observability or {}, checked.limits or {}
  local request, response = observability.max_request_body_bytes, observability.max_response_body_bytes
  if request and response and request + response > MOST_BODY_BYTES then
    load.report("observability.max_response_body_bytes", ("expected at most 48 MiB together with max_request_body_bytes, got %.15g + %.15g bytes"):format(request, response))
  end
  if limits.max_target_bytes and limits.max_head_bytes and limits.max_target_bytes > limits.max_head_bytes then
    load.report("limits.max_target_bytes", ("expected at most max_head_bytes (%.15g), got %.15g"):format(limits.max_head_bytes, limits.max_target_bytes))
  end
end

-- Without routes in the file there is one, to UPSTREAM_URL.
local function implied_routes(load, checked)
  local url = load.variable("UPSTREAM_URL")
  local own = {}
  local known = environment.check("UPSTREAM_URL", UPSTREAM_URL, url, own)
  for _, message in ipairs(own) do load.errors[#load.errors + 1] = message end
  load.origins["routes[1].upstream"] = url and "env UPSTREAM_URL" or "default"
  load.origins["routes[1].prefix"] = "default"
  local route = { prefix = "/", upstream = known or UPSTREAM_URL.default }
  checked.routes = settings.check({ routes = load.declaration.routes }, { routes = { route } }).routes
end

local function load_routes(load, checked, given)
  if not checked.routes or not checked.timeouts then return nil end
  if type(given.routes) ~= "table" or #given.routes == 0 then implied_routes(load, checked) end
  for path, from in pairs(routes.inherit_timeouts(checked.routes, checked.timeouts)) do
    local known = given.timeouts and given.timeouts[from:match("[^.]*$")] ~= nil
    load.origins[path] = known and "file" or "default"
  end
  local function report(variable, message) load.errors[#load.errors + 1] = variable .. ": " .. message end
  for path, variable in pairs(routes.inherit_proxy(load.host, checked.routes, load.variable, report)) do load.origins[path] = "env " .. variable end
  local listen = checked.listen or {}
  local exposed = given.clients == nil and exposed_address(load, listen) or nil
  return routes.finish(load.host, checked.routes, exposed, load.report)
end

-- Results ---------------------------------------------------------------------------------------------------------------------------------------------------------------

-- Parts that only a restart can change, each with a text that tells whether it did.
local function fixed_parts(load, checked)
  local parts = {}
  local function add(name, value) parts[#parts + 1] = { name = name, identity = json.encode(value) } end
  add("listen", checked.listen)
  add("admin", checked.admin)
  add("workers", checked.workers)
  add("observability.bus", { load.bus.name, load.bus.queue, bus.comparable(checked.observability.bus) })
  add("observability.dead_letters", checked.observability.dead_letters)
  return parts
end

local function names_of(load, checked, all)
  local list, observability = {}, checked.observability
  local around = { identity.of_libraries(load.host, load.folders), observability.buffer_bytes, observability.max_decoded_bytes }
  local whole = { load.text or false, load.answers.files, load.answers.environment }
  for index, pipeline in ipairs(all) do
    local transforms = {}
    for position, use in ipairs(pipeline.transforms) do transforms[position] = use.name end
    list[index] = {
      name = pipeline.name,
      buffer_size = pipeline.buffer_size,
      memory_limit = pipeline.memory_limit,
      watchdog = pipeline.watchdog,
      from_oldest = pipeline.from == "oldest",
      transforms = table.concat(transforms, ", "),
      dispatcher = pipeline.dispatcher.name,
      publishes = pipeline.publishes,
      identity = identity.of(load.host, pipeline, around, whole),
    }
  end
  return list
end

-- As the proxy is told.
local function token_list(clients)
  local list = {}
  for name, secret in pairs(clients and clients.tokens or {}) do list[#list + 1] = { name = name, secret = secret } end
  return list
end

local function description(load, checked, given, all)
  local of_file = {}
  for _, pipeline in ipairs(all) do
    if pipeline.publishes then checked.observability.bus.publish.batch = pipeline.batch else of_file[#of_file + 1] = pipeline end
  end
  local leaves = describe.leaves(load.declaration, checked, given, load.origins, of_file)
  local source = load.source.flag and "flag" or load.file and "env LLM_PROXY_CONFIG" or "default"
  table.insert(leaves, 1, { path = "config", value = load.file, source = source })
  local token = load.variable("ADMIN_TOKEN")
  table.insert(leaves, 2, { path = "admin_token", value = token and "[secret]", source = token and "env ADMIN_TOKEN" or "default" })
  local own_folders = load.variable("LLM_PROXY_PLUGINS")
  table.insert(leaves, 3, { path = "plugin_folders", value = load.folders, source = own_folders and "env LLM_PROXY_PLUGINS" or given.plugin_path and "file" or "default", list = true })
  local stored = type(given.observability) == "table" and given.observability.bus ~= nil
  local name = { path = "observability.bus", value = load.bus.name, source = load.origins["observability.bus"] or stored and "file" or "default" }
  table.insert(leaves, 4, name)
  if load.bus.plugin then
    table.insert(leaves, 5, { path = "observability.bus.queue", value = load.bus.queue, source = load.bus.given.queue and "file" or "default" })
  end
  return load.source.describe == "json" and describe.json(leaves) or describe.text(leaves)
end

---@class llmproxy.config.summary
---@field name string
---@field buffer_size integer
---@field memory_limit integer
---@field watchdog number
---@field from_oldest boolean
---@field transforms string
---@field dispatcher string
---@field publishes boolean?
---@field identity string

-- What env() did not find is nothing, and what is required is then missing: says where it may have gone.
local function explain_missing(load)
  local missing = load.answers.missing
  for index, message in ipairs(missing and load.errors or {}) do
    if message:find(", got nothing$") then load.errors[index] = ("%s (not set in the environment: %s)"):format(message, missing) end
  end
end

---@class llmproxy.config.result
---@field errors string[]
---@field settings table? checked and complete, with routes as the proxy is told
---@field pipelines llmproxy.config.summary[]? the last one publishes to the bus, if that is a plugin
---@field warnings string[]? about what is no fault but hardly meant
---@field fixed { name: string, identity: string }[]? parts that only a restart can change
---@field description string?
---@field file string?
---@field text string? of the file
---@field answers llmproxy.config.answers
---@field folders string[] of plugins

--- Everything there is to know at a start; or all errors, one line each, a file's beginning with its name.
---@param host table
---@param source { flag: string?, stock: string, describe: "text"|"json"|nil } flag: the file given on the command line; stock: the folder of the plugins that come along
---@return llmproxy.config.result
function config.load(host, source)
  local load = new_load(host, source)
  local given = evaluate(load)
  open_registry(load, given)
  given = declare(load, given)
  local checked, errors = settings.check(load.declaration, given, { folder = load.folder, variable = load.variable })
  add_file_errors(load, errors)
  load.origins = environment.apply(load.declaration, load.variable, checked, load.errors)
  for path, origin in pairs(load.bus.origins) do load.origins[path] = origin end
  check_bus(load, checked)
  absolute_sockets(load, checked)
  check_admin(load, checked)
  check_sizes(load, checked)
  local finished = load_routes(load, checked, given)
  local all = checked.observability and load_pipelines(load, checked, given) or {}
  local result = { errors = load.errors, file = load.file, text = load.text, answers = load.answers, folders = load.folders }
  if load.errors[1] then
    explain_missing(load)
    return result
  end
  result.fixed = fixed_parts(load, checked)
  local described = source.describe and description(load, checked, given, all)
  result.warnings = environment.unknown(host.environment_names(), load.answers.environment)
  result.pipelines = names_of(load, checked, all)
  result.description = described
  checked.routes = finished
  checked.clients = { tokens = token_list(checked.clients), networks = checked.clients and checked.clients.networks }
  checked.limits.default_max_connections = not (type(given.limits) == "table" and given.limits.max_connections)
  checked.admin_token = load.variable("ADMIN_TOKEN")
  checked.bus, checked.bus_plugin = load.bus.queue, load.bus.plugin and load.bus.name
  result.settings = checked
  return result
end

--- One pipeline's definition, in the pipeline's own state: { name, transforms = { { name, run }, … }, dispatcher = { name, object }, batch, concurrency, retry, watchdog, memory_limit }.
--- Raises one line when that fails, which after a config.load without errors only a state with less memory or time does.
---@param host table
---@param source { flag: string?, text: string?, answers: table, folders: string[] }
---@param index integer
---@return table
function config.pipeline(host, source, index)
  local load = new_load(host, source)
  load.answers.replay = true
  local given = evaluate(load)
  open_registry(load, given)
  given = declare(load, given)
  local declaration = { observability = load.declaration.observability }
  local checked, errors = settings.check(declaration, { observability = given.observability }, { folder = load.folder, variable = load.variable })
  add_file_errors(load, errors)
  if load.errors[1] then error(load.errors[1], 0) end
  local fields = declaration.observability.fields.pipelines.items.fields
  local entry = pipeline_list(load, fields, checked.observability.pipelines, (given.observability or {}).pipelines, checked.observability.bus)[index]
  if not entry then error("there is no such pipeline when the configuration is evaluated again", 0) end
  local context = plugin_context(load)
  local resolved = resolve(context, entry)
  local definition = load.errors[1] == nil and pipelines.construct(context, resolved)
  if load.errors[1] then error(load.errors[1], 0) end
  return definition
end

-- What finds plugins; nothing else in the configuration is looked at.
local function find_plugins(host, source)
  local load = new_load(host, source)
  local given = evaluate(load)
  local known = schema(load.host, { type = "any" })
  local checked, errors = settings.check({ plugin_path = known.plugin_path, trusted_plugins = known.trusted_plugins },
    { plugin_path = given.plugin_path, trusted_plugins = given.trusted_plugins }, { folder = load.folder })
  add_file_errors(load, errors)
  add_plugin_path(load, checked.plugin_path)
  return load, plugins.registry(host, load.folders, checked.trusted_plugins)
end

--- What `plugins list` (no name), `plugins reference` (no name, describe is "markdown") and `plugins show NAME` print.
---@param host table
---@param source { flag: string?, stock: string, describe: string? }
---@param name string?
---@return { errors: string[], text: string? }
function config.plugins(host, source, name)
  local load, registry = find_plugins(host, source)
  if load.errors[1] then return { errors = load.errors } end
  local text, wrong
  if name then
    text, wrong = plugins.show_text(registry, name)
  elseif source.describe == "markdown" then
    text, wrong = plugins.reference_text(registry)
  else
    text, wrong = plugins.list_text(registry)
  end
  return { errors = wrong or {}, text = text }
end

--- One transform by itself, for `run-transform`.
---@param host table
---@param source { flag: string?, stock: string }
---@param name string
---@param text string? its settings, as they would stand in the configuration: { longer_than = "1s" }
---@return table? transform { name, run }
---@return string[] errors
function config.transform(host, source, name, text)
  local load, registry = find_plugins(host, source)
  local reference = { name }
  if text then
    local given, message = file.evaluate(host, { file = "settings", folder = load.folder, text = "return " .. text }, load.answers)
    if message then load.errors[#load.errors + 1] = message end
    for key, value in pairs(given or {}) do reference[key] = value end
  end
  if load.errors[1] then return nil, load.errors end
  local context = { host = host, registry = registry, folder = load.folder, keeps_events = false, variable = load.variable, errors = load.errors }
  return pipelines.make(context, "transform", reference), load.errors
end

return config
