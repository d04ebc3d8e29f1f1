--- Whether a pipeline is the same as in the configuration before: a text that is equal for two of them exactly when nothing that it depends on has changed.
--
-- That is what the configuration says about it, the text of its plugins and of every library that these could require. A function cannot be compared: where there is one, the whole configuration
-- file counts, with what env and read_file answered, for its upvalues may come from anywhere in it.
local codec = require "llmproxy.codec"
local crypto = require "llmproxy.crypto"
local json = require "llmproxy.json"

local identity = {}

local write

local function digest(out)
  return codec.hex.encode(crypto.sha256(table.concat(out)))
end

local function by_kind_and_name(a, b)
  local kind, other = type(a), type(b)
  if kind ~= other then return kind < other end
  if kind == "number" or kind == "string" then return a < b end
  return tostring(a) < tostring(b)
end

local function write_table(out, value)
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, by_kind_and_name)
  out[#out + 1] = "{"
  for _, key in ipairs(keys) do
    write(out, key)
    write(out, value[key])
  end
  out[#out + 1] = "}"
end

-- Each value with its type and length, so that no two texts run into each other.
function write(out, value)
  local kind = type(value)
  if kind == "table" then
    if out.seen[value] then
      out.opaque = true
      return
    end
    out.seen[value] = true
    write_table(out, value)
    out.seen[value] = nil
  elseif kind == "function" or kind == "userdata" and value ~= json.null then
    out.opaque = true
  else
    local text = kind == "number" and ("%.17g"):format(value) or tostring(value)
    out[#out + 1] = ("%s%d:%s"):format(kind:sub(1, 1), #text, text)
  end
end

local function write_folder(out, host, folder)
  for _, name in ipairs(host.list(folder) or {}) do
    local path = folder .. "/" .. name
    if name:find("%.lua$") then
      write(out, path)
      write(out, host.read(path) or false)
    elseif name:sub(1, 1) ~= "." then
      write_folder(out, host, path)
    end
  end
end

--- What all pipelines could require: a digest of lib/ in all plugin folders.
---@param host table
---@param folders string[]
---@return string
function identity.of_libraries(host, folders)
  local out = { seen = {} }
  write(out, folders)
  for _, folder in ipairs(folders) do write_folder(out, host, folder .. "/lib") end
  return digest(out)
end

local function write_use(out, host, use)
  if not use then return end
  write(out, use.name)
  write(out, use.settings or use.inline)
  if use.plugin then
    write(out, use.plugin.file)
    write(out, host.read(use.plugin.file) or false)
  end
end

local PLAIN = { "name", "batch", "concurrency", "retry", "watchdog", "memory_limit", "buffer_size", "from" }

--- Of one pipeline.
---@param host table
---@param resolved table see llmproxy.config.pipelines
---@param around any[] what else it depends on
---@param whole any[] what it depends on too if it has a function
---@return string
function identity.of(host, resolved, around, whole)
  local out = { seen = {} }
  for _, key in ipairs(PLAIN) do write(out, resolved[key] == nil and "" or resolved[key]) end
  for _, use in ipairs(resolved.transforms) do write_use(out, host, use) end
  write_use(out, host, resolved.dispatcher)
  write_use(out, host, resolved.bus)
  write(out, around)
  if out.opaque then write(out, whole) end
  return digest(out)
end

return identity
