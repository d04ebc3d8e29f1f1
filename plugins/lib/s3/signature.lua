--- AWS Signature Version 4 for S3, in the header Authorization: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
local codec = require "llmproxy.codec"
local crypto = require "llmproxy.crypto"
local time = require "llmproxy.time"

local signature = {}

local function hex_sha256(text)
  return codec.hex.encode(crypto.sha256(text))
end

--- A path as S3 wants it in the address and signed: each segment encoded once, slashes left.
---@param path string
---@return string
function signature.encode_path(path)
  return (path:gsub("[^/]+", codec.url.encode))
end

local function canonical_headers(headers)
  local names, lines = {}, {}
  for name in pairs(headers) do names[#names + 1] = name end
  table.sort(names)
  for index, name in ipairs(names) do lines[index] = name .. ":" .. headers[name]:gsub("^%s+", ""):gsub("%s+$", ""):gsub("%s+", " ") .. "\n" end
  return table.concat(lines), table.concat(names, ";")
end

--- Adds to headers what makes the request a signed one.
---@param settings { access_key_id: string, secret_access_key: string, session_token: string?, region: string }
---@param now number seconds since 1970
---@param method string
---@param url string without a query, its path encoded
---@param headers table<string, string> names in lower case; all are signed
---@param body string
function signature.sign(settings, now, method, url, headers, body)
  local moment = time.format(now, "%Y%m%dT%H%M%SZ")
  local date = moment:sub(1, 8)
  local payload = hex_sha256(body)
  headers.host = url:match("^%w+://([^/]+)")
  headers["x-amz-date"], headers["x-amz-content-sha256"], headers["x-amz-security-token"] = moment, payload, settings.session_token
  local lines, names = canonical_headers(headers)
  local request = table.concat({ method, url:match("^%w+://[^/]+(/.*)$") or "/", "", lines, names, payload }, "\n")
  local scope = ("%s/%s/s3/aws4_request"):format(date, settings.region)
  local to_sign = table.concat({ "AWS4-HMAC-SHA256", moment, scope, hex_sha256(request) }, "\n")
  local key = "AWS4" .. settings.secret_access_key
  for _, part in ipairs { date, settings.region, "s3", "aws4_request" } do key = crypto.hmac_sha256(key, part) end
  local signed = codec.hex.encode(crypto.hmac_sha256(key, to_sign))
  headers.authorization = ("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s"):format(settings.access_key_id, scope, names, signed)
end

return signature
