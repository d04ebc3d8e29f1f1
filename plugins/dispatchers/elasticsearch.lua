--- Indexes events in Elasticsearch or OpenSearch, by the bulk API.
--
-- https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk: pairs of lines, the action and the document; the answer has a result for each pair, in the same order.
-- Documents are created under the event's id, so one that comes again is a conflict and no second document; data streams take nothing else.
local codec = require "llmproxy.codec"
local http = require "llmproxy.http"
local json = require "llmproxy.json"
local time = require "llmproxy.time"
local verdict = require "llmproxy.verdict"

local RETRIED = { [429] = true, [500] = true, [502] = true, [503] = true, [504] = true }
-- What is about the index or the cluster, not about the document.
local PAUSES = { cluster_block_exception = true, index_not_found_exception = true, security_exception = true, index_closed_exception = true }

local function authorization(settings)
  if settings.api_key then return "ApiKey " .. settings.api_key end
  if settings.username then return "Basic " .. codec.base64.encode(settings.username .. ":" .. (settings.password or "")) end
end

-- Dates in the name come from the event's own time, so that one that is late goes where its like are.
local function index_of(settings, event)
  if not settings.index:find("%", 1, true) then return settings.index end
  return time.format(time.parse(event.time or "") or 0, settings.index)
end

local function lines(batch, settings)
  local out, index = {}, 0
  for document in batch:json_lines():gmatch("[^\n]+") do
    index = index + 1
    local event = batch.events[index]
    local action = { create = { _index = index_of(settings, event), _id = event.id } }
    out[#out + 1] = json.encode(action)
    -- A data stream needs @timestamp. The object is written already: the field is put in front.
    out[#out + 1] = event.time and event["@timestamp"] == nil and ('{"@timestamp":%s,%s'):format(json.encode(event.time), document:sub(2)) or document
  end
  return table.concat(out, "\n") .. "\n"
end

local function reason_of(result)
  local failure = type(result.error) == "table" and result.error or { reason = tostring(result.error) }
  return ("%s: %s"):format(failure.type or result.status, failure.reason or "no reason given"), failure.type
end

-- The verdict of an answer with a result for each document.
local function judge(items, count)
  if #items ~= count then return verdict.retry { reason = ("answered %d results for %d documents"):format(#items, count) } end
  local again, rejected = {}, {}
  for index, item in ipairs(items) do
    local result = item.create or {}
    local status = result.status
    if type(status) ~= "number" then return verdict.retry { reason = "answered a result without a status" } end
    if status >= 300 and status ~= 409 then -- a conflict: it is there already
      local reason, kind = reason_of(result)
      if PAUSES[kind] or status == 401 or status == 403 or status == 404 then return verdict.pause(reason) end
      if RETRIED[status] then again[#again + 1] = index else rejected[index] = reason end
    end
  end
  if not again[1] and next(rejected) == nil then return verdict.ok() end
  return verdict.partial { retry = again, reject = rejected, reason = again[1] and reason_of(items[again[1]].create) or nil }
end

return {
  kind = "dispatcher",
  api = 1,
  summary = "Indexes events in Elasticsearch or OpenSearch.",
  settings = {
    url = { type = "url", required = true, doc = "the cluster's address" },
    index = { type = "string", min = 1, default = "llm-events", doc = 'index or data stream; may have a date in it, of the event\'s time: "llm-events-%Y.%m.%d"' },
    api_key = { type = "string", secret = true, doc = "an API key in its encoded form" },
    username = { type = "string", doc = "instead of an API key" },
    password = { type = "string", secret = true, doc = "of the user" },
    timeout = { type = "duration", default = "30s", min = 0.1, doc = "for one batch" },
    gzip = { type = "boolean", default = true, doc = "compress requests" },
    ca_file = { type = "path", doc = "certificates that the cluster's is signed by, in PEM" },
  },
  batch = { max_events = 500, max_bytes = "5MiB", max_wait = 2 },
  new = function(settings)
    time.format(0, settings.index:find("%", 1, true) and settings.index or "")
    if settings.api_key and settings.username then error("api_key and username are two ways to say who it is: give one of them", 0) end
    local url = settings.url:gsub("/+$", "") .. "/_bulk?filter_path=errors,items.*.status,items.*.error"
    local headers = { ["content-type"] = "application/x-ndjson", accept = "application/json", authorization = authorization(settings) }
    return {
      deliver = function(_, batch)
        local response, err = http.post {
          url = url, headers = headers, body = lines(batch, settings), gzip = settings.gzip, timeout = settings.timeout, max_response_bytes = 16 * 2 ^ 20,
          tls = settings.ca_file and { ca_file = settings.ca_file } or nil,
        }
        if not response or response.status ~= 200 then return verdict.from_http(response, err) end
        local answer = json.decode(response.body)
        if type(answer) ~= "table" or answer.errors == nil then return verdict.pause "answered 200 with something that is no answer of the bulk API: is the address right?" end
        if answer.errors == false then return verdict.ok() end
        return judge(type(answer.items) == "table" and answer.items or {}, #batch.events)
      end,
    }
  end,
}
