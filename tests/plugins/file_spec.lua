return {
  ["events are appended as lines, and the file is made by the first batch"] = function(t)
    local path = t.folder() .. "/events.jsonl"
    local dispatcher = t.plugin("dispatchers/file", { path = path })
    t.equal(t.read_file(path), nil)
    t.equal(dispatcher:deliver(t.batch { { id = "1" }, { id = "2" } }), { verdict = "ok" })
    t.equal(dispatcher:deliver(t.batch { { id = "3" } }), { verdict = "ok" })
    dispatcher:close()
    t.equal(t.read_file(path), '{"id":"1"}\n{"id":"2"}\n{"id":"3"}\n')
  end,

  ["a relative path is below the configuration's folder"] = function(t)
    local dispatcher = t.plugin("dispatchers/file", { path = "relative.jsonl" })
    t.equal(dispatcher:deliver(t.batch { { id = "1" } }), { verdict = "ok" })
    dispatcher:close()
    t.equal(t.read_file(t.folder() .. "/relative.jsonl"), '{"id":"1"}\n')
  end,

  ["after a rotation and SIGHUP the next batch goes to a new file"] = function(t)
    local path = t.folder() .. "/rotated.jsonl"
    local dispatcher = t.plugin("dispatchers/file", { path = path })
    dispatcher:deliver(t.batch { { id = "1" } })
    t.rename(path, path .. ".1")
    t.reopen_files()
    t.equal(dispatcher:deliver(t.batch { { id = "2" } }), { verdict = "ok" })
    dispatcher:close()
    t.equal(t.read_file(path .. ".1"), '{"id":"1"}\n')
    t.equal(t.read_file(path), '{"id":"2"}\n')
  end,

  ["a file that would be too large is moved away, with the moment in its name"] = function(t)
    local path = t.folder() .. "/full.jsonl"
    local dispatcher = t.plugin("dispatchers/file", { path = path, max_bytes = 22, keep = 3 })
    dispatcher:deliver(t.batch { { id = "1" } })
    dispatcher:deliver(t.batch { { id = "2" } })
    t.equal(dispatcher:deliver(t.batch { { id = "3" } }), { verdict = "ok" })
    dispatcher:close()
    local moved = t.list(path .. "-")
    t.equal(#moved, 1)
    t.matches(moved[1], "/full%.jsonl%-%d%d%d%d%d%d%d%dT%d%d%d%d%d%d%.%d%d%dZ$")
    t.equal(t.read_file(moved[1]), '{"id":"1"}\n{"id":"2"}\n')
    t.equal(t.read_file(path), '{"id":"3"}\n')
  end,

  ["what cannot rotate together is refused"] = function(t)
    t.raises("keep and compress need max_bytes or max_age", t.plugin, "dispatchers/file", { path = "x", keep = 3 })
    local errors = t.settings_errors("dispatchers/file", { path = "x", max_bytes = "0", compress = "zip" })
    t.equal(#errors, 2)
    t.matches(errors[1], 'compress: expected "gzip", got "zip"', true)
    t.matches(errors[2], "max_bytes: expected a size", true)
  end,

  ["a file that cannot be opened or written is tried again, with the reason"] = function(t)
    local verdict = t.plugin("dispatchers/file", { path = t.folder() }):deliver(t.batch { { id = "1" } })
    t.equal(verdict.verdict, "retry")
    t.matches(verdict.reason, t.folder(), true)
    verdict = t.plugin("dispatchers/file", { path = "/dev/full" }):deliver(t.batch { { id = "1" } })
    t.equal(verdict.verdict, "retry")
    t.matches(verdict.reason, "space")
  end,

  ["closing what was never opened does nothing"] = function(t)
    t.plugin("dispatchers/file", { path = t.folder() .. "/never" }):close()
    t.equal(t.read_file(t.folder() .. "/never"), nil)
  end,

  ["a path is required"] = function(t)
    t.equal(t.settings_errors("dispatchers/file", {}), { "path: expected a path, got nothing" })
  end,
}
