local codec = require "llmproxy.codec"
local json = require "llmproxy.json"
local signature = require "s3.signature"
local time = require "llmproxy.time"

local URL = "http://minio.example:9000"

local function failed(status, code, more)
  local body = ('<?xml version="1.0"?><Error><Code>%s</Code><Message>no</Message>%s</Error>'):format(code, more or "")
  return { status = status, body = body, headers = { Date = "Fri, 02 Jan 2026 03:34:05 GMT" } }
end

local function stored(answers, list, settings)
  local service = http.fake(URL, answers)
  local given = { "s3", bucket = "events", endpoint = URL, access_key_id = "id", secret_access_key = "secret", gzip = false }
  for key, value in pairs(settings or {}) do given[key] = value end
  local result = run_pipeline { dispatcher = given, events = list, batch = { max_wait = 0 }, retry = { max_age = 600 } }
  return service.requests, result
end

describe("s3", function()
  it("signs as AWS's own example", function()
    local headers = { date = "Fri, 24 May 2013 00:00:00 GMT", ["x-amz-storage-class"] = "REDUCED_REDUNDANCY" }
    signature.sign({ access_key_id = "AKIAIOSFODNN7EXAMPLE", secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", region = "us-east-1" }, time.parse "2013-05-24T00:00:00Z", "PUT",
      "https://examplebucket.s3.amazonaws.com" .. signature.encode_path "/test$file.text", headers, "Welcome to Amazon S3.")
    expect(headers["x-amz-content-sha256"]):to_be("44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072")
    expect(headers.authorization):to_match("Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd$")
  end)

  it("signs a port, and encodes what a path may not have", function()
    local path = signature.encode_path "/llm/dt=2025-10-09/hour=08/proxy-a-00000000000000000001.ndjson"
    expect(path):to_be("/llm/dt%3D2025-10-09/hour%3D08/proxy-a-00000000000000000001.ndjson")
    local headers = { ["content-type"] = "application/x-ndjson" }
    local settings = { access_key_id = "minioadmin", secret_access_key = "minioadmin", region = "us-east-1" }
    signature.sign(settings, time.parse "2025-10-09T08:53:22Z", "PUT", "http://minio:9000" .. path, headers, '{"id":"1"}\n')
    expect(headers.authorization):to_match("Signature=80aa820aaf6acb77db75e0a213e2014160481189f0372bca86c498e928ac39c1$")
    expect(signature.encode_path "/a b/ü~_-.//c"):to_be("/a%20b/%C3%BC~_-.//c")
  end)

  it("puts each hour's events into an object of their own, under a key that stays the same", function()
    local list = { event { time = "2026-01-02T03:59:59Z" }, event { time = "2026-01-02T04:00:00Z" }, event { time = "2026-01-02T03:00:00Z" } }
    local requests = stored({ 200 }, list)
    expect(#requests):to_be(2)
    expect(requests[1].path):to_be(("/events/llm-proxy/dt%%3D2026-01-02/hour%%3D03/%s-2.jsonl"):format(list[1].id))
    expect(requests[2].path):to_be(("/events/llm-proxy/dt%%3D2026-01-02/hour%%3D04/%s-1.jsonl"):format(list[2].id))
    local lines = {}
    for line in requests[1].body:gmatch("(.-)\n") do lines[#lines + 1] = json.decode(line).id end
    expect(lines):to_equal { list[1].id, list[3].id }
    expect(stored({ 200 }, list)[1].path):to_be(requests[1].path)
  end)

  it("has the bucket in the host's name at AWS, and compresses", function()
    local service = http.fake("https://events.s3.eu-west-1.amazonaws.com")
    run_pipeline { dispatcher = { "s3", bucket = "events", region = "eu-west-1", access_key_id = "id", secret_access_key = "secret", session_token = "session", key = "%Y/" }, events = { event() } }
    local request = service.requests[1]
    expect(request.path):to_match("^/2026/.*%-1%.jsonl%.gz$")
    expect({ request.headers["content-encoding"], request.headers["x-amz-security-token"] }):to_equal { "gzip", "session" }
    expect(codec.gzip.decode(request.body)):to_match('^{"id":.*}\n$')
  end)

  it("does with each answer what it calls for", function()
    for _, answer in ipairs { failed(503, "SlowDown"), failed(500, "InternalError"), failed(400, "RequestTimeout"), failed(400, "ExpiredToken"), 429, { error = "Connection reset" } } do
      local requests, result = stored({ answer, 200 }, { event() })
      expect({ #requests, result.outcomes[1].result, result.seconds < 50 }):to_equal { 2, "delivered", true }
    end
    for _, answer in ipairs {
      failed(403, "AccessDenied"), failed(403, "SignatureDoesNotMatch"), failed(404, "NoSuchBucket"), failed(301, "PermanentRedirect"),
      failed(400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"),
    } do
      local requests, result = stored({ answer, 200 }, { event() })
      expect({ #requests, result.outcomes[1].result, result.seconds > 50 }):to_equal { 2, "delivered", true }
    end
    local requests = stored(function(request) return select(2, request.body:gsub("\n", "")) > 1 and failed(400, "EntityTooLarge") or 200 end, { event(), event() })
    expect(#requests):to_be(3)
  end)

  it("goes by the service's clock when its own is wrong", function()
    local requests = stored({ failed(403, "RequestTimeTooSkewed"), 200 }, { event() })
    expect(requests[1].headers["x-amz-date"]):to_match("^20260102T0304")
    expect(requests[2].headers["x-amz-date"]):to_match("^20260102T0334")
  end)

  it("sends only those again that did not get there", function()
    local requests, result = stored({ 200, failed(503, "SlowDown"), 200 }, { event { time = "2026-01-02T03:00:00Z" }, event { time = "2026-01-02T04:00:00Z" } })
    expect(#requests):to_be(3)
    expect(requests[3].path):to_be(requests[2].path)
    expect({ result.outcomes[1].result, result.outcomes[2].result }):to_equal { "delivered", "delivered" }
  end)
end)
