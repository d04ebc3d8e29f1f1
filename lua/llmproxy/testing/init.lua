--- What `llm-proxy test` runs: a spec's tests, one after the other, each as a task that may wait, and what they may say.
--
--     describe(name, function)            tests that belong together; before_each(function), after_each(function) inside it, or for the whole file
--     it(name, function)                  a test
--     expect(value):to_equal(other) …     see llmproxy.testing.expect
--     plugin(kind, name, settings)        a plugin as the proxy makes it: a transform's function, a dispatcher's or bus's object; raises what `check` would say
--     event(changes), events(path)        see llmproxy.testing.events
--     batch(events, attempt)              what `deliver` gets
--     run_pipeline { transforms, dispatcher, events, batch, retry, concurrency }   see llmproxy.testing.pipeline
--     read_file(path), folder()           a file's text, relative to the spec; an empty folder that goes with the run
--     vectors(folder, transforms)         a test for each folder in it that has event.json and expected.json
--     http.fake(prefix, script), http.allow(prefix)   see llmproxy.testing.fake_http
--     clock.set(moment), clock.advance(seconds)       see llmproxy.testing.clock
--
-- Code that runs away ends its task beyond every pcall: the test is lost, and the next one begins.
local clock = require "llmproxy.testing.clock"
local config_file = require "llmproxy.config.file"
local diff = require "llmproxy.testing.diff"
local events_for = require "llmproxy.testing.events"
local expect_for = require "llmproxy.testing.expect"
local http_for = require "llmproxy.testing.fake_http"
local json = require "llmproxy.json"
local pipelines = require "llmproxy.config.pipelines"
local plugins = require "llmproxy.plugins"
local runner = require "llmproxy.testing.pipeline"

local testing = {}

-- TAP ---------------------------------------------------------------------------------------------------

local function indented(text, by)
  return by .. text:gsub("\n", "\n" .. by)
end

local function print_failure(host, failure)
  host.print("  ---")
  host.print("  message: |")
  host.print(indented(tostring(failure.message), "    "))
  if failure.place then host.print("  at: " .. failure.place) end
  if failure.details then
    host.print("  difference: |")
    host.print(indented(failure.details, "    "))
  end
  if failure.trace and failure.trace:find("\n") then
    host.print("  called from: |")
    host.print(indented(failure.trace, "    "))
  end
  host.print("  ...")
end

-- What a spec says ----------------------------------------------------------------------------------------

local function new_suite(name, outer)
  return { name = name, outer = outer, before = {}, after = {} }
end

local function full_name(suite, name)
  while suite.outer do
    name = suite.name .. ": " .. name
    suite = suite.outer
  end
  return name
end

local function describing(spec)
  local words, suite = {}, spec.suite
  local function take(what, run)
    if type(run) ~= "function" then error(("%s: expected a function, got a %s"):format(what, type(run)), 3) end
    if spec.running then error(what .. ": not inside of a test", 3) end
    return run
  end
  function words.describe(name, run)
    take("describe", run)
    suite = new_suite(tostring(name), suite)
    run()
    suite = suite.outer
  end
  function words.it(name, run)
    spec.tests[#spec.tests + 1] = { name = full_name(suite, tostring(name)), suite = suite, run = take("it", run) }
  end
  function words.before_each(run) table.insert(suite.before, take("before_each", run)) end
  function words.after_each(run) table.insert(suite.after, take("after_each", run)) end
  return words
end

-- Plugins as config makes them. While a test runs it is a task, and plugins are made where nothing can wait. Raises the errors.
local function new_maker(host, spec)
  local registry = plugins.registry(host, spec.folders)
  return function(make, level)
    local context = { host = host, registry = registry, folder = spec.folder, keeps_events = false, errors = {} }
    local made
    local fine, message = host.call_outside(function() made = make(context) end)
    if not fine then error(message, level + 1) end
    if context.errors[1] then
      for index, text in ipairs(context.errors) do context.errors[index] = text:gsub("^%.", "") end
      error(table.concat(context.errors, "\n"), level + 1)
    end
    return made
  end
end

-- For new_maker: all of a pipeline.
local function whole(given)
  return function(context)
    local resolved = pipelines.resolve(context, given, "")
    local made = not context.errors[1] and pipelines.construct(context, resolved) or nil
    if made then made.batch = resolved.batch end
    return made
  end
end

local function reference_of(name, given)
  local reference = { name }
  for key, value in pairs(given or {}) do reference[key] = value end
  return reference
end

local function nothing() end

local function making(host, spec, events)
  local words, make = {}, new_maker(host, spec)
  function words.plugin(kind, name, given)
    if kind ~= "transform" and kind ~= "dispatcher" and kind ~= "bus" then error(('plugin: expected "transform", "dispatcher" or "bus", got %s'):format(diff.show(kind)), 2) end
    local made = make(function(context) return pipelines.make(context, kind, reference_of(name, given)) end, 2)
    return made.run or made.object
  end
  function words.batch(list, attempt) return runner.batch(host, events, list, attempt) end
  function words.run_pipeline(given)
    if type(given) ~= "table" or type(given.events) ~= "table" then error("run_pipeline: expected a table with events", 2) end
    local made = make(whole { transforms = given.transforms or {}, dispatcher = given.dispatcher or nothing, batch = given.batch or {} }, 2)
    return runner.run(host, events, { transforms = made.transforms, dispatcher = made.dispatcher, batch = made.batch, retry = given.retry, concurrency = given.concurrency }, given.events)
  end
  return words, make
end

-- What comes out of transforms, decoded from the JSON that a dispatcher would get.
local function outcome(host, events, made, event)
  local out = json.array {}
  local result = runner.run(host, events, {
    transforms = made.transforms, batch = { max_wait = 0 },
    dispatcher = { name = "vectors", object = { deliver = function(_, batch)
      for line in batch:json_lines():gmatch("[^\n]+") do out[#out + 1] = json.decode(line) end
    end } },
  }, { event })
  local failure = result.outcomes[1]
  if failure.result == "failed" then error(failure.error or failure.reason, 0) end
  if #out == 0 then return json.null end
  return #out == 1 and out[1] or out
end

local function vectors_for(host, spec, events, make, expect, it)
  return function(folder, transforms)
    local path = config_file.below(spec.folder, folder)
    local count = 0
    for _, name in ipairs(host.list(path) or {}) do
      local case = path .. "/" .. name
      if host.exists(case .. "/event.json") then
        count = count + 1
        it(name, function()
          local event = events.event(json.decode((assert(host.read(case .. "/event.json")))))
          local expected, message = json.decode((assert(host.read(case .. "/expected.json"))))
          if expected == nil then error(case .. "/expected.json: " .. message, 0) end
          local made = make(whole { transforms = transforms, dispatcher = nothing, batch = {} }, 2)
          expect(outcome(host, events, made, event)):to_equal(expected)
        end)
      end
    end
    if count == 0 then error(("vectors: no folder with event.json in %s"):format(path), 2) end
  end
end

-- Running -----------------------------------------------------------------------------------------------

local function failure_of(host, raised)
  if type(raised) == "table" and rawget(raised, "message") then return raised end
  return { message = type(raised) == "string" and host.message(raised) or "raised " .. diff.show(raised), trace = host.trace() }
end

local function call_hooks(suite, which)
  if suite.outer and which == "before" then call_hooks(suite.outer, which) end
  for _, hook in ipairs(suite[which]) do hook() end
  if suite.outer and which == "after" then call_hooks(suite.outer, which) end
end

local function report(host, spec, test, failure)
  local number = spec.first + spec.passed + spec.failed
  host.print(("%s %d - %s"):format(failure and "not ok" or "ok", number, (test.name:gsub("#", "\\#"):gsub("\n", " "))))
  if failure then
    print_failure(host, failure)
    spec.failed = spec.failed + 1
  else
    spec.passed = spec.passed + 1
  end
end

local function run_test(host, spec, test)
  clock.reset()
  spec.http.reset()
  local failure
  local function handle(raised) return failure_of(host, raised) end
  local fine, raised = xpcall(function()
    call_hooks(test.suite, "before")
    test.run()
  end, handle)
  if not fine then failure = type(raised) == "table" and raised or { message = tostring(raised) } end -- a text when memory ran out even for the handler
  host.relieve()
  fine, raised = xpcall(call_hooks, handle, test.suite, "after")
  if not fine then failure = failure or raised end
  local sent = spec.http.reset()
  if sent and not failure then failure = type(sent) == "table" and sent or { message = tostring(sent) } end
  report(host, spec, test, failure)
end

local function run_all(host, spec)
  return function(_, stopped)
    if stopped then
      report(host, spec, spec.tests[spec.next - 1], { message = spec.stopped })
    end
    while spec.tests[spec.next] do
      local test = spec.tests[spec.next]
      spec.next = spec.next + 1
      run_test(host, spec, test)
    end
    host.done(spec.passed, spec.failed)
  end
end

local function chosen(tests, filter)
  if not filter then return tests end
  local list = {}
  for _, test in ipairs(tests) do
    if test.name:find(filter, 1, true) then list[#list + 1] = test end
  end
  return list
end

--- Loads a spec and begins its tests; host.done(passed, failed) is called at the end. Raises when the file is broken.
---@param host table see src/command/plugin_host.h
---@param options { path: string, folders: string[], first: integer, filter: string? }
function testing.start(host, options)
  local folder = options.path:match("^(.*)/[^/]*$") or "."
  local spec = { folder = folder, folders = options.folders, first = options.first, tests = {}, suite = new_suite(), passed = 0, failed = 0, next = 1 }
  config_file.extend_require(host, options.folders)
  local function read(path)
    local text, message = host.read(config_file.below(folder, path))
    if not text then error(message, 3) end
    return text
  end
  local events = events_for(host, read)
  local http = http_for(host)
  spec.http = http
  local words = describing(spec)
  local made, make = making(host, spec, events)
  words.expect = expect_for(host)
  words.vectors = vectors_for(host, spec, events, make, words.expect, words.it)
  words.event, words.events, words.read_file, words.folder = events.event, events.events, read, host.folder
  words.http, words.clock = http.vocabulary, { set = clock.set, advance = clock.advance }
  for name, word in pairs(made) do words[name] = word end
  local text, message = host.read(options.path)
  if not text then error(message, 0) end
  local _, wrong = config_file.run(text, options.path, setmetatable(words, { __index = _G }), host.run)
  if wrong then error(wrong, 0) end
  spec.tests = chosen(spec.tests, options.filter)
  spec.running = true
  host.spawn(run_all(host, spec), nil, function(raised) spec.stopped = raised end)
end

return testing
