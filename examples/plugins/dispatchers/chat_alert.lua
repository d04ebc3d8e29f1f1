--- One message to a chat channel for each batch that has failures in it.
local http = require "llmproxy.http"
local json = require "llmproxy.json"
local verdict = require "llmproxy.verdict"

return {
  kind = "dispatcher",
  api = 1,
  summary = "Posts a line to a chat's incoming webhook when calls fail.",
  settings = { url = { type = "url", required = true, secret = true, doc = "the channel's incoming webhook" } },
  new = function(settings)
    return {
      deliver = function(_, batch)
        local lines = {}
        for _, event in ipairs(batch.events) do
          if event.status >= 500 or event.error then lines[#lines + 1] = ("%s %s: %d"):format(event.method, event.path, event.status) end
        end
        if #lines == 0 then return verdict.ok() end
        local body = json.encode { text = table.concat(lines, "\n") }
        return verdict.from_http(http.post { url = settings.url, headers = { ["content-type"] = "application/json" }, body = body })
      end,
    }
  end,
}
