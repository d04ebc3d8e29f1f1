--- Deliveries: tasks that give batches to the dispatcher and act on its verdicts.
--
-- A delivery has a stack of batches, at first one. The top one is tried until it is settled; `split` puts its halves in its place. So a delivery holds what it began with and never more,
-- and ends when the stack is empty, or without another try when the pipeline retires.
--
-- While the pipeline drains what cannot be delivered at once is tried again for as long as there is time, or left on a bus that keeps events: the first failure then ends all deliveries.
local batch = require "llmproxy.pipeline.batch"
local reports = require "llmproxy.pipeline.reports"
local time = require "llmproxy.time"

local delivery = {}

local LONGEST_WAIT = 86400

-- While the pipeline drains there is little time left: waits are no longer than this, and one that is under way ends within STEP.
local LONGEST_WAIT_DRAINING, STEP = 1, 0.1

-- A task that falls again as soon as it is begun anew, as for want of memory, is begun later and later, in seconds.
local FIRST_FALL, LONGEST_FALL = 0.001, 1

-- Of a reason that is kept with an event, in bytes.
local LONGEST_REASON = 1000

-- What metrics say about a delivery.
local DELIVERS, TRIES_AGAIN, IS_PAUSED = 0, 1, 2

local OK = { verdict = "ok" }
local VERDICTS = { ok = true, retry = true, split = true, reject = true, pause = true, partial = true }

---@class llmproxy.pipeline.tray a batch between tries
---@field items llmproxy.pipeline.item[]
---@field attempts integer
---@field failures integer in a row
---@field since number? when it was tried first, later by the pauses it had: how old it is
---@field first number? when it was tried first, in seconds since 1970
---@field last number? when it was tried last

-- Why the indexes of a partial verdict are none, if so.
local function wrong_indexes(verdict, count)
  for _, name in ipairs { "retry", "reject" } do
    local list = verdict[name]
    if list ~= nil and type(list) ~= "table" then return ("a partial verdict whose %s is a %s"):format(name, type(list)) end
    for key, value in pairs(list or {}) do
      local index = name == "retry" and value or key
      if type(index) ~= "number" or index < 1 or index > count or index % 1 ~= 0 then
        return ("a partial verdict that names event %s of %d"):format(reports.text(index), count)
      end
    end
  end
end

-- Why this is no verdict, if so.
local function wrong_verdict(result, count)
  if type(result) ~= "table" then return "a " .. type(result) end
  if not VERDICTS[result.verdict] then return "a table without a known verdict" end
  local after = result.after
  if after ~= nil and not (type(after) == "number" and after >= 0) then return "a verdict whose after is no number of seconds" end
  return result.verdict == "partial" and wrong_indexes(result, count) or nil
end

-- The verdict in what xpcall(deliver) gave. nil and a message is how functions of the host say that they failed.
local function read_verdict(count, fine, result, message)
  if not fine then return { verdict = "retry", reason = result } end
  if result == true or (result == nil and message == nil) then return OK end
  if not result then return { verdict = "retry", reason = message or "deliver returned false" } end
  local wrong = wrong_verdict(result, count)
  if wrong then return { verdict = "retry", reason = ("deliver returned %s; expected what llmproxy.verdict makes, or nothing"):format(wrong) } end
  return result
end

local function tray_of(items, parent)
  local from = parent or { attempts = 0 }
  return { items = items, attempts = from.attempts, failures = 0, since = from.since, first = from.first, last = from.last }
end

local function halves(tray)
  local first, second, middle = {}, {}, math.ceil(#tray.items / 2)
  for index, item in ipairs(tray.items) do
    local half = index <= middle and first or second
    half[#half + 1] = item
  end
  return tray_of(first, tray), tray_of(second, tray)
end

--- The deliveries of one pipeline.
---@param definition table from llmproxy.config
---@param host table see src/pipeline/host.h
---@param report fun(level: string, subject: string, message: string, fields: table)
---@param finish fun(item: llmproxy.pipeline.item, failure: llmproxy.pipeline.failure?) settles an item: delivered, or failed
---@return { start: fun(items: llmproxy.pipeline.item[]), in_flight: fun(): integer, has_given_up: fun(): boolean, each_open: fun(visit: fun(items: llmproxy.pipeline.item[])) }
function delivery.new(definition, host, report, finish)
  local retry = definition.retry
  local dispatcher = host.no_delivery and { deliver = function() end } or definition.dispatcher.object
  local make_batch = batch.maker(host)
  local in_flight, paused, failing, given_up = 0, false, false, false
  local stacks = {} -- that are not empty, the oldest first; state: what metrics say

  local function ends() return given_up or host.retiring() end

  local function tell(stack, state)
    stack.state = state
    local worst = DELIVERS
    for _, other in ipairs(stacks) do worst = math.max(worst, other.state) end
    host.state(worst)
  end

  local function failure_of(tray, reason, why)
    return {
      reason = reason, error = why ~= nil and reports.text(why, LONGEST_REASON) or nil, where = definition.dispatcher.name,
      tries = tray.attempts, first = tray.first, last = tray.last,
    }
  end

  local function finish_all(stack, tray, failure)
    for _, item in ipairs(tray.items) do finish(item, failure) end
    stack[#stack] = nil
  end

  local function describe(tray, outcome, delay)
    return {
      dispatcher = definition.dispatcher.name, reason = reports.text(outcome.reason or "not told"), attempt = tray.attempts, events = #tray.items,
      seconds_until_next = delay and math.floor(delay * 1000 + 0.5) / 1000,
    }
  end

  -- A wait of at least `least` seconds, as long as it may be now.
  local function shortened(seconds, least)
    return host.draining() and math.max(least, math.min(seconds, LONGEST_WAIT_DRAINING)) or seconds
  end

  -- Sleeps for so many seconds, at least for `least`; less when draining begins; no more when the deliveries are to end, or with the pause that is slept out.
  local function nap(seconds, least, pausing)
    local now, draining = time.monotonic(), host.draining()
    local due, earliest = now + shortened(seconds, least), now + least
    while not ends() and (paused or not pausing) do
      time.sleep(math.max(0, math.min(due - now, STEP)))
      now = time.monotonic()
      if now >= due or (not draining and now >= earliest and host.draining()) then break end
    end
  end

  -- Whether a batch that failed is left where the bus keeps it.
  local function gives_up(tray, outcome)
    if not (host.keeps_events and host.draining()) then return false end
    if not given_up then report("warn", "left", "the pipeline ends before its destination takes the events: they stay on the bus until the next start", describe(tray, outcome)) end
    given_up = true
    host.wake()
    return true
  end

  -- The destination takes something: whoever sleeps out a pause need not any more.
  local function accepted(stack)
    tell(stack, DELIVERS)
    if paused or failing then
      paused, failing = false, false
      report("info", "delivering", "the pipeline delivers again", { dispatcher = definition.dispatcher.name })
    end
  end

  local handle = {}

  function handle.ok(stack, tray)
    finish_all(stack, tray)
    accepted(stack)
  end

  function handle.reject(stack, tray, outcome)
    finish_all(stack, tray, failure_of(tray, "rejected", outcome.reason))
  end

  function handle.split(stack, tray, outcome)
    if #tray.items == 1 then return handle.reject(stack, tray, outcome) end
    local first, second = halves(tray)
    stack[#stack + 1] = first -- before it takes the other's place: it may be the one that finds no memory
    stack[#stack - 1] = second
  end

  -- Full jitter: many pipelines that failed together do not come back together. The last try is when the events become too old, unless the destination wants to be left alone until later.
  function handle.retry(stack, tray, outcome)
    local left = (retry.max_age or math.huge) - (time.monotonic() - tray.since)
    local after = math.min(outcome.after or 0, LONGEST_WAIT)
    if left <= 0 or after > left then return finish_all(stack, tray, failure_of(tray, "expired", outcome.reason)) end
    if gives_up(tray, outcome) then return end
    local longest = math.min(retry.max_delay, retry.min_delay * 2 ^ tray.failures, left)
    local delay = math.max(after, math.random() * longest)
    tray.failures = tray.failures + 1
    failing = true
    tell(stack, TRIES_AGAIN)
    report("warn", "retry", "events could not be delivered: another try follows", describe(tray, outcome, shortened(delay, after)))
    nap(delay, after)
  end

  -- Not the events are at fault but the settings: nothing gets old while somebody mends them.
  function handle.pause(stack, tray, outcome)
    if gives_up(tray, outcome) then return end
    if not paused then
      paused = true
      report("error", "pause", "the pipeline is paused: its destination refuses it, check address and credentials; nothing is lost while there is room for what waits",
        describe(tray, outcome, shortened(retry.max_delay, 0)))
    end
    tell(stack, IS_PAUSED)
    local began = time.monotonic()
    nap(retry.max_delay, 0, true)
    local lasted = time.monotonic() - began
    for _, waiting in ipairs(stack) do waiting.since = waiting.since and waiting.since + lasted end
  end

  function handle.partial(stack, tray, outcome)
    local again, items, rejected = {}, {}, outcome.reject or {}
    for _, index in pairs(outcome.retry or {}) do again[index] = true end -- a list with holes counts as well
    for index, item in ipairs(tray.items) do
      if again[index] then
        items[#items + 1] = item
      elseif rejected[index] ~= nil then
        finish(item, failure_of(tray, "rejected", rejected[index]))
      else
        finish(item)
      end
    end
    if #items < #tray.items then
      tray.failures = 0
      accepted(stack)
    end
    tray.items = items
    if items[1] then return handle.retry(stack, tray, outcome) end
    stack[#stack] = nil
  end

  local function try(tray)
    tray.attempts = tray.attempts + 1
    local started = time.monotonic()
    tray.since, tray.last = tray.since or started, time.now()
    tray.first = tray.first or tray.last
    local given = make_batch(tray.items, tray.attempts)
    local bytes = given.bytes
    local outcome = read_verdict(#tray.items, host.forget(xpcall(dispatcher.deliver, host.note, dispatcher, given)))
    host.observe(time.monotonic() - started, #tray.items, bytes)
    return outcome
  end

  -- After runaway code ended the task: the event at fault is found by halving.
  local function work(stack, failed)
    if failed then
      stack.falls = stack.falls + 1
      local _, why = pcall(host.failure) -- which may want for memory too
      if stack.falls > 1 then time.sleep(math.min(LONGEST_FALL, FIRST_FALL * 2 ^ stack.falls)) end
      local outcome, tray = { reason = why }, stack[#stack]
      if not tray or tray.items[2] then
        report("error", "stopped", "a delivery was stopped by an error: the event at fault is looked for", {
          dispatcher = definition.dispatcher.name, events = tray and #tray.items, error = reports.text(outcome.reason),
        })
      end
      if tray then handle.split(stack, tray, outcome) end
    end
    while stack[1] and not ends() do
      local tray = stack[#stack]
      local outcome = try(tray)
      time.sleep(0) -- what follows shall not be stopped for the time that deliver took
      stack.falls = 0
      handle[outcome.verdict](stack, tray, outcome)
    end
    for index = 1, stack[1] and 0 or #stacks do
      if stacks[index] == stack then table.remove(stacks, index) break end
    end
    tell(stack, DELIVERS)
    in_flight = in_flight - 1
    host.wake()
  end

  return {
    start = function(items)
      local stack = { state = DELIVERS, falls = 0, tray_of(items) }
      stacks[#stacks + 1] = stack
      host.spawn(work, stack) -- in the loop's next turn
      in_flight = in_flight + 1
    end,
    in_flight = function() return in_flight end,
    has_given_up = function() return given_up end,
    each_open = function(visit)
      for _, stack in ipairs(stacks) do
        for index = #stack, 1, -1 do visit(stack[index].items) end
      end
    end,
  }
end

return delivery
