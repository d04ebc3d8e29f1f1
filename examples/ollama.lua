-- Ollama on the same machine: OLLAMA_HOST=http://127.0.0.1:8080 for its clients. A model that has to be loaded first may take long to its first byte.
return {
  routes = {
    { name = "ollama", prefix = "/", upstream = "http://127.0.0.1:11434", timeouts = { response = "20m" } },
  },
  observability = {
    enabled = true,
    pipelines = {
      { name = "audit", dispatcher = { "file", path = "events.jsonl" } },
    },
  },
}
