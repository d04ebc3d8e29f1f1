--- What specs use. A spec is a file that returns { ["promise it keeps"] = function(t) … end, … }; t is this module.
-- Promises run in order of their names, each in a task, so host functions can wait in them.
local host = require "testing_host"
local json = require "llmproxy.json"
local settings = require "llmproxy.settings"

local testing = {}

local function show(value, depth)
  if type(value) == "string" then return #value > 2000 and ("%q… (%d bytes)"):format(value:sub(1, 2000), #value) or ("%q"):format(value) end
  if value == json.null then return "null" end
  if type(value) ~= "table" then return tostring(value) end
  if depth > 6 then return "{…}" end
  local items = {}
  for key, item in pairs(value) do items[#items + 1] = ("[%s] = %s"):format(show(key, depth + 1), show(item, depth + 1)) end
  table.sort(items)
  return "{ " .. table.concat(items, ", ") .. " }"
end

local function same(a, b)
  if a == b then return true end
  if type(a) ~= "table" or type(b) ~= "table" then return false end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

--- Fails unless both are the same, tables key by key.
function testing.equal(got, expected, what)
  if not same(got, expected) then
    error(("%sexpected %s\n  got      %s"):format(what and what .. ": " or "", show(expected, 0), show(got, 0)), 2)
  end
end

--- Fails unless value is neither nil nor false. Returns it.
function testing.ok(value, what)
  if not value then error(what or "expected something, got " .. show(value, 0), 2) end
  return value
end

--- Fails unless text matches the pattern (plain = true: contains it).
function testing.matches(text, pattern, plain)
  if type(text) ~= "string" or not text:find(pattern, 1, plain) then
    error(("expected something with %s\n  got %s"):format(show(pattern, 0), show(text, 0)), 2)
  end
end

--- Fails unless the call raises an error that contains the text.
function testing.raises(text, call, ...)
  local done, message = pcall(call, ...)
  if done then error(("expected an error with %s, there was none"):format(show(text, 0)), 2) end
  if not tostring(message):find(text, 1, true) then
    error(("expected an error with %s\n  got %s"):format(show(text, 0), show(tostring(message), 0)), 2)
  end
end

--- Fails unless the call raises that it cannot wait, where plugins are loaded.
function testing.cannot_wait(call)
  local done, message = host.call_outside(call)
  if done or not message:find("cannot", 1, true) then error("expected that it cannot wait here, got " .. show(message, 0), 2) end
end

for _, name in ipairs { "spawn", "listen", "read_file", "rename", "list", "reopen_files", "folder", "certificate", "is_long" } do testing[name] = host[name] end

--- The answer of a well-behaved server.
function testing.answer(status, body, head)
  body = body or ""
  return { text = ("HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n%s\r\n%s"):format(status, #body, head or "", body) }
end

--- The table that the file of a stock plugin returns, its declaration checked.
function testing.definition(name)
  local plugin = host.load_plugin(name)
  local errors = settings.check_declaration(plugin.settings)
  if errors[1] then error(table.concat(errors, "\n"), 2) end
  return plugin
end

--- The errors in the settings given to a stock plugin.
function testing.settings_errors(name, given)
  local _, errors = settings.check(testing.definition(name).settings, given, { folder = host.folder() })
  return errors
end

--- What `new` of a stock plugin ("transforms/llm") makes of these settings.
function testing.plugin(name, given)
  local plugin = testing.definition(name)
  local checked, errors = settings.check(plugin.settings, given, { folder = host.folder() })
  if errors[1] then error(table.concat(errors, "\n"), 2) end
  return plugin.new(checked)
end

--- A batch as a dispatcher gets it.
function testing.batch(events)
  local function lines()
    local list = {}
    for index, event in ipairs(events) do list[index] = json.encode(event) end
    return list
  end
  return {
    events = events, attempt = 1, bytes = #table.concat(lines()),
    json = function() return "[" .. table.concat(lines(), ",") .. "]" end,
    json_lines = function() return table.concat(lines(), "\n") .. "\n" end,
  }
end

local function comment(message)
  return "  # " .. tostring(message):gsub("\n", "\n  # ")
end

--- Called by the runner.
function testing.run()
  local promises, names, failures = host.load_spec(), {}, 0
  for name in pairs(promises) do names[#names + 1] = name end
  table.sort(names)
  host.print("1.." .. #names)
  for index, name in ipairs(names) do
    local kept, message = pcall(promises[name], testing)
    host.print(("%s %d - %s"):format(kept and "ok" or "not ok", index, name))
    if not kept then
      failures = failures + 1
      host.print(comment(message))
    end
  end
  if #names == 0 then host.print("Bail out! the spec promises nothing") end
  host.finish(#names == 0 and 1 or failures)
end

return testing
