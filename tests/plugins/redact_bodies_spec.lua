-- What the transform redact does to bodies of every form, with patterns and with paths.
local json = require "llmproxy.json"

local MAIL = "ann@example.com"

local function redact(t, settings, event)
  return t.plugin("transforms/redact", settings)(event)
end

-- A request's body after a search for e-mail addresses.
local function searched(t, body)
  return redact(t, { patterns = { "email" } }, { path = "/", request_body = body }).request_body
end

local function stream(...)
  local parts = {}
  for index, chunk in ipairs { ... } do parts[index] = "data: " .. (type(chunk) == "string" and chunk or json.encode(chunk)) .. "\n\n" end
  return table.concat(parts)
end

local function content(text, index) return { id = "c1", choices = { { index = index or 0, delta = { content = text } } } } end

-- The contents of a stream's events, one behind the other.
local function contents(body)
  local text = ""
  for data in body:gmatch "data: ([^\n]+)" do
    local chunk = json.decode(data)
    if chunk then text = text .. chunk.choices[1].delta.content end
  end
  return text
end

return {
  ["strings of a JSON body are searched, its numbers and the rest stay"] = function(t)
    t.equal(searched(t, '{"a":"to ann@example.com","n":[1.50,4111111111111111,12345678901234567890],"e":[],"z":null}'),
      '{"a":"to [redacted:email]","e":[],"n":[1.5,4111111111111111,12345678901234567890],"z":null}')
    local clean = ' {"b" : 1.50, "a" : "nothing\\u0021" , "n":12345678901234567890}\n'
    t.equal(searched(t, clean), clean)
  end,

  ["a body of any other form is searched as text"] = function(t)
    t.equal(searched(t, "mail ann@example.com!\255"), "mail [redacted:email]!\255")
    t.equal(searched(t, '{"a": ann@example.com'), '{"a": [redacted:email]')
    t.equal(searched(t, "--x\r\nContent-Type: text/plain\r\n\r\nann@example.com\r\n--x--"), "--x\r\nContent-Type: text/plain\r\n\r\n[redacted:email]\r\n--x--")
    t.equal(searched(t, "user=ann%40example.com&x=1"), "user=[redacted:email]&x=1")
    t.equal(searched(t, ""), "")
    t.equal(searched(t, nil), nil)
  end,

  ["however the value is written"] = function(t)
    for _, body in ipairs { '{"a":"ann\\u0040example.com"}', '{"a":"\\u0061nn@example.com"}', '{"a":"ann\\u0040ex\\u0061mple.com"}' } do t.equal(searched(t, body), '{"a":"[redacted:email]"}',
      body) end
    local inner = '{"to":"ann\\u0040example.com","n":1,"at":"\\nann@example.com\\/x"}'
    t.equal(json.decode(searched(t, json.encode { a = inner })).a, '{"to":"[redacted:email]","n":1,"at":"\\n[redacted:email]\\/x"}')
    local deeper = json.decode(searched(t, json.encode { a = json.encode { b = inner } })).a
    t.equal(json.decode(json.decode(deeper).b), { to = "[redacted:email]", n = 1, at = "\n[redacted:email]/x" })
  end,

  ["names of members are searched too"] = function(t)
    t.equal(searched(t, '{"x":{"ann@example.com":1,"bob@example.com":2}}'), '{"x":{"[redacted:email]":1,"[redacted:email]#2":2}}')
  end,

  ["a member that comes twice hides nothing"] = function(t)
    t.equal(searched(t, '{"a":"ann@example.com","a":"x"}'), '{"a":"x"}')
    t.equal(searched(t, stream('{"a":"\\"ann@example.com","a":"x"}')), 'data: {"a":"x"}\n\n')
  end,

  ["a value is found where a stream splits it"] = function(t)
    local body = searched(t, stream(content "to an", content "n@exam", content "ple", content ".com, and", content(" more"), "[DONE]"))
    t.equal(contents(body), "to [redacted:email], and more")
    t.matches(body, 'content":"to [redacted:email]"', true)
    t.matches(body, "data: [DONE]\n\n", true)
  end,

  ["several answers at once are kept apart"] = function(t)
    local body = searched(t, stream(content("ann@exa", 0), content("bob", 1), content("mple.com", 0), content(" and carl", 1)))
    t.matches(body, '"content":"[redacted:email]"', true)
    t.ok(not body:find("mple.com", 1, true))
    t.matches(body, '"content":" and carl"', true)
  end,

  ["a value that each event repeats is found in each"] = function(t)
    local body = searched(t, stream({ user = MAIL, n = 1 }, { user = MAIL, n = 2 }, { user = MAIL, n = 3 }))
    t.equal(body, stream({ user = "[redacted:email]", n = 1 }, { user = "[redacted:email]", n = 2 }, { user = "[redacted:email]", n = 3 }))
  end,

  ["arguments of tools, split and with escapes"] = function(t)
    local arguments = '{"to":"ann\\u0040example.com","note":"\\"x\\"\\nbob@example.com"}'
    for size = 1, 9 do
      local chunks = {}
      for at = 1, #arguments, size do chunks[#chunks + 1] = { choices = { { index = 0, delta = { tool_calls = { { index = 0, ["function"] = { arguments = arguments:sub(at,
      at + size - 1) } } } } } } } end
      local body, text = searched(t, stream(unpack(chunks))), ""
      for data in body:gmatch "data: ([^\n]+)" do text = text .. json.decode(data).choices[1].delta.tool_calls[1]["function"].arguments end
      t.equal(text, '{"to":"[redacted:email]","note":"\\"x\\"\\n[redacted:email]"}', "pieces of " .. size)
    end
  end,

  ["numbers in arguments of tools become texts"] = function(t)
    local function arguments(text, settings)
      settings = settings or {}
      settings.patterns = { "card" }
      return json.decode(redact(t, settings, { path = "/", request_body = json.encode { a = text } }).request_body).a
    end
    t.equal(arguments '{"a":4111111111111111,"b":[5500005555555559 ],"c":"x, 4111111111111111,","d":"\\"}', '{"a":"[redacted:card]","b":["[redacted:card]" ],"c":"x, [redacted:card],","d":"\\"}')
    t.equal(arguments('{"a":4111111111111111}', { action = "drop" }), '{"a":""}')
  end,

  ["probabilities of tokens spell nothing that was taken out"] = function(t)
    local function tokens(...)
      local list = {}
      for index, token in ipairs { ... } do list[index] = { token = token, bytes = { token:byte(1, -1) }, top_logprobs = { { token = token } } } end
      return { content = list }
    end
    local body = json.encode { choices = { { message = { content = MAIL }, logprobs = tokens("ann", "@example", ".com") } } }
    t.equal(searched(t, body), '{"choices":[{"logprobs":null,"message":{"content":"[redacted:email]"}}]}')
    local clean = json.encode { choices = { { message = { content = "to ann" }, logprobs = tokens("to", " ann") } } }
    t.equal(searched(t, clean), clean)
    t.equal(redact(t, { paths = { "request_body.choices[*].message.content" }, action = "drop" }, { path = "/", request_body = body }).request_body, '{"choices":[{"logprobs":null,"message":{}}]}')
  end,

  ["parts without numbers are one text, thoughts another"] = function(t)
    local function parts(...)
      return { candidates = { { content = { parts = { ... } } } } }
    end
    local body = searched(t, stream(parts({ thought = true, text = "is it bob@" }, { text = "ann@exa" }), parts({ text = "mple" }, { text = ".com" }), parts { text = "." }))
    t.equal(body, stream(parts({ thought = true, text = "is it bob@" }, { text = "[redacted:email]" }), parts({ text = "" }, { text = "" }), parts { text = "." }))
  end,

  ["what a stream says besides JSON is searched, its lines stay"] = function(t)
    t.equal(searched(t, ": ann@example.com\r\nevent: x\r\nid: 7\r\ndata: bob@exa\r\n\r\ndata:mple.com\r\n\r\n"),
      ": [redacted:email]\r\nevent: x\r\nid: 7\r\ndata: [redacted:email]\r\n\r\ndata:\r\n\r\n")
    t.equal(searched(t, 'data: {"a":\ndata: "ann@example.com"}\n\n'), 'data: {"a":"[redacted:email]"}\n\n')
    local clean = ': hello\revent: a\rdata: {"a":\rdata:  1}\r\rdata: [DONE]\r\r'
    t.equal(searched(t, clean), clean)
  end,

  ["lines of JSON, and lists that are streams"] = function(t)
    t.equal(searched(t, '{"message":{"content":"ann@"}}\n{"message":{"content":"example.com"}}\n'), '{"message":{"content":"[redacted:email]"}}\n{"message":{"content":""}}\n')
    t.equal(searched(t, '[{"text":"ann@"},\n{"text":"example.com"}]'), '[{"text":"[redacted:email]"},{"text":""}]')
    t.equal(searched(t, '["ann@example.com",["bob@example.com"]]'), '["[redacted:email]",["[redacted:email]"]]')
  end,

  ["documents one behind the other"] = function(t)
    t.equal(searched(t, '{"text":"ann@"}{"text":"example.com"} \n[1]'), '{"text":"[redacted:email]"}{"text":""} \n[1]')
    t.equal(searched(t, '{\n"text":"ann@"}\n{\n"text":"example.com"}\n{"text":" bob@example.com'), '{"text":"[redacted:email]"}\n{"text":""}\n{"text":" [redacted:email]"}')
    local clean = '{ "a":1}{"b" : 2}\n\n[3]'
    t.equal(searched(t, clean), clean)
  end,

  ["what was cut is searched up to its end"] = function(t)
    local whole = '{"a":["ann@example.com",{"b\\u0040":"bob@example.com","c":[true,12.5]}],"d":"carl@example.com"}'
    for size = 1, #whole do
      local text = whole:sub(1, size)
      local before = redact(t, { patterns = { "email" } }, { path = "/", request_body = text }).request_body
      for _, name in ipairs { "ann", "bob", "carl" } do t.ok(not before:find(name .. "@example.com", 1, true), before) end
      local in_stream = searched(t, stream(content "ann@exa", content "mple.com") .. "data: " .. text)
      for _, name in ipairs { "ann", "bob", "carl" } do t.ok(not in_stream:find(name .. "@example.com", 1, true), in_stream) end
    end
    t.equal(contents(searched(t, stream(content "ann@exa") .. 'data: {"choices":[{"index":0,"delta":{"content":"mple.com and "}}')), "[redacted:email] and ")
    t.equal(searched(t, 'data: {"choices":[{"delta":{"content":"bob'), 'data: {"choices":[{"delta":{"content":"bob')
  end,

  ["a tail is searched with the body when nothing is missing between them"] = function(t)
    local body = stream(content "to ann@exa", content "mple.com", content "!")
    local cut, tail = body:sub(1, 90), body:sub(60)
    local event = redact(t, { patterns = { "email" } }, { path = "/", response_body = cut, response_tail = tail, response_bytes = #body, response_truncated = true })
    t.equal(contents(event.response_body), "to [redacted:email]!")
    t.equal(event.response_tail, nil)
  end,

  ["a tail behind a gap is searched on its own, and stays behind it"] = function(t)
    local body, tail = stream(content "a@b.de a@b.de"), 'tent":"bob@example.com"}}]}\n\n' .. stream(content "ann@exa", content "mple.com")
    local event = redact(t, { patterns = { "email" } }, { path = "/", response_body = body, response_tail = tail, response_bytes = #body + #tail + 1, response_truncated = true })
    t.equal(contents(event.response_body), "[redacted:email] [redacted:email]")
    for _, part in ipairs { "bob@", "ann@", "mple.com" } do t.ok(not event.response_tail:find(part, 1, true), event.response_tail) end
    t.ok(#event.response_body + #event.response_tail < event.response_bytes, "the gap is still there")
  end,

  ["a tail without a body is searched too"] = function(t)
    local settings = { patterns = { "email" } }
    t.equal(redact(t, settings, { path = "/", response_tail = 'x ann@example.com\ndata: {"a":"bob@example.com"}' }).response_tail, 'x [redacted:email]\ndata: {"a":"[redacted:email]"}')
    t.equal(redact(t, settings, { path = "/", response_body = { a = 1 }, response_tail = MAIL }).response_tail, "[redacted:email]")
  end,

  ["fields of the event that are texts or tables"] = function(t)
    local event = redact(t, { patterns = { "email" } }, {
      path = "/users/ann%40example.com", query = "to=bob@example.com&x=1", request_headers = { from = MAIL }, llm = { output = { { content = "to ann@example.com", index = 0 } }, usage = { n = 1 } },
    })
    t.equal(event, { path = "/users/[redacted:email]", query = "to=[redacted:email]&x=1", request_headers = { from = MAIL }, llm = { output = { { content = "to [redacted:email]", index = 0 } },
      usage = { n = 1 } } })
    event = redact(t, { patterns = { "email" }, where = { "request_headers" } }, { path = MAIL, request_headers = { from = MAIL, ["x-a"] = "b" } })
    t.equal(event, { path = MAIL, request_headers = { from = "[redacted:email]", ["x-a"] = "b" } })
  end,

  ["paths take out what they lead to, whatever it is"] = function(t)
    local body = '{"messages":[{"role":"user","content":"a"},{"role":"user","content":[{"text":"b"}]}],"user":7,"meta":{"deep":{"email":"x"}}}'
    local function with(paths, action) return redact(t, { paths = paths, action = action }, { path = "/", request_body = body }).request_body end
    t.equal(json.decode(with { "request_body.messages[*].content", "request_body.user", "request_body.**.email", "request_body.absent.x" }), {
      messages = { { role = "user", content = "[redacted]" }, { role = "user", content = "[redacted]" } }, user = "[redacted]", meta = { deep = { email = "[redacted]" } },
    })
    t.equal(json.decode(with({ "request_body.messages[1]", "request_body.*.deep", "request_body.user" }, "drop")), { messages = { { role = "user", content = { { text = "b" } } } }, meta = {} })
    t.equal(with({ "request_body.messages[*]", "request_body.meta", 'request_body["user"]' }, "drop"), '{"messages":[]}')
    t.equal(with { "request_body" }, "[redacted]")
    t.equal(with({ "request_body" }, "drop"), nil)
    t.equal(json.decode(with { "request_body.**" }), { messages = "[redacted]", user = "[redacted]", meta = "[redacted]" })
  end,

  ["paths lead into each event of a stream, and a text in pieces is one value"] = function(t)
    local settings = { paths = { "response_body.choices[*].delta.content" } }
    local body = redact(t, settings, { path = "/", response_body = stream(content "a", content "b", "[DONE]") }).response_body
    t.equal(body, stream(content "[redacted]", content "", "[DONE]"))
    settings.action, settings.key = "hash", ("k"):rep(16)
    local hashed = redact(t, settings, { path = "/", response_body = stream(content "a", content "bc") }).response_body
    t.equal(hashed, redact(t, settings, { path = "/", response_body = stream(content "ab", content "c") }).response_body)
    t.matches(hashed, "%[redacted:%x+%]")
    t.equal(redact(t, { paths = { "response_body.text" } }, { path = "/", response_body = '[{"text":"a"},{"text":"b"}]' }).response_body, '[{"text":"[redacted]"},{"text":""}]')
  end,

  ["hashes are the same for what means the same"] = function(t)
    local settings = { patterns = { "email", "card" }, action = "hash", key = ("k"):rep(16) }
    local function hash(text) return redact(t, settings, { path = "/", request_body = json.encode { a = text } }).request_body end
    t.matches(hash(MAIL), '^{"a":"%[email:%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%]"}$')
    t.equal(hash(MAIL), hash "Ann@Example.com")
    t.equal(hash(MAIL), redact(t, settings, { path = "/", request_body = '{"a":"ann\\u0040example.com"}' }).request_body)
    t.equal(hash "4111 1111 1111 1111", hash "4111111111111111")
    t.ok(hash(MAIL) ~= hash "bob@example.com")
    settings.key = ("l"):rep(16)
    t.ok(hash(MAIL) ~= redact(t, { patterns = { "email" }, action = "hash", key = ("k"):rep(16) }, { path = "/", request_body = json.encode { a = MAIL } }).request_body)
  end,

  ["drop leaves nothing in place of a match, replacement another text"] = function(t)
    t.equal(redact(t, { patterns = { "email" }, action = "drop" }, { path = "/", request_body = "to ann@example.com!" }).request_body, "to !")
    t.equal(redact(t, { patterns = { "email" }, replacement = "***" }, { path = "/", request_body = "to ann@example.com!" }).request_body, "to ***!")
  end,

  ["own patterns"] = function(t)
    local settings = { patterns = { { name = "ticket", pattern = "bug-\\d+", ignore_case = true } } }
    t.equal(redact(t, settings, { path = "/", request_body = stream(content "BUG", content "-12 x") }).request_body, stream(content "[redacted:ticket]", content " x"))
  end,

  ["what cannot be searched is not let through"] = function(t)
    local function event() return { path = "/", request_body = "x", request_content_coding = "br", response_body = "y", llm = {} } end
    t.raises("request_body: it cannot be searched: its content coding br could not be undone", redact, t, { patterns = { "email" } }, event())
    t.raises("event stream of AWS", redact, t, { patterns = { "email" } }, { path = "/", response_headers = { ["content-type"] = "application/vnd.amazon.eventstream" }, response_body = "x" })
    t.raises("JSON that cannot be read", redact, t, { paths = { "request_body.a" } }, { path = "/", request_body = '{"a":x}' })
    t.raises("a match is longer than 8192 bytes", redact, t, { patterns = { { name = "all", pattern = "a+" } } }, { path = "/", request_body = ("a"):rep(10000) })
    t.raises("takes too many steps", redact, t, { patterns = { { name = "bad", pattern = "(a+)+[^a]c" } } }, { path = "/", request_body = ("a"):rep(5000) .. "bbc" })
    local dropped = redact(t, { patterns = { "email" }, on_failure = "drop_bodies" }, event())
    t.equal({ dropped.request_body, dropped.response_body, dropped.llm }, {})
    t.matches(dropped.redact_error, "content coding br", true)
    t.equal(redact(t, {}, event()).request_body, "x")
  end,

  ["wrong settings are told"] = function(t)
    local function errors(given) return table.concat(t.settings_errors("transforms/redact", given), "\n") end
    t.matches(errors { paths = { "request_body..x" } }, "expected a path as request_body.messages[*].content", true)
    t.matches(errors { patterns = { { name = "x", pattern = "a(" } } }, "missing closing parenthesis", true)
    t.matches(errors { patterns = { "emial" } }, "email", true)
    t.matches(errors { replacement = 'a"b' }, "without quotes", true)
    t.raises("needs a key", t.plugin, "transforms/redact", { action = "hash" })
  end,
}
