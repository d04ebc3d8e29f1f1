--- What `llm-proxy run-transform` runs: every line of events goes through one transform, as in a pipeline, and what comes out is printed as a dispatcher would get it.
local config = require "llmproxy.config"
local events_for = require "llmproxy.testing.events"
local runner = require "llmproxy.testing.pipeline"

--- Begins. host.done(events, failed) is called at the end, host.refuse(errors) when the transform cannot be made.
---@param host table see src/command/plugin_host.h, and read_line() -> string?, complain(text), done, refuse
---@param source { flag: string?, stock: string }
---@param name string
---@param settings string?
return function(host, source, name, settings)
  local transform, errors = config.transform(host, source, name, settings)
  if not transform then return host.refuse(errors) end
  local events = events_for(host)
  local number, failed, stopped = 0, 0, nil

  local function fail(event, message)
    failed = failed + 1
    host.complain(("line %d%s: %s"):format(number, event and event.id and " (" .. event.id .. ")" or "", message))
  end

  local dispatcher = { name = "run-transform", object = { deliver = function(_, batch)
    for line in batch:json_lines():gmatch("[^\n]+") do host.print(line) end
  end } }

  local function process(line)
    local event, message = events.decode(line)
    if not event then return fail(nil, message) end
    local outcome = runner.run(host, events, { transforms = { transform }, dispatcher = dispatcher, batch = { max_wait = 0 } }, { event }).outcomes[1]
    if outcome.result == "failed" then fail(event, outcome.error or outcome.reason) end
  end

  host.spawn(function(_, again)
    if again then fail(nil, stopped) end
    for line in host.read_line do
      number = number + 1
      if line:find("%S") then process(line) end
    end
    host.done(number, failed)
  end, nil, function(message) stopped = message end)
end
