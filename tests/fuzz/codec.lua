-- Encodings of text that plugins use: whatever text is encoded decodes to itself; whatever text is decoded is refused with a message, or is what one gets by decoding its own encoding again; no more
-- comes out than allowed.
local codec = require "llmproxy.codec"

local function check_encode(name, text)
  local encoded = codec[name].encode(text)
  assert(codec[name].decode(encoded) == text, name .. ": decodes to itself")
end

local function check_decode(name, text)
  local decoded, message = codec[name].decode(text)
  if decoded then
    assert(codec[name].decode(codec[name].encode(decoded)) == decoded, name .. ": again")
  else
    assert(type(message) == "string" and message ~= "", name .. ": a refusal has a message")
  end
end

-- All of the text was decoded.
local function check_size(name, text)
  local decoded = codec[name].decode(text)
  if decoded then assert(#codec[name].encode(decoded):gsub("=", "") == #text:gsub("=", ""), name .. ": as long again") end
end

local function check_limit(name, text)
  local LARGEST = 65536
  local decoded = codec[name].decode(text, { max_bytes = LARGEST })
  if not decoded then return end
  assert(#decoded <= LARGEST, name .. ": within the limit")
  assert(codec[name].decode(text, { max_bytes = #decoded }) == decoded, name .. ": the limit itself is allowed")
  if #decoded > 0 then assert(not codec[name].decode(text, { max_bytes = #decoded - 1 }), name .. ": one byte less is not") end
  assert(codec[name].decode(codec[name].encode(decoded, { level = 1 })) == decoded, name .. ": again")
end

return function(text)
  for _, name in ipairs { "base64", "base64url", "hex", "url" } do
    check_encode(name, text)
    check_decode(name, text)
  end
  for _, name in ipairs { "base64", "base64url", "hex" } do check_size(name, text) end
  for _, name in ipairs { "gzip", "zstd" } do
    check_limit(name, text)
    local encoded = codec[name].encode(text, { level = 1 })
    assert(codec[name].decode(encoded) == text, name .. ": decodes to itself")
    assert(not codec[name].decode(encoded:sub(1, -2)), name .. ": a part is not the whole")
  end
end
