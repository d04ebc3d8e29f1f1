--- A bounded cache: the entry that was not used for the longest time makes room for a new one, and entries may expire.
--
--     local seen = lru.new { max = 10000, ttl = "10m" }
--     if not seen:get(event.id) then seen:set(event.id, true) end
--
-- Every operation takes the same time, however many entries there are. What is kept lives in the pipeline's memory, and is gone when the pipeline is made anew.
local settings = require "llmproxy.settings"
local time = require "llmproxy.time"

local lru = {}

local OPTIONS = {
  max = { type = "integer", min = 1, max = 10000000, required = true },
  ttl = { type = "duration" },
}

-- Entries hang in a ring, the one used last behind the ring's own place.
---@class llmproxy.lru.entry
---@field key any
---@field value any
---@field expires number?
---@field newer llmproxy.lru.entry
---@field older llmproxy.lru.entry

---@class llmproxy.lru
---@field private max integer
---@field private ttl number?
---@field private size integer
---@field private entries table<any, llmproxy.lru.entry>
---@field private ring llmproxy.lru.entry
local methods = {}
methods.__index = methods

local function unlink(entry)
  entry.newer.older, entry.older.newer = entry.older, entry.newer
end

local function link(ring, entry)
  entry.newer, entry.older = ring, ring.older
  ring.older.newer, ring.older = entry, entry
end

local function remove(self, entry)
  unlink(entry)
  self.entries[entry.key] = nil
  self.size = self.size - 1
end

local function check_key(key, what)
  if key == nil or key ~= key then error(what .. ": key: expected a value, got " .. (key == nil and "nil" or "NaN"), 3) end
end

--- An empty cache. `max`: how many entries; `ttl`: how long one is kept since it was set, as seconds or "10m" (as long as there is room, when absent).
---@param options { max: integer, ttl?: number|string }
---@return llmproxy.lru
function lru.new(options)
  local checked, errors = settings.check(OPTIONS, options)
  if errors[1] then error("llmproxy.lru.new: " .. errors[1], 2) end
  local ring = {}
  ring.newer, ring.older = ring, ring
  return setmetatable({ max = checked.max, ttl = checked.ttl, size = 0, entries = {}, ring = ring }, methods)
end

--- The value of a key, which counts as used by that; nil: it is not there, or has expired.
---@param key any
---@return any
function methods:get(key)
  check_key(key, "lru:get")
  local entry = self.entries[key]
  if not entry then return nil end
  if entry.expires and entry.expires <= time.monotonic() then
    remove(self, entry)
    return nil
  end
  unlink(entry)
  link(self.ring, entry)
  return entry.value
end

--- Puts a value there; nil takes the key out.
---@param key any
---@param value any
---@param ttl? number|string instead of the cache's own
function methods:set(key, value, ttl)
  check_key(key, "lru:set")
  local lifetime = self.ttl
  if ttl ~= nil then
    lifetime = settings.duration(ttl) or error("lru:set: ttl: expected a duration as 10 or \"10m\"", 2)
  end
  local entry = self.entries[key]
  if entry then remove(self, entry) end
  if value == nil then return end
  if self.size == self.max then remove(self, self.ring.newer) end
  entry = { key = key, value = value, expires = lifetime and time.monotonic() + lifetime }
  link(self.ring, entry)
  self.entries[key] = entry
  self.size = self.size + 1
end

--- Takes a key out.
---@param key any
function methods:delete(key)
  check_key(key, "lru:delete")
  local entry = self.entries[key]
  if entry then remove(self, entry) end
end

--- Takes everything out.
function methods:clear()
  self.ring.newer, self.ring.older = self.ring, self.ring
  self.entries, self.size = {}, 0
end

--- How many entries there are, those included that have expired and were not asked for since.
---@return integer
function methods:count()
  return self.size
end

return lru
