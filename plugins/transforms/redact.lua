--- Takes secrets and personal data out of events: values of headers and query parameters (in addition to what the core already has), values at paths, and what matches patterns.
--
-- A value is found wherever it stands in a body, also where a stream sends it in pieces. What cannot be searched is not let through. The work is done in llmproxy.redact.
local codec = require "llmproxy.codec"
local paths = require "llmproxy.redact.paths"
local patterns = require "llmproxy.redact.patterns"
local redact = require "llmproxy.redact.event"

local REDACTED = "[redacted]"

local function set_of(names)
  local set = {}
  for _, name in ipairs(names or {}) do set[name:lower()] = true end
  return set
end

local function redact_headers(headers, names)
  for name in pairs(headers or {}) do
    if names[name:lower()] then headers[name] = REDACTED end
  end
  return headers
end

-- A name may be written in percent signs: it is compared as the server reads it.
local function is_secret(parameter, names)
  local name = parameter:match("^([^=]+)=")
  if not name then return nil end
  local plain = codec.url.decode((name:gsub("%+", " "))) or name
  return names[plain:lower()] and name
end

-- Servers disagree on whether ";" separates: a secret behind one is found, and one goes on to the next "&". Piece by piece, for a pattern over the whole query would take the square of its length.
local function redact_query(query, names)
  return (query:gsub("[^&]+", function(piece)
    local kept = {}
    for parameter, separator in piece:gmatch("([^;]*)(;?)") do
      local name = is_secret(parameter, names)
      kept[#kept + 1] = name and name .. "=" .. REDACTED or parameter .. separator
      if name then break end
    end
    return table.concat(kept)
  end))
end

local function redact_location(location, names)
  local address, query, fragment = location:match("^([^?#]*%?)([^#]*)(.*)$")
  return address and address .. redact_query(query, names) .. fragment or location
end

local function check_path(text)
  local _, message = paths.parse(text)
  if message then return nil, ("expected a path as request_body.messages[*].content, got %q: %s"):format(text, message) end
  return text
end

local function check_pattern(text)
  local message = patterns.problem(text)
  if message then return nil, ("expected a regular expression, got %q: %s"):format(text, message) end
  return text
end

-- It must be the same inside of JSON that is quoted any number of times.
local function check_replacement(text)
  if text:find '[%c"\\]' then return nil, "expected a text without quotes, backslashes and control characters" end
  return text
end

local function list_of(make, items)
  local list = {}
  for index, item in ipairs(items) do list[index] = make(item) end
  return list
end

-- Bodies that could not be searched are left out.
local function drop_bodies(event, message)
  event.request_body, event.response_body, event.response_tail, event.llm = nil, nil, nil, nil
  event.redact_error = tostring(message)
end

local PATTERN = {
  type = "one_of",
  types = {
    { type = "enum", values = patterns.names },
    { type = "table", fields = {
      name = { type = "string", required = true, pattern = "^[%w_-]+$", expected = "a name of letters, digits, _ and -", doc = "what it is called in `[redacted:NAME]`" },
      pattern = { type = "string", required = true, min = 1, check = check_pattern, doc = "a regular expression (PCRE2)" },
      ignore_case = { type = "boolean", default = false, doc = "whether the case of letters does not matter" },
    } },
  },
}

return {
  kind = "transform",
  api = 1,
  summary = "Takes secrets and personal data out of headers, queries, bodies and streams.",
  settings = {
    headers = { type = "list", items = { type = "string" }, default = {}, doc = "names of request and response headers, in any case: their values become `[redacted]`" },
    query = { type = "list", items = { type = "string" }, default = {}, doc = "names of query parameters, in any case; also in the header location" },
    paths = { type = "list", items = { type = "string", check = check_path }, default = {}, doc = "values to take out, as `request_body.messages[*].content`, with the wildcards `*`, `[*]` and `**`" },
    patterns = { type = "list", items = PATTERN, default = {}, doc = "what to look for in texts: `email`, `phone`, `card`, `api_key`, or `{ name, pattern, ignore_case }`" },
    where = {
      type = "list", items = { type = "enum", values = { "request_body", "response_body", "llm", "path", "query", "request_headers", "response_headers", "error" } },
      default = { "request_body", "response_body", "llm", "path", "query" }, doc = "the fields that patterns look at",
    },
    action = {
      type = "enum", values = { "replace", "hash", "drop" }, default = "replace",
      doc = "what becomes of a value: a text in its place, an HMAC of it with `key` (equal values stay equal), or nothing; at a path the whole member goes",
    },
    key = { type = "secret", min = 16, doc = "of `hash`" },
    replacement = { type = "string", check = check_replacement, doc = "the text of `replace`; default `[redacted:NAME]`, at paths `[redacted]`" },
    on_failure = { type = "enum", values = { "raise", "drop_bodies" }, default = "raise", doc = "what to do with bodies that cannot be searched: the event does not go on, or it does without them" },
  },
  new = function(settings)
    if settings.action == "hash" and not settings.key then error('action = "hash" needs a key', 0) end
    local headers, parameters = set_of(settings.headers), set_of(settings.query)
    local values = redact.new {
      patterns = list_of(patterns.new, settings.patterns), where = set_of(settings.where), paths = list_of(function(text) return (paths.parse(text)) end, settings.paths),
      action = settings.action, key = settings.key, replacement = settings.replacement,
    }
    return function(event)
      event.request_headers = redact_headers(event.request_headers, headers)
      event.response_headers = redact_headers(event.response_headers, headers)
      if event.query then event.query = redact_query(event.query, parameters) end
      local response_headers = event.response_headers
      if response_headers and response_headers.location then
        response_headers.location = redact_location(response_headers.location, parameters)
      end
      values.fields(event)
      if settings.on_failure == "raise" then
        values.bodies(event)
      else
        local done, message = pcall(values.bodies, event)
        if not done then drop_bodies(event, message) end
      end
      return event
    end
  end,
}
