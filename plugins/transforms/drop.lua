--- Drops the events nobody wants to keep: health checks, preflights, what was not found.
local glob = require "llmproxy.glob"

local function set_of(values)
  if not values or #values == 0 then return nil end
  local set = {}
  for _, value in ipairs(values) do set[value] = true end
  return set
end

-- "/health" is a prefix; with a star in it ("*/models", "/v1/*/files") it is a pattern for the whole path.
local function path_matcher(paths)
  if not paths or #paths == 0 then return nil end
  local patterns = {}
  for index, path in ipairs(paths) do patterns[index] = glob.compile(path:find("*", 1, true) and path or path .. "*") end
  return function(path)
    for _, matches in ipairs(patterns) do
      if matches(path) then return true end
    end
    return false
  end
end

return {
  kind = "transform",
  api = 1,
  summary = "Drops events by path, method and status; of the settings given, all must match.",
  settings = {
    paths = { type = "list", items = { type = "string" }, default = {}, doc = "beginnings of paths, or with * in them patterns for whole paths" },
    methods = { type = "list", items = { type = "string" }, default = {}, doc = "methods, as sent" },
    statuses = { type = "list", items = { type = "integer", min = 0, max = 999 }, default = {}, doc = "statuses; 0: no response was sent" },
  },
  new = function(settings)
    local matches_path, methods, statuses = path_matcher(settings.paths), set_of(settings.methods), set_of(settings.statuses)
    if not (matches_path or methods or statuses) then error("drop needs paths, methods or statuses: without them it would drop everything", 0) end
    return function(event)
      local matches = (not matches_path or matches_path(event.path)) and (not methods or methods[event.method]) and (not statuses or statuses[event.status])
      if not matches then return event end
    end
  end,
}
