local function event()
  return { id = "1", route = "openai", request_headers = { ["x-team"] = "red" }, response_headers = { ["x-region"] = "eu" } }
end

return {
  ["adds fixed fields, and fields from headers"] = function(t)
    local enrich = t.plugin("transforms/enrich", {
      fields = { environment = "prod", ["tags.list"] = { 1, 2 } }, headers = { team = "X-Team", ["tags.absent"] = "x-other" }, response_headers = { ["tags.region"] = "x-region" },
    })
    local result = enrich(event())
    t.equal({ result.environment, result.team, result.tags }, { "prod", "red", { list = { 1, 2 }, region = "eu" } })
    t.ok(enrich(event()).tags.list ~= result.tags.list, "each event has a copy of its own")
  end,

  ["what is there is replaced, unless told otherwise"] = function(t)
    t.equal(t.plugin("transforms/enrich", { fields = { route = "x" } })(event()).route, "x")
    t.equal(t.plugin("transforms/enrich", { fields = { route = "x", other = false }, overwrite = false })(event()).route, "openai")
    t.equal(t.plugin("transforms/enrich", { fields = { other = false }, overwrite = false })(event()).other, false)
  end,

  ["an exchange without a response has no response headers"] = function(t)
    t.equal(t.plugin("transforms/enrich", { response_headers = { region = "x-region" } }) { id = "1", request_headers = {} }, { id = "1", request_headers = {} })
  end,

  ["settings are checked"] = function(t)
    t.matches(t.settings_errors("transforms/enrich", { headers = { ["team."] = "x" } })[1], "expected a path as", true)
    t.raises("cannot set id.x: id is a string", t.plugin("transforms/enrich", { fields = { ["id.x"] = 1 } }), event())
  end,
}
