---@meta llmproxy.http
--- Requests to destinations, with libcurl: HTTP/1.1, and HTTP/2 where TLS negotiates it; connections are kept and used again. These functions wait without blocking, so they work in `deliver`
--- and raise where nothing can wait (at load time, in `new`).
---
---     local http, verdict = require "llmproxy.http", require "llmproxy.verdict"
---     local response, reason = http.post { url = settings.url, headers = { ["content-type"] = "application/json" }, body = batch:json() }
---     return verdict.from_http(response, reason)
---
--- Only http and https are spoken, no redirect is followed, no netrc and no cookie is used. A proxy named by the environment (`https_proxy`, `no_proxy`, …) is. As with any HTTP client, a request that meets a
--- connection which the other side has just closed is sent once more on a new one.
local http = {}

---@class llmproxy.http.options
---@field url string begins with http:// or https://; "user:password@" in it is sent as basic authentication
---@field method? string GET if not given
---@field headers? table<string, string> by name; CR, LF, NUL and other control characters raise, and so do content-length, transfer-encoding, connection, upgrade and expect, which the host sets. Without a user-agent it is llm-proxy/VERSION
---@field query? table<string, string|number|boolean|(string|number|boolean)[]> parameters to add to the address, encoded
---@field body? string|fun(): string? a function is called until it returns nil, before anything is sent
---@field gzip? boolean|integer compress the body, with that level (6 if true), and say so in content-encoding
---@field timeout? number seconds for all of it; 10 if not given
---@field idle_timeout? number seconds without a byte of the answer, about; none if not given, 60 for http.stream
---@field connect_timeout? number seconds until the connection stands; 5 if not given
---@field max_response_bytes? integer of the answer's body; what is more is not read. 1 MiB if not given
---@field tls? { ca_file?: string, verify?: boolean, client_cert?: string, client_key?: string } PEM files; verify is true if not given, ca_file the system's bundle
---@field proxy? string instead of what the environment says; "": none

---@class llmproxy.http.response
---@field status integer
---@field headers table<string, string> names in lower case, repeated ones joined by ", "
---@field body string
---@field truncated boolean whether the body was longer than max_response_bytes

--- Sends a request and waits for the whole answer, whatever its status. An unknown option raises.
---@param options llmproxy.http.options
---@return llmproxy.http.response? response nil if there was none
---@return string? reason why there was none: the address (without its query and user) and what failed
---@async
function http.request(options) end

--- http.request with the method GET.
---@param options llmproxy.http.options
---@return llmproxy.http.response? response
---@return string? reason
---@async
function http.get(options) end

--- http.request with the method POST.
---@param options llmproxy.http.options
---@return llmproxy.http.response? response
---@return string? reason
---@async
function http.post(options) end

--- http.request with the method PUT.
---@param options llmproxy.http.options
---@return llmproxy.http.response? response
---@return string? reason
---@async
function http.put(options) end

--- http.request with the method PATCH.
---@param options llmproxy.http.options
---@return llmproxy.http.response? response
---@return string? reason
---@async
function http.patch(options) end

--- http.request with the method DELETE.
---@param options llmproxy.http.options
---@return llmproxy.http.response? response
---@return string? reason
---@async
function http.delete(options) end

--- http.request with the method HEAD; the answer has no body.
---@param options llmproxy.http.options
---@return llmproxy.http.response? response
---@return string? reason
---@async
function http.head(options) end

--- An answer that is taken in pieces.
---@class llmproxy.http.answer
---@field status integer
---@field headers table<string, string> names in lower case, repeated ones joined by ", "
local answer = {} -- luacheck: ignore

--- The next piece of the body, as it comes.
---@return string? piece nil at the end
---@return string? message why it broke; nil when this is its end
---@async
function answer:read() end

--- Nothing more of it is wanted: the connection is closed. Happens by itself when nobody has the answer any more.
function answer:close() end

--- Sends a request and waits for the head of the answer, whatever its status. What is not read yet is bounded: then the sender has to wait. There is no limit of time for all of it unless `timeout` is given.
---
---     local answer, reason = http.stream { url = settings.url }
---     local reader = sse.reader()
---     for piece in function() return answer:read() end do
---       for _, event in ipairs(reader:feed(piece)) do … end
---     end
---@param options llmproxy.http.options
---@return llmproxy.http.answer?
---@return string? reason
---@async
function http.stream(options) end

return http
