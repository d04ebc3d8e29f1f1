local function kept(drop, path, method, status)
  return drop({ path = path, method = method or "GET", status = status or 200 }) ~= nil
end

return {
  ["a path is a beginning"] = function(t)
    local drop = t.plugin("transforms/drop", { paths = { "/health", "/v1.0/" } })
    t.equal(kept(drop, "/health"), false)
    t.equal(kept(drop, "/healthz"), false)
    t.equal(kept(drop, "/v1/health"), true)
    t.equal(kept(drop, "/v1.0/x"), false)
    t.equal(kept(drop, "/v1x0/x"), true, "a dot is a dot")
  end,

  ["a star makes it a pattern for the whole path"] = function(t)
    local drop = t.plugin("transforms/drop", { paths = { "*/models", "/v1/*/files" } })
    t.equal(kept(drop, "/v1/models"), false)
    t.equal(kept(drop, "/v1/models/x"), true)
    t.equal(kept(drop, "/v1/a/b/files"), false)
    t.equal(kept(drop, "/v2/a/files"), true)
  end,

  ["stars may stand anywhere, in any number"] = function(t)
    local drop = t.plugin("transforms/drop", { paths = { "/a*b*b", "*.x/**/y*" } })
    t.equal(kept(drop, "/abb"), false)
    t.equal(kept(drop, "/a1b2b"), false)
    t.equal(kept(drop, "/ab"), true, "no piece is used twice")
    t.equal(kept(drop, "/abbc"), true)
    t.equal(kept(drop, "/q.x/1/2/yes"), false)
    t.equal(kept(drop, "/q-x/1/2/yes"), true)
    t.equal(kept(t.plugin("transforms/drop", { paths = { "*" } }), "/"), false)
  end,

  ["a path that nearly matches takes no longer than its length"] = function(t)
    local drop = t.plugin("transforms/drop", { paths = { "*a*a*a*a*a*b" } })
    t.equal(kept(drop, "/" .. ("a"):rep(16000)), true)
  end,

  ["of the settings given, all must match"] = function(t)
    local drop = t.plugin("transforms/drop", { paths = { "/v1/" }, methods = { "OPTIONS", "HEAD" }, statuses = { 404, 0 } })
    t.equal(kept(drop, "/v1/x", "OPTIONS", 404), false)
    t.equal(kept(drop, "/v1/x", "HEAD", 0), false)
    t.equal(kept(drop, "/v1/x", "GET", 404), true)
    t.equal(kept(drop, "/v1/x", "HEAD", 200), true)
    t.equal(kept(drop, "/v2/x", "HEAD", 404), true)
  end,

  ["what is kept is not touched"] = function(t)
    local event = { path = "/", method = "GET", status = 200 }
    t.ok(t.plugin("transforms/drop", { statuses = { 404 } })(event) == event)
  end,

  ["without a condition it refuses to start"] = function(t)
    t.raises("would drop everything", t.plugin, "transforms/drop", {})
    t.equal(t.settings_errors("transforms/drop", { statuses = { "404" } }), { 'statuses[1]: expected an integer from 0 to 999, got "404"' })
  end,
}
