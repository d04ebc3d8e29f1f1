--- Reads an event as a call of an LLM: what was asked, what was answered, what it cost, the same whoever served it.
--
-- This file knows how answers arrive (whole, streamed, cut, broken); a provider's file knows what they mean. Another provider is one file and one line in PROVIDERS.
-- Nothing here raises, whatever was sent: what is not understood is left out.
local json = require "llmproxy.json"
local merge = require "llmproxy.llm.merge"
local sse = require "llmproxy.sse"

---@class llmproxy.llm.provider
---@field matches fun(event: table): boolean whether the event is a call of this API
---@field describe_request fun(event: table, request: table): table the keys of `llm` that come from the request; request is {} if its body is not known
---@field describe_response fun(response: table): table the keys of `llm` that come from a response in its whole form
---@field new_stream fun(): { add: fun(chunk: table, only_end: boolean), finish: fun(): table? } merges chunks into the whole form; only_end: chunks from after a gap, of which only usage and end count
---@field whole_from_tail fun(tail: string): table what the end of a cut whole response tells, in the whole form
---@field is_end fun(data: string): boolean whether this piece of a stream says that the answer is at its end
---@field is_whole fun(response: table): boolean whether a decoded body is an answer of this API

---@type llmproxy.llm.provider[]
local PROVIDERS = {
  require "llmproxy.llm.openai_chat",
}

local llm = {}

local function provider_of(event)
  if type(event.path) ~= "string" then return nil end
  for _, provider in ipairs(PROVIDERS) do
    if provider.matches(event) then return provider end
  end
end

local function decode_object(text)
  return type(text) == "string" and merge.table((json.decode(text))) or nil
end

-- The response's body as text, and the end of it if there is a gap between the two. A tail that reaches back into the body is joined with it.
local function response_text(event)
  local body, tail = merge.string(event.response_body), merge.filled(event.response_tail)
  if not body or merge.string(event.response_content_coding) then return nil end
  local missing = tail and (merge.number(event.response_bytes) or math.huge) - #body
  if not missing or missing > #tail then return body, tail end
  return missing > 0 and body .. tail:sub(-missing) or body
end

-- The error in a decoded body or chunk, in any of the shapes that providers and compatible servers use.
local function find_error(value, is_error)
  local found = value.error
  if found == nil and value[1] then found = (merge.table(value[1]) or {}).error end
  if (found == nil or found == json.null) and (value.object == "error" or is_error) then found = value end
  if merge.filled(found) then return { message = found } end
  found = merge.table(found)
  if not found then return nil end
  local code = found.code
  if type(code) ~= "string" and type(code) ~= "number" then code = nil end
  local message = merge.string(found.message) or merge.string(found.detail)
  local kind = merge.string(found.type) or merge.string(found.status)
  if message or kind or code then return { type = kind, code = code, message = message } end
end

---@class llmproxy.llm.answer what a response's text holds
---@field response table? in the whole form
---@field ended boolean whether it reached its end
---@field error table?

---@return llmproxy.llm.answer
local function read_whole(provider, event, text, tail)
  local response = decode_object(text)
  if not response then return { response = tail and provider.whole_from_tail(tail), ended = false } end
  local failed = merge.number(event.status) and event.status >= 400
  local answer = { error = find_error(response, failed), ended = false }
  if provider.is_whole(response) then
    answer.response = response
    answer.ended = answer.error == nil
  end
  return answer
end

-- Adds the pieces of an event stream to the merge.
local function read_pieces(provider, stream, text, only_end, answer)
  for _, piece in ipairs((sse.parse(text))) do
    local chunk = decode_object(piece.data)
    if provider.is_end(piece.data) then
      answer.ended = true
    elseif chunk then
      local failure = find_error(chunk, piece.event == "error")
      answer.error = answer.error or failure
      if not failure or provider.is_whole(chunk) then stream.add(chunk, only_end) end
    end
  end
end

---@return llmproxy.llm.answer
local function read_stream(provider, text, tail)
  local answer = { ended = false }
  local stream = provider.new_stream()
  read_pieces(provider, stream, text, false, answer)
  -- The tail begins somewhere in a line: what is whole begins after it.
  if tail then read_pieces(provider, stream, tail:match("[\r\n](.*)$") or "", true, answer) end
  answer.response = stream.finish()
  return answer
end

-- An error can come as JSON where a stream was asked for: the text itself tells what it is.
local function read_response(provider, event)
  local text, tail = response_text(event)
  if not text then return { ended = false } end
  if text:sub(1, 3) == "\239\187\191" then text = text:sub(4) end -- a byte order mark
  local first = text:match("^%s*(.)")
  if first == "{" or first == "[" then return read_whole(provider, event, text, tail) end
  return read_stream(provider, text, tail)
end

--- The `llm` object of an event, or nil if it is no call of an LLM.
---@param event table
---@param options? { response?: boolean } response: add the whole response in the provider's own form
---@return table?
function llm.describe(event, options)
  local provider = provider_of(event)
  if not provider then return nil end
  local request = decode_object(event.request_body)
  local described = provider.describe_request(event, request or {})
  if not request then described.stream = event.streamed == true end
  local answer = read_response(provider, event)
  for key, value in pairs(provider.describe_response(answer.response or {})) do described[key] = value end
  described.complete = answer.ended and event.response_truncated ~= true
  described.error = answer.error
  if options and options.response then described.response = answer.response end
  return described
end

return llm
