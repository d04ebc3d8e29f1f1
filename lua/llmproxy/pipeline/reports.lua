--- Log lines about a pipeline's events: at most one a second for one subject, the next one telling how many there were in between.
local log = require "llmproxy.log"
local time = require "llmproxy.time"

local reports = {}

local INTERVAL = 1

-- Reasons of errors and destinations may be long, and may quote what they were given.
local LONGEST = 200

-- What would have kept an event that is dropped for this reason.
local SETTINGS = { expired = "retry.max_age", rejected = "observability.dead_letters", transform_error = "observability.dead_letters" }

local MESSAGES = {
  expired = "it could not be delivered in time",
  rejected = "it can never be delivered",
  transform_error = "a transform failed",
}

--- An error object of any kind as a text of bounded length.
---@param value any
---@param longest integer? in bytes
---@return string
function reports.text(value, longest)
  longest = longest or LONGEST
  local fine, text = pcall(tostring, value)
  if fine and type(value) ~= "string" and type(text) == "string" and text:find("^" .. type(value) .. ": ") then text = ("raised a %s instead of a message"):format(type(value)) end
  if not fine or type(text) ~= "string" then text = "an error that is no text" end
  return #text > longest and text:sub(1, longest) .. "…" or text
end

--- Two functions with one memory: what is reported, and for events that fail.
---@param has_dead_letters boolean they are kept there, else dropped
---@return fun(level: string, subject: string, message: string, fields: table) report
---@return fun(id: string, failure: llmproxy.pipeline.failure) report_failure
function reports.new(has_dead_letters)
  local next_time, held_back = {}, {}

  local function report(level, subject, message, fields)
    local now = time.monotonic()
    if now < (next_time[subject] or 0) then
      held_back[subject] = (held_back[subject] or 0) + 1
      return
    end
    next_time[subject] = now + INTERVAL
    fields.suppressed, held_back[subject] = held_back[subject], nil
    log[level](message, fields)
  end

  local function report_failure(id, failure)
    local reason = failure.reason
    report("warn", reason, (has_dead_letters and "event put to the dead letters: " or "event dropped: ") .. MESSAGES[reason], {
      reason = reason, event = id, where = failure.where, error = failure.error and reports.text(failure.error),
      setting = not has_dead_letters and SETTINGS[reason] or nil,
    })
  end

  return report, report_failure
end

return reports
