--- An upstream's URL, taken apart into what a route needs to connect and to write a request.
local upstream = {}

local DEFAULT_PORTS = { http = 80, https = 443 }

--- A check for settings: the URL as it is, or nil and what is wrong. The message never repeats the URL: it might hold a secret.
---@param url string with a scheme and an authority
---@return string?, string?
function upstream.check(url)
  local parts, message = upstream.parse(url)
  return parts and url, message
end

-- "[::1]:80" or "host:80": host without brackets, port.
local function split_authority(authority)
  local host, port = authority:match("^%[([%x:.]+)%]:?(%d*)$")
  if not host then host, port = authority:match("^([%w._-]+):?(%d*)$") end
  return host, port
end

--- nil and a message when no request can go there.
---@param url string
---@return { scheme: string, host: string, port: integer, authority: string, path: string }?, string?
function upstream.parse(url)
  local scheme, authority, path = url:match("^(%a+)://([^/?#]+)(.*)$")
  scheme = scheme and scheme:lower()
  if not DEFAULT_PORTS[scheme] then return nil, "expected a URL that begins with http:// or https://" end
  if authority:find("@", 1, true) then return nil, "an upstream has no user name and no password: set a header instead" end
  if path:find("[?#]") then return nil, "an upstream has no query and no fragment" end
  if path:find("[^\33-\126]") or path:find("\\", 1, true) or path:gsub("/+$", ""):find("//", 1, true) or (path .. "/"):find("/%.%.?/") then
    return nil, "expected a plain path, without '//', '.' and '..' segments, '\\' and what is not ASCII"
  end
  local host, digits = split_authority(authority)
  local port = digits and (digits == "" and DEFAULT_PORTS[scheme] or tonumber(digits))
  if not host or authority:sub(-1) == ":" or port < 1 or port > 65535 then return nil, "expected host or host:port, the port from 1 to 65535" end
  host = host:lower()
  local name = host:find(":", 1, true) and "[" .. host .. "]" or host
  return {
    scheme = scheme,
    host = host,
    port = port,
    authority = port == DEFAULT_PORTS[scheme] and name or ("%s:%d"):format(name, port),
    path = (path:gsub("/+$", "")),
  }
end

return upstream
