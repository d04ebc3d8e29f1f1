-- Anthropic: the client's base URL becomes http://127.0.0.1:8080/anthropic
return {
  routes = {
    { name = "anthropic", prefix = "/anthropic/", upstream = "https://api.anthropic.com", strip_prefix = true },
  },
  observability = {
    enabled = true,
    pipelines = {
      { name = "audit", dispatcher = { "file", path = "events.jsonl" } },
    },
  },
}
