--- Events for specs, as transforms get them: made up, or recorded.
local json = require "llmproxy.json"

local REQUEST = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Say hello."}]}'
local RESPONSE = '{"id":"chatcmpl-1","object":"chat.completion","created":1767323045,"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Hello!"},'
  .. '"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12}}'

local function plausible(number)
  return {
    id = ("0199b8a2-1c3f-7d21-9a54-%012d"):format(number), request_id = ("request-%d"):format(number), time = "2026-01-02T03:04:05.678901Z",
    method = "POST", path = "/v1/chat/completions", status = 200, duration_ms = 834.5, ttfb_ms = 412, client = "127.0.0.1:50312", route = "openai", upstream = "https://api.openai.com",
    credential = { kind = "authorization", fingerprint = "3f9a0c2b7d1e" },
    request_headers = { host = "127.0.0.1:8080", authorization = "[redacted]", ["content-type"] = "application/json" }, response_headers = { ["content-type"] = "application/json" },
    request_body = REQUEST, response_body = RESPONSE, request_truncated = false, response_truncated = false, streamed = false, chunks = 1,
    proxy = { version = "0.1.0", instance = "host-a" },
  }
end

-- What follows from the bodies, where it was not given.
local function complete(event)
  for _, side in ipairs { "request", "response" } do
    local body = event[side .. "_body"]
    if body and not event[side .. "_body_encoding"] then event[side .. "_body_encoding"] = "utf8" end
    if body and not event[side .. "_bytes"] then event[side .. "_bytes"] = #body end
  end
  return event
end

--- What makes events.
---@param host table see src/command/plugin_host.h
---@param read fun(path: string): string the text of a file of the spec's
return function(host, read)
  local events = {}
  local record_of = setmetatable({}, { __mode = "k" })
  local made = 0

  -- The table that a transform gets of an event in canonical form; what is no key of an event is left out. nil and a message.
  local function as_event(canonical)
    local record, message = host.record(canonical)
    if not record then return nil, message end
    local event = host.event(record)
    record_of[event] = record
    return event
  end

  --- An event from its JSON.
  ---@param line string
  ---@return table?
  ---@return string? message
  function events.decode(line)
    local canonical, message = json.decode(line)
    if type(canonical) ~= "table" then return nil, message or "expected an object" end
    return as_event(canonical)
  end

  --- A plausible event of a chat completion; keys as in docs/events.md replace its own, json.null takes one away.
  ---@param changes? table
  ---@return table
  function events.event(changes)
    made = made + 1
    local canonical, own = plausible(made), {}
    for key, value in pairs(changes or {}) do
      if value == json.null then canonical[key] = nil else canonical[key] = value end
    end
    local event, message = as_event(complete(canonical))
    if not event then error(message, 2) end
    for key, value in pairs(changes or {}) do
      if event[key] == nil and value ~= json.null then own[key] = value end
    end
    for key, value in pairs(own) do event[key] = value end
    return event
  end

  --- Recorded events: the lines of a file, as the dispatcher `file` writes them. What a transform added to a line is left out.
  ---@param path string relative to the spec
  ---@return table[]
  function events.events(path)
    local list = {}
    for line in read(path):gmatch("[^\n]+") do
      local event, message = events.decode(line)
      if not event then error(("%s: line %d: %s"):format(path, #list + 1, message), 2) end
      list[#list + 1] = event
    end
    return list
  end

  --- The JSON of what came out of a transform, as a dispatcher gets it.
  ---@param event table
  ---@return string? text
  ---@return string? message
  function events.encode(event)
    return host.encode(event, record_of[event])
  end

  function events.record_of(event) return record_of[event] end

  return events
end
