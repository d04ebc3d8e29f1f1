--- NAME: where events go, and in which form. The destination's documentation: https://…
local http = require "llmproxy.http"
local json = require "llmproxy.json"
local verdict = require "llmproxy.verdict"

local function record_of(event)
  return { id = event.id, time = event.time, path = event.path, status = event.status, usage = event.llm and event.llm.usage }
end

return {
  kind = "dispatcher",
  api = 1,
  summary = "Posts records of calls to a collector.",
  settings = {
    url = { type = "url", required = true, doc = "the collector's address" },
    token = { type = "string", secret = true, doc = "its token" },
    timeout = { type = "duration", default = "10s", min = 0.1, doc = "for one batch" },
  },
  batch = { max_events = 500, max_wait = 2 },
  new = function(settings)
    local headers = { ["content-type"] = "application/json", authorization = settings.token and "Bearer " .. settings.token }
    return {
      -- Called for each batch, and again until the verdict says that it is through. An event may come again later: its id is the same then.
      deliver = function(_, batch)
        local records = json.array {}
        for index, event in ipairs(batch.events) do records[index] = record_of(event) end
        local response, err = http.post { url = settings.url, headers = headers, body = json.encode(records), timeout = settings.timeout }
        return verdict.from_http(response, err)
      end,
    }
  end,
}
