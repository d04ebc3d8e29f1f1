local json = require "llmproxy.json"

local DONE = "data: [DONE]\n\n"

local function pieces(...)
  local lines = {}
  for index, chunk in ipairs { ... } do lines[index] = "data: " .. (type(chunk) == "string" and chunk or json.encode(chunk)) .. "\n\n" end
  return table.concat(lines)
end

-- A chunk with one choice.
local function delta(fields, finish_reason, index)
  return {
    id = "chatcmpl-1", object = "chat.completion.chunk", created = 1, model = "gpt-4o-2024",
    choices = json.array { { index = index or 0, delta = fields, finish_reason = finish_reason or json.null } }, usage = json.null,
  }
end

local USAGE = {
  prompt_tokens = 12, completion_tokens = 7, total_tokens = 19,
  prompt_tokens_details = { cached_tokens = 4 }, completion_tokens_details = { reasoning_tokens = 2 },
}

local function event(response_body, changes)
  local made = {
    method = "POST", path = "/v1/chat/completions", upstream = "https://api.openai.com", status = 200, streamed = true,
    request_body = '{"model":"gpt-4o","stream":true,"temperature":0.5,"n":1,"stop":null,"messages":[]}',
    response_body = response_body, response_bytes = response_body and #response_body, response_truncated = false,
  }
  for key, value in pairs(changes or {}) do made[key] = value end
  return made
end

local function describe(t, response_body, changes, settings)
  return t.plugin("transforms/llm", settings or {})(event(response_body, changes)).llm
end

local function whole(message, finish_reason)
  return json.encode {
    id = "chatcmpl-1", object = "chat.completion", model = "gpt-4o-2024", usage = USAGE,
    choices = json.array { { index = 0, message = message, finish_reason = finish_reason or "stop" } },
  }
end

return {
  ["a whole answer is understood"] = function(t)
    local llm = describe(t, whole({ role = "assistant", content = "Rainy.", refusal = json.null }), { streamed = false })
    t.equal(llm, {
      provider = "openai", api = "chat", request_model = "gpt-4o", response_model = "gpt-4o-2024", response_id = "chatcmpl-1", stream = true,
      parameters = { temperature = 0.5, n = 1 },
      output = { { index = 0, role = "assistant", content = "Rainy.", finish_reason = "stop" } },
      usage = { input_tokens = 12, output_tokens = 7, total_tokens = 19, cached_input_tokens = 4, reasoning_tokens = 2, source = "provider" },
      complete = true,
    })
  end,

  ["what is nested as deeply as can be read can still be written"] = function(t)
    local deep = string.rep("[", 127) .. string.rep("]", 127)
    local llm = describe(t, '{"choices":[],"x":' .. deep .. "}", { request_body = '{"stop":' .. deep .. "}" }, { response = true })
    t.equal(#json.encode(llm.parameters.stop), #deep)
    t.equal(type(json.encode(llm)), "string")
  end,

  ["a streamed answer reads like a whole one"] = function(t)
    local llm = describe(t, pieces(delta { role = "assistant", content = "" }, delta { content = "Rai" }, delta { content = "ny." }, delta({}, "stop"),
      { id = "chatcmpl-1", object = "chat.completion.chunk", model = "gpt-4o-2024", choices = json.array {}, usage = USAGE }) .. DONE)
    t.equal(llm, describe(t, whole { role = "assistant", content = "Rainy." }))
  end,

  ["tool calls that interleave are put together by index"] = function(t)
    local function call(index, id, name, arguments)
      return delta { tool_calls = json.array { { index = index, id = id, type = id and "function" or nil, ["function"] = { name = name, arguments = arguments } } } }
    end
    local llm = describe(t, pieces(delta { role = "assistant", content = json.null }, call(0, "call_a", "weather", ""), call(1, "call_b", "time", ""),
      call(0, nil, nil, '{"city":'), call(1, nil, nil, "{"), call(0, nil, nil, '"Paris"}'), call(1, nil, nil, "}"), delta({}, "tool_calls")) .. DONE, nil, { response = true })
    t.equal(llm.output, {
      {
        index = 0, role = "assistant", finish_reason = "tool_calls",
        tool_calls = { { id = "call_a", name = "weather", arguments = '{"city":"Paris"}' }, { id = "call_b", name = "time", arguments = "{}" } },
      },
    })
    t.equal(llm.response.choices[1].message, {
      role = "assistant", content = json.null,
      tool_calls = {
        { id = "call_a", type = "function", ["function"] = { name = "weather", arguments = '{"city":"Paris"}' } },
        { id = "call_b", type = "function", ["function"] = { name = "time", arguments = "{}" } },
      },
    })
  end,

  ["tool calls without an index are told apart by their ids"] = function(t)
    local function calls(...) return delta { tool_calls = json.array { ... } } end
    local llm = describe(t, pieces(
      calls({ id = "a", ["function"] = { name = "one", arguments = "{" } }), calls({ ["function"] = { arguments = "}" } }),
      calls({ id = "b", ["function"] = { name = "two", arguments = "1" } }, { id = "c", ["function"] = { name = "three", arguments = "2" } }),
      calls({ id = "c", ["function"] = { arguments = "3" } })) .. DONE)
    t.equal(llm.output[1].tool_calls, { { id = "a", name = "one", arguments = "{}" }, { id = "b", name = "two", arguments = "1" }, { id = "c", name = "three", arguments = "23" } })
  end,

  ["arguments stay the text they were"] = function(t)
    local arguments = '{ "a" : 1.0, "b":12345678901234567890 }'
    local call = { id = "a", type = "function", ["function"] = { name = "f", arguments = arguments } }
    t.equal(describe(t, whole({ role = "assistant", content = json.null, tool_calls = json.array { call } }, "tool_calls")).output[1].tool_calls, { { id = "a", name = "f", arguments = arguments } })
    t.equal(describe(t, whole { role = "assistant", function_call = { name = "f", arguments = arguments } }).output[1].tool_calls, { { name = "f", arguments = arguments } })
  end,

  ["several choices interleave and come in order"] = function(t)
    local llm = describe(t, pieces(delta({ role = "assistant", content = "b1" }, nil, 1), delta({ role = "assistant", content = "a1" }, nil, 0),
      delta({ content = "b2" }, "length", 1), delta({ content = "a2" }, "stop", 0)) .. DONE)
    t.equal(llm.output, {
      { index = 0, role = "assistant", content = "a1a2", finish_reason = "stop" },
      { index = 1, role = "assistant", content = "b1b2", finish_reason = "length" },
    })
  end,

  ["refusals and reasoning are kept apart from the text"] = function(t)
    t.equal(describe(t, pieces(delta { role = "assistant", refusal = "I can" }, delta { refusal = "not." }, delta({}, "stop")) .. DONE).output,
      { { index = 0, role = "assistant", refusal = "I cannot.", finish_reason = "stop" } })
    t.equal(describe(t, pieces(delta { reasoning_content = "Hm, " }, delta { reasoning_content = "so." }, delta { content = "Yes" }) .. DONE).output,
      { { index = 0, role = "assistant", content = "Yes", reasoning = "Hm, so." } })
  end,

  ["usage comes from wherever the provider puts it"] = function(t)
    local function usage_of(...) return describe(t, pieces(...) .. DONE).usage end
    local first, last = delta { content = "a" }, delta { content = "b" }
    first.usage, last.usage = { prompt_tokens = 1, completion_tokens = 1 }, { prompt_tokens = 1, completion_tokens = 2 }
    t.equal(usage_of(first, last), { input_tokens = 1, output_tokens = 2, total_tokens = 3, source = "provider" })
    local groq = delta({}, "stop")
    groq.usage, groq.x_groq = nil, { usage = USAGE }
    t.equal(usage_of(groq).total_tokens, 19)
    local deepseek = delta({}, "stop")
    deepseek.usage = { prompt_tokens = 5, completion_tokens = 1, total_tokens = 6, prompt_cache_hit_tokens = 3 }
    t.equal(usage_of(deepseek).cached_input_tokens, 3)
    t.equal(usage_of(delta { content = "no usage asked for" }), nil)
  end,

  ["an error in mid-stream is told, and what came before is kept"] = function(t)
    local failure = { error = { message = "overloaded", type = "server_error", code = json.null } }
    local llm = describe(t, pieces(delta { role = "assistant", content = "Half an" }, failure))
    t.equal(llm.error, { message = "overloaded", type = "server_error" })
    t.equal(llm.complete, false)
    t.equal(llm.output[1].content, "Half an")
    t.equal(describe(t, "event: error\ndata: {\"message\":\"x\",\"code\":\"y\"}\n\n").error, { message = "x", code = "y" })
  end,

  ["an error instead of an answer is told, in any shape"] = function(t)
    local shapes = {
      { '{"error":{"message":"no key","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}', { message = "no key", type = "invalid_request_error", code = "invalid_api_key" } },
      { '{"error":"model not found"}', { message = "model not found" } },
      { '[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]', { code = 400, message = "bad", type = "INVALID_ARGUMENT" } },
      { '{"object":"error","message":"too long","type":"BadRequestError","code":400}', { message = "too long", type = "BadRequestError", code = 400 } },
      { '{"detail":"Not Found"}', { message = "Not Found" } },
      { '{"error":null,"message":"x"}', { message = "x" } },
    }
    for _, shape in ipairs(shapes) do
      local llm = describe(t, shape[1], { status = 400 })
      t.equal(llm.error, shape[2], shape[1])
      t.equal({ llm.complete, llm.output }, { false, {} }, shape[1])
    end
    t.equal(describe(t, shapes[1][1]).error, shapes[1][2], "with status 200, where a stream was asked for")
  end,

  ["line ends, byte order marks, comments and a missing space change nothing"] = function(t)
    local plain = pieces(delta { role = "assistant", content = "Hi" }, delta({}, "stop")) .. DONE
    local expected = describe(t, plain)
    t.equal(describe(t, (plain:gsub("\n", "\r\n"))), expected, "CRLF")
    t.equal(describe(t, (plain:gsub("\n", "\r"))), expected, "CR")
    t.equal(describe(t, "\239\187\191" .. plain), expected, "byte order mark")
    t.equal(describe(t, ": OPENROUTER PROCESSING\n\n" .. plain), expected, "comment")
    t.equal(describe(t, (plain:gsub("data: ", "data:"))), expected, "no space")
    t.equal(describe(t, "\239\187\191 \r\n" .. whole { role = "assistant", content = "x" }).complete, true, "whole, with a mark")
  end,

  ["a stream that broke off is not complete"] = function(t)
    local text = pieces(delta { role = "assistant", content = "Hi" }, delta { content = " there" })
    t.equal(describe(t, text).complete, false)
    local cut = describe(t, text:sub(1, -10))
    t.equal({ cut.complete, cut.output[1].content }, { false, "Hi" })
    t.equal(describe(t, (pieces(delta { content = "Hi" }) .. DONE):sub(1, -2)).complete, true, "only the last empty line is missing")
    t.equal(describe(t, "").output, {})
  end,

  ["a truncated stream takes usage and end from its tail, and no text"] = function(t)
    local before = pieces(delta { role = "assistant", content = "The beginning" })
    local middle = pieces(delta { content = " (lost) " }):rep(50)
    local after = pieces(delta { content = "the end" }, delta({}, "stop"), { choices = json.array {}, usage = USAGE }) .. DONE
    local all = before .. middle .. after
    local kept, tail = #before + 30, #after + 30
    local llm = describe(t, all:sub(1, kept), { response_truncated = true, response_bytes = #all, response_tail = all:sub(-tail) })
    t.equal(llm.output, { { index = 0, role = "assistant", content = "The beginning", finish_reason = "stop" } })
    t.equal(llm.usage.total_tokens, 19)
    t.equal(llm.complete, false)
  end,

  ["a tail that reaches back into the kept body closes the gap"] = function(t)
    local all = pieces(delta { role = "assistant", content = "one " }, delta { content = "two " }, delta { content = "three" }, delta({}, "stop")) .. DONE
    for _, kept in ipairs { 20, #all / 2 - #all / 2 % 1, #all - 5 } do
      for _, tail in ipairs { #all - kept, #all - kept + 10 } do
        local llm = describe(t, all:sub(1, kept), { response_truncated = true, response_bytes = #all, response_tail = all:sub(-tail) })
        t.equal(llm.output[1].content, "one two three")
        t.equal(llm.complete, false, "the capture was truncated all the same")
      end
    end
  end,

  ["a truncated whole answer has its usage from the tail"] = function(t)
    local text = '{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"' .. ("long "):rep(1000) .. '"},"finish_reason":"length"}],"usage":' .. json.encode(USAGE) .. "}"
    local llm = describe(t, text:sub(1, 200), { streamed = false, response_truncated = true, response_bytes = #text, response_tail = text:sub(-400) })
    t.equal(llm.usage.total_tokens, 19)
    t.equal(llm.output, { { index = 0, role = "assistant", finish_reason = "length" } })
    t.equal(llm.complete, false)
    t.equal(describe(t, text:sub(1, 200), { response_truncated = true, response_bytes = #text }).usage, nil)
  end,

  ["the whole response is there when asked for"] = function(t)
    local stream = pieces({ id = "", model = "", choices = json.array {}, prompt_filter_results = json.array {} }, delta { role = "assistant", content = "Hi", new_field = 7 }, delta({}, "stop"),
      { choices = json.array {}, usage = USAGE, service_tier = "default" }) .. DONE
    local response = describe(t, stream, nil, { response = true }).response
    t.equal(response, {
      id = "chatcmpl-1", object = "chat.completion", created = 1, model = "gpt-4o-2024", service_tier = "default", usage = USAGE, prompt_filter_results = {},
      choices = { { index = 0, message = { role = "assistant", content = "Hi", new_field = 7 }, finish_reason = "stop" } },
    })
    t.equal(describe(t, stream).response, nil)
    t.matches(json.encode(response), '"prompt_filter_results":[]', true)
  end,

  ["log probabilities are appended"] = function(t)
    local first, second = delta { content = "a" }, delta { content = "b" }
    first.choices[1].logprobs = { content = json.array { { token = "a" } }, refusal = json.null }
    second.choices[1].logprobs = { content = json.array { { token = "b" } } }
    local response = describe(t, pieces(first, second) .. DONE, nil, { response = true }).response
    t.equal(response.choices[1].logprobs, { content = { { token = "a" }, { token = "b" } }, refusal = json.null })
  end,

  ["the provider is told by path and host"] = function(t)
    local function provider(changes) return describe(t, "", changes).provider end
    t.equal(provider { upstream = "https://api.groq.com/openai" }, "groq")
    t.equal(provider { upstream = "https://api.deepseek.com" }, "deepseek")
    t.equal(provider { upstream = "http://127.0.0.1:11434" }, "openai")
    local azure = describe(t, "", { upstream = "https://x.openai.azure.com", path = "/openai/deployments/my-gpt/chat/completions" })
    t.equal({ azure.provider, azure.request_model }, { "azure_openai", "my-gpt" })
  end,

  ["what is no call of an LLM passes unchanged"] = function(t)
    local transform = t.plugin("transforms/llm", {})
    for _, changes in ipairs { { method = "GET" }, { path = "/v1/models" }, { path = "/v1/chat/completions/x" } } do
      local given = event("{}", changes)
      t.ok(transform(given) == given)
      t.equal(given.llm, nil)
    end
  end,

  ["a body that is not known is no failure"] = function(t)
    local llm = describe(t, nil, { response_bytes = 10 })
    t.equal({ llm.stream, llm.output, llm.complete }, { true, {}, false })
    local withheld = event(nil)
    withheld.request_body = nil
    withheld = t.plugin("transforms/llm", {})(withheld).llm
    t.equal({ withheld.stream, withheld.parameters, withheld.request_model }, { true, {} })
    t.equal(describe(t, "\31\139\8", { response_content_coding = "gzip" }).output, {})
  end,

  ["nothing that is sent makes it fail"] = function(t)
    local odd = {
      "null", "1", '"x"', "[]", "{}", "[null]", '{"choices":null}', '{"choices":[null]}', '{"choices":{"a":1}}', '{"choices":[1,"x",[],{}]}', '{"choices":[{"message":[1]}]}',
      '{"choices":[{"message":{"content":[null,1,{"text":null},{"text":"x"}],"tool_calls":[null,1,{"function":1}],"function_call":1}}]}', '{"usage":[],"choices":[]}',
      '{"error":[]}', '{"error":{"code":{}}}', '{"choices":[{"index":12345678901234567890,"delta":{"content":"x"}}]}', '{"choices":[{"index":-1.5,"delta":{"content":"x"}}]}',
      '{"choices":[{"delta":null,"logprobs":null}]}', '{"choices":[{"delta":{"tool_calls":[{"index":"x"}]}}]}',
      '{"choices":[{"delta":{"tool_calls":[{"index":-1},{"index":99999999},{"index":0.5}]}}]}', '{"choices":[{"delta":{"content":{"a":1},"function_call":"x","audio":[1]}}]}',
      '{"x_groq":1,"usage":1}', '{"id":1,"model":[],"choices":[{"delta":{"role":1}}]}', "<html>502</html>", "\0\255", "data", "data:", "{",
    }
    for _, text in ipairs(odd) do
      for _, body in ipairs { text, "data: " .. text .. "\n\ndata: " .. text .. "\n\n" } do
        for _, request in ipairs { "null", "[]", text, '{"model":1,"stream":"yes"}' } do
          local transformed = t.plugin("transforms/llm", { response = true })(event(body, { request_body = request, status = 500 }))
          local encoded, reason = json.encode(transformed)
          t.ok(encoded, ("%q: %s"):format(body, tostring(reason)))
        end
        t.ok(json.encode(t.plugin("transforms/llm", {})(event(body, { response_tail = text, response_truncated = true, response_bytes = 100000 }))))
      end
    end
  end,
}
