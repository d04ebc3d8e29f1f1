-- What calls cost, by team: prices times tokens, a report that is always up to date, and the same records in SQLite.
return {
  plugin_path = { "plugins" },
  routes = {
    { name = "openai", prefix = "/v1/", upstream = "https://api.openai.com" },
  },
  observability = {
    enabled = true,
    pipelines = {
      { name = "budget",
        transforms = { "llm", "cost", { "enrich", headers = { team = "x-team" } } },
        dispatcher = { "team_budget", path = "budget.json", budgets = { red = 500, blue = 1000 } } },
      { name = "records", transforms = { "llm" }, dispatcher = { "rqlite", url = "http://127.0.0.1:4001" } },
    },
  },
}
