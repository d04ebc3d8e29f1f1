return {
  ["events are lines on the standard output"] = function(t)
    local dispatcher = t.plugin("dispatchers/stdout", {})
    t.equal(dispatcher:deliver(t.batch { { id = "1" }, { id = "2" } }), { verdict = "ok" })
    t.equal(dispatcher:deliver(t.batch { { id = "3" } }), { verdict = "ok" })
    t.equal(t.read_file(t.folder() .. "/stdout"), '{"id":"1"}\n{"id":"2"}\n{"id":"3"}\n')
  end,

  ["it has no settings"] = function(t)
    t.equal(t.settings_errors("dispatchers/stdout", { path = "x" }), { "path: unknown key" })
  end,
}
