--- NAME: where events are kept between proxies and pipelines. The queue's documentation: https://…
local codec = require "llmproxy.codec"
local http = require "llmproxy.http"
local json = require "llmproxy.json"
local verdict = require "llmproxy.verdict"

-- The body of an answer, or nil and why there is none.
local function body_of(response, reason)
  if not response then return nil, reason end
  if response.status >= 300 then return nil, ("answered %d"):format(response.status) end
  return response.body
end

return {
  kind = "bus",
  api = 1,
  summary = "A queue that speaks HTTP.",
  settings = {
    url = { type = "url", required = true, doc = "the queue's address" },
  },
  batch = { max_events = 200, max_wait = 0.05 },
  new = function(settings)
    local url = settings.url:gsub("/+$", "")
    return {
      -- Called for each batch of events, and again until the verdict says that it is through.
      publish = function(_, batch)
        return verdict.from_http(http.post { url = url .. "/messages", headers = { ["content-type"] = "application/x-ndjson" }, body = batch:json_lines() })
      end,

      -- Called for each pipeline: options.name is its name, which all that share its work have.
      subscribe = function(_, options)
        local group = ("%s/groups/%s"):format(url, codec.url.encode(options.name))
        local made, reason = body_of(http.put { url = group, query = { from = options.from } })
        if not made then return nil, reason end
        return {
          -- A list of messages, perhaps empty: { event = "{…}", and what ack wants to find again }.
          fetch = function(_, max, wait)
            local body, why = body_of(http.get { url = group .. "/messages", query = { consumer = options.consumer, max = max, wait = wait }, timeout = wait + 10, max_response_bytes = 64 * 2 ^ 20 })
            if not body then return nil, why end
            return json.decode(body)
          end,
          -- These need not come again.
          ack = function(_, messages)
            local ids = json.array {}
            for index, message in ipairs(messages) do ids[index] = message.id end
            local done, why = body_of(http.post { url = group .. "/ack", body = json.encode(ids) })
            return done and true, why
          end,
        }
      end,
    }
  end,
}
