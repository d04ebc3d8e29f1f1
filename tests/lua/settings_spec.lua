local settings = require "llmproxy.settings"

local function check_one(field, value, options)
  local checked, errors = settings.check({ it = field }, { it = value }, options)
  return checked.it, errors[1]
end

local function refused(t, field, value, words)
  local _, message = check_one(field, value)
  t.equal(message, words)
end

-- With these environment variables.
local function with(variables)
  return { variable = function(name) return variables[name] end }
end

return {
  ["a setting may come from the environment"] = function(t)
    local field = { type = "integer", min = 1, default = 5, env = "COUNT" }
    t.equal({ check_one(field, nil, with { COUNT = "7" }) }, { 7 })
    t.equal({ check_one(field, 3, with { COUNT = "7" }) }, { 3 }, "what was given is stronger")
    t.equal({ check_one(field, nil, with {}) }, { 5 })
    t.equal({ check_one(field, nil) }, { 5 }, "nobody has an environment")
    t.equal({ check_one({ type = "boolean", env = "ON" }, nil, with { ON = "Yes" }) }, { true })
    t.equal({ check_one({ type = "duration", env = "WAIT", from_text = function(text) return tonumber(text) / 1000 end }, nil, with { WAIT = "1500" }) }, { 1.5 })
    local _, message = check_one(field, nil, with { COUNT = "many" })
    t.equal(message, "it: expected an integer of at least 1, got \"many\" (from the environment's COUNT)")
    _, message = check_one({ type = "string", secret = true, min = 9, env = "KEY" }, nil, with { KEY = "hunter2" })
    t.equal(message, "it: expected a string of at least 9 bytes, got a string (not shown) (from the environment's KEY)")
    t.equal(settings.describe({ it = field })[1].env, "COUNT")
    t.equal(settings.check_declaration({ it = { type = "string", env = 1 } }), { "settings.it.env: expected a string, got 1" })
  end,

  ["every fault is reported, each with its path, what was expected and what was given"] = function(t)
    local declaration = {
      url = { type = "url", required = true },
      timeout = { type = "duration", default = "15s" },
      batch = { type = "table", fields = { max_events = { type = "integer", min = 1 } } },
      paths = { type = "list", items = { type = "string" } },
    }
    local _, errors = settings.check(declaration, { timout = 3, timeout = "soon", batch = { max_event = 0 }, paths = { "a", 2 } }, { path = "pipelines[1].dispatcher" })
    t.equal(errors, {
      "pipelines[1].dispatcher.batch.max_event: unknown key, did you mean 'max_events'?",
      "pipelines[1].dispatcher.paths[2]: expected a string, got 2",
      'pipelines[1].dispatcher.timeout: expected a duration (seconds, or "500ms", "10s", "10m", "1h", "14d"), got "soon"',
      "pipelines[1].dispatcher.url: expected a URL that begins with http:// or https://, got nothing",
      "pipelines[1].dispatcher.timout: unknown key, did you mean 'timeout'?",
    })
  end,

  ["defaults are checked and converted like given values, and never shared"] = function(t)
    local declaration = {
      wait = { type = "duration", default = "500ms" },
      size = { type = "size", default = "1MiB" },
      headers = { type = "map", default = {} },
      batch = { type = "table", default = {}, fields = { max_events = { type = "integer", default = 100 } } },
      absent = { type = "table", fields = { x = { type = "integer", default = 1 } } },
    }
    local first, errors = settings.check(declaration, nil)
    t.equal(errors, {})
    t.equal(first, { wait = 0.5, size = 1048576, headers = {}, batch = { max_events = 100 } })
    first.headers.x = "changed"
    t.equal(settings.check(declaration, {}).headers, {})
  end,

  ["false is a value, not an absence"] = function(t)
    t.equal(check_one({ type = "boolean", default = true }, false), false)
    t.equal(check_one({ type = "one_of", types = { { type = "string" }, { type = "enum", values = { false } } } }, false), false)
  end,

  ["durations and sizes are read with their units"] = function(t)
    local durations = { [5] = 5, [0.5] = 0.5, ["500ms"] = 0.5, ["10s"] = 10, ["10m"] = 600, ["1h"] = 3600, ["14d"] = 1209600, ["1.5s"] = 1.5 }
    for given, seconds in pairs(durations) do t.equal(settings.duration(given), seconds) end
    for _, bad in ipairs { "10", "s", "10 s", "-1s", "1w", "", -1, 1 / 0, 0 / 0, true } do t.equal(settings.duration(bad), nil, tostring(bad)) end
    local sizes = { [5] = 5, ["64KiB"] = 65536, ["1MiB"] = 1048576, ["1GiB"] = 1073741824, ["1KB"] = 1000, ["10B"] = 10, ["0.5KiB"] = 512 }
    for given, bytes in pairs(sizes) do t.equal(settings.size(given), bytes) end
    for _, bad in ipairs { "64", "64kib", "1 MiB", 0.5, -1, "0.3B", "1e3B" } do t.equal(settings.size(bad), nil, tostring(bad)) end
  end,

  ["limits hold and are named"] = function(t)
    refused(t, { type = "number", min = 0, max = 1 }, 1.5, "it: expected a number from 0 to 1, got 1.5")
    refused(t, { type = "integer", min = 1 }, 0, "it: expected an integer of at least 1, got 0")
    refused(t, { type = "integer" }, 1.5, "it: expected an integer, got 1.5")
    refused(t, { type = "number" }, 0 / 0, "it: expected a number, got " .. tostring(0 / 0))
    refused(t, { type = "string", min = 1 }, "", 'it: expected a string that is not empty, got ""')
    refused(t, { type = "size", max = "1KiB" }, "2KiB", 'it: expected a size (bytes, or "64KiB", "1MiB", "1GiB") of at most 1024 bytes, got "2KiB"')
    refused(t, { type = "list", max = 1 }, { 1, 2 }, "it: expected a list of at most 1 items, got a table")
    refused(t, { type = "string", pattern = "^%d+$", expected = "digits" }, "x1", 'it: expected digits, got "x1"')
  end,

  ["a long or odd value is shown short and on one line"] = function(t)
    refused(t, { type = "integer" }, 'a"b\\c\n\0' .. "34", 'it: expected an integer, got "a\\"b\\\\c\\x0a\\x0034"')
    refused(t, { type = "integer" }, ("ü"):rep(100), 'it: expected an integer, got "' .. ("ü"):rep(28) .. '..."')
  end,

  ["a list is a sequence and nothing else"] = function(t)
    refused(t, { type = "list" }, { 1, x = 2 }, "it: expected a list, got a table with the key x")
    refused(t, { type = "list" }, "a", 'it: expected a list, got "a"')
    local checked = check_one({ type = "list", items = { type = "duration" } }, { "1s", 2 })
    t.equal(checked, { 1, 2 })
  end,

  ["a map checks keys and values"] = function(t)
    local field = { type = "map", keys = { type = "string", pattern = "^[%w-]+$", expected = "a header name" }, items = { type = "string" } }
    t.equal(check_one(field, { ["x-a"] = "1" }), { ["x-a"] = "1" })
    local _, errors = settings.check({ it = field }, { it = { ["x a"] = "1", ["x-b"] = 2 } })
    t.equal(errors, { 'it["x a"]: expected a header name, got "x a"', 'it["x-b"]: expected a string, got 2' })
    refused(t, field, { "a" }, "it: expected a table with names as keys, got the key 1")
  end,

  ["an enum names its values and the nearest"] = function(t)
    refused(t, { type = "enum", values = { "drop_newest", "drop_oldest" } }, "drop_newst", 'it: expected one of "drop_newest", "drop_oldest", got "drop_newst", did you mean \'drop_newest\'?')
  end,

  ["one_of speaks for the alternative that was meant"] = function(t)
    local field = { type = "one_of", types = { { type = "string", min = 1 }, { type = "table", fields = { path = { type = "path", required = true } } } } }
    t.equal(check_one(field, "x"), "x")
    t.equal(check_one(field, { path = "/x" }), { path = "/x" })
    refused(t, field, {}, "it.path: expected a path, got nothing")
    refused(t, field, true, "it: expected a string that is not empty, or a table, got true")
  end,

  ["an address must be one of the schemes with a host"] = function(t)
    for _, good in ipairs { "http://a", "https://a.b:8080/x?y#z", "http://[::1]:80/", "http://user:password@a/", "HTTP://a" } do t.equal(check_one({ type = "url" }, good), good) end
    for _, bad in ipairs { "a.b", "ftp://a", "http://", "http:///x", "http://a b", "http://a:b", "http://[::1", "//a", "http://a\n" } do t.ok(select(2, check_one({ type = "url" }, bad)), bad) end
    t.equal(check_one({ type = "url", schemes = { "redis", "rediss" } }, "rediss://a"), "rediss://a")
    refused(t, { type = "url", user_info = false }, "http://u:secret@a", "it: an address with user or password is not allowed here")
  end,

  ["a relative path is below the folder given"] = function(t)
    t.equal(check_one({ type = "path" }, "a/b", { folder = "/conf/" }), "/conf/a/b")
    t.equal(check_one({ type = "path" }, "/a", { folder = "/conf" }), "/a")
    t.equal(check_one({ type = "path" }, "a"), "a")
    t.ok(select(2, check_one({ type = "path" }, "a\0b")))
  end,

  ["no secret is ever shown"] = function(t)
    local declaration = {
      key = { type = "secret", min = 100 },
      word = { type = "string", secret = true, pattern = "^x" },
      choice = { type = "enum", values = { "a" }, secret = true },
      headers = { type = "map", items = { type = "string", max = 1 }, secret = true },
      url = { type = "url", schemes = { "redis" } },
      either = { type = "one_of", secret = true, types = { { type = "integer" }, { type = "boolean" } } },
    }
    local given = { key = "hunter2", word = "hunter2", choice = "hunter2", headers = { authorization = "hunter2" }, url = "http://u:hunter2@h/?key=hunter2", either = "hunter2" }
    local _, errors = settings.check(declaration, given)
    t.equal(#errors, 6)
    t.equal(table.concat(errors, "\n"):find("hunter2", 1, true), nil, table.concat(errors, "\n"))
  end,

  ["a check of one's own has the last word"] = function(t)
    local field = { type = "integer", check = function(value) if value % 2 ~= 0 then return nil, "must be even" end return value / 2 end }
    t.equal(check_one(field, 4), 2)
    refused(t, field, 3, "it: must be even")
    refused(t, field, "x", 'it: expected an integer, got "x"')
  end,

  ["functions pass"] = function(t)
    local function transform() end
    t.equal(check_one({ type = "function" }, transform), transform)
    refused(t, { type = "function" }, "x", 'it: expected a function, got "x"')
  end,

  ["the nearest name is near"] = function(t)
    local names = { "timeout", "headers", "url", "max_events" }
    t.equal(settings.nearest("timout", names), "timeout")
    t.equal(settings.nearest("haeders", names), "headers")
    t.equal(settings.nearest("maxEvents", names), "max_events")
    t.equal(settings.nearest("colour", names), nil)
    t.equal(settings.nearest(1, names), nil)
    t.equal(settings.nearest(("x"):rep(100000), names), nil)
  end,

  ["a broken declaration is told apart from a broken setting"] = function(t)
    local errors = settings.check_declaration {
      a = { type = "strng" },
      b = { type = "string", requird = true },
      c = { type = "integer", default = "x" },
      d = { type = "enum" },
      e = 4,
      f = { type = "duration", min = "x" },
      g = { type = "list", items = { type = "nothing" } },
      h = { type = "string", default = "x", required = true },
      i = { type = "string", doc = 3 },
    }
    t.equal(#errors, 9)
    t.matches(errors[1], "^settings%.a%.type: expected one of .*, got \"strng\", did you mean 'string'%?$")
    t.equal(errors[2], "settings.b.requird: unknown attribute of a string, did you mean 'required'?")
    t.equal(errors[3], 'settings.c.default: expected an integer, got "x"')
    t.equal(errors[4], "settings.d: a field of type enum needs values")
    t.equal(errors[5], "settings.e: expected a table with a type, got 4")
    t.matches(errors[6], "^settings%.f%.min: expected a duration")
    t.matches(errors[7], "^settings%.g%.items%.type: ")
    t.equal(errors[8], "settings.h: what is required can have no default")
    t.equal(errors[9], "settings.i.doc: expected a string, got 3")
    t.equal(settings.check_declaration({ x = { type = "size", min = "1KiB", default = "2KiB", doc = "x" } }), {})
    t.equal(settings.check_declaration("x"), { 'settings: expected a table of fields, got "x"' })
  end,

  ["a declaration describes itself"] = function(t)
    local described = settings.describe {
      url = { type = "url", required = true, doc = "where to" },
      batch = { type = "table", default = {}, fields = { max_events = { type = "integer", default = 100 } } },
      key = { type = "secret" },
      methods = { type = "list", items = { type = "string" }, default = { "GET" } },
      mode = { type = "enum", values = { "a", "b" } },
    }
    t.equal(described, {
      { name = "batch", type = "table", default = "{}", required = false, secret = false },
      { name = "batch.max_events", type = "integer", default = "100", required = false, secret = false },
      { name = "key", type = "secret", required = false, secret = true },
      { name = "methods", type = "list of string", default = '{ "GET" }', required = false, secret = false },
      { name = "mode", type = '"a", "b"', required = false, secret = false },
      { name = "url", type = "url", required = true, secret = false, doc = "where to" },
    })
  end,
}
