--- Writes each batch as an object of JSON lines into S3, or what speaks its language (MinIO, R2, Ceph, Google's storage).
--
-- Each try is signed anew (s3.signature). The key comes from the events, so a batch that is sent again replaces itself, and one that was cut otherwise after a restart replaces no other.
-- Events of different hours go into different objects when the key says so.
local codec = require "llmproxy.codec"
local crypto = require "llmproxy.crypto"
local http = require "llmproxy.http"
local signature = require "s3.signature"
local time = require "llmproxy.time"
local verdict = require "llmproxy.verdict"

-- Not the batch is at fault but keys, rights, names; what the service says as <Code>.
local function code_of(body)
  return body:match("<Code>([%w_.]+)</Code>"), body:match("<Message>([^<]*)</Message>")
end

local RETRIED = { RequestTimeout = true, SlowDown = true, InternalError = true, ServiceUnavailable = true, ExpiredToken = true, OperationAborted = true, ConditionalRequestConflict = true }

-- The events of one object: those whose key begins alike.
local function groups_of(batch, template)
  local groups, by_prefix, index = {}, {}, 0
  for line in batch:json_lines():gmatch("[^\n]+") do
    index = index + 1
    local event = batch.events[index]
    local prefix = time.format(time.parse(event.time or "") or 0, template)
    local group = by_prefix[prefix]
    if not group then
      group = { prefix = prefix, first = event.id or crypto.uuid7(), indexes = {} }
      groups[#groups + 1], by_prefix[prefix] = group, group
    end
    group[#group + 1] = line
    group.indexes[#group.indexes + 1] = index
  end
  return groups
end

return {
  kind = "dispatcher",
  api = 1,
  summary = "Writes batches as objects of JSON lines into S3 and what is compatible with it.",
  settings = {
    bucket = {
      type = "string", min = 3, max = 63, pattern = "^[a-z0-9][a-z0-9.-]*$", required = true, doc = "the bucket",
      expected = "a bucket's name (3 to 63 small letters, digits, dots and hyphens)",
    },
    region = { type = "string", min = 1, default = "us-east-1", env = "AWS_REGION", doc = "the bucket's region" },
    endpoint = { type = "url", env = "AWS_ENDPOINT_URL_S3", doc = "another service's address, as MinIO's; without it AWS in the region" },
    path_style = { type = "boolean", doc = "the bucket in the path instead of the host's name; true by default with an endpoint of your own or dots in the bucket's name" },
    access_key_id = { type = "string", min = 1, required = true, env = "AWS_ACCESS_KEY_ID", doc = "who signs" },
    secret_access_key = { type = "string", min = 1, required = true, secret = true, env = "AWS_SECRET_ACCESS_KEY", doc = "what signatures are made with" },
    session_token = { type = "string", secret = true, env = "AWS_SESSION_TOKEN", doc = "of temporary credentials" },
    key = { type = "string", min = 1, default = "llm-proxy/dt=%Y-%m-%d/hour=%H/", doc = "where objects lie, with the date of their events; the first event's id, their number and the ending follow" },
    gzip = { type = "boolean", default = true, doc = "compress objects" },
    timeout = { type = "duration", default = "60s", min = 0.1, doc = "for one object" },
    ca_file = { type = "path", doc = "certificates that the service's is signed by, in PEM" },
  },
  batch = { max_events = 10000, max_bytes = "16MiB", max_wait = 60 },
  new = function(settings)
    time.format(0, settings.key)
    local path_style = settings.path_style
    if path_style == nil then path_style = settings.endpoint ~= nil or settings.bucket:find(".", 1, true) ~= nil end
    local address = (settings.endpoint or ("https://s3.%s.amazonaws.com"):format(settings.region)):gsub("/+$", "")
    local base = path_style and address .. "/" .. settings.bucket or address:gsub("://", "://" .. settings.bucket .. ".", 1)
    local ahead = 0 -- seconds, of the service's clock

    local function put(group)
      local body = table.concat(group, "\n") .. "\n"
      if settings.gzip then body = codec.gzip.encode(body) end
      local path = ("/%s%s-%d.jsonl%s"):format(group.prefix, group.first, #group, settings.gzip and ".gz" or "")
      local headers = {
        ["content-type"] = "application/x-ndjson", ["content-encoding"] = settings.gzip and "gzip" or nil, ["x-amz-checksum-sha256"] = codec.base64.encode(crypto.sha256(body)),
      }
      local url = base .. signature.encode_path(path)
      signature.sign(settings, time.now() + ahead, "PUT", url, headers, body)
      return http.request {
        method = "PUT", url = url, headers = headers, body = body, timeout = settings.timeout,
        tls = settings.ca_file and { ca_file = settings.ca_file } or nil,
      }
    end

    local function judge(response, err)
      if not response or response.status == 200 then return verdict.from_http(response, err) end
      local code, message = code_of(response.body)
      local reason = ("answered %d %s%s"):format(response.status, code or "", message and ": " .. message or "")
      local region = response.headers["x-amz-bucket-region"] or response.body:match("<Region>([%w-]+)</Region>")
      if code == "RequestTimeTooSkewed" then
        local now = time.parse(response.headers.date or "")
        ahead = now and now - time.now() or 0
        return verdict.retry { reason = reason }
      elseif code and RETRIED[code] then
        return verdict.retry { reason = reason }
      elseif code == "EntityTooLarge" then
        return verdict.split(reason)
      elseif region and region ~= settings.region then
        return verdict.pause(("%s: the bucket is in region %s, not %s"):format(reason, region, settings.region))
      elseif response.status >= 300 and response.status < 500 and response.status ~= 413 and response.status ~= 429 and response.status ~= 408 then
        return verdict.pause(reason)
      end
      return verdict.from_http(response)
    end

    return {
      deliver = function(_, batch)
        local again, worst = {}, nil
        for _, group in ipairs(groups_of(batch, settings.key)) do
          local result = judge(put(group))
          if result.verdict ~= "ok" then
            worst = worst or result
            for _, index in ipairs(group.indexes) do again[#again + 1] = index end
          end
        end
        if not worst then return verdict.ok() end
        if #again == #batch.events then return worst end
        return verdict.partial { retry = again, after = worst.after, reason = worst.reason }
      end,
    }
  end,
}
