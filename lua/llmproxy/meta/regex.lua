---@meta llmproxy.regex
--- Regular expressions (PCRE2), for what Lua's patterns cannot say: alternatives, bounded repetition, look-around, Unicode.
---
---     local regex = require "llmproxy.regex"
---     local ticket = assert(regex.compile([[\b(?:BUG|TASK)-\d{1,7}\b]], { ignore_case = true }))
---     local text, count = ticket:replace(body, "[ticket]")
---
--- Time is linear in the text, whatever the pattern: a match has at most `longest` bytes, and from one place in the text only so many steps are taken. What runs into a limit raises (it is not "no match"), and so does what the
--- watchdog would stop. Patterns stay fast when repetitions are bounded (`{1,64}`) or possessive (`++`).
---
--- Texts are UTF-8, `.` is a character; bytes that are none are matched by nothing. Positions are bytes, counted from 1, as in `text:sub`. Empty matches are left out. `\C` is not allowed.
local regex = {}

---@class llmproxy.regex.options
---@field ignore_case? boolean
---@field multiline? boolean `^` and `$` match at lines
---@field dot_all? boolean `.` matches line ends too
---@field extended? boolean white space and `# comments` in the pattern are ignored
---@field longest? integer bytes that a match may have, at most 65,536: 8192. A longer one raises

---@class llmproxy.regex.regex
local compiled = {} -- luacheck: ignore

--- A pattern made ready. Nil and a message that names the byte when it is none.
---@param pattern string at most 16 KiB
---@param options? llmproxy.regex.options
---@return llmproxy.regex.regex? regex
---@return string? message
function regex.compile(pattern, options) end

--- The first match that begins at `init` or later, and what its groups matched (nil: took no part). What stands before `init` is seen by look-behind, what comes after `last` by nothing.
---@param text string
---@param init? integer 1
---@param last? integer the end of the text
---@return integer? first
---@return integer? last
---@return string? ... captures
function compiled:find(text, init, last) end

--- All matches, one behind the other, as positions: { first, last, first, last, … }.
---@param text string
---@param init? integer
---@param last? integer
---@return integer[]
function compiled:matches(text, init, last) end

--- How many matches there are.
---@param text string
---@param init? integer
---@param last? integer
---@return integer
function compiled:count(text, init, last) end

--- The text with something else in place of each match: a string, taken as it is, or what a function of the match and its groups returns (nil or false: the match stays).
---@param text string
---@param replacement string|fun(match: string, ...: string?): string|false|nil
---@return string text
---@return integer count of what was replaced
function compiled:replace(text, replacement) end

return regex
