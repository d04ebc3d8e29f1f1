--- Where a pipeline's events come from when the bus is a plugin: a subscription of its own, from which it fetches while there is room, and which it tells what it is through with.
--
--     subscription:fetch -> messages -> host.put -> … the pipeline's loop … -> host.settled -> subscription:ack
--
-- Two tasks: one fetches, one acknowledges; each goes on after whatever a plugin does: it waits, longer from failure to failure, and tries again. A call that raises may have left the
-- subscription in any state, so there is a new one after it.
--
-- At the end nothing is fetched any more. What is settled is acknowledged; the rest is given back, if the plugin can do that, or comes again when its bus notices.
local log = require "llmproxy.log"
local reports = require "llmproxy.pipeline.reports"
local time = require "llmproxy.time"

local source = {}

-- How long a fetch may wait for messages, in seconds: the end of a pipeline waits for it.
local WAIT = 1

-- A fetch that finds nothing before this time is followed by a pause: not every bus can wait.
local LEAST_WAIT = 0.05

-- Messages in one call.
local MOST_FETCHED, MOST_ACKNOWLEDGED = 500, 1000

-- While so many wait to be acknowledged nothing is fetched.
local MOST_UNACKNOWLEDGED = 10000

-- No wait after a failure is longer, whatever the pipeline's retry says: a bus that is back is not to be left alone.
local LONGEST_DELAY = 10

local LAG_INTERVAL = 10

-- At the end: how long the running fetch, and then the acknowledgements, may take, in seconds; and when there is no time left.
local PATIENCE, NO_PATIENCE = 2, 0.2

-- How long work on messages goes on before others of the thread have a turn.
local SLICE = 0.005

local ENDS = { subscribe = "cannot subscribe to the bus", fetch = "cannot fetch from the bus", ack = "cannot acknowledge to the bus" }

-- What is wrong with what a plugin's subscribe returned, if so.
local function wrong_subscription(made)
  if type(made) ~= "table" then return "subscribe returned a " .. type(made) end
  for _, name in ipairs { "fetch", "ack" } do
    if type(made[name]) ~= "function" then return ("the subscription has no function %s"):format(name) end
  end
end

-- A message is the plugin's; only its event is ours.
local function event_of(message) return message.event end

-- The messages of held in the order in which they came.
local function in_order(held)
  local sequences, messages = {}, {}
  for sequence in pairs(held) do sequences[#sequences + 1] = sequence end
  table.sort(sequences)
  for index, sequence in ipairs(sequences) do messages[index] = held[sequence] end
  return messages
end

local function split(list, most)
  local first, rest = {}, {}
  for index, item in ipairs(list) do
    local part = index <= most and first or rest
    part[#part + 1] = item
  end
  return first, rest
end

--- The source of one pipeline. start() begins it; finish(hurried) ends it, without patience if hurried.
---@param definition table from llmproxy.config: bus = { name, object, options }, retry
---@param host table see src/pipeline/host.h and source.h
---@param report fun(level: string, subject: string, message: string, fields: table)
---@return { start: fun(), finish: fun(hurried: boolean) }
function source.new(definition, host, report)
  local bus, retry = definition.bus, definition.retry
  local options = { name = bus.options.name, from = bus.options.from, consumer = host.consumer }
  local subscription
  local held = {} -- messages by their sequence: in the pipeline's hands
  local incoming = { list = {}, next = 1 } -- messages of the last fetch, and the first one that did not come in yet; current: the one that is being read
  local outbox = {} -- messages to be acknowledged
  local sending -- those that a call is made for
  local failures = { subscribe = 0, fetch = 0, ack = 0 } -- in a row
  local fetching, acknowledging, finishing = false, false, false
  local next_lag = 0

  local function ends() return finishing or host.draining() or host.retiring() end

  local function close(old)
    if subscription == old then subscription = nil end
    if old and type(old.close) == "function" then
      local fine, why = host.forget(xpcall(old.close, host.note, old))
      if not fine then report("warn", "close", "closing the subscription failed", { bus = bus.name, error = reports.text(why) }) end
    end
  end

  -- Counts a failure, tells the first one in a row, and waits.
  local function failed(operation, why, wait)
    host.bus_error(operation)
    failures[operation] = failures[operation] + 1
    if failures[operation] == 1 then
      report("warn", operation, "the pipeline " .. ENDS[operation] .. ": it is tried again until that works", { bus = bus.name, reason = reports.text(why or "not told") })
    end
    local longest = math.min(LONGEST_DELAY, retry.max_delay, retry.min_delay * 2 ^ (failures[operation] - 1))
    local due = time.monotonic() + math.random() * longest
    repeat
      local left = due - time.monotonic()
      if left > 0 and not ends() then wait(left) end
    until left <= 0 or ends()
  end

  local function worked(operation)
    if failures[operation] > 0 then log.info("the bus works again", { bus = bus.name, operation = operation, failures = failures[operation] }) end
    failures[operation] = 0
  end

  -- Calls a function of the subscription: true and what it returned, or false and why it raised.
  local function call(operation, ...)
    local mine = subscription
    local fine, result, why = host.forget(xpcall(mine[operation], host.note, mine, ...))
    if not fine then close(mine) end
    return fine, result, why
  end

  -- The same for one that has nothing to say but that it worked. False and why it did not.
  local function done(operation, messages)
    local fine, result, why = call(operation, messages)
    if fine and (result == true or result == nil and why == nil) then return true end
    if not fine then return false, result end
    return false, why or ("%s returned %s"):format(operation, reports.text(result))
  end

  local function subscribe()
    local fine, made, why = host.forget(xpcall(bus.object.subscribe, host.note, bus.object, options))
    local wrong = not fine and made or made == nil and why or wrong_subscription(made)
    if wrong then return failed("subscribe", wrong, host.wait_for_room) end
    subscription = made
    worked "subscribe"
    host.wake_source() -- acknowledgements may wait for it
  end

  local function drop_unreadable(message, why)
    host.unreadable()
    outbox[#outbox + 1] = message
    host.wake_source()
    local fine, id = pcall(function() return message.id end)
    report("warn", "unreadable", "event dropped: what the bus gave cannot be read as one", { bus = bus.name, message = fine and reports.text(id) or nil, reason = reports.text(why) })
  end

  local function put(message) return host.put(event_of(message)) end

  local function accept(message)
    local fine, sequence, why = host.forget(xpcall(put, host.note, message))
    if fine and sequence then
      held[sequence] = message
    else
      drop_unreadable(message, fine and why or sequence)
    end
  end

  -- What was fetched comes in, from the next one on, whatever stopped it before.
  local function accept_all()
    local slice_end = time.monotonic() + SLICE
    while incoming.list[incoming.next] ~= nil and not ends() do
      incoming.current = incoming.list[incoming.next]
      incoming.next = incoming.next + 1
      accept(incoming.current)
      incoming.current = nil
      if time.monotonic() > slice_end then
        time.sleep(0)
        slice_end = time.monotonic() + SLICE
      end
    end
  end

  local function room()
    if #outbox + host.settled_count() >= MOST_UNACKNOWLEDGED then return 0 end
    return math.min(host.room(), MOST_FETCHED)
  end

  local function look_at_lag()
    local now = time.monotonic()
    if not subscription or type(subscription.lag) ~= "function" or now < next_lag then return end
    next_lag = now + LAG_INTERVAL
    local fine, lag = call "lag"
    if fine and type(lag) == "number" and lag >= 0 then host.lag(lag) else host.bus_error "lag" end
  end

  local function fetch(most)
    local started = time.monotonic()
    local fine, messages, why = call("fetch", most, WAIT)
    if not fine then return failed("fetch", messages, host.wait_for_room) end
    if type(messages) ~= "table" then
      if messages ~= nil then why = ("fetch returned a %s; expected a list of messages"):format(type(messages)) end
      return failed("fetch", why, host.wait_for_room)
    end
    worked "fetch"
    incoming = { list = messages, next = 1 }
    local left = LEAST_WAIT - (time.monotonic() - started)
    if messages[1] == nil and left > 0 then time.sleep(left) end
  end

  -- What the next turn of fetching begins with after the last one was stopped: by runaway code, or for want of memory.
  local function recover()
    local why, message = host.failure(), incoming.current
    incoming.current = nil
    if message ~= nil then return drop_unreadable(message, why) end
    close(subscription)
    failed("fetch", why, host.wait_for_room)
  end

  local function fetch_on(_, was_stopped)
    if was_stopped then recover() end
    while not ends() do
      accept_all()
      local most = room()
      if not subscription then
        subscribe()
      elseif most < 1 then
        host.wait_for_room()
      else
        fetch(most)
        look_at_lag()
      end
    end
    fetching = false
  end

  local function collect_settled()
    local sequences = host.settled()
    for _, sequence in ipairs(sequences) do
      outbox[#outbox + 1] = held[sequence]
      held[sequence] = nil
    end
    return sequences[1] ~= nil
  end

  local function acknowledge()
    if not sending then sending, outbox = split(outbox, MOST_ACKNOWLEDGED) end
    local fine, why = done("ack", sending)
    if not fine then return failed("ack", why, host.wait_for_settled) end
    sending = nil
    worked "ack"
    host.wake_source() -- it may have been too much to fetch more
  end

  -- Goes on until all is acknowledged at the end, or the first failure then.
  local function acknowledge_on(_, was_stopped)
    if was_stopped then
      close(subscription)
      failed("ack", host.failure(), host.wait_for_settled)
    end
    while not (finishing and (failures.ack > 0 or not subscription)) do
      while collect_settled() do time.sleep(0) end
      if subscription and (sending or outbox[1]) then
        acknowledge()
      elseif finishing then
        break
      else
        host.wait_for_settled()
      end
    end
    acknowledging = false
  end

  local function wait_while(is_busy, patience)
    local deadline = time.monotonic() + patience
    while is_busy() and time.monotonic() < deadline do time.sleep(0.005) end
  end

  local function release()
    local messages = in_order(held)
    for index = incoming.next, #incoming.list do messages[#messages + 1] = incoming.list[index] end
    if not (messages[1] ~= nil and subscription and type(subscription.release) == "function") then return end
    local fine, why = done("release", messages)
    if fine then return end
    host.bus_error "release"
    report("warn", "release", "events could not be given back to the bus: they come again when it notices", { bus = bus.name, events = #messages, reason = reports.text(why) })
  end

  return {
    start = function()
      fetching, acknowledging = true, true
      host.spawn(fetch_on)
      host.spawn(acknowledge_on)
    end,
    finish = function(hurried)
      host.keep_letters()
      if not hurried then wait_while(function() return fetching end, PATIENCE) end
      finishing, failures.ack = true, 0
      host.wake_source()
      wait_while(function() return acknowledging end, hurried and NO_PATIENCE or PATIENCE)
      release()
      if subscription then close(subscription) end
    end,
  }
end

return source
