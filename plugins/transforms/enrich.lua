--- Adds to each event what the caller did not say, or said in a header: which environment, which team.
--
--     { "enrich", fields = { environment = env("DEPLOYMENT", "dev"), ["tags.region"] = "eu-west-1" }, headers = { team = "x-team" } }
local path = require "llmproxy.path"

local function compile(map, value_of)
  local list = {}
  for target, source in pairs(map) do list[#list + 1] = { keys = assert(path.parse(target)), text = target, value = value_of(source) } end
  table.sort(list, function(a, b) return a.text < b.text end)
  return list
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local made = setmetatable({}, getmetatable(value))
  for key, item in pairs(value) do made[key] = copy(item) end
  return made
end

local HEADER = { type = "string", min = 1 }

return {
  kind = "transform",
  api = 1,
  summary = "Adds fixed fields, and fields from headers.",
  settings = {
    fields = { type = "map", keys = path.field(), items = { type = "any" }, default = {}, doc = "values by the place they go to; env() takes them from the environment" },
    headers = { type = "map", keys = path.field(), items = HEADER, default = {}, doc = "names of request headers by the place their values go to" },
    response_headers = { type = "map", keys = path.field(), items = HEADER, default = {}, doc = "the same with response headers" },
    overwrite = { type = "boolean", default = true, doc = "whether what is there already is replaced" },
  },
  new = function(settings)
    local fixed = compile(settings.fields, function(value) return value end)
    local from_request, from_response = compile(settings.headers, string.lower), compile(settings.response_headers, string.lower)
    local function put(event, keys, value)
      if value ~= nil and (settings.overwrite or path.get(event, keys) == nil) then path.set(event, keys, value) end
    end
    return function(event)
      for _, field in ipairs(fixed) do put(event, field.keys, copy(field.value)) end
      for _, field in ipairs(from_request) do put(event, field.keys, path.get(event, { "request_headers", field.value })) end
      for _, field in ipairs(from_response) do put(event, field.keys, path.get(event, { "response_headers", field.value })) end
      return event
    end
  end,
}
