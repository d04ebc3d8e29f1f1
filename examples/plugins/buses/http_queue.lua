--- Events on a queue that speaks HTTP: many proxies publish to it, and many share the work of each pipeline, which is a group of the queue.
--
--     PUT  URL/queues/NAME/groups/GROUP?from=newest|oldest   the group exists from now on, and begins there if it is new
--     POST URL/queues/NAME/messages                          JSON, one event a line
--     GET  …/groups/GROUP/messages?consumer=…&max=…&wait=…&lease=…   waits for some; [{ "lease", "id", "attempts", "event" }, …]: this consumer's until the lease ends
--     POST …/groups/GROUP/ack, …/groups/GROUP/release        a JSON array of leases
local codec = require "llmproxy.codec"
local http = require "llmproxy.http"
local json = require "llmproxy.json"
local verdict = require "llmproxy.verdict"

local MOST_BYTES = 64 * 2 ^ 20 -- of an answer

-- The body of an answer; nil and why there is none. A group that is gone raises: then there is a new subscription, which makes it again.
local function answer(response, reason)
  if not response then return nil, reason end
  if response.status == 404 then error("the queue has forgotten the group", 0) end
  if response.status >= 300 then return nil, ("answered %d"):format(response.status) end
  if response.truncated then return nil, "the answer is too large" end
  return response.body
end

local function subscription(settings, group, consumer)
  local query = ("?consumer=%s&lease=%g"):format(codec.url.encode(consumer), settings.lease)

  local function tell(what, messages)
    local leases = json.array()
    for index, message in ipairs(messages) do leases[index] = message.lease end
    local body, reason = answer(http.post { url = group .. what, body = json.encode(leases) })
    return body and true, reason
  end

  return {
    fetch = function(_, max, wait)
      local url = ("%s/messages%s&max=%d&wait=%g"):format(group, query, max, wait)
      local body, reason = answer(http.get { url = url, timeout = wait + 10, max_response_bytes = MOST_BYTES })
      if not body then return nil, reason end
      return json.decode(body)
    end,
    ack = function(_, messages) return tell("/ack", messages) end,
    release = function(_, messages) return tell("/release", messages) end,
    lag = function()
      local body = answer(http.get { url = group })
      return body and json.decode(body).waiting
    end,
  }
end

return {
  kind = "bus",
  api = 1,
  summary = "A queue that speaks HTTP.",
  settings = {
    url = { type = "url", required = true, doc = "of the queue's server" },
    name = { type = "string", default = "events", min = 1, doc = "of the queue" },
    lease = { type = "duration", default = 30, min = 0.1, max = 3600, doc = "how long a message is a consumer's before others get it" },
  },
  batch = { max_events = 200, max_bytes = "1MiB", max_wait = 0.05 },
  new = function(settings)
    local queue = ("%s/queues/%s"):format(settings.url:gsub("/+$", ""), codec.url.encode(settings.name))
    return {
      publish = function(_, batch)
        local headers = { ["content-type"] = "application/x-ndjson" }
        return verdict.from_http(http.post { url = queue .. "/messages", headers = headers, body = batch:json_lines() })
      end,
      subscribe = function(_, options)
        local group = ("%s/groups/%s"):format(queue, codec.url.encode(options.name))
        local response, reason = http.request { method = "PUT", url = ("%s?from=%s"):format(group, options.from) }
        if not response or response.status >= 300 then return nil, reason or ("answered %d"):format(response.status) end
        return subscription(settings, group, options.consumer)
      end,
    }
  end,
}
