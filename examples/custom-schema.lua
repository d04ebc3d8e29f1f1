-- A schema of your own: a function in the configuration turns each event into whatever table your analysts want.
local json = require "llmproxy.json"

local function usage_record(event)
  local llm = event.llm
  if not llm then return nil end -- no LLM call: filtered
  local usage = llm.usage or {}
  return {
    event_id = event.id,
    at = event.time,
    team = event.request_headers["x-team"] or "unknown",
    key = event.credential and event.credential.fingerprint or json.null,
    model = llm.response_model or llm.request_model or json.null,
    input_tokens = usage.input_tokens or 0,
    output_tokens = usage.output_tokens or 0,
    seconds = event.duration_ms / 1000,
    failed = event.error ~= nil or event.status >= 400,
  }
end

return {
  routes = {
    { name = "openai", prefix = "/v1/", upstream = "https://api.openai.com" },
  },
  observability = {
    enabled = true,
    pipelines = {
      { name = "usage", transforms = { "llm", usage_record }, dispatcher = { "file", path = "usage.jsonl" } },
    },
  },
}
