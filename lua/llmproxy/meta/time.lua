---@meta llmproxy.time
--- Clocks, moments as text, and waiting. Times are seconds, with decimals.
local time = {}

--- Now, in seconds since 1970, to the microsecond.
---@return number
function time.now() end

--- Seconds since some moment, by a clock that nobody sets: for durations.
---@return number
function time.monotonic() end

--- Waits, and lets other tasks of the pipeline go on; 0 lets them go on once. Raises while plugins are loaded, inside a coroutine of your own, and inside functions that `table.sort` or `string.gsub` call.
---@param seconds number 0 to a year
---@async
function time.sleep(seconds) end

--- A moment as `2026-01-02T03:04:05.678901Z`.
---@param t number seconds since 1970
---@return string
function time.rfc3339(t) end

--- A moment in UTC in any form: `time.format(t, "%Y%m%dT%H%M%SZ")`. The letters are those of strftime: `%Y %y %m %d %H %I %M %S %j %a %A %b %B %p %e %u %F %T %Z %%`, names in English.
---@param t number seconds since 1970
---@param format string at most 200 bytes
---@return string
function time.format(t, format) end

--- The moment that a text names, as in RFC 3339 (`2026-01-02T03:04:05+01:00`) or in an HTTP header (`Fri, 02 Jan 2026 03:04:05 GMT`).
---@param text string
---@return number? t seconds since 1970
---@return string? message
function time.parse(text) end

return time
