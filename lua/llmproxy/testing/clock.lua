--- The time that code under test sees: it stands still, and moves when somebody sleeps, or is told to.
--
-- A sleep takes no time. When all tasks sleep, the clock goes on to the moment when the first one is to wake up: so tasks that wait beside each other wake up in the order in which they would.
local real = require "llmproxy.time.real"

local clock = {}

-- 2026-01-02T03:04:05Z: every test begins then.
local BEGINNING = 1767323045

local now, elapsed = BEGINNING, 0
local sleepers, order = {}, 0

local function advance(seconds)
  now, elapsed = now + seconds, elapsed + seconds
end

local function is_first(sleeper)
  for other in pairs(sleepers) do
    if other.due < sleeper.due or other.due == sleeper.due and other.order < sleeper.order then return false end
  end
  return true
end

--- Waits until the clock has moved on by so many seconds, or woken() is true. Raises as time.sleep does where nothing can wait.
---@param seconds number math.huge: until woken
---@param woken? fun(): boolean
function clock.wait(seconds, woken)
  order = order + 1
  local sleeper = { due = elapsed + seconds, order = order }
  sleepers[sleeper] = true
  local fine, message = pcall(function()
    repeat
      real.sleep(0) -- whatever can run runs
      if woken and woken() then return end
    until is_first(sleeper) and sleeper.due < math.huge
    if sleeper.due > elapsed then advance(sleeper.due - elapsed) end
  end)
  sleepers[sleeper] = nil
  if not fine then error(message, 0) end
end

--- Moves the clock.
---@param seconds number
function clock.advance(seconds)
  if type(seconds) ~= "number" or seconds < 0 then error("clock.advance: expected seconds, 0 or more", 2) end
  advance(seconds)
end

--- Sets what time.now() tells; time.monotonic() goes on from where it is.
---@param moment number|string seconds since 1970, or "2026-01-02T03:04:05Z"
function clock.set(moment)
  local seconds = type(moment) == "string" and real.parse(moment) or moment
  if type(seconds) ~= "number" then error("clock.set: expected seconds since 1970 or a text as \"2026-01-02T03:04:05Z\"", 2) end
  now = seconds
end

--- Back to the beginning.
function clock.reset()
  now, elapsed, sleepers = BEGINNING, 0, {}
end

--- What stands for llmproxy.time.
clock.time = setmetatable({
  now = function() return now end,
  monotonic = function() return elapsed end,
  sleep = function(seconds)
    if type(seconds) ~= "number" or not (seconds > 0 and seconds <= 366 * 86400) then return real.sleep(seconds) end -- which says what is wrong with it
    clock.wait(seconds)
  end,
}, { __index = real })

return clock
