--- Turns bodies that are JSON into objects, so that the event has them as JSON instead of as text.
--
--     one document                 that object or list
--     server-sent events           a list of { event, id, data }, each data decoded when it is JSON
--     lines of JSON (NDJSON)       a list of the documents
--
-- What is read is written with the same value: empty lists, null and the digits of long numbers stay. A body that is no JSON, or was cut, stays as it is.
local json = require "llmproxy.json"
local sse = require "llmproxy.sse"

local BODIES = { "request_body", "response_body" }

-- An object or a list; nil for text, also for a text that happens to be a JSON number.
local function document(text)
  if not text:find "^%s*[%[{]" then return nil, "it is no JSON object or list" end
  return json.decode(text)
end

local function read_lines(text)
  local list = json.array {}
  for line in text:gmatch "[^\r\n]+" do
    local value, message = document(line)
    if value == nil then return nil, message end
    list[#list + 1] = value
  end
  return list
end

local function read_events(text)
  local events, complete = sse.parse(text)
  if not complete then return nil, "its last event is cut" end
  local list = json.array {}
  for index, event in ipairs(events) do
    local value = document(event.data)
    list[index] = { event = event.event, id = event.id, data = value == nil and event.data or value }
  end
  return list
end

-- The body's value, or nil and why it has none.
local function read(text)
  if text:sub(1, 3) == "\239\187\191" then text = text:sub(4) end
  if text:find "^data:" or text:find "^event:" or text:find "^id:" or text:find "^:" then return read_events(text) end
  local value, message = document(text)
  if value ~= nil then return value end
  -- Only when its first line is whole can it be lines.
  local first = text:match "^%s*({[^\r\n]*})%s*[\r\n]"
  if first and json.decode(first) then return read_lines(text) end
  return nil, message
end

-- Whether the event says that the body is JSON.
local function claims_json(headers)
  local kind = type(headers) == "table" and headers["content-type"]
  return type(kind) == "string" and (kind:find "[/+]json" or kind:find "ndjson" or kind:find "event%-stream") ~= nil
end

return {
  kind = "transform",
  api = 1,
  summary = "Turns JSON bodies into objects; what is not JSON stays as it is.",
  settings = {
    bodies = { type = "list", items = { type = "enum", values = BODIES }, default = BODIES, doc = "which bodies" },
    on_failure = {
      type = "enum", values = { "keep", "raise" }, default = "keep",
      doc = "what becomes of a body that its content type calls JSON and that is none, or was cut: it stays text, or the event does not go on",
    },
  },
  new = function(settings)
    return function(event)
      for _, name in ipairs(settings.bodies) do
        local text = event[name]
        if type(text) == "string" and text ~= "" then
          local value, message = read(text)
          if value ~= nil then
            event[name] = value
          elseif settings.on_failure == "raise" and claims_json(event[name == "request_body" and "request_headers" or "response_headers"]) then
            error(("%s: %s"):format(name, message), 0)
          end
        end
      end
      return event
    end
  end,
}
