--- Where in a text the patterns match, in any of its readings, and what the text is without that.
local json = require "llmproxy.json"
local views = require "llmproxy.redact.views"

local spans = {}

---@class llmproxy.redact.span
---@field first integer
---@field last integer
---@field name string|false the pattern's; false: a path led here
---@field value string what matched, as it is meant: escapes undone, in the pattern's normal form
---@field is_number boolean? it is a number in JSON

---@param list llmproxy.redact.pattern[]
---@return fun(text: string, offset: integer, found: llmproxy.redact.span[]) search adds what is in the text to a list, its positions moved by the offset
function spans.searcher(list)
  return function(text, offset, found)
    for _, view in ipairs(views.all(text)) do
      for _, pattern in ipairs(list) do
        pattern.search(view.text, function(first, last)
          if views.begins_in_escape(view, first) then return end
          local value = pattern.normal(view.text:sub(first, last))
          first, last = views.origin(view, first, last)
          found[#found + 1] = { first = first + offset, last = last + offset, name = pattern.name, value = value, order = #found }
        end)
      end
    end
  end
end

local function comes_before(a, b)
  if a.first ~= b.first then return a.first < b.first end
  if a.last ~= b.last then return a.last > b.last end
  return a.order < b.order
end

--- In order, and those that overlap made one: the longest names it.
---@param found llmproxy.redact.span[]
---@return llmproxy.redact.span[]
function spans.merge(found)
  table.sort(found, comes_before)
  local merged = {}
  for _, span in ipairs(found) do
    local before = merged[#merged]
    if before and span.first <= before.last then
      local size = span.last - span.first
      if size > before.size then before.name, before.value, before.size = span.name, span.value, size end
      before.last = math.max(before.last, span.last)
    else
      merged[#merged + 1] = { first = span.first, last = span.last, name = span.name, value = span.value, size = span.last - span.first }
    end
  end
  return merged
end

--- Marks the spans that are numbers in a JSON text: what stands in their place must be a value of its own.
---@param text string
---@param merged llmproxy.redact.span[]
function spans.mark_numbers(text, merged)
  local position, in_string = 1, false
  for _, span in ipairs(merged) do
    if not text:find("^%d+", span.first) or not text:find("^%s*[,%]}]", span.last + 1) or text:find("%D", span.first) <= span.last then goto continue end
    while true do
      local at = text:find('["\\]', position)
      if not at or at >= span.first then break end
      if text:byte(at) == 92 then position = at + 2 else position, in_string = at + 1, not in_string end
    end
    span.is_number = not in_string
    ::continue::
  end
end

--- The pieces of a text without its spans. What stands in place of a span goes into the piece where the span begins; the others only lose their part of it.
---@param pieces string[]
---@param merged llmproxy.redact.span[] in the pieces joined
---@param replacement fun(span: llmproxy.redact.span): string
---@return table<integer, string> changed by the piece's number
function spans.cut(pieces, merged, replacement)
  local changed, next_span, before = {}, 1, 0
  for index, piece in ipairs(pieces) do
    local parts, position = nil, 1 -- of this piece
    local last_byte = before + #piece
    while merged[next_span] and merged[next_span].first <= last_byte do
      local span = merged[next_span]
      parts = parts or {}
      if span.first > before then
        parts[#parts + 1] = piece:sub(position, span.first - before - 1)
        parts[#parts + 1] = span.is_number and json.encode(replacement(span)) or replacement(span)
      end
      position = span.last - before + 1
      if span.last > last_byte then break end -- goes on in the next piece
      next_span = next_span + 1
    end
    if parts then
      parts[#parts + 1] = piece:sub(position)
      changed[index] = table.concat(parts)
    end
    before = last_byte
  end
  return changed
end

return spans
