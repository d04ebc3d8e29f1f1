-- The work of a redaction is linear in the body, whatever stands in it: counted in bytes that are searched, not in time.
local documents = require "llmproxy.redact.documents"
local json = require "llmproxy.json"
local patterns = require "llmproxy.redact.patterns"
local redact = require "llmproxy.redact.event"

-- Bodies of about that size that would be hard on a careless search.
local BODIES = {
  text = function(size) return ("a "):rep(size / 2) end,
  ats = function(size) return ("@"):rep(size) end,
  addresses = function(size) return ("a@b.de "):rep(size / 7) end,
  digits = function(size) return ("4111 1111 1111 1112 "):rep(size / 20) end,
  backslashes = function(size) return ("\\"):rep(size) end,
  quotes = function(size) return ('"'):rep(size) end,
  escapes = function(size) return json.encode { a = ('\\u0040"'):rep(size / 10) } end,
  percents = function(size) return ("%40"):rep(size / 3) end,
  brackets = function(size) return ("[{"):rep(size / 2) end,
  names = function(size) return "{" .. ('"a":1,'):rep(size / 6) .. '"b":1}' end,
  keys = function(size) return ("sk-"):rep(size / 3) end,
  begins = function(size) return ("-----BEGIN PRIVATE KEY-----"):rep(size / 27) end,
  events = function(size) return ('data: {"choices":[{"index":0,"delta":{"content":"ab"}}]}\n\n'):rep(size / 58) end,
  data = function(size) return ("data: {\n"):rep(size / 8) end,
  lines = function(size) return ('{"a":"b@"}\n'):rep(size / 11) end,
  invalid = function(size) return ("\200\1"):rep(size / 2) end,
}

-- How many bytes the patterns are given.
local function work(body)
  local bytes = 0
  local counting = { name = "counting", normal = tostring, search = function(text, report)
    bytes = bytes + #text
    local at = text:find("@", 1, true)
    while at do
      report(at, at)
      at = text:find("@", at + 1, true)
    end
  end }
  redact.new({ patterns = { counting }, where = { request_body = true }, paths = {}, action = "replace" }).bodies { request_body = body }
  return bytes
end

return {
  ["as many bytes are searched as there are readings of the body, at most"] = function(t)
    for name, make in pairs(BODIES) do
      local body = make(20000)
      -- Alone and joined, each with its four ways of undoing escapes and one of undoing percent signs.
      t.ok(work(body) <= 2 * 6 * #body, name)
    end
  end,

  ["twice the body is twice the work"] = function(t)
    for name, make in pairs(BODIES) do
      local small, large = work(make(20000)), work(make(40000))
      t.ok(large <= 2.1 * small + 1000, ("%s: %d, then %d"):format(name, small, large))
    end
  end,

  ["large bodies of each kind come through"] = function(t)
    local list = {}
    for index, name in ipairs(patterns.names) do list[index] = patterns.new(name) end
    local worker = redact.new { patterns = list, where = { request_body = true }, paths = {}, action = "replace" }
    for name, make in pairs(BODIES) do
      local event = { request_body = make(300000) }
      t.equal(documents.write(documents.read(event.request_body)) == event.request_body, true, name)
      worker.bodies(event)
      t.ok(event.request_body, name)
    end
  end,
}
