--- A schema of one's own without Lua: which fields an event has, and what they are called.
--
--     { "fields", keep = { "id", "time", "status", "llm.usage", "request_headers.x-team" },
--                 rename = { ["request_headers.x-team"] = "team", ["llm.usage"] = "tokens" } }
--
-- First what is not kept goes, then what is dropped, then names change. With `keep` the result is another table than the event: it has what was named and nothing else, no nulls either.
local codec = require "llmproxy.codec"
local path = require "llmproxy.path"

-- Which bodies are written in which encoding: outside of an event nobody else does it.
local ENCODING = { request_body = "request_body_encoding", response_body = "response_body_encoding", response_tail = "response_body_encoding" }

local function value_of(event, keys)
  local value = path.get(event, keys)
  local encoding = #keys == 1 and type(value) == "string" and ENCODING[keys[1]]
  if encoding and event[encoding] == "base64" then return codec.base64.encode(value) end
  return value
end

local function kept(event, paths)
  local result = {}
  for _, keys in ipairs(paths) do
    local value = value_of(event, keys)
    if value ~= nil then path.set(result, keys, value) end
  end
  return result
end

-- Renaming takes all first and puts then, so that names can be exchanged.
local function rename(event, pairs_of_paths, read)
  local taken = {}
  for index, pair in ipairs(pairs_of_paths) do
    taken[index] = read(event, pair.from)
    path.remove(event, pair.from)
  end
  for index, pair in ipairs(pairs_of_paths) do
    if taken[index] ~= nil then path.set(event, pair.to, taken[index]) end
  end
end

-- Tables that lost their last key through renaming ("request_headers" of one header) go too.
local function prune(event, pairs_of_paths)
  for _, pair in ipairs(pairs_of_paths) do
    for length = #pair.from - 1, 1, -1 do
      local keys = { unpack(pair.from, 1, length) }
      local inner = path.get(event, keys)
      if type(inner) ~= "table" or next(inner) ~= nil then break end
      path.remove(event, keys)
    end
  end
end

local function sorted_pairs(map)
  local list = {}
  for from, to in pairs(map) do list[#list + 1] = { from = assert(path.parse(from)), to = assert(path.parse(to)), text = from } end
  table.sort(list, function(a, b) return a.text < b.text end)
  return list
end

return {
  kind = "transform",
  api = 1,
  summary = "Keeps, drops and renames fields: a schema of your own without Lua.",
  settings = {
    keep = { type = "list", items = path.field(), default = {}, doc = "the fields of the result; without it all" },
    drop = { type = "list", items = path.field(), default = {}, doc = "fields that go" },
    rename = { type = "map", keys = path.field(), items = path.field(), default = {}, doc = "new places by the old ones" },
  },
  new = function(settings)
    local keep, drop, names = path.parse_all(settings.keep), path.parse_all(settings.drop), sorted_pairs(settings.rename)
    return function(event)
      local result = keep[1] and kept(event, keep) or event
      for _, keys in ipairs(drop) do path.remove(result, keys) end
      rename(result, names, keep[1] and path.get or value_of)
      prune(result, names)
      return result
    end
  end,
}
