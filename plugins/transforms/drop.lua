--- Drops the events nobody wants to keep: health checks, preflights, what was not found.

local function set_of(values)
  if not values or #values == 0 then return nil end
  local set = {}
  for _, value in ipairs(values) do set[value] = true end
  return set
end

-- What stands before, between and behind the stars of a pattern.
local function pieces_of(pattern)
  local pieces = {}
  for piece in (pattern .. "*"):gmatch("([^*]*)%*") do pieces[#pieces + 1] = piece end
  return pieces
end

-- "/health" is a prefix; with a star in it ("*/models", "/v1/*/files") it is a pattern for the whole path.
-- The first place of each piece will do, so nothing is tried twice, whatever path a client invents.
local function matches_pieces(path, pieces)
  local first, last = pieces[1], pieces[#pieces]
  if path:sub(1, #first) ~= first then return false end
  if #pieces == 1 then return true end
  local position = #first + 1
  for index = 2, #pieces - 1 do
    local _, piece_end = path:find(pieces[index], position, true)
    if not piece_end then return false end
    position = piece_end + 1
  end
  return #path - #last + 1 >= position and path:sub(#path - #last + 1) == last
end

local function path_matcher(paths)
  if not paths or #paths == 0 then return nil end
  local patterns = {}
  for index, path in ipairs(paths) do patterns[index] = pieces_of(path) end
  return function(path)
    for _, pieces in ipairs(patterns) do
      if matches_pieces(path, pieces) then return true end
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
