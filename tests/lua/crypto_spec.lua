local codec = require "llmproxy.codec"
local crypto = require "llmproxy.crypto"

local function hex(bytes) return codec.hex.encode(bytes) end

return {
  ["sha256 is SHA-256, in raw bytes"] = function(t)
    t.equal(hex(crypto.sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    t.equal(hex(crypto.sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    t.equal(#crypto.sha256(("x\0"):rep(100000)), 32)
  end,

  ["other hashes are there for those who ask for them"] = function(t)
    t.equal(crypto.md5("abc", "hex"), "900150983cd24fb0d6963f7d28e17f72")
    t.equal(crypto.sha1("abc", "hex"), "a9993e364706816aba3e25717850c26c9cd0d89d")
    t.equal(crypto.sha512("", "hex"), "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e")
    t.equal({ #crypto.md5 "", #crypto.sha1 "", #crypto.sha512 "" }, { 16, 20, 64 })
  end,

  ["digests are raw or hexadecimal"] = function(t)
    t.equal(crypto.sha256("abc", "hex"), hex(crypto.sha256 "abc"))
    t.equal(crypto.hmac_sha256("key", "abc", "hex"), hex(crypto.hmac_sha256("key", "abc")))
    t.raises('llmproxy.crypto.sha256: form: expected "hex" or nothing, got string', crypto.sha256, "abc", "base64")
    t.raises('llmproxy.crypto.hmac_sha256: form: expected "hex" or nothing, got number', crypto.hmac_sha256, "key", "abc", 16)
  end,

  ["hmac_sha256 is RFC 4231's"] = function(t)
    t.equal(hex(crypto.hmac_sha256(("\11"):rep(20), "Hi There")), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")
    t.equal(hex(crypto.hmac_sha256("Jefe", "what do ya want for nothing?")), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    t.equal(hex(crypto.hmac_sha256("", "")), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad")
  end,

  ["a Standard Webhooks signature comes out as in its documentation"] = function(t)
    local key = codec.base64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    local signed = 'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}'
    t.equal(codec.base64.encode(crypto.hmac_sha256(key, signed)), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
  end,

  ["random gives as many bytes as asked for, other ones each time"] = function(t)
    for _, count in ipairs { 0, 1, 16, 65536 } do t.equal(#crypto.random(count), count) end
    t.ok(crypto.random(16) ~= crypto.random(16))
    t.raises("llmproxy.crypto.random: count: expected a number from 0 to 65536", crypto.random, -1)
    t.raises("count", crypto.random, 65537)
    t.raises("count", crypto.random, 0 / 0)
    t.raises("count", crypto.random)
  end,

  ["uuids are of the versions 4 and 7"] = function(t)
    local shape = "^%x%x%x%x%x%x%x%x%-%x%x%x%x%-" .. "%s" .. "%x%x%x%-[89ab]%x%x%x%-" .. ("%x"):rep(12) .. "$"
    t.matches(crypto.uuid(), (shape:gsub("%%s", "4")))
    t.matches(crypto.uuid7(), (shape:gsub("%%s", "7")))
    t.ok(crypto.uuid() ~= crypto.uuid())
    local before = crypto.uuid7()
    t.ok(before < crypto.uuid7(), "version 7 ascends")
  end,

  ["equal compares whole strings"] = function(t)
    t.equal(crypto.equal("", ""), true)
    t.equal(crypto.equal("a\0b", "a\0b"), true)
    t.equal(crypto.equal("a\0b", "a\0c"), false)
    t.equal(crypto.equal("a", "ab"), false)
    t.raises("llmproxy.crypto.equal: b: expected a string, got nothing", crypto.equal, "a")
  end,
}
