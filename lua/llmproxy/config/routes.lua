--- What is to be said about routes beyond the form of each value: that they differ, that their credentials are safe, and what the proxy needs to know about their upstreams.
local forward_proxy = require "llmproxy.config.forward_proxy"
local upstream = require "llmproxy.config.upstream"

local routes = {}

local UPSTREAM_IDLE = { http = 4, https = 30 }
local TIMEOUTS = { "request_head", "request_idle", "keep_alive", "upstream_idle", "connect", "response", "response_idle", "write" }

-- "/v1/" and "/v1" take the same paths.
local function without_slash(prefix)
  return (prefix:gsub("/$", ""))
end

local function check_unique(list, report)
  local names, prefixes = {}, {}
  for index, route in pairs(list) do
    if route.prefix then
      local name, prefix = route.name or route.prefix, without_slash(route.prefix)
      if names[name] then report(("routes[%d].name"):format(index), ("'%s' is the name of routes[%d] already"):format(name, names[name])) end
      if prefixes[prefix] then report(("routes[%d].prefix"):format(index), ("routes[%d] takes the same paths"):format(prefixes[prefix])) end
      names[name], prefixes[prefix] = index, index
    end
  end
end

local function has_credential(host, route)
  for name, value in pairs(route.headers or {}) do
    if value and host.is_secret_field(name) then return true end
  end
  return route.tls ~= nil and route.tls.client_cert ~= nil
end

local function check_open(host, route, path, exposed, report)
  if exposed and not route.open and has_credential(host, route) then
    report(path, ("it has a credential of its own, which anyone who reaches %s could use: expected clients, or open = true, if that is meant"):format(exposed))
  end
end

local function header_list(headers)
  local list = {}
  for name, value in pairs(headers) do list[#list + 1] = { name = name, value = value } end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

local function tls_of(host, route, parts, path, report)
  if parts.scheme == "http" then
    if route.tls then report(path .. ".tls", "it is for upstreams with https://") end
    return nil
  end
  local tls = route.tls or { verify = true }
  if tls.client_key and not tls.client_cert then report(path .. ".tls.client_key", "it needs a client_cert") end
  local context, message = host.tls({
    ca_file = tls.ca_file,
    insecure = tls.verify == false,
    client_cert = tls.client_cert,
    client_key = tls.client_key,
    server_name = tls.server_name,
  }, parts.host)
  if not context then report(path .. ".tls", message) end
  return context
end

--- Gives each route the timeouts it does not set itself; returns the paths of those it took over.
---@param list table[] checked routes, changed
---@param timeouts table checked
---@return table<string, string> taken by path, what they were taken from
function routes.inherit_timeouts(list, timeouts)
  local taken = {}
  for index, route in pairs(list) do
    for _, name in ipairs(TIMEOUTS) do
      if route.timeouts and route.timeouts[name] == nil then
        route.timeouts[name] = timeouts[name]
        taken[("routes[%d].timeouts.%s"):format(index, name)] = "timeouts." .. name
      end
    end
  end
  return taken
end

--- Gives each route to an https upstream that names no forward proxy the one that the environment names for it; returns the paths of those it set, with the variable.
---@param host table
---@param list table[] checked routes, changed
---@param variable fun(name: string): string?
---@param report fun(path: string, message: string)
---@return table<string, string> set by path, the variable's name
function routes.inherit_proxy(host, list, variable, report)
  local set, is_reported = {}, false
  for index, route in pairs(list) do
    local parts = route.upstream and upstream.parse(route.upstream)
    if parts and parts.scheme == "https" and route.proxy == nil then
      local url, name = forward_proxy.from_environment(host, variable, parts)
      local checked, message = forward_proxy.check(url)
      if message and not is_reported then report(name, message) end
      is_reported = is_reported or message ~= nil
      route.proxy = checked
      if name then set[("routes[%d].proxy"):format(index)] = name end
    end
  end
  return set
end

--- Checks routes that are well formed one by one, and makes of each what the proxy is told.
---@param host table
---@param list table[] checked routes; entries and keys that were wrong are absent
---@param exposed string? a listening address that anyone beyond this machine may use
---@param report fun(path: string, message: string)
---@return table[] finished the longest prefix first
function routes.finish(host, list, exposed, report)
  check_unique(list, report)
  local finished = {}
  for index, route in pairs(list) do
    local path = ("routes[%d]"):format(index)
    check_open(host, route, path, exposed, report)
    local parts = route.upstream and upstream.parse(route.upstream)
    if parts and route.prefix and route.headers and route.timeouts then
      route.timeouts.upstream_idle = route.timeouts.upstream_idle or UPSTREAM_IDLE[parts.scheme]
      route.name = route.name or route.prefix
      finished[#finished + 1] = {
        name = route.name,
        prefix = without_slash(route.prefix),
        configured_prefix = route.prefix,
        upstream = route.upstream,
        host = parts.host,
        port = parts.port,
        authority = parts.authority,
        base_path = parts.path,
        tls = tls_of(host, route, parts, path, report),
        proxy = forward_proxy.finish(route.proxy, parts),
        headers = header_list(route.headers),
        timeouts = route.timeouts,
        strip_prefix = route.strip_prefix,
        forwarded = route.forwarded,
        capture = route.capture,
        half_close = route.half_close,
        retry_stale = route.retry_stale,
        max_connections = route.max_connections,
      }
    end
  end
  table.sort(finished, function(a, b)
    if #a.prefix ~= #b.prefix then return #a.prefix > #b.prefix end
    return a.prefix < b.prefix
  end)
  return finished
end

return routes
