-- What is said about a call of an LLM: whatever was asked and answered, nothing is raised, it can be written as JSON, and it is the same every time.
--
-- The input is a request's body, a response's body and a response's tail, each ended by a line "====".
local json = require "llmproxy.json"
local llm = require "llmproxy.llm"

local SEPARATOR = "\n====\n"

local function cut(text)
  local from, to = text:find(SEPARATOR, 1, true)
  if not from then return text, nil end
  return text:sub(1, from - 1), text:sub(to + 1)
end

local function event(request, response, changes)
  local made = {
    method = "POST", path = "/v1/chat/completions", upstream = "https://api.openai.com", status = 200, streamed = true,
    request_body = request, response_body = response, response_bytes = response and #response, response_truncated = false,
  }
  for key, value in pairs(changes or {}) do made[key] = value end
  return made
end

local function check(made)
  for _, options in ipairs { {}, { response = true } } do
    local described = llm.describe(made, options)
    assert(type(described) == "table", "a call is described")
    assert(type(described.complete) == "boolean" and type(described.stream) == "boolean" and type(described.output) == "table")
    local text = assert(json.encode(described))
    for _, value in pairs(described) do assert(json.decode(assert(json.encode(value))) ~= nil) end
    assert(assert(json.encode(llm.describe(made, options))) == text, "the same every time")
  end
end

return function(text)
  local request, rest = cut(text)
  local response, tail
  if rest then response, tail = cut(rest) end
  check(event(request, response))
  check(event(nil, response, { status = 400, streamed = false, path = "/openai/deployments/d/chat/completions" }))
  if tail then
    local size = #response + #tail
    check(event(request, response, { response_truncated = true, response_tail = tail, response_bytes = size + 1 }))
    check(event(request, response, { response_truncated = true, response_tail = tail, response_bytes = size - math.floor(#tail / 2) }))
  end
end
