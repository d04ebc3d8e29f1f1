--- The strings of documents by their place, so that a text that a stream sends in pieces is one text again.
--
-- A place is the way to a string: the keys, and of the items of lists the `index` they name rather than their position, as providers do who send several answers or tool calls at once.
-- Strings at the same place of successive documents are pieces of one text. Some names are never: what stands there is said anew each time.
local json = require "llmproxy.json"
local regex = require "llmproxy.regex"
local spans = require "llmproxy.redact.spans"
local views = require "llmproxy.redact.views"

local places = {}

-- Never continued. Joining what is said anew each time would only make numbers that nobody sent.
local WHOLE = {}
for _, name in ipairs {
  "id", "object", "model", "type", "role", "system_fingerprint", "service_tier", "finish_reason", "finishReason", "created_at", "item_id", "call_id", "tool_call_id", "response_id", "responseId",
  "modelVersion", "event", "obfuscation",
} do
  WHOLE[name] = true
end

-- Of a document, that tell parallel texts apart.
local INDEXES = { "index", "output_index", "content_index", "summary_index" }

-- A block's beginning and what follows are one place.
local SAME = { content_block = "delta", content_block_start = "content_block_delta" }

---@class llmproxy.redact.place
---@field inner table<any, llmproxy.redact.place>?
---@field owners table[]? of the pieces
---@field keys any[]
---@field segments llmproxy.redact.segment[]
---@field repeated boolean whether each string is a text of its own

---@class llmproxy.redact.collection
---@field root llmproxy.redact.place
---@field filled llmproxy.redact.place[] those with pieces
---@field names table<string, boolean> of objects
---@field documents llmproxy.redact.segment[]

local function new_place(repeated) return { repeated = repeated } end

---@return llmproxy.redact.collection
function places.new()
  return { root = new_place(false), filled = {}, names = {}, documents = {} }
end

local function enter(place, key, repeated)
  local all = place.inner
  if not all then
    all = {}
    place.inner = all
  end
  local inner = all[key]
  if not inner then
    inner = new_place(repeated or place.repeated)
    all[key] = inner
  end
  return inner
end

local function add_piece(collection, place, owner, key, segment)
  local owners = place.owners
  if not owners then
    owners = {}
    place.owners, place.keys, place.segments = owners, {}, {}
    collection.filled[#collection.filled + 1] = place
  end
  local count = #owners + 1
  owners[count], place.keys[count], place.segments[count] = owner, key, segment
end

-- What an item of a list goes by. Gemini's parts have no numbers, and each event begins anew: they are one text, but for thoughts.
local function index_of(item, position, in_parts)
  if type(item) ~= "table" then return "#" .. position end
  if in_parts then return item.thought == true and "thought" or "part" end
  return type(item.index) == "number" and item.index or "#" .. position
end

local walk

local function can_hold_text(item) return type(item) == "string" or type(item) == "table" end

-- Returns how many strings there are, names included.
local function add_value(collection, owner, key, item, place, segment)
  if type(item) == "string" then
    add_piece(collection, place, owner, key, segment)
    return 1
  end
  return type(item) == "table" and walk(collection, item, place, segment, key == "parts") or 0
end

function walk(collection, value, place, segment, is_parts)
  local count = 0
  if value[1] ~= nil then
    for position, item in ipairs(value) do
      if can_hold_text(item) then count = count + add_value(collection, value, position, item, enter(place, index_of(item, position, is_parts)), segment) end
    end
    return count
  end
  for key, item in pairs(value) do
    collection.names[key] = true
    count = count + 1
    if can_hold_text(item) then count = count + add_value(collection, value, key, item, enter(place, SAME[key] or key, WHOLE[key]), segment) end
  end
  return count
end

-- The place that a document's own names begin in.
local function document_place(collection, document)
  local place = enter(collection.root, "document")
  local kind = document.type
  if type(kind) == "string" then place = enter(place, SAME[kind] or kind) end
  for _, name in ipairs(INDEXES) do
    local index = document[name]
    if type(index) == "number" then place = enter(enter(place, name), index) end
  end
  return place
end

local quote = assert(regex.compile '"')

-- How many strings a JSON text has.
local function strings_in(text)
  if text:find("\\", 1, true) then text = text:gsub("\\.", "") end
  return quote:count(text) / 2
end

--- Adds the strings of a document. A list at the top is a stream written as one: each of its items is a document.
---@param collection llmproxy.redact.collection
---@param segment llmproxy.redact.segment
function places.add_document(collection, segment)
  local value, count = segment.value, 0
  collection.documents[#collection.documents + 1] = segment
  local first = value[1]
  if type(first) == "table" then
    for position, item in ipairs(value) do
      local inner = type(item) == "table" and (type(item.data) == "table" and item.data or item) -- an event of a stream that was decoded
      count = count + add_value(collection, value, position, item, inner and document_place(collection, inner) or enter(collection.root, position), segment)
    end
  else
    count = walk(collection, value, document_place(collection, value), segment)
  end
  -- Of two members with one name the decoder keeps the last: what the other one says goes when the document is written anew.
  if segment.json and count ~= strings_in(segment.json) then segment.changed = true end
end

--- Adds a text, or the next piece of one.
---@param collection llmproxy.redact.collection
---@param owner table
---@param key any
---@param segment llmproxy.redact.segment? marked when the text is changed
---@param name any the same for the pieces of one text; nil: it is a text of its own
function places.add_text(collection, owner, key, segment, name)
  local place = name and enter(collection.root, name) or new_place(true)
  add_piece(collection, place, owner, key, segment)
end

-- Whether all pieces say the same: a value that is repeated, not continued.
local function says_the_same(pieces)
  local first = pieces[1]
  if #first < 6 then return false end
  for index = 2, #pieces do
    if pieces[index] ~= first then return false end
  end
  return true
end

---@class llmproxy.redact.work
---@field search fun(text: string, offset: integer, found: llmproxy.redact.span[])
---@field replacement fun(span: llmproxy.redact.span): string
---@field chosen table<table, table<any, boolean>> strings that paths selected, by owner and key
---@field clean table<string, boolean> short texts with nothing in them
---@field is_done boolean? something was taken out

local function search_piece(work, text, offset, found)
  if text == "" or work.clean[text] then return end
  local before = #found
  work.search(text, offset, found)
  if #found == before and #text < 200 then work.clean[text] = true end
end

-- What is found in the pieces, taken as one text and each on its own: nobody says whether a string is a piece or the whole. Pieces of JSON are pieces: one may begin within an escape.
local function find_in(work, place, pieces)
  local found, offset = {}, 0
  local joined = #pieces > 1 and not place.repeated and not says_the_same(pieces)
  local text = joined and table.concat(pieces)
  local apart = not text or not views.is_json(text)
  for index, piece in ipairs(pieces) do
    local chosen = work.chosen[place.owners[index]]
    if chosen and chosen[place.keys[index]] then
      if piece ~= "" then found[#found + 1] = { first = offset + 1, last = offset + #piece, name = false, value = piece, order = 0 } end
    elseif apart then
      search_piece(work, piece, offset, found)
    end
    offset = offset + #piece
  end
  if text then work.search(text, 0, found) end
  return found, joined
end

-- Selected pieces that touch are one text: one replacement, and one hash of all of it.
local function join_selected(merged)
  local list = {}
  for _, span in ipairs(merged) do
    local before = list[#list]
    if before and not before.name and not span.name and before.last + 1 == span.first then
      before.last, before.value = span.last, before.value .. span.value
    else
      list[#list + 1] = span
    end
  end
  return list
end

local function redact_place(work, place)
  local pieces = {}
  for index, owner in ipairs(place.owners) do pieces[index] = owner[place.keys[index]] end
  local found, joined = find_in(work, place, pieces)
  if not found[1] then return end
  local merged = spans.merge(found)
  if joined then merged = join_selected(merged) end
  work.is_done = true
  local whole = table.concat(pieces)
  if views.is_json(whole) then spans.mark_numbers(whole, merged) end
  for index, text in pairs(spans.cut(pieces, merged, work.replacement)) do
    place.owners[index][place.keys[index]] = text
    if place.segments[index] then place.segments[index].changed = true end
  end
end

-- A name of its own for what is renamed: no value is lost.
local function free_name(owner, name)
  local free, count = name, 1
  while owner[free] ~= nil do
    count = count + 1
    free = name .. "#" .. count
  end
  return free
end

-- What names become that something was found in.
local function renamed(work, names)
  local changed
  for name in pairs(names) do
    local found = {}
    search_piece(work, name, 0, found)
    if found[1] then
      changed = changed or {}
      changed[name] = spans.cut({ name }, spans.merge(found), work.replacement)[1]
    end
  end
  return changed
end

-- Returns whether something was changed.
local function rename(value, changed)
  local wanted, done = {}, false
  for key, item in pairs(value) do
    if changed[key] then wanted[#wanted + 1] = key end
    if type(item) == "table" and rename(item, changed) then done = true end
  end
  table.sort(wanted)
  for _, key in ipairs(wanted) do
    local item = value[key]
    value[free_name(value, changed[key])] = item
    value[key] = nil
  end
  return done or wanted[1] ~= nil
end

-- Probabilities of tokens spell the answer token by token, as text and as bytes.
local SPELLED = { "logprobs", "logprobsResult" }

-- Returns whether there were some.
local function remove_spelled(value)
  local done = false
  for _, name in ipairs(SPELLED) do
    if type(value[name]) == "table" then
      value[name] = json.null
      done = true
    end
  end
  for _, item in pairs(value) do
    if type(item) == "table" and remove_spelled(item) then done = true end
  end
  return done
end

--- Does the work on all that was added. Where something was taken out, the probabilities of tokens go too.
---@param collection llmproxy.redact.collection
---@param work llmproxy.redact.work
function places.redact(collection, work)
  for _, place in ipairs(collection.filled) do redact_place(work, place) end
  local changed = renamed(work, collection.names)
  for _, segment in ipairs(collection.documents) do
    if changed and rename(segment.value, changed) then segment.changed = true end
    if (changed or work.is_done) and (collection.names.logprobs or collection.names.logprobsResult) and remove_spelled(segment.value) then segment.changed = true end
  end
end

return places
