---@meta llmproxy.crypto
--- Hashes, random bytes and ids. Digests are raw bytes: `codec.hex.encode(crypto.sha256(text))` for the usual form.
local crypto = {}

--- SHA-256.
---@param text string
---@return string digest 32 bytes
function crypto.sha256(text) end

--- HMAC with SHA-256.
---@param key string raw bytes, at most 2 GiB
---@param text string
---@return string digest 32 bytes
function crypto.hmac_sha256(key, text) end

--- Random bytes from the kernel, good for keys.
---@param count integer 0 to 65,536
---@return string
function crypto.random(count) end

--- A random UUID (version 4).
---@return string
function crypto.uuid() end

--- A UUID that grows with time (version 7), as the events' ids.
---@return string
function crypto.uuid7() end

--- Compares in a time that does not tell where two strings differ: for signatures and tokens.
---@param a string
---@param b string
---@return boolean
function crypto.equal(a, b) end

return crypto
