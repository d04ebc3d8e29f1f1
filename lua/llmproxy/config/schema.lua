--- The configuration's keys: their types, bounds and defaults, in the language of llmproxy.settings.
--
-- schema(host, bus_field) gives the declaration, with bus_field (from llmproxy.config.bus) for observability.bus.
-- What only C can judge (an address) is asked of host; what needs a look at more than one key is in llmproxy.config.
local bus = require "llmproxy.config.bus"
local forward_proxy = require "llmproxy.config.forward_proxy"
local upstream = require "llmproxy.config.upstream"

local LONGEST = 31536000 -- a year in seconds: no duration here is longer

-- The proxy writes these itself: a second one would change what the message means.
local FRAMING = {}
for name in ("host content-length transfer-encoding connection keep-alive te trailer upgrade expect proxy-connection"):gmatch("%S+") do FRAMING[name] = true end

local function duration(default, doc)
  return { type = "duration", default = default, min = 0.001, max = LONGEST, doc = doc }
end

-- Fields by name, as they are but without their defaults: for what overrides something else.
local function without_defaults(fields)
  local bare = {}
  for name, field in pairs(fields) do
    bare[name] = {}
    for attribute, value in pairs(field) do
      if attribute ~= "default" then bare[name][attribute] = value end
    end
  end
  return bare
end

local TIMEOUTS = {
  request_head = duration(15, "for a request's head"),
  request_idle = duration(60, "between pieces of a request's body"),
  keep_alive = duration(75, "a client connection without a request"),
  upstream_idle = duration(nil, "an upstream connection without a request; http 4 s, https 30 s"),
  connect = duration(10, "to reach the upstream, TLS included"),
  response = duration(600, "to the response's head"),
  response_idle = duration(300, "between pieces of a response's body"),
  write = duration(60, "a peer that does not read"),
}

local function check_prefix(prefix)
  if prefix:sub(1, 1) ~= "/" then return nil end
  if prefix:find("[^\33-\126]") or prefix:find("[?#\\]") or prefix:find("//", 1, true) or (prefix .. "/"):find("/%.%.?/") then
    return nil, "expected a plain path, without '//', '.' and '..' segments, '?', '#', '\\', spaces and what is not ASCII"
  end
  return prefix
end

local function check_headers(headers)
  local seen = {}
  for name in pairs(headers) do
    if FRAMING[name:lower()] then return nil, ("the proxy writes the header '%s' itself"):format(name) end
    if seen[name:lower()] then return nil, ("the header '%s' is there twice"):format(name:lower()) end
    seen[name:lower()] = true
  end
  return headers
end

local HEADERS = {
  type = "map", default = {}, secret = true, check = check_headers, doc = "set on the request; false removes",
  keys = { type = "string", pattern = "^[%w!#$%%&'*+.^_`|~-]+$", expected = "a header's name" },
  items = {
    type = "one_of", expected = "a header's value (text without line breaks at its end or in it) or false",
    types = { { type = "string", pattern = "^[^%z\1-\8\10-\31\127]*$" }, { type = "enum", values = { false } } },
  },
}

local TLS = {
  type = "table", doc = "how to speak TLS to the upstream",
  fields = {
    ca_file = { type = "path", doc = "trusted certificates in PEM, instead of the system's" },
    verify = { type = "boolean", default = true, doc = "false: any certificate will do" },
    client_cert = { type = "path", doc = "certificate of our own in PEM" },
    client_key = { type = "path", doc = "its key, when it is not in the same file" },
    server_name = { type = "string", min = 1, doc = "the name the certificate must have, instead of the upstream's" },
  },
}

local ROUTE = {
  name = { type = "string", min = 1, max = 200, doc = "in events, metrics and logs; the prefix when there is none" },
  prefix = { type = "string", required = true, expected = "a path that begins with '/'", check = check_prefix, doc = "paths it takes, on segment boundaries; the longest wins" },
  upstream = { type = "url", required = true, user_info = false, check = upstream.check, doc = "where to; a path in it is put in front" },
  strip_prefix = { type = "boolean", default = false, doc = "take the prefix off the path" },
  headers = HEADERS,
  forwarded = { type = "boolean", default = false, doc = "add X-Forwarded-For, -Proto and -Host" },
  timeouts = { type = "table", default = {}, fields = without_defaults(TIMEOUTS), doc = "as above, for this route" },
  tls = TLS,
  proxy = { type = "any", expected = forward_proxy.expected, check = forward_proxy.check, doc = "forward proxy on the way to the upstream; https: HTTPS_PROXY, but NO_PROXY" },
  capture = { type = "boolean", default = true, doc = "false: its events have no bodies" },
  half_close = { type = "boolean", default = false, doc = "a client that ended its side still wants the response" },
  retry_stale = { type = "boolean", default = false, doc = "repeat also a POST once when a kept connection turns out to be closed" },
  max_connections = { type = "integer", min = 1, max = 1000000, doc = "to the upstream, in use at a time; none" },
  open = { type = "boolean", default = false, doc = "without clients, anyone who reaches the listener may use the route's own credential" },
}

local LIMITS = {
  max_head_bytes = { type = "size", default = "64KiB", min = "1KiB", max = "16MiB", doc = "a message's head" },
  max_headers = { type = "integer", default = 100, min = 1, max = 10000, doc = "fields in a head" },
  max_target_bytes = { type = "size", default = "16KiB", min = 64, max = "16MiB", doc = "a request's target" },
  max_body_bytes = { type = "size", min = 1, doc = "a request's body; none" },
  max_connections = { type = "integer", default = 10000, min = 1, max = 10000000, doc = "of clients, at a time" },
  max_connections_per_client = { type = "integer", min = 1, max = 10000000, doc = "from one address; none" },
  max_requests_per_connection = { type = "integer", min = 1, doc = "then the connection is closed; none" },
}

local LOG = {
  level = { type = "enum", values = { "debug", "info", "warn", "error" }, default = "info", doc = "the least that is logged" },
  format = { type = "enum", values = { "text", "json" }, default = "text", doc = "of a line" },
  access = { type = "boolean", default = false, doc = "a line for each exchange" },
}

local BATCH = {
  max_events = { type = "integer", min = 1, max = 1000000, doc = "events in a batch; 100" },
  max_bytes = { type = "size", min = 1, max = "1GiB", doc = "bytes in a batch; 1 MiB" },
  max_wait = { type = "duration", max = 3600, doc = "how long a batch waits for more; 1 s" },
}

local RETRY = {
  min_delay = { type = "duration", default = 0.5, min = 0.001, max = LONGEST, doc = "the first delay is at most this" },
  max_delay = { type = "duration", default = 60, min = 0.001, max = LONGEST, doc = "no delay is longer" },
  max_age = { type = "duration", min = 0.001, max = LONGEST, doc = "older events are given up; 1 h, none where the bus keeps events" },
}

local BUFFER_SIZE = { type = "integer", default = 100, min = 1, max = 1000000, doc = "events waiting for each subscriber of the bus" }

local PIPELINE = {
  name = { type = "string", required = true, pattern = "^[^%c/]+$", max = 100, expected = "a name (up to 100 bytes, no '/')", doc = "in metrics and logs" },
  transforms = { type = "list", default = {}, doc = "plugins or functions, in order" },
  dispatcher = { type = "any", required = true, expected = "a dispatcher (a name, a table or a function)", doc = "a plugin or a function" },
  batch = { type = "table", default = {}, fields = BATCH, doc = "what makes a batch" },
  concurrency = { type = "integer", default = 2, min = 1, max = 1000, doc = "batches being delivered at a time" },
  retry = { type = "table", default = {}, fields = RETRY, doc = "of batches that could not be delivered" },
  memory_limit = { type = "size", default = "256MiB", min = "4MiB", max = "64GiB", doc = "of its Lua state" },
  watchdog = { type = "duration", default = 1, min = 0.01, max = 3600, doc = "Lua code that runs longer without a break is stopped" },
  buffer_size = without_defaults({ size = BUFFER_SIZE }).size,
  from = { type = "enum", values = { "newest", "oldest" }, default = "newest", doc = "where a new name begins in a bus that keeps events" },
}

local REDACT = {
  headers = { type = "list", items = { type = "string", min = 1 }, default = {}, doc = "header names whose values are secret too" },
  query = { type = "list", items = { type = "string", min = 1 }, default = {}, doc = "query parameters whose values are secret too" },
}

-- Two names for one secret could not be told apart.
local function check_tokens(tokens)
  if next(tokens) == nil then return nil, "expected at least one token: names as keys, secrets as values" end
  local seen = {}
  for name, secret in pairs(tokens) do
    local other = seen[secret]
    if other then return nil, ("'%s' and '%s' have the same secret"):format(name < other and name or other, name < other and other or name) end
    seen[secret] = name
  end
  return tokens
end

local function check_networks(networks)
  if networks[1] then return networks end
  return nil, "expected at least one network"
end

local function check_clients(clients)
  if clients.tokens or clients.networks then return clients end
  return nil, "expected tokens or networks, got neither"
end

-- secret: what stands where a token is expected may be one.
local TOKENS = {
  type = "map", secret = true, check = check_tokens, doc = "one of these secrets, by the name it has in events, comes with each request",
  expected = "a table of tokens: names as keys, secrets as values",
  keys = { type = "string", min = 1, max = 200 },
  items = { type = "secret", pattern = "^[\33-\126]+$", expected = "a secret (text that is not empty, of ASCII characters without spaces)" },
}

local OBSERVABILITY = {
  enabled = { type = "boolean", default = false, doc = "whether events are made" },
  buffer_size = BUFFER_SIZE,
  buffer_bytes = { type = "size", default = "128MiB", min = "64KiB", doc = "bytes waiting for each subscriber" },
  capture_memory = { type = "size", default = "256MiB", min = "64KiB", doc = "for all bodies being captured" },
  max_request_body_bytes = { type = "size", default = "1MiB", max = "48MiB", doc = "of a request's body, kept in its event" },
  max_response_body_bytes = { type = "size", default = "8MiB", max = "48MiB", doc = "of a response's body, kept in its event" },
  max_decoded_bytes = { type = "size", default = "16MiB", min = 1, max = "1GiB", doc = "of a body after its Content-Encoding was undone" },
  redact = { type = "table", default = {}, fields = REDACT, doc = "secrets beyond the known ones" },
  fingerprint_key = { type = "secret", min = 1, doc = "tells credentials apart without showing them; random" },
  dead_letters = bus.DEAD_LETTERS,
  pipelines = { type = "list", default = {}, items = { type = "table", fields = PIPELINE }, doc = "what becomes of events" },
}

---@param host table
---@param bus_field llmproxy.settings.field
---@return table<string, llmproxy.settings.field>
return function(host, bus_field)
  local observability = { bus = bus_field }
  for name, field in pairs(OBSERVABILITY) do observability[name] = field end
  local address = {
    type = "string", expected = "an address (\"host:port\", \":port\", \"[::1]:port\" or \"unix:/path\"; the host an IP address or localhost)",
    check = function(text)
      if host.address(text) then return text end
    end,
  }
  local network = {
    type = "string", expected = "a network (\"10.0.0.0/8\", \"2001:db8::/32\", an IP address or \"unix:\")",
    check = function(text)
      if host.network(text) then return text end
    end,
  }
  local clients = {
    tokens = TOKENS,
    networks = { type = "list", items = network, check = check_networks, doc = "where they come from" },
  }
  return {
    listen = { type = "one_of", types = { address, { type = "list", items = address, min = 1, max = 64 } }, default = "127.0.0.1:8080", doc = "where clients come in" },
    admin = { type = "one_of", types = { address, { type = "enum", values = { false } } }, default = "127.0.0.1:9080", doc = "where operators look; false: nowhere" },
    admin_hosts = { type = "list", items = { type = "string", min = 1 }, default = {}, doc = "names admin may be called by, beside IP addresses and localhost" },
    workers = { type = "integer", default = 0, min = 0, max = 1024, expected = "a whole number from 0 to 1024", doc = "threads; 0: one for each CPU it may use" },
    shutdown_timeout = { type = "duration", default = 30, max = LONGEST, doc = "for exchanges and pipelines together" },
    shutdown_delay = { type = "duration", default = 0, max = LONGEST, doc = "not ready, but still accepting" },
    clients = { type = "table", fields = clients, check = check_clients, doc = "who may come in; anyone" },
    trusted_proxies = { type = "list", items = network, default = {}, doc = "networks whose X-Forwarded-For names the client" },
    limits = { type = "table", default = {}, fields = LIMITS, doc = "what is refused beyond" },
    timeouts = { type = "table", default = {}, fields = TIMEOUTS, doc = "of clients, and of routes that say nothing else" },
    routes = { type = "list", default = {}, items = { type = "table", fields = ROUTE }, doc = "which request goes where" },
    plugin_path = { type = "list", items = { type = "path" }, default = {}, doc = "folders of plugins" },
    trusted_plugins = { type = "list", items = { type = "string", min = 1 }, default = {}, doc = "names of plugins that may use LuaJIT's ffi, and with it everything" },
    log = { type = "table", default = {}, fields = LOG, doc = "what is logged, and how" },
    observability = { type = "table", default = {}, fields = observability, doc = "events and what becomes of them" },
  }
end
