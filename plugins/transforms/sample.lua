--- Keeps a share of the events, and always those that one wants to look at: what failed, took long, cost much.
--
-- The choice is by a hash and not by chance: events with the same value of `by` are kept or left together, in every pipeline and process with the same `seed`, and also when they are replayed.
local crypto = require "llmproxy.crypto"
local path = require "llmproxy.path"

local function failed(event)
  local status = event.status or 0
  return status == 0 or status >= 400 or event.error ~= nil or path.get(event, { "llm", "error" }) ~= nil
end

-- A number from 0 up to, not including, 1.
local function place(seed, value)
  local number = 0
  for _, byte in ipairs { crypto.sha256(seed .. "\0" .. tostring(value)):byte(1, 6) } do number = number * 256 + byte end
  return number / 2 ^ 48
end

return {
  kind = "transform",
  api = 1,
  summary = "Keeps a share of the events, and all that failed, were slow or expensive.",
  settings = {
    rate = { type = "number", min = 0, max = 1, required = true, doc = "share of the events that is kept" },
    by = path.field("what decides: events with the same value are kept or left together; where it is absent, the id decides", "id"),
    seed = { type = "string", default = "", doc = "another seed keeps another share" },
    keep_errors = { type = "boolean", default = true, doc = "keep what failed: no response, a status from 400, an error in the response" },
    keep_slower_than = { type = "duration", doc = "keep what took longer" },
    keep_costlier_than = { type = "number", min = 0, doc = "keep what cost more, in the currency of the transform cost, which must come before" },
    keep_more_tokens_than = { type = "integer", min = 0, doc = "keep what used more tokens; the transform llm must come before" },
    rate_field = path.field "where the share is written with which an event of its kind is kept, so that sums can be scaled (1 for what is always kept); nowhere when absent",
  },
  new = function(settings)
    local by, rate_field = assert(path.parse(settings.by)), settings.rate_field and path.parse(settings.rate_field)
    local limits = {
      { keys = { "duration_ms" }, above = settings.keep_slower_than and settings.keep_slower_than * 1000 },
      { keys = { "cost", "total" }, above = settings.keep_costlier_than },
      { keys = { "llm", "usage", "total_tokens" }, above = settings.keep_more_tokens_than },
    }
    local function always(event)
      if settings.keep_errors and failed(event) then return true end
      for _, limit in ipairs(limits) do
        local value = limit.above and path.get(event, limit.keys)
        if type(value) == "number" and value > limit.above then return true end
      end
    end
    return function(event)
      local rate = settings.rate
      if always(event) then
        rate = 1
      else
        local value = path.get(event, by)
        if type(value) == "table" or value == nil then value = event.id end
        if place(settings.seed, value) >= rate then return nil end
      end
      if rate_field then path.set(event, rate_field, rate) end
      return event
    end
  end,
}
