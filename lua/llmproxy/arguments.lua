--- How the modules that are written in Lua answer a wrong argument: as those in C do, with the name of the function and of the argument.
local arguments = {}

--- Raises, where the function that asks was called, unless the value is of that type.
---@param value any
---@param kind type
---@param what string "llmproxy.text.trim: value"
function arguments.expect(value, kind, what)
  if type(value) ~= kind then error(("%s: expected a %s, got %s"):format(what, kind, type(value)), 3) end
end

return arguments
