-- The annotations that editors read and docs/reference/modules.md is made of are modules too, so they can be held against the real ones.
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

return {
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
