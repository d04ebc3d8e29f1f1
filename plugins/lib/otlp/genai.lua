--- An event in the words of OpenTelemetry's conventions for generative AI (version 1.41), as attributes in OTLP's JSON form.
local json = require "llmproxy.json"

local genai = {}

local PROVIDERS = {
  azure_openai = "azure.ai.openai", gemini = "gcp.gemini", vertex = "gcp.vertex_ai", bedrock = "aws.bedrock", mistral = "mistral_ai", xai = "x_ai",
}
local OPERATIONS = { completions = "text_completion", embeddings = "embeddings", generate_content = "generate_content" }

-- Parameters of a request: the attribute, and whether it is a whole number.
local PARAMETERS = {
  temperature = { "temperature" }, top_p = { "top_p" }, top_k = { "top_k" }, frequency_penalty = { "frequency_penalty" }, presence_penalty = { "presence_penalty" },
  max_tokens = { "max_tokens", true }, max_completion_tokens = { "max_tokens", true }, max_output_tokens = { "max_tokens", true }, seed = { "seed", true },
}

-- A value in OTLP's form; nil for what has none. whole: a number is an integer.
local function any_value(value, whole)
  if type(value) == "string" then return { stringValue = value } end
  if type(value) == "boolean" then return { boolValue = value } end
  if type(value) == "number" then return whole and { intValue = ("%.0f"):format(value) } or { doubleValue = value } end
  if type(value) ~= "table" or value == json.null then return nil end
  local values = {}
  if #value > 0 then
    for _, item in ipairs(value) do values[#values + 1] = any_value(item, type(item) == "number" and item % 1 == 0) end
    return { arrayValue = { values = values } }
  end
  for key, item in pairs(value) do
    local inner = any_value(item, type(item) == "number" and item % 1 == 0)
    if inner then values[#values + 1] = { key = tostring(key), value = inner } end
  end
  table.sort(values, function(a, b) return a.key < b.key end)
  return { kvlistValue = values[1] and { values = values } or nil }
end

local function adder(list)
  return function(key, value, whole)
    local inner = value ~= nil and any_value(value, whole)
    if inner and value ~= "" then list[#list + 1] = { key = key, value = inner } end
  end
end

--- Why it failed: a short word, and a sentence; nil when it did not.
---@param event table
---@return string?
---@return string?
function genai.failure_of(event)
  local llm_error = event.llm and event.llm.error
  if event.error then return event.error.kind, event.error.message end
  if llm_error then return tostring(llm_error.type or llm_error.code or "_OTHER"), llm_error.message end
  if (event.status or 0) >= 400 then return tostring(event.status), "status " .. event.status end
end

--- A span's name.
---@param event table
---@return string
function genai.name_of(event)
  local llm = event.llm
  if not llm then return event.method or "request" end
  local operation = OPERATIONS[llm.api] or "chat"
  return llm.request_model and operation .. " " .. llm.request_model or operation
end

local function parts_of(content)
  if type(content) == "string" then return { { type = "text", content = content } } end
  local parts = {}
  for _, part in ipairs(type(content) == "table" and content or {}) do
    if type(part) == "table" then parts[#parts + 1] = type(part.text) == "string" and { type = "text", content = part.text } or { type = tostring(part.type or "part") } end
  end
  return parts
end

local function input_messages(event)
  local body = event.request_body and json.decode(event.request_body)
  local list = {}
  for _, message in ipairs(type(body) == "table" and type(body.messages) == "table" and body.messages or {}) do
    if type(message) == "table" then list[#list + 1] = { role = tostring(message.role or "user"), parts = json.array(parts_of(message.content)) } end
  end
  return list[1] and list
end

local function output_messages(llm)
  local list = {}
  for _, choice in ipairs(llm.output or {}) do
    local parts = json.array {}
    if choice.reasoning then parts[#parts + 1] = { type = "reasoning", content = choice.reasoning } end
    if choice.content then parts[#parts + 1] = { type = "text", content = choice.content } end
    for _, call in ipairs(choice.tool_calls or {}) do parts[#parts + 1] = { type = "tool_call", id = call.id, name = call.name, arguments = call.arguments } end
    list[#list + 1] = { role = choice.role or "assistant", parts = parts, finish_reason = choice.finish_reason or "unknown" }
  end
  return list[1] and list
end

local function add_usage(add, usage)
  add("gen_ai.usage.input_tokens", usage.input_tokens, true)
  add("gen_ai.usage.output_tokens", usage.output_tokens, true)
  add("gen_ai.usage.cache_read.input_tokens", usage.cached_input_tokens, true)
  add("gen_ai.usage.cache_creation.input_tokens", usage.cache_write_tokens, true)
  add("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens, true)
end

local function add_request(add, llm)
  add("gen_ai.operation.name", OPERATIONS[llm.api] or "chat")
  add("gen_ai.provider.name", PROVIDERS[llm.provider] or llm.provider)
  add("gen_ai.request.model", llm.request_model)
  if llm.stream then add("gen_ai.request.stream", true) end
  local parameters = llm.parameters or {}
  for name, attribute in pairs(PARAMETERS) do
    if type(parameters[name]) == "number" then add("gen_ai.request." .. attribute[1], parameters[name], attribute[2]) end
  end
  if type(parameters.n) == "number" and parameters.n ~= 1 then add("gen_ai.request.choice.count", parameters.n, true) end
  local stop = parameters.stop or parameters.stop_sequences
  if type(stop) == "string" then stop = { stop } end
  if type(stop) == "table" and #stop > 0 then add("gen_ai.request.stop_sequences", stop) end
end

local function add_response(add, event, llm)
  local reasons = {}
  for _, choice in ipairs(llm.output or {}) do reasons[#reasons + 1] = choice.finish_reason end
  add("gen_ai.response.id", llm.response_id)
  add("gen_ai.response.model", llm.response_model)
  if reasons[1] then add("gen_ai.response.finish_reasons", reasons) end
  if llm.stream and event.ttfb_ms then add("gen_ai.response.time_to_first_chunk", event.ttfb_ms / 1000) end
  add_usage(add, llm.usage or {})
end

--- The attributes of an event.
---@param event table
---@param content boolean whether messages go along
---@param structured boolean messages as values, not as JSON in a text (most receivers of spans know scalars only)
---@return table[]
function genai.attributes_of(event, content, structured)
  local list = {}
  local add = adder(list)
  local host, port = (event.upstream or ""):match("^%w+://([^/:]+):?(%d*)")
  local llm = event.llm
  if llm then
    add_request(add, llm)
    add_response(add, event, llm)
  end
  if llm and content then
    local function add_messages(key, messages) add(key, messages and (structured and messages or json.encode(messages)) or nil) end
    add_messages("gen_ai.input.messages", input_messages(event))
    add_messages("gen_ai.output.messages", output_messages(llm))
  end
  add("error.type", (genai.failure_of(event)))
  add("server.address", host)
  add("server.port", host and (tonumber(port) or (event.upstream:find("^https:") and 443 or 80)) or nil, true)
  add("http.request.method", event.method)
  add("url.path", event.path)
  add("http.response.status_code", event.status ~= 0 and event.status or nil, true)
  if event.cost then add("llm_proxy.cost.total", event.cost.total) end
  add("llm_proxy.event.id", event.id)
  add("llm_proxy.request.id", event.request_id)
  add("llm_proxy.route", event.route)
  return list
end

--- The attributes of the resource: this proxy.
---@param event table one of its events
---@param settings table
---@return table[]
function genai.resource_of(event, settings)
  local list = {}
  local add = adder(list)
  local names = {}
  for name in pairs(settings.resource) do
    if name ~= "service.name" then names[#names + 1] = name end
  end
  table.sort(names)
  add("service.name", settings.service_name)
  if event.proxy then
    add("service.version", event.proxy.version)
    add("service.instance.id", event.proxy.instance)
  end
  for _, name in ipairs(names) do add(name, settings.resource[name]) end
  return list
end

return genai
