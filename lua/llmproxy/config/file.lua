--- Evaluates the configuration file.
--
-- The file sees the sandbox and two functions more, env(name, default) and read_file(path). What they answered is kept: the file is evaluated once more in each pipeline's own state, and
-- gets the same answers there, so that all of them see one configuration even when the environment or a file has changed meanwhile.
local file = {}

--- What env and read_file answered so far; false: there was nothing. replay: nothing is asked any more.
---@class llmproxy.config.answers
---@field environment table<string, string|false>
---@field files table<string, string>
---@field replay boolean?
---@field missing string? names of variables that were asked for, are not set, and have no default

--- The value of an environment variable, from the answers or, the first time, from the process. One that is empty counts as unset.
---@param host table
---@param answers llmproxy.config.answers
---@param name string
---@return string?
function file.variable(host, answers, name)
  if answers.environment[name] == nil then
    if answers.replay then error(("env: %s was not asked for when the configuration was checked"):format(name), 0) end
    local value = host.environment(name)
    answers.environment[name] = value ~= "" and value or false
  end
  return answers.environment[name] or nil
end

--- A path below the configuration file's folder, or as it is when absolute or when there is no file.
---@param folder string?
---@param path string
---@return string
function file.below(folder, path)
  if not folder or path:sub(1, 1) == "/" then return path end
  return (folder:gsub("(.)/+$", "%1")) .. "/" .. path
end

-- What other programs' Lua has and this one's has not, and what is used here.
local INSTEAD = {
  os = "env(name, default) in the configuration, llmproxy.time in plugins", io = "read_file(path) in the configuration, llmproxy.file in plugins",
  dofile = "require", loadfile = "require", loadstring = "load", ffi = "trusted_plugins in the configuration",
}

--- The message of an error with the whole name of the file: Lua writes "...end/of/it.lua" for long ones.
---@param message any
---@param name string
---@return string
function file.place(message, name)
  if type(message) ~= "string" then return ("raised a %s instead of a message"):format(type(message)) end
  local absent = message:match(" global '([%w_]+)' %(a nil value%)$")
  if INSTEAD[absent] then message = ("%s: use %s"):format(message, INSTEAD[absent]) end
  local ending = message:match("^%.%.%.(.-):%d+: ")
  if ending and name:sub(-#ending) == ending then return name .. message:sub(4 + #ending) end
  return message
end

-- A table that reads as another one and takes nothing: what is shared by all code of a pipeline is not for one plugin to change.
local function guarded(shared, what)
  return setmetatable({}, {
    __index = shared, __metatable = false,
    __newindex = function(_, key) error(("%s%s cannot be set: plugins share it; use a local variable"):format(what, tostring(key)), 2) end,
  })
end

--- The globals of a plugin or library: what there is, and nothing can be added. own: more names for this one alone.
---@param own? table<string, any>
---@return table
function file.plugin_globals(own)
  local shared = { _G = false }
  for _, name in ipairs { "string", "table", "math", "coroutine", "bit" } do shared[name] = guarded(_G[name], name .. ".") end
  for name, value in pairs(own or {}) do shared[name] = value end
  setmetatable(shared, { __index = _G })
  local globals = guarded(shared, "the global ")
  shared._G = globals
  return globals
end

--- The value that Lua source in a file returns; nil and one line that begins with a file's name and, where known, the line.
---@param text string
---@param name string of the file
---@param scope table? its globals
---@param run fun(chunk: function): boolean, any pcall when not given
---@return any, string?
function file.run(text, name, scope, run)
  if text:sub(1, 1) == "\27" then return nil, name .. ": expected Lua source, got bytecode, which is not taken" end
  local chunk, message = load(text, "@" .. name, "t", scope or _G)
  local fine, result = false, message
  if chunk then fine, result = (run or pcall)(chunk) end
  if fine then return result end
  result = file.place(result, name)
  -- A line of the file, or of a library that it uses, says where; else only the name can.
  return nil, result:find("^[^\n]-:%d+: ") and result or name .. ": " .. result
end

local function argument(value, kind, what)
  if type(value) ~= kind then error(("%s: expected a %s, got %s"):format(what, kind, type(value)), 3) end
end

-- The globals of the file, and a function that ends the time of env and read_file.
local function globals(host, answers, folder)
  local loaded = false
  local function while_loading(name)
    if loaded then error(name .. " works only while the configuration is loaded", 3) end
  end
  local scope = {}
  function scope.env(name, default)
    argument(name, "string", "env: name")
    while_loading("env")
    local value = file.variable(host, answers, name)
    if value == nil and default == nil then answers.missing = (answers.missing and answers.missing .. ", " or "") .. name end
    if value == nil then return default end
    return value
  end
  function scope.read_file(path)
    argument(path, "string", "read_file: path")
    while_loading("read_file")
    path = file.below(folder, path)
    if not answers.files[path] then
      if answers.replay then error(("read_file: %s was not read when the configuration was checked"):format(path), 2) end
      local text, message = host.read(path)
      if not text then error("read_file: " .. message, 2) end
      answers.files[path] = text
    end
    return answers.files[path]
  end
  return setmetatable(scope, { __index = _G }), function() loaded = true end
end

--- The table a configuration file returns; nil and one line that begins with the file's name when it is broken.
---@param host table
---@param source { file: string, folder: string, text: string }
---@param answers llmproxy.config.answers
---@return table?, string?
function file.evaluate(host, source, answers)
  local scope, close = globals(host, answers, source.folder)
  local result, message = file.run(source.text, source.file, scope, host.run)
  close()
  if message then return nil, message end
  if type(result) ~= "table" then
    return nil, ("%s: expected the file to return a table, got %s"):format(source.file, result == nil and "nothing" or "a " .. type(result))
  end
  return result
end

--- Replaces `require` in this state by one that also looks into lib/ of these folders, which may become more later.
---@param host table
---@param folders string[]
function file.extend_require(host, folders)
  local original, loaded, loading = require, {}, {}
  function _G.require(name)
    if type(name) ~= "string" or name:find("^llmproxy%.") or name:find("[^%w_.-]") then return original(name) end
    if loaded[name] ~= nil then return loaded[name] end
    if loading[name] then error(("module '%s' requires itself, directly or through others"):format(name), 2) end
    for _, folder in ipairs(folders) do
      for _, ending in ipairs { ".lua", "/init.lua" } do
        local path = ("%s/lib/%s%s"):format(folder, name:gsub("%.", "/"), ending)
        if host.exists(path) then
          local text, message = host.read(path)
          if not text then error(message, 2) end
          loading[name] = true
          local value
          value, message = file.run(text, path, file.plugin_globals())
          loading[name] = nil
          if message then error(message, 0) end
          if value == nil then value = true end
          loaded[name] = value
          return value
        end
      end
    end
    error(("module '%s' not found (searched: lib in %s)"):format(name, table.concat(folders, ", ")), 2)
  end
end

return file
