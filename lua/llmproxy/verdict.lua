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
local time = require "llmproxy.time"

local verdict = {}

-- The longest wait that a destination can ask for: what it said last week need not be true any more.
local LONGEST_WAIT = 86400

local function expect(value, kind, what)
  if value ~= nil and type(value) ~= kind then error(("%s: expected a %s, got a %s"):format(what, kind, type(value)), 3) end
  return value
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
  options = expect(options, "table", "verdict.retry") or {}
  return { verdict = "retry", after = expect(options.after, "number", "verdict.retry: after"), reason = expect(options.reason, "string", "verdict.retry: reason") }
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
  options = expect(options, "table", "verdict.partial") or {}
  return {
    verdict = "partial",
    retry = expect(options.retry, "table", "verdict.partial: retry") or {},
    reject = expect(options.reject, "table", "verdict.partial: reject") or {},
    after = expect(options.after, "number", "verdict.partial: after"),
    reason = expect(options.reason, "string", "verdict.partial: reason"),
  }
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
  local status = response.status
  if status >= 200 and status < 300 then return verdict.ok() end
  local answered = ("answered %d"):format(status)
  if RETRY[status] or status >= 500 then return verdict.retry { after = wanted_wait(response.headers), reason = answered } end
  if SPLIT[status] then return verdict.split(answered) end
  if REJECT[status] then return verdict.reject(answered) end
  return verdict.pause(answered)
end

return verdict
