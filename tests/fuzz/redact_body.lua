-- The redaction of bodies: whatever a body is, it is searched without an error; one without anything to find keeps its bytes; and what was planted in a text, which a stream then splits anywhere,
-- is nowhere in what comes out.
local documents = require "llmproxy.redact.documents"
local json = require "llmproxy.json"
local paths = require "llmproxy.redact.paths"
local patterns = require "llmproxy.redact.patterns"
local redact = require "llmproxy.redact.event"
local views = require "llmproxy.redact.views"

local PLANTED = "ann.lee@example.com"

local built_in = {}
for index, name in ipairs(patterns.names) do built_in[index] = patterns.new(name) end
local WHERE = { request_body = true, response_body = true, llm = true }
local searching = redact.new { patterns = built_in, where = WHERE, paths = {}, action = "replace" }
local hashing = redact.new { patterns = built_in, where = WHERE, paths = {}, action = "hash", key = "k" }
local idle = redact.new { patterns = { { name = "none", search = function() end, normal = tostring } }, where = WHERE, paths = {}, action = "replace" }
local taking = redact.new {
  patterns = {}, where = WHERE, action = "drop", paths = { assert(paths.parse "response_body.**.a"), assert(paths.parse "response_body.choices[*].delta.*"), assert(paths.parse "request_body[*]") },
}

local function bodies(worker, request, response)
  local event = { request_body = request, response_body = response }
  worker.bodies(event)
  return event.request_body, event.response_body
end

-- Whether some document has two members of one name: it is written anew.
local function says_something_twice(text)
  local _, out = bodies(idle, nil, text)
  return out ~= text
end

local function check_any(text)
  assert(documents.write(documents.read(text)) == text, "all bytes are in the segments")
  local once, whole = bodies(searching, text, text)
  assert(type(once) == "string" and once == whole, "a body is a body")
  if not (text:find("@", 1, true) or text:find "%d" or text:find("-", 1, true) or text:find("_", 1, true) or text:find("\\", 1, true) or text:find("%", 1, true)) then
    assert(once == text or says_something_twice(text), "nothing was found, nothing changed")
  end
  bodies(hashing, text, text)
  local done, message = pcall(bodies, taking, text, text)
  assert(done or tostring(message):find("paths cannot be followed", 1, true), message)
end

local function chunk(piece, arguments)
  local delta = arguments and { tool_calls = { { index = 0, ["function"] = { arguments = piece } } } } or { content = piece }
  return "data: " .. json.encode { choices = { { index = 0, delta = delta } } } .. "\n\n"
end

local function read(body, arguments)
  local parts = {}
  for data in body:gmatch "data: ([^\n]+)" do
    local delta = assert(json.decode(data)).choices[1].delta
    parts[#parts + 1] = arguments and delta.tool_calls[1]["function"].arguments or delta.content
  end
  return table.concat(parts)
end

local function check_planted(text, arguments)
  local clean = json.decode(json.encode(text)) -- valid UTF-8
  local size = #clean
  local at = size > 0 and clean:byte(1) % (size + 1) or 0
  while at < size and clean:byte(at + 1) >= 0x80 and clean:byte(at + 1) < 0xc0 do at = at + 1 end
  local whole = clean:sub(1, at) .. " " .. PLANTED .. " " .. clean:sub(at + 1)
  if arguments then whole = json.encode { a = whole, b = { PLANTED } } end
  local pieces, position, step = {}, 1, size > 1 and clean:byte(2) % 9 + 1 or 3
  while position <= #whole do
    local last = position + step - 1
    while last < #whole and whole:byte(last + 1) >= 0x80 and whole:byte(last + 1) < 0xc0 do last = last + 1 end
    pieces[#pieces + 1] = chunk(whole:sub(position, last), arguments)
    position = last + 1
  end
  local _, out = bodies(searching, nil, table.concat(pieces))
  for _, view in ipairs(views.all(read(out, arguments))) do assert(not view.text:find(PLANTED, 1, true), "what was planted is gone") end
end

return function(text)
  check_any(text)
  check_planted(text, false)
  check_planted(text, true)
end
