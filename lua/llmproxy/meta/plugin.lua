---@meta
--- What a plugin's file returns, and what the host hands to it. docs/plugins.md tells the story, docs/events.md every key of an event.

---@class llmproxy.event one exchange; absent keys are nil
---@field id string
---@field request_id string
---@field time string RFC 3339
---@field method string
---@field path string
---@field query? string
---@field status integer 0: no response was sent
---@field duration_ms number
---@field ttfb_ms? number
---@field client string
---@field client_name? string
---@field route? string
---@field upstream? string
---@field credential? { kind: string, fingerprint: string }
---@field request_headers table<string, string> names in lower case
---@field response_headers? table<string, string>
---@field request_body? string raw bytes, Content-Encoding undone
---@field response_body? string
---@field request_body_encoding? "utf8"|"base64" how the bytes are written in JSON
---@field response_body_encoding? "utf8"|"base64"
---@field request_content_coding? string the coding that the kept body still has
---@field response_content_coding? string
---@field request_bytes integer
---@field response_bytes integer
---@field request_truncated boolean
---@field response_truncated boolean
---@field response_tail? string
---@field bodies_withheld? "off"|"memory"
---@field streamed boolean
---@field chunks integer
---@field error? { kind: string, message: string }
---@field trace_id? string
---@field span_id? string
---@field proxy { version: string, instance: string }
---@field llm? table what the transform llm understood

---@class llmproxy.batch
---@field events table[] as the last transform left them
---@field bytes integer
---@field attempt integer 1, 2, …
local batch = {} -- luacheck: ignore

--- The events as a JSON array, also when there is only one.
---@return string
function batch:json() end

--- The events as JSON, one on each line, the last line with its newline.
---@return string
function batch:json_lines() end

--- Each event as JSON, without a line break in it: for what takes events one by one.
---@return string[]
function batch:lines() end

---@alias llmproxy.transform fun(event: llmproxy.event): table? the event, another table, a list of tables; nil drops it

---@class llmproxy.dispatcher
---@field deliver fun(self: llmproxy.dispatcher, batch: llmproxy.batch): llmproxy.verdict? nothing is ok; an error raised is retry. Host functions may wait in it
---@field close? fun(self: llmproxy.dispatcher)

---@class llmproxy.plugin
---@field kind "transform"|"dispatcher"|"bus"
---@field api 1
---@field summary? string one line for `llm-proxy plugins`
---@field settings? table<string, llmproxy.settings.field>
---@field batch? { max_events?: integer, max_bytes?: integer|string, max_wait?: number|string } defaults of the batches of a dispatcher or a bus
---@field new fun(settings: table): llmproxy.transform|llmproxy.dispatcher|llmproxy.bus gets checked settings; raises when they cannot work together
