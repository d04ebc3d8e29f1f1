-- A property, over random texts in the stream formats of the providers: what was planted is nowhere in what goes on, and the rest is what it would be had nothing been split.
local json = require "llmproxy.json"
local views = require "llmproxy.redact.views"

local RUNS, LONG_RUNS = 400, 20000

local random = math.random

local function one_of(list) return list[random(#list)] end

local WORDS = { "the", "card", "Straße", "привет", "联系", "😀", "x", "v2", "C:\\new", "a\\", "\"q\"", "line\nbreak", "tab\t", "{\"k\": [1]}", "</p>", "50%", "100%25", "sk-", "@", "+",
  "e-mail:", "\1", "null" }

local SECRETS = {
  "ann.lee@example.com", "x@y.io", "jörg@müller.de", "4111 1111 1111 1111", "5500005555555559", "3782 822463 10005", "+49 30 1234567", "(212) 555-0123", "06 12 34 56 78", "AKIAIOSFODNN7EXAMPLE",
  "sk-ant-api03-" .. ("aB3dE5gH7j"):rep(9), "ghp_" .. ("x1Y2z3"):rep(6), "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
}

-- Words with secrets in between.
local function random_text()
  local parts, planted = {}, {}
  for _ = 1, random(1, 25) do
    if random(4) == 1 then
      planted[#planted + 1] = one_of(SECRETS)
      parts[#parts + 1] = one_of { "", "(", "\"", "<" } .. planted[#planted] .. one_of { "", ")", "\"", ">", "." }
    else
      parts[#parts + 1] = one_of(WORDS)
    end
  end
  return table.concat(parts, one_of { " ", "\n", ", " }), planted
end

-- JSON of a string, in any of the ways it may be written.
local function quoted(text)
  local written = text:gsub("[%z\1-\127]", function(character)
    if random(10) == 1 then return character == "/" and "\\/" or ("\\u%04x"):format(character:byte()) end
    return json.encode(character):sub(2, -2)
  end)
  return '"' .. written .. '"'
end

-- Pieces of whole characters.
local function split(text)
  local pieces, position, longest = {}, 1, random(1, 12)
  while position <= #text do
    local last = position + random(longest) - 1
    while last < #text and text:byte(last + 1) >= 0x80 and text:byte(last + 1) < 0xc0 do last = last + 1 end
    pieces[#pieces + 1] = text:sub(position, last)
    position = last + 1
  end
  return pieces
end

local function same(text) return text end
local function lines(text) return text .. "\n" end
local function event(text) return "data: " .. text .. one_of { "\n\n", "\r\n\r\n" } end
local function named(text) return "event: content_block_delta\n" .. event(text) end

-- Each: the JSON of a piece (%s), how it stands in the stream, what stands around all, and the way to the piece in a document.
local FORMATS = {
  { name = "chat", piece = '{"id":"c","choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}]}', frame = event, after = "data: [DONE]\n\n", way = { "choices", 1, "delta", "content" } },
  { name = "chat tools", arguments = true, piece = '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":%s}}]}}]}', frame = event,
    way = { "choices", 1, "delta", "tool_calls", 1, "function", "arguments" } },
  { name = "responses", piece = '{"type":"response.output_text.delta","sequence_number":7,"output_index":0,"content_index":0,"delta":%s}', frame = event, way = { "delta" } },
  { name = "messages", piece = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%s}}', frame = named, way = { "delta", "text" } },
  { name = "messages tools", arguments = true, piece = '{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":%s}}', frame = named, way = { "delta",
    "partial_json" } },
  { name = "gemini", piece = '{"candidates":[{"content":{"role":"model","parts":[{"text":%s}]}}]}', frame = event, way = { "candidates", 1, "content", "parts", 1, "text" } },
  { name = "ollama", piece = '{"model":"m","created_at":"2024-01-02T03:04:05.678901Z","message":{"content":%s},"done":false}', frame = lines, way = { "message", "content" } },
  { name = "list", piece = '{"candidates":[{"content":{"parts":[{"text":%s}]}}]}', frame = same, before = "[", between = ",\r\n", after = "]", way = { "candidates", 1, "content", "parts", 1,
    "text" } },
}

local function write(format, pieces)
  local parts = {}
  for index, piece in ipairs(pieces) do
    local text = quoted(piece)
    parts[index] = format.frame((format.piece:gsub("%%s", function() return text end)))
  end
  return (format.before or "") .. table.concat(parts, format.between or "") .. (format.after or "")
end

local function pick(value, way)
  for _, key in ipairs(way) do value = value[key] end
  return value
end

-- The text that a client would put together.
local function read(format, body)
  local parts = {}
  if format.before then
    for index, document in ipairs(assert(json.decode(body))) do parts[index] = pick(document, format.way) end
  else
    for line in body:gmatch "[^\r\n]+" do
      local document = json.decode((line:gsub("^data: ", "")))
      if document then parts[#parts + 1] = pick(document, format.way) end
    end
  end
  return table.concat(parts)
end

local function lacks(t, text, planted, what)
  for _, view in ipairs(views.all(text)) do
    for _, secret in ipairs(planted) do t.ok(not view.text:find(secret, 1, true), what .. ": " .. secret .. " is still in " .. text) end
  end
end

-- What it is like when nothing is split.
local function unsplit(redact, text)
  return json.decode(redact({ path = "/", request_body = json.encode { text = text } }).request_body).text
end

local function check(t, redact, format)
  local text, planted = random_text()
  if format.arguments then text = "{" .. quoted(text) .. ":1," .. quoted "to" .. ":[" .. quoted(text) .. "]}" end
  local pieces = split(text)
  if not pieces[1] then return end
  local body = write(format, pieces)
  t.equal(read(format, body), text, "the test's own stream")
  local redacted = redact({ path = "/", response_body = body }).response_body
  lacks(t, redacted, planted, format.name)
  local assembled = read(format, redacted)
  lacks(t, assembled, planted, format.name)
  t.equal(assembled, unsplit(redact, text), format.name)
  if #planted == 0 and text == assembled then t.equal(redacted, body, format.name) end
  if format.arguments then t.ok(json.decode(assembled), "arguments are JSON: " .. assembled) end
  -- Cut anywhere, it holds as far as secrets are whole.
  local cut = redact({ path = "/", response_body = body:sub(1, random(#body)), response_truncated = true }).response_body
  lacks(t, cut, planted, format.name .. ", cut")
  -- What is redacted is not redacted again.
  t.equal(redact({ path = "/", response_body = redacted }).response_body, redacted)
end

return {
  ["what was planted is nowhere, the rest is as if nothing were split"] = function(t)
    local redactors = {}
    for index, action in ipairs { "replace", "hash" } do
      redactors[index] = t.plugin("transforms/redact", { patterns = { "api_key", "card", "email", "phone" }, action = action, key = ("k"):rep(16) })
    end
    for run = 1, t.is_long() and LONG_RUNS or RUNS do
      math.randomseed(run)
      local format = FORMATS[run % #FORMATS + 1]
      local kept, message = pcall(check, t, one_of(redactors), format)
      if not kept then error(("run %d, %s: %s"):format(run, format.name, message), 0) end
    end
  end,
}
