--- Keeps or drops events by conditions on their fields.
--
--     { "filter", keep = { { status = { at_least = 500 } }, { route = "openai", duration_ms = { above = 10000 } } },
--                 drop = { { path = { starts_with = "/health" } } } }
--
-- A rule is a table of fields and what must be true of each: a value (the field is equal to it), a list (to one of them), or a table of tests. All of a rule must hold. An event goes on when
-- one rule of `keep` holds (or there is none) and none of `drop`.
local path = require "llmproxy.path"
local words = require "llmproxy.settings.words"

local function compared(compare)
  return function(value, limit) return type(value) == "number" and compare(value, limit) end
end

local function of_text(test)
  return function(value, text) return type(value) == "string" and test(value, text) end
end

-- Each with the type of its operand. All are false for a field that is not there, but `exists = false` and `is_not`.
local TESTS = {
  is = { kinds = { string = true, number = true, boolean = true }, test = function(value, other) return value == other end },
  is_not = { kinds = { string = true, number = true, boolean = true }, test = function(value, other) return value ~= other end },
  exists = { kinds = { boolean = true }, test = function(value, there) return (value ~= nil) == there end },
  above = { kinds = { number = true }, test = compared(function(value, limit) return value > limit end) },
  at_least = { kinds = { number = true }, test = compared(function(value, limit) return value >= limit end) },
  below = { kinds = { number = true }, test = compared(function(value, limit) return value < limit end) },
  at_most = { kinds = { number = true }, test = compared(function(value, limit) return value <= limit end) },
  contains = { kinds = { string = true }, test = of_text(function(value, text) return value:find(text, 1, true) ~= nil end) },
  starts_with = { kinds = { string = true }, test = of_text(function(value, text) return value:sub(1, #text) == text end) },
  ends_with = { kinds = { string = true }, test = of_text(function(value, text) return text == "" or value:sub(-#text) == text end) },
  matches = { kinds = { string = true }, test = of_text(function(value, pattern) return value:find(pattern) ~= nil end) },
}
local NAMES = words.sorted_keys(TESTS)

local function is_plain(value)
  return type(value) == "string" or type(value) == "number" or type(value) == "boolean"
end

local function check_list(list)
  for index, value in ipairs(list) do
    if not is_plain(value) then return ("[%d]: expected a string, a number or true or false, got a %s"):format(index, type(value)) end
  end
end

local function check_tests(tests)
  for name, operand in pairs(tests) do
    local test = TESTS[name]
    if not test then return (".%s: no such test%s (there are: %s)"):format(tostring(name), words.hint(name, NAMES), table.concat(NAMES, ", ")) end
    if not test.kinds[type(operand)] then return (".%s: expected a %s, got %s"):format(name, table.concat(words.sorted_keys(test.kinds), " or "), words.shown(operand)) end
    if name == "matches" then
      local fine, message = pcall(string.find, "", operand)
      if not fine then return (".matches: %s"):format((tostring(message):gsub("^.-:%d+: ", ""))) end
    end
  end
end

-- What is wrong with what must be true of one field; nil: nothing.
local function check_condition(condition)
  if is_plain(condition) then return nil end
  if type(condition) ~= "table" or next(condition) == nil then return (": expected a value, a list of values or a table of tests, got %s"):format(words.shown(condition)) end
  if #condition > 0 then return check_list(condition) end
  return check_tests(condition)
end

local function check_rule(rule)
  for name, condition in pairs(rule) do
    local keys, message = path.parse(name)
    if not keys then return nil, ("%s: expected the path of a field as a key: %s"):format(name, message) end
    message = check_condition(condition)
    if message then return nil, name .. message end
  end
  return rule
end

local function one_of(values)
  local set = {}
  for _, value in ipairs(values) do set[value] = true end
  return function(value) return value ~= nil and set[value] == true end
end

local function compile_condition(condition)
  if type(condition) ~= "table" then return function(value) return value == condition end end
  if #condition > 0 then return one_of(condition) end
  return function(value)
    for name, operand in pairs(condition) do
      if not TESTS[name].test(value, operand) then return false end
    end
    return true
  end
end

local function compile_rule(rule)
  local fields = {}
  for name, condition in pairs(rule) do fields[#fields + 1] = { keys = path.parse(name), holds = compile_condition(condition) } end
  return function(event)
    for _, field in ipairs(fields) do
      if not field.holds(path.get(event, field.keys)) then return false end
    end
    return true
  end
end

local function any(rules)
  local compiled = {}
  for index, rule in ipairs(rules) do compiled[index] = compile_rule(rule) end
  return function(event)
    for _, holds in ipairs(compiled) do
      if holds(event) then return true end
    end
    return false
  end
end

local RULE = { type = "map", items = { type = "any" }, min = 1, check = check_rule, expected = "a table of fields and what must be true of them" }

return {
  kind = "transform",
  api = 1,
  summary = "Keeps or drops events by conditions on their fields.",
  settings = {
    keep = { type = "list", items = RULE, default = {}, doc = "rules, one of which must hold: tables of fields and a value, a list of values, or tests (" .. table.concat(NAMES, ", ") .. ")" },
    drop = { type = "list", items = RULE, default = {}, doc = "rules, none of which may hold" },
  },
  new = function(settings)
    local keeps, drops = any(settings.keep), any(settings.drop)
    if not settings.keep[1] and not settings.drop[1] then error("filter needs rules in keep or drop: without them it does nothing", 0) end
    return function(event)
      if settings.keep[1] and not keeps(event) or drops(event) then return nil end
      return event
    end
  end,
}
