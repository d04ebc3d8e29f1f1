-- Gemini: the client's base URL becomes http://127.0.0.1:8080/gemini. A key in the query (?key=…) is redacted in the event.
return {
  routes = {
    { name = "gemini", prefix = "/gemini/", upstream = "https://generativelanguage.googleapis.com", strip_prefix = true },
  },
  observability = {
    enabled = true,
    pipelines = {
      { name = "audit", dispatcher = { "file", path = "events.jsonl" } },
    },
  },
}
