--- What a dispatcher says about a batch it was given.
--
-- A verdict is a plain table: { verdict = "ok" | "retry" | "split" | "reject" | "pause" | "partial", after, reason, retry, reject }.
--
--     ok       all delivered
--     retry    nobody's fault: again later, with growing delays; after (seconds) is the least delay
--     split    too large, or one of several is bad: halve the batch; a single event that comes to this is rejected
--     reject   these events can never be delivered: to the dead letters
--     pause    address or credentials are wrong, the events are not: keep everything, say so, probe slowly
--     partial  retry: indexes of batch.events to try again; reject: reasons by index; the others are delivered
--
-- A wrong word here would count events as delivered that are not: what is unknown or of the wrong kind raises.
local time = require "llmproxy.time"
local words = require "llmproxy.settings.words"

local verdict = {}

-- The longest wait that a destination can ask for: what it said last week need not be true any more.
local LONGEST_WAIT = 86400

local function expect(value, kind, what, level)
  if value ~= nil and type(value) ~= kind then error(("%s: expected a %s, got a %s"):format(what, kind, type(value)), level or 3) end
  return value
end

local RETRY_OPTIONS = { after = "number", reason = "string" }
local PARTIAL_OPTIONS = { retry = "table", reject = "table", after = "number", reason = "string" }

-- The options as they are, or {}.
local function checked(options, known, what)
  options = expect(options, "table", what, 4) or {}
  for key, value in pairs(options) do
    if not known[key] then error(("%s: unknown key '%s'%s"):format(what, tostring(key), words.hint(key, words.sorted_keys(known))), 3) end
    expect(value, known[key], what .. ": " .. key, 4)
  end
  return options
end

---@class llmproxy.verdict
---@field verdict "ok"|"retry"|"split"|"reject"|"pause"|"partial"
---@field after? number
---@field reason? string
---@field retry? integer[]
---@field reject? table<integer, string>

--- Delivered.
---@return llmproxy.verdict
function verdict.ok()
  return { verdict = "ok" }
end

--- Not now: try again later.
---@param options? { after?: number, reason?: string } after: seconds to wait at least
---@return llmproxy.verdict
function verdict.retry(options)
  options = checked(options, RETRY_OPTIONS, "verdict.retry")
  return { verdict = "retry", after = options.after, reason = options.reason }
end

--- Never: these events go to the dead letters.
---@param reason string
---@return llmproxy.verdict
function verdict.reject(reason)
  return { verdict = "reject", reason = expect(reason, "string", "verdict.reject") }
end

--- Not together: try each half.
---@param reason? string why a single event would be rejected in the end
---@return llmproxy.verdict
function verdict.split(reason)
  return { verdict = "split", reason = expect(reason, "string", "verdict.split") }
end

--- Not before somebody mended the settings of this destination (or the destination).
---@param reason string
---@return llmproxy.verdict
function verdict.pause(reason)
  return { verdict = "pause", reason = expect(reason, "string", "verdict.pause") }
end

--- Some of them: what is named neither in retry nor in reject is delivered.
---@param options { retry?: integer[], reject?: table<integer, string>, after?: number, reason?: string }
---@return llmproxy.verdict
function verdict.partial(options)
  options = checked(options, PARTIAL_OPTIONS, "verdict.partial")
  local retry, reject = options.retry or {}, options.reject or {}
  for position, index in pairs(retry) do
    if type(position) ~= "number" then error(("verdict.partial: retry: expected a list of indexes, got the key '%s'"):format(tostring(position)), 2) end
    if type(index) ~= "number" then error(("verdict.partial: retry: expected indexes, got a %s"):format(type(index)), 2) end
  end
  for index, reason in pairs(reject) do
    if type(index) ~= "number" then error(("verdict.partial: reject: expected indexes as keys, got '%s'"):format(tostring(index)), 2) end
    if type(reason) ~= "string" then error(("verdict.partial: reject[%d]: expected a reason, a string, got a %s"):format(index, type(reason)), 2) end
  end
  return { verdict = "partial", retry = retry, reject = reject, after = options.after, reason = options.reason }
end

-- Seconds that Retry-After asks for.
local function wanted_wait(headers)
  local value = type(headers) == "table" and headers["retry-after"]
  if type(value) ~= "string" then return nil end
  local wait = value:match("^%d+$") and tonumber(value)
  if not wait then
    local moment = time.parse(value)
    wait = moment and math.max(0, moment - time.now())
  end
  return wait and math.min(wait, LONGEST_WAIT)
end

local RETRY = { [408] = true, [425] = true, [429] = true }
local SPLIT = { [400] = true, [413] = true }
local REJECT = { [422] = true }

--- The verdict on an HTTP request: what a destination's status usually means. Takes what http.request returned.
---@param response? { status: integer, headers?: table<string, string> } nil: there was none
---@param reason? string why there was none
---@return llmproxy.verdict
function verdict.from_http(response, reason)
  if not response then return verdict.retry { reason = reason or "no response" } end
  expect(response, "table", "verdict.from_http: response")
  local status = response.status
  if type(status) ~= "number" then error(("verdict.from_http: response.status: expected a number, got a %s"):format(type(status)), 2) end
  if status >= 200 and status < 300 then return verdict.ok() end
  local answered = ("answered %d"):format(status)
  if RETRY[status] or status >= 500 then return verdict.retry { after = wanted_wait(response.headers), reason = answered } end
  if SPLIT[status] then return verdict.split(answered) end
  if REJECT[status] then return verdict.reject(answered) end
  return verdict.pause(answered)
end

return verdict
