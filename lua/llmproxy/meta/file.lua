---@meta llmproxy.file
--- Local files. All but `file.stdout` raises while plugins are loaded: open a file when the first batch comes. A write may hold up its own pipeline, never another or the proxy.
local file = {}

---@class llmproxy.file.handle
local handle = {} -- luacheck: ignore

--- Writes text, which should be whole lines.
---
--- To a file: all of it or nothing. A write that fails, as on a full disk, is undone, so no reader ever sees half a line with another behind it. Write the same text again later.
---
--- To a pipe or device: what was written cannot be taken back. After a failure the line that was begun is finished by the next write, which should bring the same text again; a reader that takes nothing for 5 seconds
--- is a failure.
---@param text string
---@return true? written
---@return string? message
function handle:write(text) end

--- Closes the file; it may be closed twice, but not written to again. Does nothing to the standard output.
function handle:close() end

---@class llmproxy.file.rotation
---@field max_bytes? integer the file's size
---@field max_age? number seconds since the file was made
---@field keep? integer how many moved files are kept, the newest; all if not given. No other file is ever deleted
---@field compress? "gzip" the moved files, as PATH-20251009T085322.678Z.gz

--- Opens a file to append lines; makes it, readable by its owner only, if it is not there (its folder must be).
---
--- A file has one writer: another process, pipeline or handle that has it open is an error. A symbolic link is not followed. A last line without a newline, left by a crash, is cut off, and the log says so.
--- At SIGHUP the path is opened anew before the next write, so a tool may rename the file first. Named pipes and devices (`/dev/stdout`) work too.
---
--- With `max_bytes` or `max_age` the file is moved to PATH-20251009T085322.678Z (the moment, UTC) before a write that would make it larger, or that finds it older, than that; the text goes to a new file. So texts are not
--- split over files, and one that is larger than `max_bytes` has a file of its own. Compressing and deleting goes on in the background; an end of the process interrupts it without loss, and the next `append` finishes it.
--- When a file cannot be moved the log says so, and it grows.
---@param path string
---@param options? llmproxy.file.rotation
---@return llmproxy.file.handle?
---@return string? message
function file.append(path) end

--- The standard output. Lines of several pipelines do not mix.
---@return llmproxy.file.handle
function file.stdout() end

--- The content of a file, at most 256 MiB.
---@param path string
---@return string? text
---@return string? message
function file.read(path) end

--- Puts text in the place of a file's content, at once and durably: a reader sees the old or the new. The file is new, readable by its owner only.
---@param path string
---@param text string
---@return true? replaced
---@return string? message
function file.replace(path, text) end

return file
