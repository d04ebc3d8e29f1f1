--- Events as JSON lines at the end of a file.
local file = require "llmproxy.file"
local verdict = require "llmproxy.verdict"

return {
  kind = "dispatcher",
  api = 1,
  summary = "Appends events to a file, one JSON object a line.",
  settings = {
    path = { type = "path", required = true, doc = "the file; made if it is not there, opened anew at SIGHUP" },
  },
  batch = { max_wait = 0.1 },
  new = function(settings)
    local handle -- opened by the first batch: `check` calls new, and shall touch no file
    return {
      deliver = function(_, batch)
        local reason
        if not handle then
          handle, reason = file.append(settings.path)
          if not handle then return verdict.retry { reason = reason } end
        end
        local written
        written, reason = handle:write(batch:json_lines())
        if not written then return verdict.retry { reason = reason } end
        return verdict.ok()
      end,
      close = function()
        if handle then handle:close() end
      end,
    }
  end,
}
