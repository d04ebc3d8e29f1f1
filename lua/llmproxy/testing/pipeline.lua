--- Runs events through a pipeline: the loop, the batches, the tries and the verdicts are the real ones (llmproxy.pipeline); what stands for the proxy around it is here, and the clock is the spec's.
local batch = require "llmproxy.pipeline.batch"
local clock = require "llmproxy.testing.clock"
local pipeline = require "llmproxy.pipeline"

local BATCH = { max_events = 100, max_bytes = 1048576, max_wait = 1 }
local RETRY = { min_delay = 0.5, max_delay = 60, max_age = 3600 }

local entry_methods = {}
local ENTRY = { __index = entry_methods }

function entry_methods:id() return tostring(self.given.id or "") end

function entry_methods:event()
  local record = self.events.record_of(self.given)
  if not record then return self.given end
  local event = self.host.event(record)
  for key, value in pairs(self.given) do
    if event[key] == nil then event[key] = value end
  end
  self.table = event
  return event
end

function entry_methods:encode(event)
  local text, message = self.host.encode(event or self.given, self.events.record_of(self.given))
  if not text then return nil, message end
  return text, #text
end

function entry_methods:release() end
function entry_methods:legacy() end

function entry_methods:settle(result)
  self.outcome = { result = result, id = self.given.id }
  self.settled()
end

function entry_methods:fail(reason, message, where, tries)
  self.outcome = { result = "failed", reason = reason, error = message, where = where, tries = tries, id = self.given.id }
  self.settled()
end

-- What the loop asks of src/pipeline/host.h.
local function new_host(host, entries, state)
  local noted, failed
  local around = { has_dead_letters = true, tells_failures = true, keeps_events = false }
  local woken = false
  function around.take() return table.remove(entries, 1) end
  function around.wait(seconds)
    if not woken then clock.wait(seconds or math.huge, function() return woken end) end
    woken = false
  end
  function around.wake() woken = true end
  function around.draining() return state.open == 0 end
  function around.retiring() return false end
  function around.drained() state.ended = true end
  function around.closed() end
  function around.spawn(work, value)
    host.spawn(work, value, function(message)
      failed, noted = noted or message, nil
    end)
  end
  function around.note(message)
    if type(message) ~= "string" then return message end
    noted = host.message(message)
    return noted
  end
  function around.forget(...)
    noted = nil
    return ...
  end
  function around.failure() return failed end
  function around.encode(value)
    local text, message = host.encode(value)
    if not text then return nil, message end
    return text, #text
  end
  function around.json(lines) return "[" .. table.concat(lines, ",") .. "]" end
  function around.json_lines(lines) return #lines > 0 and table.concat(lines, "\n") .. "\n" or "" end
  function around.observe() state.tries = state.tries + 1 end
  function around.state() end
  return around
end

local runner = {}

--- A batch as `deliver` gets it.
---@param host table see src/command/plugin_host.h
---@param events table see llmproxy.testing.events
---@param list table[]
---@param attempt integer?
---@return llmproxy.batch
function runner.batch(host, events, list, attempt)
  local items = {}
  for index, event in ipairs(list) do
    local text, message = events.encode(event)
    if not text then error(("event %d: %s"):format(index, message), 3) end
    items[index] = { event = event, line = text, bytes = #text }
  end
  return batch.maker(new_host(host, {}, { open = 0, tries = 0 }))(items, attempt or 1)
end

--- Runs all events to their end.
---@param host table
---@param events table
---@param definition table { transforms, dispatcher, batch, retry, concurrency } as a pipeline has them, made
---@param list table[]
---@return { outcomes: table[], tries: integer, seconds: number }
function runner.run(host, events, definition, list)
  local entries, waiting, state = {}, {}, { open = #list, tries = 0 }
  local around
  local function settled()
    state.open = state.open - 1
    if state.open == 0 then around.wake() end
  end
  for index, event in ipairs(list) do
    entries[index] = setmetatable({ given = event, host = host, events = events, settled = settled }, ENTRY)
    waiting[index] = entries[index]
  end
  around = new_host(host, waiting, state)
  local complete = { name = "spec", transforms = definition.transforms, dispatcher = definition.dispatcher, concurrency = definition.concurrency or 2, batch = {}, retry = {} }
  for name, default in pairs(BATCH) do complete.batch[name] = (definition.batch or {})[name] or default end
  for name, default in pairs(RETRY) do complete.retry[name] = (definition.retry or {})[name] or default end
  local began = clock.time.monotonic()
  pipeline.new(complete, around).start()
  while not state.ended do clock.wait(math.huge, function() return state.ended end) end
  local outcomes = {}
  for index, entry in ipairs(entries) do outcomes[index] = entry.outcome end
  return { outcomes = outcomes, tries = state.tries, seconds = clock.time.monotonic() - began }
end

return runner
