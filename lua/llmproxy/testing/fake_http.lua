--- Destinations that specs play: what is sent to an address that begins with `prefix` is kept and answered as the script says; what nobody plays fails the test.
--
-- An answer is a status, or { status, headers, body, delay, error }: `delay` moves the clock by so many seconds (beyond the request's timeout there is no answer but "timed out"), `error` is why
-- there is no answer.
-- A script is one answer, a list of answers of which the last one stays, or a function that gets the request.
local clock = require "llmproxy.testing.clock"
local json = require "llmproxy.json"

local DEFAULT_TIMEOUT = 10

---@class llmproxy.testing.request
---@field method string
---@field url string
---@field path string
---@field query string?
---@field headers table<string, string> names in lower case
---@field body string
---@field json fun(): any the body decoded

local function lower_names(headers)
  local lower = {}
  for name, value in pairs(headers or {}) do lower[name:lower()] = value end
  return lower
end

local function read(method, options, url)
  local path, query = url:match("^%w+://[^/?#]*([^?#]*)%??([^#]*)")
  local request = { method = method, url = url, path = path == "" and "/" or path, query = query ~= "" and query or nil, headers = lower_names(options.headers), body = options.body or "" }
  function request.json()
    local value, message = json.decode(request.body)
    if value == nil then error("the request's body is no JSON: " .. message, 2) end
    return value
  end
  return request
end

local function as_answer(answer)
  if type(answer) == "number" then return { status = answer } end
  if type(answer) ~= "table" or not (answer.status or answer.error) then error("http.fake: expected a status or a table with status or error as an answer, got a " .. type(answer), 0) end
  return answer
end

local function next_answer(destination, request)
  local script = destination.script
  if type(script) == "function" then return as_answer(script(request, #destination.requests)) end
  if type(script) == "table" and script[1] ~= nil then return as_answer(script[math.min(#destination.requests, #script)]) end
  return as_answer(script == nil and 200 or script)
end

local function respond(answer, options)
  local timeout = options.timeout or DEFAULT_TIMEOUT
  local where = options.url:match("^(%w+://[^/?#@]*)") or "the address"
  if (answer.delay or 0) > timeout then
    clock.advance(timeout)
    return nil, where .. ": timed out"
  end
  clock.advance(answer.delay or 0)
  if answer.error then return nil, where .. ": " .. answer.error end
  local body, most = answer.body or "", options.max_response_bytes or 1048576
  if type(body) == "table" then body = json.encode(body) end
  return { status = answer.status, headers = lower_names(answer.headers), body = body:sub(1, most), truncated = #body > most }
end

--- The part of a spec's vocabulary that is called `http`, and what the runner needs of it.
---@param host table see src/command/plugin_host.h
return function(host)
  local fake = {}
  local destinations, allowed, unexpected = {}, {}, nil

  local function longest(list, url)
    local found
    for _, entry in ipairs(list) do
      if url:sub(1, #entry.prefix) == entry.prefix and not (found and #found.prefix > #entry.prefix) then found = entry end
    end
    return found
  end

  --- Plays a destination.
  ---@param prefix string the beginning of its address
  ---@param script? any 200 with an empty body when absent
  ---@return { requests: llmproxy.testing.request[] }
  function fake.fake(prefix, script)
    if type(prefix) ~= "string" or not prefix:find("^https?://") then error("http.fake: expected the beginning of an http or https address, got " .. tostring(prefix), 2) end
    local destination = { prefix = prefix, script = script, requests = {} }
    destinations[#destinations + 1] = destination
    return destination
  end

  --- Lets requests to an address really be sent.
  ---@param prefix string
  function fake.allow(prefix)
    allowed[#allowed + 1] = { prefix = prefix }
  end

  local function answer(method, options, url)
    local destination = longest(destinations, options.url)
    if not destination then
      if longest(allowed, options.url) then return false end
      unexpected = unexpected or ("%s %s was sent, and nobody plays that destination: http.fake(\"%s\")"):format(method, options.url, options.url:match("^%w+://[^/?#]*"))
      return nil, unexpected
    end
    local request = read(method, options, url)
    destination.requests[#destination.requests + 1] = request
    local fine, answered = pcall(next_answer, destination, request) -- code under test may catch what a script raises
    if not fine then
      unexpected = unexpected or answered
      return nil, tostring(answered)
    end
    return respond(answered, options)
  end

  host.intercept(answer)

  return {
    vocabulary = fake,
    --- Forgets all destinations. What was sent to nobody, or raised by a script, if anything was.
    reset = function()
      local sent = unexpected
      destinations, allowed, unexpected = {}, {}, nil
      return sent
    end,
  }
end
