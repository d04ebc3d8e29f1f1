---@meta llmproxy.crypto
--- Hashes, random bytes and ids.
local crypto = {}

---@alias llmproxy.crypto.form "hex" two lower-case digits a byte; raw bytes if not given

--- SHA-256.
---@param text string
---@param form? llmproxy.crypto.form
---@return string digest 32 bytes
function crypto.sha256(text, form) end

--- SHA-512.
---@param text string
---@param form? llmproxy.crypto.form
---@return string digest 64 bytes
function crypto.sha512(text, form) end

--- SHA-1, for services that demand it. It protects nothing any more. Raises where OpenSSL does not allow it.
---@param text string
---@param form? llmproxy.crypto.form
---@return string digest 20 bytes
function crypto.sha1(text, form) end

--- MD5, as `Content-MD5` wants it: against accidents, not against anybody. Raises where OpenSSL does not allow it.
---@param text string
---@param form? llmproxy.crypto.form
---@return string digest 16 bytes
function crypto.md5(text, form) end

--- HMAC with SHA-256.
---@param key string raw bytes, at most 2 GiB
---@param text string
---@param form? llmproxy.crypto.form
---@return string digest 32 bytes
function crypto.hmac_sha256(key, text, form) end

--- Random bytes from the kernel, good for keys.
---@param count integer 0 to 65,536
---@return string bytes
function crypto.random(count) end

--- A random UUID (version 4).
---@return string id
function crypto.uuid() end

--- A UUID that grows with time (version 7), as the events' ids.
---@return string id
function crypto.uuid7() end

--- Compares in a time that does not tell where two strings differ: for signatures and tokens.
---@param a string
---@param b string
---@return boolean equal
function crypto.equal(a, b) end

return crypto
