--- Batches of events as a JSON array to a URL, signed as Standard Webhooks 1.0 if there is a secret.
local codec = require "llmproxy.codec"
local crypto = require "llmproxy.crypto"
local http = require "llmproxy.http"
local time = require "llmproxy.time"
local verdict = require "llmproxy.verdict"

-- What frames the message, or is made for each one.
local OURS = {
  ["content-length"] = true, ["transfer-encoding"] = true, connection = true, upgrade = true, expect = true,
  ["webhook-id"] = true, ["webhook-timestamp"] = true, ["webhook-signature"] = true,
}

local function check_name(name)
  if OURS[name:lower()] then return nil, "is not yours to set" end
  return name
end

local HEADER_NAME = { type = "string", pattern = "^[%w!#$%%&'*+.^_`|~-]+$", expected = "the name of a header", check = check_name }
local HEADER_VALUE = { type = "string", pattern = "^[^%c]*$", expected = "text without control characters" }

-- The keys in a secret: "whsec_" and base64, several while one takes over from another.
local function keys_of(secret)
  local keys = {}
  for word in (secret or ""):gmatch("%S+") do
    local key = codec.base64.decode((word:gsub("^whsec_", "")))
    if not key or #key < 16 then error("secret: expected whsec_ and at least 16 bytes in base64", 0) end
    keys[#keys + 1] = key
  end
  return keys
end

-- The same for every attempt: a single event's id, else one that follows from the content.
local function message_id(batch, content)
  local id = #batch.events == 1 and batch.events[1].id
  if type(id) == "string" and id:find("^[%w_-]+$") then return "evt_" .. id end
  return "evt_" .. codec.hex.encode(crypto.sha256(content)):sub(1, 32)
end

-- Signs this attempt (receivers refuse old timestamps) with every key.
local function sign(headers, keys, body)
  local timestamp = ("%d"):format(time.now())
  local signed = headers["webhook-id"] .. "." .. timestamp .. "." .. body
  local signatures = {}
  for index, key in ipairs(keys) do
    signatures[index] = "v1," .. codec.base64.encode(crypto.hmac_sha256(key, signed))
  end
  headers["webhook-timestamp"] = timestamp
  headers["webhook-signature"] = table.concat(signatures, " ")
end

return {
  kind = "dispatcher",
  api = 1,
  summary = "Posts batches of events as a JSON array to a URL.",
  settings = {
    url = { type = "url", required = true, doc = "where to" },
    headers = { type = "map", keys = HEADER_NAME, items = HEADER_VALUE, default = {}, secret = true, doc = "headers to send along, by name" },
    timeout = { type = "duration", default = 15, doc = "for the whole request" },
    gzip = { type = "boolean", default = false, doc = "compress the body (what is signed is what is sent)" },
    secret = { type = "string", secret = true, doc = "whsec_…: sign as Standard Webhooks 1.0; several with spaces between while keys change" },
  },
  batch = { max_events = 100, max_bytes = 1048576, max_wait = 1.0 },
  new = function(settings)
    local keys = keys_of(settings.secret)
    return {
      deliver = function(_, batch)
        local body = batch:json()
        local headers = { ["content-type"] = "application/json", ["webhook-id"] = message_id(batch, body) }
        for name, value in pairs(settings.headers) do headers[name:lower()] = value end
        if settings.gzip then
          body = codec.gzip.encode(body)
          headers["content-encoding"] = "gzip"
        end
        if keys[1] then sign(headers, keys, body) end
        local response, reason = http.post { url = settings.url, headers = headers, body = body, timeout = settings.timeout }
        return verdict.from_http(response, reason)
      end,
    }
  end,
}
