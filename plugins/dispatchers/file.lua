--- Events as JSON lines at the end of a file.
--
--     { "file", path = "events.jsonl", max_bytes = "100MiB", max_age = "1d", keep = 14, compress = "gzip" }
--
-- With `max_bytes` or `max_age` the file is moved to PATH-20251009T085322.678Z (the moment, UTC) when it is full or old; no line is split over two files.
-- Without them it grows, or another tool rotates it and sends SIGHUP.
local file = require "llmproxy.file"
local verdict = require "llmproxy.verdict"

return {
  kind = "dispatcher",
  api = 1,
  summary = "Appends events to a file, one JSON object a line.",
  settings = {
    path = { type = "path", required = true, doc = "the file; made if it is not there, opened anew at SIGHUP" },
    max_bytes = { type = "size", min = 1, doc = "size that the file shall not exceed" },
    max_age = { type = "duration", min = 1, doc = "how long after it was made the file is moved away, by the first event that comes then" },
    keep = { type = "integer", min = 1, max = 1000000, doc = "how many files that were moved away are kept; all when absent" },
    compress = { type = "enum", values = { "gzip" }, doc = "how files that were moved away are compressed" },
  },
  batch = { max_wait = 0.1 },
  new = function(settings)
    local rotation = { max_bytes = settings.max_bytes, max_age = settings.max_age, keep = settings.keep, compress = settings.compress }
    if next(rotation) and not (settings.max_bytes or settings.max_age) then error("keep and compress need max_bytes or max_age", 0) end
    local handle -- opened by the first batch: `check` calls new, and shall touch no file
    return {
      deliver = function(_, batch)
        local reason
        if not handle then
          handle, reason = file.append(settings.path, rotation)
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
