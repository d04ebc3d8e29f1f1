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
