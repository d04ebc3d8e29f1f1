-- Azure OpenAI: the proxy holds the key, clients need none. It listens on loopback only: whoever reaches it may spend the key.
return {
  listen = "127.0.0.1:8080",
  routes = {
    { name = "azure", prefix = "/openai/", upstream = "https://example.openai.azure.com",
      headers = { ["api-key"] = env("AZURE_OPENAI_API_KEY", "not-set") } },
  },
  observability = {
    enabled = true,
    pipelines = {
      { name = "audit", transforms = { "llm" }, dispatcher = { "file", path = "events.jsonl" } },
    },
  },
}
