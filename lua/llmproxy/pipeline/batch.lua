--- The batch that a dispatcher's deliver gets.
local batch = {}

-- Under this key a batch keeps its items: out of the way of whoever looks at its fields.
local ITEMS = {}

--- What deliver is given: one try to deliver some events.
---@class llmproxy.batch
---@field events table[] as the transforms left them; changing them does not change what json gives
---@field bytes integer of their JSON
---@field attempt integer 1 at the first try
---@field json fun(self: llmproxy.batch): string a JSON array
---@field json_lines fun(self: llmproxy.batch): string one JSON object a line
---@field lines fun(self: llmproxy.batch): string[] each event's JSON

-- Made when somebody looks: json needs no tables.
local function make_events(items)
  local events = {}
  for index, item in ipairs(items) do
    if not item.event and item.finished then error("batch.events: this batch is delivered or dropped, its events are gone", 3) end
    item.event = item.event or item.entry:event()
    events[index] = item.event
  end
  return events
end

local function lines_of(self)
  local lines = {}
  for index, item in ipairs(self[ITEMS]) do lines[index] = item.line end
  return lines
end

--- A function that makes batches.
---@param host table see src/pipeline/host.h
---@return fun(items: llmproxy.pipeline.item[], attempt: integer): llmproxy.batch
function batch.maker(host)
  local methods = {
    json = function(self) return host.json(lines_of(self)) end,
    json_lines = function(self) return host.json_lines(lines_of(self)) end,
    lines = function(self) return host.lines(lines_of(self)) end,
  }
  local metatable = {
    __index = function(self, key)
      if key == "events" then self.events = make_events(self[ITEMS]) end
      return rawget(self, key) or methods[key]
    end,
  }
  return function(items, attempt)
    local bytes = 0
    for _, item in ipairs(items) do bytes = bytes + item.bytes end
    return setmetatable({ [ITEMS] = items, bytes = bytes, attempt = attempt }, metatable)
  end
end

return batch
