---@meta llmproxy.log
--- Lines in the program's log, on its standard error. Each has the name of the pipeline as the field `pipeline`. `print` writes at `info`.
---
---     log.warn("destination is slow", { seconds = 4.2, url = settings.url })
---
--- At most 100 lines a second for each pipeline; a line tells how many were held back. Write no secrets and no bodies: logs are read by more people than events are.
local log = {}

---@alias llmproxy.log.fields table<string, string|number|boolean|table> at most 32, written in the order of their names. A table is written as JSON. Texts, and JSON, are cut after 4096 bytes

--- What helps to find a mistake; hidden unless `log.level` says otherwise.
---@param message string
---@param fields? llmproxy.log.fields
function log.debug(message, fields) end

--- What happened, once in a while.
---@param message string
---@param fields? llmproxy.log.fields
function log.info(message, fields) end

--- What somebody should look at.
---@param message string
---@param fields? llmproxy.log.fields
function log.warn(message, fields) end

--- What failed and will not mend itself.
---@param message string
---@param fields? llmproxy.log.fields
function log.error(message, fields) end

return log
