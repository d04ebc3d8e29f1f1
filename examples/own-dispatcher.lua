-- A dispatcher of one's own beside a stock one: two pipelines, each with its own thread, queue and pace.
return {
  plugin_path = { "plugins" },
  routes = {
    { name = "openai", prefix = "/v1/", upstream = "https://api.openai.com" },
  },
  observability = {
    enabled = true,
    pipelines = {
      { name = "audit", transforms = { "llm" }, dispatcher = { "file", path = "events.jsonl" } },
      { name = "alerts", transforms = { "llm" }, dispatcher = { "slack_alerts", url = env("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T/B/x") } },
    },
  },
}
