-- The annotations that editors read and docs/reference/modules.md is made of are modules too, so they can be held against the real ones.
local json = require "llmproxy.json"

local WRITTEN_IN_C = { "codec", "crypto", "file", "http", "json", "log", "regex", "time" }

local function names_of(module)
  local names = {}
  for name, value in pairs(module) do
    names[#names + 1] = name .. ": " .. type(value)
    if type(value) == "table" then
      for inner, function_ in pairs(value) do
        if type(function_) == "function" then names[#names + 1] = name .. "." .. inner end
      end
    end
  end
  table.sort(names)
  return names
end

local WRITTEN_IN_LUA = { "glob", "lru", "metrics", "path", "settings", "sse", "text", "verdict" }

-- All functions of a module by name, and those of the tables in it.
local function functions_of(name)
  local functions = {}
  local function gather(prefix, module)
    for key, value in pairs(module) do
      if type(value) == "function" then functions[prefix .. key] = value end
      if type(value) == "table" then gather(prefix .. key .. ".", value) end
    end
  end
  gather("llmproxy." .. name .. ".", require("llmproxy." .. name))
  return functions
end

return {
  ["a wrong argument is answered by the function it was given to, not by what breaks in it"] = function(t)
    local wrong = { {}, { {} }, { print }, { true }, { "" }, { json.null }, { {}, {} }, { "", print }, { "", "", print }, { "", "", {} } }
    local unclear = {}
    for _, names in ipairs { WRITTEN_IN_C, WRITTEN_IN_LUA } do
      for _, name in ipairs(names) do
        for full_name, call in pairs(functions_of(name)) do
          for index, arguments in ipairs(wrong) do
            local done, message = pcall(call, unpack(arguments, 1, 3))
            local clear = done or type(message) == "string" and not message:find "attempt to" and not message:find "bad argument"
            if not clear then unclear[#unclear + 1] = ("%s, case %d: %s"):format(full_name, index, tostring(message)) end
          end
        end
      end
    end
    t.equal(unclear, {})
  end,

  ["what is annotated is there, and what is there is annotated"] = function(t)
    for _, name in ipairs(WRITTEN_IN_C) do
      local annotated, real = require("llmproxy.meta." .. name), require("llmproxy." .. name)
      if name == "codec" then -- encode and decode are fields of a class, which are no values
        for key in pairs(annotated) do annotated[key] = { encode = function() end, decode = function() end } end
      elseif name == "json" then -- json.null is annotated as a value that is nil
        annotated.null = real.null
      end
      t.equal(names_of(real), names_of(annotated), name)
    end
  end,

  ["what waits raises where nothing can wait"] = function(t)
    local http, time = require "llmproxy.http", require "llmproxy.time"
    local request = { url = "http://127.0.0.1:9/" }
    for _, name in ipairs { "request", "get", "post" } do
      t.cannot_wait(function() http[name](request) end)
      t.raises("cannot wait", coroutine.wrap(function() http[name](request) end))
    end
    t.cannot_wait(function() time.sleep(0) end)
    t.raises("cannot wait", coroutine.wrap(function() time.sleep(0) end))
    t.raises("cannot wait", string.gsub, "x", "x", function() time.sleep(0) end)
    t.raises("cannot wait", table.sort, { 2, 1 }, function() time.sleep(0) end)
  end,

  ["files are not touched where nothing can wait"] = function(t)
    local file = require "llmproxy.file"
    local path = t.folder() .. "/untouched"
    for _, call in ipairs {
      function() file.append(path) end, function() file.read(path) end, function() file.replace(path, "x") end, function() file.stdout():write "x" end,
    } do
      t.cannot_wait(call)
    end
    t.equal(t.list(path), {})
  end,
}
