local codec = require "llmproxy.codec"

local ALL_BYTES = {}
for byte = 0, 255 do ALL_BYTES[byte + 1] = string.char(byte) end
ALL_BYTES = table.concat(ALL_BYTES)

local function refused(t, decode, text, words)
  local got, message = decode(text)
  t.equal(got, nil, ("%q"):format(text))
  t.matches(message, words, true)
end

return {
  ["what is encoded decodes to the same"] = function(t)
    for _, name in ipairs { "base64", "base64url", "hex", "url", "gzip", "zlib", "zstd" } do
      for _, text in ipairs { "", "a", "ab", "abc", "abcd", ALL_BYTES, ("llm proxy "):rep(50000) } do
        t.equal(codec[name].decode(codec[name].encode(text)), text, name)
      end
    end
  end,

  ["base64 is RFC 4648's"] = function(t)
    local vectors = { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=", foobar = "Zm9vYmFy" }
    for text, encoded in pairs(vectors) do
      t.equal(codec.base64.encode(text), encoded)
      t.equal(codec.base64.decode(encoded), text)
      t.equal(codec.base64.decode((encoded:gsub("=", ""))), text, "without padding")
    end
    t.equal(codec.base64.encode("\251\255\254"), "+//+")
    t.equal(codec.base64url.encode("\251\255\254a"), "-__-YQ")
    t.equal(codec.base64url.decode("-__-YQ=="), "\251\255\254a")
  end,

  ["bad base64 is told"] = function(t)
    for _, text in ipairs { "Zg=", "Zg===", "=", "====", "Z", "Zm9vY", "Zm9v Zm9v", "Zm9v\n", "Zm-_", "Zg==Zg==", "\255\255\255\255" } do
      refused(t, codec.base64.decode, text, "not base64")
    end
    refused(t, codec.base64url.decode, "+//+", "not base64: byte 1 is no letter of it")
  end,

  ["hex is written in lower case and read in both"] = function(t)
    t.equal(codec.hex.encode("\0\255J"), "00ff4a")
    t.equal(codec.hex.decode("00fF4A"), "\0\255J")
    refused(t, codec.hex.decode, "abc", "odd number of digits")
    refused(t, codec.hex.decode, "0g", "byte 2 is no digit")
  end,

  ["url encodes all but the unreserved"] = function(t)
    t.equal(codec.url.encode("aZ09-._~ /?&=+%\255"), "aZ09-._~%20%2F%3F%26%3D%2B%25%FF")
    t.equal(codec.url.decode("a%2fb%2Fc+d"), "a/b/c+d")
    for _, text in ipairs { "%", "%2", "%zz", "a%2", "%%20" } do refused(t, codec.url.decode, text, "not URL-encoded") end
  end,

  ["gzip decodes several members, and tells what is damaged or cut"] = function(t)
    local packed = codec.gzip.encode("hello")
    t.equal(codec.gzip.decode(packed .. packed), "hellohello")
    t.equal(packed:sub(1, 2), "\31\139")
    for length = 0, #packed - 1 do refused(t, codec.gzip.decode, packed:sub(1, length), "ends too early") end
    refused(t, codec.gzip.decode, packed .. "junk", "damaged")
    refused(t, codec.gzip.decode, "not gzip at all", "not gzip")
    refused(t, codec.gzip.decode, packed:sub(1, -9) .. "\0\0\0\0" .. packed:sub(-4), "damaged")
  end,

  ["zlib is RFC 1950's, and read with its wrapping or without"] = function(t)
    local packed = codec.zlib.encode("hello")
    t.equal(codec.hex.encode(packed), "789ccb48cdc9c907000" .. "62c0215")
    local raw = packed:sub(3, -5)
    t.equal(codec.zlib.decode(raw), "hello")
    t.equal(codec.zlib.decode(codec.hex.decode "0300"), "", "nothing, in raw deflate")
    for length = 0, #packed - 1 do refused(t, codec.zlib.decode, packed:sub(1, length), "ends too early") end
    for length = 0, #raw - 1 do refused(t, codec.zlib.decode, raw:sub(1, length), "ends too early") end
    refused(t, codec.zlib.decode, packed .. packed, "behind the end")
    refused(t, codec.zlib.decode, raw .. "x", "behind the end")
    refused(t, codec.zlib.decode, packed:sub(1, -2) .. "x", "damaged")
    refused(t, codec.zlib.decode, "not zlib at all", "not zlib")
  end,

  ["zstd tells what is damaged or cut"] = function(t)
    local packed = codec.zstd.encode(("hello"):rep(1000))
    t.equal(codec.zstd.decode(packed .. packed), ("hello"):rep(2000))
    for length = 0, #packed - 1 do refused(t, codec.zstd.decode, packed:sub(1, length), "ends too early") end
    refused(t, codec.zstd.decode, "not zstd at all", "not zstd")
  end,

  ["what unpacks to too much is refused, at exactly the limit"] = function(t)
    for _, name in ipairs { "gzip", "zlib", "zstd" } do
      local packed = codec[name].encode(("\0"):rep(1000000))
      t.equal(#codec[name].decode(packed, { max_bytes = 1000000 }), 1000000, name)
      local got, message = codec[name].decode(packed, { max_bytes = 999999 })
      t.equal(got, nil, name)
      t.equal(message, "the content is larger than max_bytes")
      t.equal(codec[name].decode(codec[name].encode(""), { max_bytes = 0 }), "", name)
      t.equal(codec[name].decode(codec[name].encode("a"), { max_bytes = 0 }), nil, name)
    end
  end,

  ["the level is settable, within bounds"] = function(t)
    local text = ("abcdefgh"):rep(1000)
    for level = 1, 9 do t.equal(codec.gzip.decode(codec.gzip.encode(text, { level = level })), text) end
    t.equal(codec.zstd.decode(codec.zstd.encode(text, { level = 19 })), text)
    t.raises("llmproxy.codec.gzip.encode: level: expected a number from 1 to 9", codec.gzip.encode, text, { level = 10 })
    t.raises("options: there is only level", codec.gzip.encode, text, { levle = 1 })
    t.raises("options: there is only max_bytes", codec.zstd.decode, text, { level = 1 })
    t.raises("text: expected a string, got nil", codec.base64.encode, nil)
  end,
}
