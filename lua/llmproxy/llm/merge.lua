--- Puts a streamed answer together again from its deltas.
--
-- A merge knows which fields of a delta are fragments (rules) and treats the rest alike: the last value that is not null wins, so that what a provider adds tomorrow is kept.
-- Fragments are collected in lists and joined once at the end: joining as they come would copy a long answer once for every piece.
local json = require "llmproxy.json"

local merge = {}

---@alias llmproxy.merge.rule "text" | "once" | "list" | table<string, any> | fun(merge: llmproxy.merge, target: table, value: any)
--- "text": fragments of a string; "once": an identifier, the first one stays; "list": items of a list; a table: rules of a nested object; a function: does it itself.

---@class llmproxy.merge
---@field private pending table[] fragments waiting to be joined
local methods = {}
methods.__index = methods

--- A value that is a JSON object or array, or nil.
---@param value any
---@return table?
function merge.table(value)
  if type(value) == "table" and value ~= json.null then return value end
end

--- A value that is a string, or nil.
---@param value any
---@return string?
function merge.string(value)
  if type(value) == "string" then return value end
end

--- A value that is a number, or nil (integers too large for Lua are no numbers here).
---@param value any
---@return number?
function merge.number(value)
  if type(value) == "number" then return value end
end

--- A string that says something, or nil.
---@param value any
---@return string?
function merge.filled(value)
  if type(value) == "string" and value ~= "" then return value end
end

--- The text of a content that is a string or a list of parts with text in them.
---@param value any
---@return string?
function merge.text(value)
  if not merge.table(value) then return merge.string(value) end
  local pieces = {}
  for _, part in ipairs(value) do
    pieces[#pieces + 1] = merge.string(merge.table(part) and part.text)
  end
  return pieces[1] and table.concat(pieces)
end

---@return llmproxy.merge
function merge.new()
  return setmetatable({ pending = {} }, methods)
end

local function append_text(self, target, key, value)
  local text = merge.text(value)
  if not text then return end
  local pieces = target[key]
  if not (type(pieces) == "table" and pieces.merge == self) then
    pieces = { merge = self }
    target[key] = pieces
    self.pending[#self.pending + 1] = { target = target, key = key, pieces = pieces }
  end
  pieces[#pieces + 1] = text
end

local function append_items(target, key, value)
  if not merge.table(value) then return end
  local items = merge.table(target[key]) or json.array {}
  target[key] = items
  for _, item in ipairs(value) do items[#items + 1] = item end
end

--- Merges the fields of one delta into target.
---@param target table
---@param delta any what is no object is ignored
---@param rules table<string, llmproxy.merge.rule> by field name
function methods:add(target, delta, rules)
  for key, value in pairs(merge.table(delta) or {}) do
    local rule = rules[key]
    if type(key) ~= "string" then
      break -- a list where an object belongs says nothing
    elseif value == json.null then
      if target[key] == nil and type(rule) ~= "function" then target[key] = value end
    elseif rule == "text" then
      append_text(self, target, key, value)
    elseif rule == "once" then
      if target[key] == nil or target[key] == json.null or target[key] == "" then target[key] = value end
    elseif rule == "list" then
      append_items(target, key, value)
    elseif type(rule) == "table" then
      target[key] = merge.table(target[key]) or {}
      self:add(target[key], value, rule)
    elseif rule then
      rule(self, target, value)
    else
      target[key] = value
    end
  end
end

--- Joins the fragments. Call it once, when all deltas are in.
function methods:finish()
  for _, waiting in ipairs(self.pending) do
    if waiting.target[waiting.key] == waiting.pieces then waiting.target[waiting.key] = table.concat(waiting.pieces) end
  end
  self.pending = {}
end

--- The entries of a map from index to entry, in order of the index.
---@param by_index table<number, table>
---@return table[]
function merge.ordered(by_index)
  local indexes, list = {}, json.array {}
  for index in pairs(by_index) do indexes[#indexes + 1] = index end
  table.sort(indexes)
  for position, index in ipairs(indexes) do list[position] = by_index[index] end
  return list
end

return merge
