--- Forward proxies: which one is on the way to an upstream, and the CONNECT request that opens a tunnel through it. A URL here may hold a password: no message repeats one.
local codec = require "llmproxy.codec"
local upstream = require "llmproxy.config.upstream"

local forward_proxy = {
  expected = "a forward proxy's URL (\"http://host:port\" or \"http://user:password@host:port\", special characters of user and password as %XX) or false",
}

-- "user:password", decoded; nil when it is not well formed. "" for none.
local function credentials_of(user_info)
  if not user_info then return "" end
  local user, password = user_info:match("^([^:]+):?(.*)$")
  user, password = user and codec.url.decode(user), password and codec.url.decode(password)
  if not user or not password or user:find("[%c:]") or password:find("%c") then return nil end
  return user .. ":" .. password
end

local function parse(url)
  local scheme, authority, path = url:match("^(%a[%w+.-]*)://([^/?#]+)(.*)$")
  if not scheme or scheme:lower() ~= "http" or path ~= "" and path ~= "/" then return nil end
  local user_info, address = authority:match("^(.*)@(.*)$")
  local credentials = credentials_of(user_info)
  local parts = credentials and upstream.parse("http://" .. (address or authority))
  return parts and { host = parts.host, port = parts.port, credentials = credentials }
end

--- A check for settings: the URL as it is, or false; nil and what is wrong.
---@param value any
---@return string|boolean|nil, string?
function forward_proxy.check(value)
  if value == false then return false end
  if type(value) ~= "string" then return nil end
  if not parse(value) then return nil, ("expected %s"):format(forward_proxy.expected) end
  return value
end

local function with_port(parts)
  return (parts.host:find(":", 1, true) and "[%s]:%d" or "%s:%d"):format(parts.host, parts.port)
end

--- What the proxy is told about a checked URL: where to connect to and what to ask for; nil when the way is direct.
---@param url string|boolean|nil
---@param target { host: string, port: integer } the upstream
---@return { host: string, port: integer, request: string }?
function forward_proxy.finish(url, target)
  local proxy = url and parse(url --[[@as string]])
  if not proxy then return nil end
  local authority = with_port(target)
  local lines = { ("CONNECT %s HTTP/1.1"):format(authority), "Host: " .. authority }
  if proxy.credentials ~= "" then lines[3] = "Proxy-Authorization: Basic " .. codec.base64.encode(proxy.credentials) end
  return { host = proxy.host, port = proxy.port, request = table.concat(lines, "\r\n") .. "\r\n\r\n" }
end

-- The environment -------------------------------------------------------------------------------------------------------------------------------------------------------

-- Lower case is stronger, as it is with curl, which plugins send with.
local function either(variable, name)
  local value = variable(name:lower())
  if value then return value, name:lower() end
  return variable(name), name
end

local function in_network(ip, network, bits)
  if not ip or not network or #ip ~= #network or bits > 8 * #network then return false end
  local whole, rest = math.floor(bits / 8), bits % 8
  if ip:sub(1, whole) ~= network:sub(1, whole) then return false end
  local step = 2 ^ (8 - rest)
  return rest == 0 or math.floor(ip:byte(whole + 1) / step) == math.floor(network:byte(whole + 1) / step)
end

-- "host:port", "[ip]:port": the host and the port, if there is one.
local function split_port(entry)
  local address, port = entry:match("^%[([%x:.]+)%]:?(%d*)$")
  if not address then address, port = entry:match("^([^:]+):(%d+)$") end
  return address or entry, tonumber(port)
end

local function entry_takes(host, entry, name, port)
  if entry == "*" then return true end
  local wanted, only_port = split_port(entry)
  if only_port and only_port ~= port then return false end
  local ip = host.ip(name)
  local network, bits = wanted:match("^(.+)/(%d+)$")
  if network then return in_network(ip, host.ip(network), tonumber(bits)) end
  if ip then return host.ip(wanted) == ip end
  wanted = wanted:gsub("^%*?%.", ""):gsub("%.$", "")
  return wanted ~= "" and (name == wanted or name:sub(-#wanted - 1) == "." .. wanted)
end

local function is_this_machine(host, name)
  local _, loopback = host.address((name:find(":", 1, true) and "[%s]:1" or "%s:1"):format(name))
  return loopback or name:find("%.localhost$") ~= nil
end

--- The forward proxy that the environment names for an https upstream: its URL, or false when NO_PROXY excepts the upstream, and the variable that decided; nothing when none does.
---@param host table
---@param variable fun(name: string): string?
---@param target { host: string, port: integer }
---@return string|boolean|nil, string?
function forward_proxy.from_environment(host, variable, target)
  local url, name = either(variable, "HTTPS_PROXY")
  local target_name = target.host:gsub("%.$", "")
  if not url or is_this_machine(host, target_name) then return nil end
  local exceptions, exceptions_name = either(variable, "NO_PROXY")
  for entry in (exceptions or ""):lower():gmatch("[^%s,]+") do
    if entry_takes(host, entry, target_name, target.port) then return false, exceptions_name end
  end
  return url:find("://", 1, true) and url or "http://" .. url, name
end

return forward_proxy
