-- Moments that destinations name (Retry-After, dates in events): any text is refused with a message, or is a moment that can be written and read again; and an answer is a verdict whatever it says.
local time = require "llmproxy.time"
local verdict = require "llmproxy.verdict"

local function check_moment(text)
  local moment, message = time.parse(text)
  if not moment then
    assert(type(message) == "string" and message ~= "", "a refusal has a message")
    return
  end
  assert(moment >= 0 and moment == moment and moment < math.huge)
  local written = time.rfc3339(moment)
  local again = time.parse(written)
  assert(math.abs(again - moment) < 2e-6, written .. " is read as it was written")
end

local function check_answer(status, text)
  local said = verdict.from_http({ status = status, headers = { ["retry-after"] = text }, body = text })
  assert(type(said) == "table" and type(said.verdict) == "string")
  assert(said.after == nil or (said.after >= 0 and said.after < math.huge), "a wait that ends")
end

return function(text)
  check_moment(text)
  for _, status in ipairs { 200, 400, 413, 429, 503 } do check_answer(status, text) end
end
