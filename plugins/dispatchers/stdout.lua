--- Events as JSON lines on the standard output.
local file = require "llmproxy.file"
local verdict = require "llmproxy.verdict"

return {
  kind = "dispatcher",
  api = 1,
  summary = "Writes events to the standard output, one JSON object a line.",
  settings = {},
  batch = { max_wait = 0.1 },
  new = function()
    local output = file.stdout()
    return {
      deliver = function(_, batch)
        local written, reason = output:write(batch:json_lines())
        if not written then return verdict.retry { reason = reason } end
        return verdict.ok()
      end,
    }
  end,
}
