---@meta llmproxy.json
--- JSON without loss: what is decoded and encoded again has the same value. `[]` stays an array, `null` stays, and whole numbers of any length keep their digits.
---
--- A decoded array is a table marked as one (see `json.array`); an object is a plain table. Of equal keys the last wins. `null` is `json.null`, which is a value, so it is true in a condition:
---
---     local value = json.decode(text)
---     if value.error ~= nil and value.error ~= json.null then … end
---
--- A whole number beyond 2^53 (and what no Lua number can hold, as 1e999) is a `llmproxy.json.raw`: `tostring` gives its digits, and it is written as it was read.
local json = {}

---@class llmproxy.json.raw JSON text that is written as it is; `tostring` gives the text

---@class llmproxy.json.null

--- The value of `null`. Compare with `==`.
---@type llmproxy.json.null
json.null = nil

--- The JSON text of a value, without spaces, keys sorted.
---
--- A table with the keys 1 to n is an array; an empty one is `{}` unless `json.array` marked it; any other has only strings as keys. Bytes that are not UTF-8 become U+FFFD. Metamethods are not asked.
--- What JSON cannot say is an error that names the key: functions, NaN, infinity, lists with holes, tables with lists and names mixed, more than 160 levels (so also a table that contains itself).
---@param value any
---@return string? text
---@return string? message
function json.encode(value) end

--- The value of a JSON text (RFC 8259, UTF-8). `\u0000` is a byte 0, half of a surrogate pair U+FFFD. The message names the byte where the text is wrong, counted from 1 as `text:sub` does.
---@param text string
---@return any value
---@return string? message
function json.decode(text) end

--- Marks a table as an array, so that it is written as `[]` when it is empty. Without an argument a new one.
---@generic T: table
---@param table? T
---@return T table the same table
function json.array(table) end

--- A value that is written as this text, which is checked now: for JSON that need not be understood, as a body that is passed on.
---@param text string
---@return llmproxy.json.raw? value
---@return string? message
function json.raw(text) end

return json
