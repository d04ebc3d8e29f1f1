--- Log lines about a pipeline's events: at most one a second for one subject, the next one telling how many there were in between.
local log = require "llmproxy.log"
local time = require "llmproxy.time"

local reports = {}

local INTERVAL = 1

-- Reasons of errors and destinations may be long, and may quote what they were given.
local LONGEST = 200

-- What would have kept an event that is dropped for this reason.
local SETTINGS = { expired = "retry.max_age" }

local MESSAGES = {
  expired = "event dropped: it could not be delivered in time",
  rejected = "event dropped: it can never be delivered",
  transform_error = "event dropped: a transform failed",
}

--- An error object of any kind as a text of bounded length.
---@param value any
---@return string
function reports.text(value)
  local fine, text = pcall(tostring, value)
  if fine and type(value) ~= "string" and type(text) == "string" and text:find("^" .. type(value) .. ": ") then text = ("raised a %s instead of a message"):format(type(value)) end
  if not fine or type(text) ~= "string" then text = "an error that is no text" end
  return #text > LONGEST and text:sub(1, LONGEST) .. "…" or text
end

--- Two functions with one memory: what is reported, and for dropped events.
---@return fun(level: string, subject: string, message: string, fields: table) report
---@return fun(reason: string, id: string, why: any, transform: string?) drop_report
function reports.new()
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

  local function drop_report(reason, id, why, transform)
    report("warn", reason, MESSAGES[reason], {
      reason = reason, event = id, transform = transform, error = why and reports.text(why), setting = SETTINGS[reason],
    })
  end

  return report, drop_report
end

return reports
