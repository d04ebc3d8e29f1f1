---@meta llmproxy.codec
--- Encodings of text and bytes, each with encode and decode. What cannot be decoded is nil and a message.
local codec = {}

---@class llmproxy.codec.text
---@field encode fun(text: string): string
---@field decode fun(text: string): string?, string?

---@type llmproxy.codec.text With padding; decode takes it without, too.
codec.base64 = {}

---@type llmproxy.codec.text The alphabet for URLs and file names, without padding; decode takes it with, too.
codec.base64url = {}

---@type llmproxy.codec.text Lower case; decode takes both.
codec.hex = {}

---@type llmproxy.codec.text Percent signs: all but letters, digits and -._~ is encoded. decode leaves "+" as it is.
codec.url = {}

---@class llmproxy.codec.compression
---@field encode fun(text: string, options?: { level?: integer }): string
---@field decode fun(text: string, options?: { max_bytes?: integer }): string?, string? the content, nil when it is more than max_bytes (64 MiB if not given)

---@type llmproxy.codec.compression level 1 to 9, 6 if not given
codec.gzip = {}

---@type llmproxy.codec.compression level 1 to 9, 6 if not given; decode takes raw deflate, too (HTTP's `deflate` is either)
codec.zlib = {}

---@type llmproxy.codec.compression level 1 to 19, 3 if not given
codec.zstd = {}

return codec
