-- OpenAI: the client keeps its key and only changes its base URL to http://127.0.0.1:8080/v1
return {
  listen = "127.0.0.1:8080",
  routes = {
    { name = "openai", prefix = "/v1/", upstream = "https://api.openai.com" },
  },
  observability = {
    enabled = true,
    pipelines = {
      { name = "audit", transforms = { "llm" }, dispatcher = { "file", path = "events.jsonl" } },
    },
  },
}
