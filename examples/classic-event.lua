-- The classic instrumentation event of seven fields, by a transform plugin in a folder of one's own.
return {
  plugin_path = { "plugins" },
  routes = {
    { name = "openai", prefix = "/v1/", upstream = "https://api.openai.com" },
  },
  observability = {
    enabled = true,
    pipelines = {
      { name = "classic", transforms = { "classic_event" }, dispatcher = { "file", path = "classic.jsonl" } },
    },
  },
}
