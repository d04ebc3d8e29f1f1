--- Tells a Slack channel about calls that failed: one message for all failures of a while, with the most frequent first.
--
-- https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
local http = require "llmproxy.http"
local json = require "llmproxy.json"
local time = require "llmproxy.time"
local verdict = require "llmproxy.verdict"

local function failure(event)
  local llm_error = event.llm and event.llm.error
  if event.error then return event.error.kind end
  if llm_error then return llm_error.type or llm_error.code or "error" end
  return event.status >= 400 and ("status %d"):format(event.status)
end

-- "&", "<" and ">" are Slack's own.
local function escaped(text)
  return (text:gsub("&", "&amp;"):gsub("<", "&lt;"):gsub(">", "&gt;"))
end

local function message(counts, total)
  local names, lines = {}, {}
  for name in pairs(counts) do names[#names + 1] = name end
  table.sort(names, function(a, b) return counts[a] > counts[b] or counts[a] == counts[b] and a < b end)
  for index = 1, math.min(#names, 10) do lines[index] = ("• %d × %s"):format(counts[names[index]], escaped(names[index])) end
  return ("*%d LLM calls failed*\n%s"):format(total, table.concat(lines, "\n"))
end

return {
  kind = "dispatcher",
  api = 1,
  summary = "Posts to a Slack channel when calls fail.",
  settings = {
    url = { type = "url", required = true, secret = true, doc = "the channel's incoming webhook" },
    at_least = { type = "integer", min = 1, default = 1, doc = "failures in a batch that are worth a message" },
    interval = { type = "duration", default = "10s", max = "10m", doc = "at most one message in this time: failures wait for the next one, together" },
  },
  batch = { max_events = 1000, max_wait = 5 },
  new = function(settings)
    local next_time = -math.huge
    return {
      deliver = function(_, batch)
        local counts, total = {}, 0
        for _, event in ipairs(batch.events) do
          local kind = failure(event)
          if kind then
            local name = ("%s %s: %s"):format(event.route or "no route", event.path, kind)
            counts[name], total = (counts[name] or 0) + 1, total + 1
          end
        end
        if total < settings.at_least then return verdict.ok() end
        local wait = next_time - time.monotonic()
        next_time = math.max(next_time, time.monotonic()) + settings.interval
        if wait > 0 then time.sleep(wait) end -- nothing but this delivery waits
        local body = json.encode { text = message(counts, total) }
        return verdict.from_http(http.post { url = settings.url, headers = { ["content-type"] = "application/json" }, body = body })
      end,
    }
  end,
}
