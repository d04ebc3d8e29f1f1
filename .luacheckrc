-- Lua code here runs in the sandbox: what is absent there is unknown to the checker too.
std = "luajit"
not_globals = { "io", "os", "debug", "jit", "ffi", "loadstring", "loadfile", "dofile", "getfenv", "setfenv", "newproxy", "collectgarbage", "module" }
max_line_length = 200
-- A method that needs no self is a method all the same.
self = false
-- A configuration file has two functions more.
files["examples"].read_globals = { "env", "read_file" }
files["**/*.config.lua"].read_globals = { "env", "read_file" }
-- Annotations for editors: functions without bodies, and what each field means in one line.
files["lua/llmproxy/meta"] = { unused_args = false, max_line_length = false }
-- Specs of plugins say more.
files["**/*_spec.lua"].read_globals = {
  "describe", "it", "before_each", "after_each", "expect", "plugin", "event", "events", "batch", "run_pipeline", "vectors", "http", "clock", "read_file", "folder",
}
