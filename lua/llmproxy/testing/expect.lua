--- expect(value):to_equal(other) and its like. What is not as expected raises a failure, which knows where it was expected.
local diff = require "llmproxy.testing.diff"

local show = diff.show

---@class llmproxy.testing.failure
---@field message string
---@field details string?
---@field place string?

local FAILURE = { __tostring = function(failure) return failure.message end }

local function contains(value, part)
  if type(value) == "string" then return type(part) == "string" and value:find(part, 1, true) ~= nil end
  if type(value) ~= "table" then return false end
  for _, item in pairs(value) do
    if diff.same(item, part) then return true end
  end
  return false
end

-- What a function raised, as text; nil: nothing.
local function raised(call)
  if type(call) ~= "function" then error("to_raise: expected a function, got a " .. type(call), 3) end
  local fine, message = pcall(call)
  if not fine then return tostring(message) end
end

-- Each tells whether it holds, what was expected in words, and perhaps what there was instead, or details.
---@type table<string, fun(value: any, other: any): boolean, string, string?, string?>
local MATCHERS = {
  equal = function(value, other)
    local same = diff.same(value, other)
    return same, show(other), nil, not same and diff.lines(other, value) or nil
  end,
  be = function(value, other) return rawequal(value, other), show(other) .. " itself" end,
  be_nil = function(value) return value == nil, "nothing" end,
  be_true = function(value) return value == true, "true" end,
  be_false = function(value) return value == false, "false" end,
  be_above = function(value, other) return type(value) == "number" and value > other, "a number above " .. show(other) end,
  be_below = function(value, other) return type(value) == "number" and value < other, "a number below " .. show(other) end,
  match = function(value, pattern) return type(value) == "string" and value:find(pattern) ~= nil, "a text that matches " .. show(pattern) end,
  contain = function(value, part) return contains(value, part), "something that contains " .. show(part) end,
  have_length = function(value, length)
    local known = type(value) == "string" or type(value) == "table"
    return known and #value == length, "a length of " .. show(length), known and ("%d (%s)"):format(#value, show(value)) or nil
  end,
  raise = function(call, text)
    local message = raised(call)
    return message ~= nil and (text == nil or message:find(text, 1, true) ~= nil), text and "an error with " .. show(text) or "an error", message and show(message) or "no error"
  end,
}

--- A function that makes expectations.
---@param host table see src/command/plugin_host.h
---@return fun(value: any): table
return function(host)
  local methods = {}
  local metatable = { __index = methods }

  local function fail(message, details)
    error(setmetatable({ message = message, details = details, place = host.place() }, FAILURE), 0)
  end

  for name, holds in pairs(MATCHERS) do
    methods["to_" .. name] = function(self, other)
      local fine, expected, got, details = holds(self.value, other)
      if not fine then fail(("expected %s, got %s"):format(expected, got or show(self.value)), details) end
    end
    methods["not_to_" .. name] = function(self, other)
      local fine, expected = holds(self.value, other)
      if fine then fail(("expected not %s, got %s"):format(expected, show(self.value))) end
    end
  end

  return function(value) return setmetatable({ value = value }, metatable) end
end
