--- What one pipeline does with its events: take, transform, gather into batches, have them delivered.
--
-- An event that was taken is an entry of the host's. The transforms make parts of it, most often one; a part in a batch is an item, encoded once. The entry is settled when the last
-- of its items is: delivered when all are, failed when one did. What fails goes to the dead letters as it was taken, where there are any, else it is dropped.
--
--     entry -> transforms -> items -> filling -> batch, one of at most `concurrency` -> settled
--
-- Where the bus is a plugin, the host has no events but those that the pipeline fetches: see llmproxy.pipeline.source.
--
-- Nothing is taken while all deliveries are busy and a batch is full: what comes waits in the subscriber's queue, which is bounded.
--
-- When a successor waits for its turn nothing is begun any more.
-- Deliveries that run come to their end; items that are not settled by then are left to it as they are: what transforms made of them is kept.
--
-- Runaway code is stopped by an error that no pcall stops, so a task can end at any line of a plugin; it is then begun anew. Hence what a task works on is kept outside of it.
local delivery = require "llmproxy.pipeline.delivery"
local json = require "llmproxy.json"
local log = require "llmproxy.log"
local reports = require "llmproxy.pipeline.reports"
local source = require "llmproxy.pipeline.source"
local time = require "llmproxy.time"

local pipeline = {}

-- How long the loop works on events before others of its thread (deliveries, timers) have a turn.
local SLICE = 0.005

-- While a batch fills, the loop sleeps until there are events for the rest of it: waking up for each costs more than the event.
-- When the batch is due, what came meanwhile is taken yet, for no longer than this.
local GRACE = 0.01

-- A loop that falls again as soon as it is begun anew, as for want of memory, is begun later and later, in seconds.
local FIRST_FALL, LONGEST_FALL = 0.001, 1

-- Of a reason that is kept with an event, in bytes.
local LONGEST_REASON = 1000

---@class llmproxy.pipeline.item
---@field entry userdata
---@field group llmproxy.pipeline.group
---@field event table? nil: the event as it was taken
---@field line userdata its JSON
---@field bytes integer of it

--- The items of one entry.
---@class llmproxy.pipeline.group
---@field entry userdata
---@field open integer how many are not settled
---@field failure llmproxy.pipeline.failure? of the first one that failed

--- Why an event cannot be delivered.
---@class llmproxy.pipeline.failure
---@field reason "rejected"|"transform_error"|"expired"
---@field error string?
---@field where string? the transform's or dispatcher's name
---@field tries integer
---@field first number of the first and the last try, or of the failure, in seconds since 1970
---@field last number

-- Appends what the transforms from this one on make of an event to parts.
local function apply(transforms, index, event, parts, progress)
  local transform = transforms[index]
  if not transform then
    parts[#parts + 1] = event
    return
  end
  progress.transform = transform.name
  local result = transform.run(event)
  if not result then return end
  if type(result) ~= "table" then error(("returned a %s; expected an event, a list of events or nil"):format(type(result)), 0) end
  if result[1] == nil then
    if next(result) ~= nil then apply(transforms, index + 1, result, parts, progress) end
    return
  end
  local count = #result
  for key in pairs(result) do
    if type(key) == "number" and key > count then error("returned a list with holes; expected events", 0) end
  end
  for position = 1, count do
    local part = result[position]
    progress.transform = transform.name
    if type(part) ~= "table" then error(("returned a list with a %s in it; expected events"):format(type(part)), 0) end
    if next(part) ~= nil then apply(transforms, index + 1, part, parts, progress) end
  end
end

-- The entry of each event table that the host made: such a table is written in canonical form, whatever was done to it.
local function origins()
  return setmetatable({}, { __mode = "k" })
end

--- The loop of a pipeline. start() begins it; close() closes the dispatcher.
---@param definition table from llmproxy.config: transforms, dispatcher, batch, concurrency, retry, bus
---@param host table see src/pipeline/host.h
---@return { start: fun(), close: fun() }
function pipeline.new(definition, host)
  local transforms, limits, dispatcher = definition.transforms, definition.batch, definition.dispatcher.object
  local report, report_failure = reports.new(host.has_dead_letters)
  if host.tells_failures then report_failure = function() end end
  local entry_of = origins()
  local filling = { bytes = 0 } -- items of the next batch
  local progress = {} -- entry: being transformed and encoded; transform: which one runs, or ran
  local slice_end = 0
  local events = host.fetches and source.new(definition, host, report) or nil

  local function fail(entry, failure)
    entry:fail(failure.reason, failure.error, failure.where, failure.tries, failure.first, failure.last)
  end

  -- Of what was not given to the dispatcher.
  local function failure_of(reason, why)
    local now = time.now()
    return { reason = reason, error = reports.text(why, LONGEST_REASON), where = progress.transform, tries = 0, first = now, last = now }
  end

  -- Nothing here or in `fail` needs memory: it cannot stop half-way.
  local function settle(group, failure)
    group.failure = group.failure or failure
    group.open = group.open - 1
    if group.open > 0 then return end
    if group.failure then fail(group.entry, group.failure) else group.entry:settle "delivered" end
  end

  local function finish(item, failure)
    if item.finished then return end
    item.finished = true
    settle(item.group, failure)
    if failure then report_failure(item.entry:id(), failure) end
  end

  local function fail_whole(entry, why)
    local failure = failure_of("transform_error", why)
    fail(entry, failure)
    report_failure(entry:id(), failure)
  end

  local deliveries = delivery.new(definition, host, report, finish)

  -- Whether nothing is to be begun any more.
  local function ends() return host.retiring() or deliveries.has_given_up() end

  local function dispatch()
    while deliveries.in_flight() >= definition.concurrency and not ends() do host.wait() end
    local empty = { bytes = 0 }
    deliveries.start(filling) -- raises for want of memory: then they are still here
    filling = empty
  end

  local function add(item)
    if filling[1] and filling.bytes + item.bytes > limits.max_bytes then dispatch() end
    if not filling[1] then filling.deadline = time.monotonic() + limits.max_wait end
    filling[#filling + 1] = item
    filling.bytes = filling.bytes + item.bytes
    if #filling >= limits.max_events or filling.bytes >= limits.max_bytes then dispatch() end
  end

  local function encode(entry, event)
    if event == nil then return entry:encode() end
    local origin = entry_of[event]
    if origin then return origin:encode(event) end
    return host.encode(event)
  end

  -- Makes an item of a part and adds it. One that cannot be written fails.
  local function add_part(group, event)
    local fine, line, bytes = host.forget(pcall(encode, group.entry, event))
    if not fine then line, bytes = nil, line end
    if line then
      add { entry = group.entry, group = group, event = event, line = line, bytes = bytes }
    else
      local failure = failure_of("rejected", bytes)
      settle(group, failure)
      report_failure(group.entry:id(), failure)
    end
  end

  -- Goes on with what the predecessor left of an entry. A key without a value has none in the events that the host makes.
  local function inherit(entry, lines, failure)
    local group = { entry = entry, open = #lines, failure = failure }
    for _, text in ipairs(lines) do
      local event = json.decode(text)
      for key, value in pairs(event) do
        if value == json.null then event[key] = nil end
      end
      local line, bytes = host.encode(json.raw(text))
      add { entry = entry, group = group, event = event, line = line, bytes = bytes }
    end
  end

  local function leave(items)
    for _, item in ipairs(items) do
      if not item.finished then
        item.finished = true
        local failure = item.group.failure or {}
        item.entry:leave(item.line, failure.reason, failure.error, failure.where, failure.tries, failure.first, failure.last)
      end
    end
  end

  local function transform(entry, parts)
    progress.transform = nil
    local event = entry:event()
    entry_of[event] = entry
    apply(transforms, 1, event, parts, progress)
  end

  local function process(entry)
    progress.entry = entry
    local lines, reason, message, where, tries, first, last = entry:legacy()
    if lines then
      entry:release()
      inherit(entry, lines, reason and { reason = reason, error = message, where = where, tries = tries, first = first, last = last })
    elseif not transforms[1] then
      add_part({ entry = entry, open = 1 }, nil)
    else
      local parts = {}
      local fine, why = host.forget(xpcall(transform, host.note, entry, parts))
      if not fine then
        fail_whole(entry, why)
      elseif not parts[1] then
        entry:settle "filtered"
      else
        local group = { entry = entry, open = #parts }
        for _, part in ipairs(parts) do add_part(group, part) end
        entry:release()
      end
    end
    progress.entry = nil
  end

  -- After the task was stopped by an error: by runaway code in a transform, or for want of memory.
  local falls = 0 -- of the loop, one on the heels of the other

  local function recover()
    falls = falls + 1
    local _, why = pcall(host.failure) -- which may want for memory too
    if falls > 1 then time.sleep(math.min(LONGEST_FALL, FIRST_FALL * 2 ^ falls)) end
    local entry = progress.entry
    if not entry then
      return report("error", "stopped", "the pipeline's loop was stopped by an error and goes on", { error = reports.text(why) })
    end
    fail_whole(entry, why) -- raises for want of memory: then it is tried again
    progress.entry = nil
    falls = 0
  end

  local function close_plugin(kind, name, object)
    if type(object.close) ~= "function" then return end
    local fine, why = host.forget(xpcall(object.close, host.note, object))
    if not fine then log.error(("the %s's close failed"):format(kind), { [kind] = name, error = reports.text(why) }) end
  end

  local steps = {} -- of closing, each begun once

  function steps.source(hurried)
    if events then events.finish(hurried) end
  end

  function steps.leave()
    if not host.retiring() or events then return end
    deliveries.each_open(leave)
    leave(filling)
  end

  function steps.dispatcher() close_plugin("dispatcher", definition.dispatcher.name, dispatcher) end

  function steps.bus()
    if definition.bus then close_plugin("bus", definition.bus.name, definition.bus.object) end
  end

  local ORDER = { "source", "leave", "dispatcher", "bus" }
  local step = 0

  -- Goes on with the next step when one was stopped. hurried: what was fetched may stay undelivered, and little time is left.
  local function close(hurried, failed)
    if step > 0 and not failed then return end
    if failed then report("error", "close", "the end of the pipeline was stopped by an error and goes on", { step = ORDER[step], error = reports.text(host.failure()) }) end
    while step < #ORDER do
      step = step + 1
      steps[ORDER[step]](hurried)
    end
    host.closed()
  end

  local function run(_, failed)
    if failed and step > 0 then
      close(false, true)
      return host.drained()
    end
    if failed then recover() end
    while true do
      local now = time.monotonic()
      if now > slice_end then
        time.sleep(0)
        now = time.monotonic()
        slice_end = now + SLICE
      end
      local ending = ends()
      local late = filling[1] and now >= filling.deadline + GRACE
      local entry = not late and not ending and host.take()
      if ending then
        if deliveries.in_flight() == 0 then break end
        host.wait()
      elseif entry then
        process(entry)
      elseif filling[1] and now >= filling.deadline then
        dispatch()
      elseif not filling[1] and not host.draining() then
        host.wait()
      elseif filling[1] then
        if host.draining() then dispatch() else host.wait(filling.deadline - now, limits.max_events - #filling) end
      elseif deliveries.in_flight() > 0 then
        host.wait()
      else
        break
      end
    end
    close(false)
    host.drained()
  end

  return {
    start = function()
      if events then events.start() end
      host.spawn(run)
    end,
    close = function() host.spawn(close, true) end,
  }
end

return pipeline
