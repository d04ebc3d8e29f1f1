--- OpenAI chat completions, and everybody compatible: POST …/chat/completions.
--
-- A provider is a table like the one at the end of this file; init.lua calls it and says what each function promises.
local json = require "llmproxy.json"
local merge = require "llmproxy.llm.merge"

-- Who serves this API at which host; anybody else is taken for OpenAI, whose API it is.
local HOSTS = {
  ["api.groq.com"] = "groq",
  ["api.together.xyz"] = "together",
  ["api.deepseek.com"] = "deepseek",
  ["api.mistral.ai"] = "mistral",
  ["openrouter.ai"] = "openrouter",
  ["api.x.ai"] = "xai",
  ["generativelanguage.googleapis.com"] = "gemini",
}

local PARAMETERS = {
  "temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "n", "stop", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty",
  "logit_bias", "logprobs", "top_logprobs", "reasoning_effort", "verbosity", "service_tier",
}

local function azure_deployment(event)
  return event.path:match("/openai/deployments/([^/]+)/chat/completions$")
end

local function provider_name(event)
  local host = (merge.string(event.upstream) or ""):match("^%w+://([^/:]+)") or ""
  if azure_deployment(event) or host:find("%.azure%.com$") then return "azure_openai" end
  return HOSTS[host] or "openai"
end

local function parameters(request)
  local sent = {}
  for _, name in ipairs(PARAMETERS) do
    if request[name] ~= json.null then sent[name] = request[name] end
  end
  return sent
end

local function matches(event)
  return event.method == "POST" and event.path:find("/chat/completions$") ~= nil
end

local function describe_request(event, request)
  return {
    provider = provider_name(event),
    api = "chat",
    request_model = azure_deployment(event) or merge.string(request.model),
    stream = request.stream == true,
    parameters = parameters(request),
  }
end

-- Merging a stream -----------------------------------------------------------------------------------------------------------------------------------------------------

local CALL_RULES = {
  id = "once", type = "once", index = "once",
  ["function"] = { name = "once", arguments = "text" },
  custom = { name = "once", input = "text" },
}

-- Which call a fragment belongs to: by its index; without one, a new id opens a new call and no id continues the last.
local function find_call(calls, fragment)
  local index = merge.number(fragment.index)
  if not index then
    local id = merge.filled(fragment.id)
    local last = calls[calls.last]
    index = calls.last or 0
    if last and id and last.id ~= id then index = calls.highest + 1 end
  end
  calls[index] = calls[index] or {}
  calls.last = index
  calls.highest = math.max(calls.highest or index, index)
  return calls[index]
end

local function add_tool_calls(merging, message, fragments)
  if not merge.table(fragments) then return end
  if not merge.table(message.tool_calls) then message.tool_calls = {} end
  for _, fragment in ipairs(fragments) do
    if merge.table(fragment) then merging:add(find_call(message.tool_calls, fragment), fragment, CALL_RULES) end
  end
end

local MESSAGE_RULES = {
  role = "once",
  content = "text", refusal = "text", reasoning_content = "text", reasoning = "text",
  reasoning_details = "list", annotations = "list",
  function_call = { name = "once", arguments = "text" },
  audio = { id = "once", data = "text", transcript = "text" },
  tool_calls = add_tool_calls,
}

local CHOICE_RULES = {
  index = "once",
  logprobs = { content = "list", refusal = "list" },
  message = function() end, -- what is put together here comes from deltas alone
  delta = function(merging, choice, delta) merging:add(choice.message, delta, MESSAGE_RULES) end,
}

local function add_choices(merging, response, choices)
  for position, delta in ipairs(merge.table(choices) or {}) do
    if merge.table(delta) then
      local index = merge.number(delta.index) or position - 1
      response.choices[index] = response.choices[index] or { index = index, message = {} }
      merging:add(response.choices[index], delta, CHOICE_RULES)
    end
  end
end

local CHUNK_RULES = { id = "once", created = "once", model = "once", choices = add_choices }

local function finish_message(message)
  local calls = merge.table(message.tool_calls)
  if calls then
    calls.last, calls.highest = nil, nil
    message.tool_calls = merge.ordered(calls)
    for _, call in ipairs(message.tool_calls) do call.index = nil end
  end
  message.role = message.role or "assistant"
  if message.content == nil or (message.content == "" and (calls or message.function_call)) then message.content = json.null end
end

local function new_stream()
  local merging = merge.new()
  local response = { choices = {} }
  local seen = false
  return {
    add = function(chunk, only_end)
      seen = true
      if only_end then
        for _, choice in ipairs(merge.table(chunk.choices) or {}) do
          if merge.table(choice) then choice.delta, choice.logprobs = nil, nil end
        end
      end
      merging:add(response, chunk, CHUNK_RULES)
    end,
    finish = function()
      if not seen then return nil end
      merging:finish()
      response.choices = merge.ordered(response.choices)
      for _, choice in ipairs(response.choices) do finish_message(choice.message) end
      response.object = "chat.completion"
      return response
    end,
  }
end

-- Reading a whole response ---------------------------------------------------------------------------------------------------------------------------------------------

local function describe_calls(message)
  local calls = json.array {}
  for _, call in ipairs(merge.table(message.tool_calls) or {}) do
    if merge.table(call) then
      local called = merge.table(call["function"]) or merge.table(call.custom) or {}
      calls[#calls + 1] = { id = merge.filled(call.id), name = merge.string(called.name), arguments = merge.string(called.arguments) or merge.string(called.input) }
    end
  end
  local legacy = merge.table(message.function_call)
  if legacy then calls[#calls + 1] = { name = merge.string(legacy.name), arguments = merge.string(legacy.arguments) } end
  return calls[1] and calls
end

local function describe_choice(choice, position)
  local message = merge.table(choice.message) or {}
  return {
    index = merge.number(choice.index) or position - 1,
    role = merge.string(message.role),
    content = merge.text(message.content),
    reasoning = merge.filled(merge.text(message.reasoning_content)) or merge.filled(merge.text(message.reasoning)),
    tool_calls = describe_calls(message),
    refusal = merge.filled(message.refusal),
    finish_reason = merge.string(choice.finish_reason),
  }
end

local function describe_usage(response)
  local groq = merge.table(response.x_groq) or {}
  local usage = merge.table(response.usage) or merge.table(groq.usage)
  if not usage then return nil end
  local input, output = merge.number(usage.prompt_tokens), merge.number(usage.completion_tokens)
  local total = merge.number(usage.total_tokens) or (input and output and input + output)
  if not (input or output or total) then return nil end
  local input_details = merge.table(usage.prompt_tokens_details) or {}
  local output_details = merge.table(usage.completion_tokens_details) or {}
  return {
    input_tokens = input,
    output_tokens = output,
    total_tokens = total,
    cached_input_tokens = merge.number(input_details.cached_tokens) or merge.number(usage.prompt_cache_hit_tokens),
    cache_write_tokens = merge.number(input_details.cache_write_tokens),
    reasoning_tokens = merge.number(output_details.reasoning_tokens),
    source = "provider",
  }
end

local function describe_response(response)
  local output = json.array {}
  for position, choice in ipairs(merge.table(response.choices) or {}) do
    if merge.table(choice) then output[#output + 1] = describe_choice(choice, position) end
  end
  return {
    response_model = merge.string(response.model),
    response_id = merge.string(response.id),
    output = output,
    usage = describe_usage(response),
  }
end

-- The end of a whole response whose middle was not kept: its usage, and why it ended if it had one choice.
local function whole_from_tail(tail)
  local response = { choices = {} }
  for usage in tail:gmatch('"usage"%s*:%s*(%b{})') do response.usage = json.decode(usage) end
  local reasons = {}
  for reason in tail:gmatch('"finish_reason"%s*:%s*"([^"\\]*)"') do reasons[#reasons + 1] = reason end
  if #reasons == 1 then response.choices[1] = { index = 0, message = { role = "assistant" }, finish_reason = reasons[1] } end
  return response
end

---@type llmproxy.llm.provider
return {
  matches = matches,
  describe_request = describe_request,
  describe_response = describe_response,
  new_stream = new_stream,
  whole_from_tail = whole_from_tail,
  is_end = function(data) return data:find("^%s*%[DONE%]%s*$") ~= nil end,
  is_whole = function(response) return merge.table(response.choices) ~= nil end,
}
