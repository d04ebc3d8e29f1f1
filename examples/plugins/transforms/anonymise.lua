--- What is left when nobody may be recognised: how the service is used, and nothing that was said or who said it.
--
-- People and addresses become pseudonyms, the same one for the same person as long as the key stays the same. Bodies, messages and headers go.
local codec = require "llmproxy.codec"
local crypto = require "llmproxy.crypto"
local json = require "llmproxy.json"

-- Where callers name their users, by API: OpenAI's `user`, Anthropic's `metadata.user_id`.
local function user_of(event)
  local body = event.request_body and json.decode(event.request_body)
  if type(body) ~= "table" then return nil end
  local metadata = type(body.metadata) == "table" and body.metadata or {}
  local user = body.user or metadata.user_id
  return type(user) == "string" and user or nil
end

return {
  kind = "transform",
  api = 1,
  summary = "Keeps usage and nothing personal: pseudonyms for people, no bodies, no messages.",
  settings = { key = { type = "string", min = 16, required = true, secret = true, doc = "what pseudonyms are made with" } },
  new = function(settings)
    local function pseudonym(value)
      return value and codec.hex.encode(crypto.hmac_sha256(settings.key, value)):sub(1, 16)
    end
    return function(event)
      local llm = event.llm or {}
      return {
        id = event.id,
        time = event.time,
        route = event.route,
        status = event.status,
        duration_ms = event.duration_ms,
        client = pseudonym(event.client and event.client:match("^(.*):%d+$")),
        user = pseudonym(user_of(event)),
        credential = pseudonym(event.credential and event.credential.fingerprint),
        model = llm.response_model or llm.request_model,
        usage = llm.usage,
        failed = event.status >= 400 or event.error ~= nil,
      }
    end
  end,
}
