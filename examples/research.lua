-- A tenth of the traffic for people who may not know who said what, and every failure whole for those who mend it.
return {
  plugin_path = { "plugins" },
  routes = {
    { name = "openai", prefix = "/v1/", upstream = "https://api.openai.com" },
  },
  observability = {
    enabled = true,
    pipelines = {
      { name = "research",
        transforms = { "llm", { "sample", rate = 0.1, keep_errors = false }, { "anonymise", key = env("PSEUDONYM_KEY", "only for trying it out") } },
        dispatcher = { "file", path = "research.jsonl" } },
      { name = "failures",
        transforms = { { "filter", keep = { { status = { at_least = 400 } }, { error = { exists = true } } } }, { "redact", headers = { "x-user" } } },
        dispatcher = { "file", path = "failures.jsonl" } },
    },
  },
}
