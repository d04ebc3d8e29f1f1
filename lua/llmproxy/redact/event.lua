--- Redacts an event: its bodies, whatever form they have, and its other fields.
local crypto = require "llmproxy.crypto"
local codec = require "llmproxy.codec"
local documents = require "llmproxy.redact.documents"
local json = require "llmproxy.json"
local paths = require "llmproxy.redact.paths"
local places = require "llmproxy.redact.places"
local spans = require "llmproxy.redact.spans"

local redact = {}

-- Of an HMAC, in hex digits: enough that different values hardly ever meet.
local HASH_DIGITS = 16

-- Bodies, and the field that says what coding they still have.
local CODING = { request_body = "request_content_coding", response_body = "response_content_coding", response_tail = "response_content_coding" }

---@class llmproxy.redact.options
---@field patterns llmproxy.redact.pattern[]
---@field where table<string, boolean> the fields that patterns look at
---@field paths llmproxy.redact.path[]
---@field action "replace"|"hash"|"drop"
---@field key string? of the hash
---@field replacement string?

-- What stands in place of a span.
local function replacing(options)
  if options.action == "drop" then return function() return "" end end
  if options.action == "hash" then
    return function(span)
      local digest = codec.hex.encode(crypto.hmac_sha256(options.key, span.value)):sub(1, HASH_DIGITS)
      return ("[%s:%s]"):format(span.name or "redacted", digest)
    end
  end
  return function(span)
    return options.replacement or span.name and ("[redacted:%s]"):format(span.name) or "[redacted]"
  end
end

-- Takes members and items out, the last items first: the numbers of the others stay right.
local function remove(selected)
  local lists = {}
  for _, place in ipairs(selected) do
    if type(place.key) == "number" then
      local list = lists[place.owner] or {}
      lists[place.owner] = list
      list[place.key] = true
    else
      place.owner[place.key] = nil
    end
  end
  for owner, gone in pairs(lists) do
    local kept, count = 0, #owner
    for index = 1, count do
      local item = owner[index]
      owner[index] = nil
      if not gone[index] then
        kept = kept + 1
        owner[kept] = item
      end
    end
  end
end

-- Does what the action says to what paths lead to; strings are noted, for they may be pieces.
local function handle_selected(options, selected, work)
  if options.action == "drop" then return remove(selected) end
  for _, place in ipairs(selected) do
    local value = place.owner[place.key]
    if type(value) == "string" then
      work.chosen[place.owner] = work.chosen[place.owner] or {}
      work.chosen[place.owner][place.key] = true
    else
      local text = type(value) == "table" and assert(json.encode(value)) or tostring(value)
      place.owner[place.key] = work.replacement { name = false, value = text }
    end
  end
end

local function select_in(value, keys, selected)
  paths.select(value, keys, selected)
  if type(value[1]) ~= "table" then return end
  for _, item in ipairs(value) do -- a stream that is one list
    if type(item) == "table" then
      paths.select(item, keys, selected)
      if type(item.data) == "table" then paths.select(item.data, keys, selected) end
    end
  end
end

-- Each place once: two paths may lead to one.
local function without_doubles(selected)
  local seen, list = {}, {}
  for _, place in ipairs(selected) do
    local keys = seen[place.owner] or {}
    seen[place.owner] = keys
    if not keys[place.key] then
      keys[place.key] = true
      list[#list + 1] = place
    end
  end
  return list
end

local function apply_paths(options, list, segments, work, field)
  for _, segment in ipairs(segments) do
    if segment.value ~= nil then
      local selected = {}
      for _, path in ipairs(list) do select_in(segment.value, path.keys, selected) end
      if selected[1] then
        handle_selected(options, without_doubles(selected), work)
        segment.changed, work.is_done = true, true
      end
    elseif segment.broken then
      error(("%s: paths cannot be followed in it: JSON that cannot be read"):format(field), 0)
    end
  end
end

-- Frames of bytes around the pieces of a text.
local function is_binary_stream(event, field)
  local kind = field ~= "request_body" and CODING[field] and type(event.response_headers) == "table" and event.response_headers["content-type"]
  return type(kind) == "string" and kind:find("vnd.amazon.eventstream", 1, true) ~= nil
end

local function nothing() end

local function add_segments(collection, segments)
  for _, segment in ipairs(segments) do
    if segment.value ~= nil then
      places.add_document(collection, segment)
    elseif segment.text:find "%S" then
      places.add_text(collection, segment, "text", nil, segment.piece and "text" or nil)
    end
  end
end

---@param options llmproxy.redact.options
---@return { fields: fun(event: table), bodies: fun(event: table) } fields: all but bodies and the field llm. Both raise when they cannot do all of their work
function redact.new(options)
  local search, replacement = spans.searcher(options.patterns), replacing(options)
  local by_field = {}
  for _, path in ipairs(options.paths) do
    local list = by_field[path.field] or {}
    by_field[path.field] = list
    list[#list + 1] = path
  end

  -- Paths of the body are those of its tail.
  local function of_tail(table, field) return table[field == "response_tail" and "response_body" or field] end

  local function is_wanted(field)
    return of_tail(by_field, field) ~= nil or of_tail(options.where, field) and options.patterns[1] ~= nil
  end

  local function redact_segments(segments, field)
    local list = of_tail(by_field, field)
    local work = { search = of_tail(options.where, field) and search or nothing, replacement = replacement, chosen = {}, clean = {} }
    if list then apply_paths(options, list, segments, work, field) end
    local collection = places.new()
    add_segments(collection, segments)
    places.redact(collection, work)
  end

  local function redact_field(event, field, read)
    local value = event[field]
    for _, path in ipairs(of_tail(by_field, field) or {}) do
      if not path.keys[1] then
        event[field] = options.action ~= "drop" and replacement { name = false, value = type(value) == "table" and assert(json.encode(value)) or tostring(value) } or nil
        return
      end
    end
    if type(value) == "table" then
      redact_segments({ { value = value } }, field)
    elseif type(value) == "string" then
      local coding = CODING[field] and event[CODING[field]]
      if is_binary_stream(event, field) then error(field .. ": it cannot be searched: texts in an event stream of AWS are in pieces that nobody puts together", 0) end
      if coding then error(("%s: it cannot be searched: its content coding %s could not be undone"):format(field, coding), 0) end
      local segments = read(value)
      redact_segments(segments, field)
      event[field] = documents.write(segments)
    end
  end

  local function as_text(value) return { { text = value } } end

  -- The end of a response, behind a gap, begins somewhere in a line: with paths nobody knows what stands there.
  local function read_tail(value)
    local line, rest = value:match "^([^\r\n]*)(.*)$"
    local segments = documents.read(rest)
    table.insert(segments, 1, { text = by_field.response_body and "" or line })
    return segments
  end

  -- A tail that follows the body without a gap is joined with it: what is split between the two is whole. Behind a gap it stays as far away as it was, or further: those who join the two count bytes.
  local function redact_response(event)
    local body, tail = event.response_body, event.response_tail
    if type(body) ~= "string" or type(tail) ~= "string" then
      redact_field(event, "response_body", documents.read)
      return redact_field(event, "response_tail", read_tail)
    end
    local missing = (tonumber(event.response_bytes) or math.huge) - #body
    if missing <= #tail then
      event.response_body = body .. (missing > 0 and tail:sub(-missing) or "")
      event.response_tail = nil
      return redact_field(event, "response_body", documents.read)
    end
    redact_field(event, "response_body", documents.read)
    redact_field(event, "response_tail", read_tail)
    local overlap = #(event.response_body or "") + #(event.response_tail or "") - event.response_bytes
    if event.response_tail and overlap >= 0 then event.response_tail = event.response_tail:sub(overlap + 2) end
  end

  local function redact_fields(event)
    local names = {}
    for name in pairs(event) do
      if not CODING[name] and name ~= "llm" and is_wanted(name) then names[#names + 1] = name end
    end
    table.sort(names)
    for _, name in ipairs(names) do redact_field(event, name, as_text) end
  end

  local function redact_bodies(event)
    if is_wanted "request_body" then redact_field(event, "request_body", documents.read) end
    if is_wanted "response_body" then redact_response(event) end
    if is_wanted "llm" then redact_field(event, "llm", as_text) end
  end

  return { fields = redact_fields, bodies = redact_bodies }
end

return redact
