--- Sends events to an OpenTelemetry collector: as spans, or as log records, with the attributes of OpenTelemetry's conventions for generative AI.
--
-- OTLP over HTTP in its JSON form (https://opentelemetry.io/docs/specs/otlp/): ids in hex, 64-bit integers as text, enums as numbers, lists never empty.
-- Attributes are those of version 1.41 of the conventions.
-- A span of the caller's (traceparent) is the parent; ids follow from the event's, so one that comes again is the same span.
local codec = require "llmproxy.codec"
local crypto = require "llmproxy.crypto"
local genai = require "otlp.genai"
local http = require "llmproxy.http"
local json = require "llmproxy.json"
local log = require "llmproxy.log"
local metrics = require "llmproxy.metrics"
local text = require "llmproxy.text"
local time = require "llmproxy.time"
local verdict = require "llmproxy.verdict"

local SIGNALS = {
  traces = { path = "/v1/traces", resource = "resourceSpans", scope = "scopeSpans", items = "spans", rejected = "rejectedSpans" },
  logs = { path = "/v1/logs", resource = "resourceLogs", scope = "scopeLogs", items = "logRecords", rejected = "rejectedLogRecords" },
}

-- "a=1,b=2" with percent signs, as the OTEL_ variables have lists.
local function pairs_of(list)
  local map = {}
  for _, pair in ipairs(text.split(list, ",")) do
    local name, value = pair:match("^%s*([^=]-)%s*=%s*(.-)%s*$")
    if name then map[name] = codec.url.decode(value) or value end
  end
  return map
end

local function hex_of(value, bytes)
  return codec.hex.encode(crypto.sha256(value):sub(1, bytes))
end

-- Nanoseconds as text: more digits than a number has.
local function nanoseconds(microseconds)
  return ("%.0f000"):format(microseconds)
end

local function moments_of(event)
  local start = math.floor((time.parse(event.time) or 0) * 1e6 + 0.5)
  return nanoseconds(start), nanoseconds(start + math.floor((event.duration_ms or 0) * 1000 + 0.5))
end

local function span_of(event, settings)
  local start, ending = moments_of(event)
  local failure, message = genai.failure_of(event)
  return {
    traceId = event.trace_id or hex_of("trace:" .. event.id, 16), spanId = hex_of("span:" .. event.id, 8), parentSpanId = event.span_id,
    name = genai.name_of(event), kind = 3, startTimeUnixNano = start, endTimeUnixNano = ending,
    attributes = genai.attributes_of(event, settings.content, false), status = failure and { code = 2, message = message } or {},
  }
end

local function record_of(event, settings)
  local _, ending = moments_of(event)
  local failed = genai.failure_of(event) ~= nil
  return {
    eventName = "gen_ai.client.inference.operation.details", timeUnixNano = ending, observedTimeUnixNano = ending,
    severityNumber = failed and 17 or 9, severityText = failed and "ERROR" or "INFO",
    traceId = event.trace_id or hex_of("trace:" .. event.id, 16), spanId = hex_of("span:" .. event.id, 8),
    attributes = genai.attributes_of(event, settings.content, true),
  }
end

local function address_of(settings, signal)
  local own = settings[settings.signal .. "_endpoint"]
  return own or settings.endpoint:gsub("/+$", "") .. signal.path
end

-- What was not taken is not told apart, and may not be sent again.
local function judge(response, signal, rejected)
  if response.body == "" then return verdict.ok() end
  local answer = json.decode(response.body)
  if type(answer) ~= "table" then return verdict.pause "answered 200 with something that is no OTLP in JSON: is the address right?" end
  local partial = type(answer.partialSuccess) == "table" and answer.partialSuccess or {}
  local count = tonumber(tostring(partial[signal.rejected] or 0)) or 0
  if count > 0 then
    rejected:add(count)
    log.warn("the collector did not take all, and they are not to be sent again", { rejected = count, reason = text.truncate(tostring(partial.errorMessage or ""), 200) })
  end
  return verdict.ok()
end

local RETRIED = { [408] = true, [429] = true, [502] = true, [503] = true, [504] = true }

return {
  kind = "dispatcher",
  api = 1,
  summary = "Sends events to OpenTelemetry collectors, as spans or log records with GenAI attributes.",
  settings = {
    signal = { type = "enum", values = { "traces", "logs" }, default = "traces", doc = "what events are sent as; for both make two pipelines" },
    endpoint = { type = "url", default = "http://localhost:4318", env = "OTEL_EXPORTER_OTLP_ENDPOINT", doc = "the collector's address, to which /v1/traces or /v1/logs is added" },
    traces_endpoint = { type = "url", env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", doc = "the whole address for traces" },
    logs_endpoint = { type = "url", env = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", doc = "the whole address for logs" },
    headers = { type = "map", items = { type = "string" }, default = {}, secret = true, env = "OTEL_EXPORTER_OTLP_HEADERS", from_text = pairs_of, doc = "headers to send along" },
    timeout = { type = "duration", default = "10s", min = 0.1, env = "OTEL_EXPORTER_OTLP_TIMEOUT", from_text = function(milliseconds)
      return tonumber(milliseconds) and tonumber(milliseconds) / 1000 or milliseconds
    end, doc = "for one batch (the variable is in milliseconds)" },
    compression = { type = "enum", values = { "gzip", "none" }, default = "gzip", env = "OTEL_EXPORTER_OTLP_COMPRESSION", doc = "of requests" },
    service_name = { type = "string", min = 1, default = "llm-proxy", env = "OTEL_SERVICE_NAME", doc = "the attribute service.name" },
    resource = { type = "map", items = { type = "string" }, default = {}, env = "OTEL_RESOURCE_ATTRIBUTES", from_text = pairs_of, doc = "more attributes of the resource" },
    content = { type = "boolean", default = false, doc = "whether messages go along, which may hold personal data" },
  },
  batch = { max_events = 200, max_bytes = "4MiB", max_wait = 2 },
  new = function(settings)
    local signal = SIGNALS[settings.signal]
    local url = address_of(settings, signal)
    local headers = { ["content-type"] = "application/json" }
    for name, value in pairs(settings.headers) do headers[name:lower()] = value end
    local rejected = metrics.counter("otlp_rejected_total", "Spans and log records that the collector did not take.")
    local item_of = settings.signal == "traces" and span_of or record_of
    return {
      deliver = function(_, batch)
        local items = json.array {}
        for index, event in ipairs(batch.events) do items[index] = item_of(event, settings) end
        local resource = { attributes = genai.resource_of(batch.events[1], settings) }
        local scope = { scope = { name = "llm-proxy" }, schemaUrl = "https://opentelemetry.io/schemas/1.41.0", [signal.items] = items }
        local body = json.encode { [signal.resource] = { { resource = resource, [signal.scope] = { scope } } } }
        local response, err = http.post {
          url = url, headers = headers, body = body, gzip = settings.compression == "gzip", timeout = settings.timeout, max_response_bytes = 4 * 2 ^ 20,
        }
        if response and response.status == 200 then return judge(response, signal, rejected) end
        if response and response.status >= 500 and not RETRIED[response.status] then return verdict.reject(("answered %d, which is not to be tried again"):format(response.status)) end
        return verdict.from_http(response, err)
      end,
    }
  end,
}
