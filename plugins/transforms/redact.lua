--- Replaces the values of headers and query parameters, in addition to what the core already has.
local codec = require "llmproxy.codec"

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

return {
  kind = "transform",
  api = 1,
  summary = "Replaces the values of headers and query parameters by [redacted].",
  settings = {
    headers = { type = "list", items = { type = "string" }, default = {}, doc = "names of request and response headers, in any case" },
    query = { type = "list", items = { type = "string" }, default = {}, doc = "names of query parameters, in any case; also in the header location" },
  },
  new = function(settings)
    local headers, parameters = set_of(settings.headers), set_of(settings.query)
    return function(event)
      event.request_headers = redact_headers(event.request_headers, headers)
      event.response_headers = redact_headers(event.response_headers, headers)
      if event.query then event.query = redact_query(event.query, parameters) end
      local response_headers = event.response_headers
      if response_headers and response_headers.location then
        response_headers.location = redact_location(response_headers.location, parameters)
      end
      return event
    end
  end,
}
