local codec = require "llmproxy.codec"
local http = require "llmproxy.http"
local time = require "llmproxy.time"

local function url_of(server, rest) return ("http://127.0.0.1:%d%s"):format(server:port(), rest or "/") end

local function serve(t, ...) return t.listen { answers = { ... } } end

-- The value of a header in a recorded request.
local function sent(request, name)
  for line in request:match("^(.-)\r\n\r\n"):gmatch("[^\r\n]+") do
    local found, value = line:match("^([^:]+): ?(.*)$")
    if found and found:lower() == name then return value end
  end
end

return {
  ["a response comes with status, lower-case headers and body"] = function(t)
    local server = serve(t, { text = "HTTP/1.1 201 Created\r\nX-One: a\r\nx-one:  b \r\nEmpty:\r\nContent-Length: 3\r\n\r\nabc" })
    local response, reason = http.request { url = url_of(server, "/x/../y?a=b") }
    t.equal(reason, nil)
    t.equal(response, { status = 201, headers = { ["x-one"] = "a, b", empty = "", ["content-length"] = "3" }, body = "abc", truncated = false })
    t.matches(server:requests()[1], "^GET /x/%.%./y%?a=b HTTP/1%.1\r\n")
    t.matches(sent(server:requests()[1], "user-agent"), "^llm%-proxy/%d")
  end,

  ["a body goes out byte for byte, with nothing invented about it"] = function(t)
    local server = serve(t, t.answer(200))
    local body = "\0\1\255" .. ("x"):rep(100000)
    t.equal(http.post { url = url_of(server), body = body, headers = { ["X-Key"] = "a", ["x-empty"] = "" } }.status, 200)
    local request = server:requests()[1]
    t.ok(request:sub(-#body) == body)
    t.equal(sent(request, "content-length"), tostring(#body))
    t.equal(sent(request, "x-key"), "a")
    t.equal(sent(request, "x-empty"), "")
    t.equal(sent(request, "expect"), nil)
    t.equal(sent(request, "content-type"), nil)
  end,

  ["every method is sent as given"] = function(t)
    local server = serve(t, t.answer(200))
    for index, method in ipairs { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE" } do
      local with_body = method == "PUT" or method == "PATCH" or method == "DELETE"
      local response = http.request { method = method, url = url_of(server), body = with_body and "b" or nil }
      t.equal(response.status, 200, method)
      t.matches(server:requests()[index], "^" .. method .. " / ")
      t.equal(server:requests()[index]:sub(-1) == "b", with_body, method)
    end
    t.equal(sent(server:requests()[3], "content-length"), "0")
  end,

  ["an answer can be taken in pieces"] = function(t)
    local body = ("0123456789"):rep(100000)
    local server = serve(t, t.answer(200, body, "X-One: 1\r\n"), t.answer(204), t.answer(404, "gone"))
    local response = http.stream { url = url_of(server), headers = { accept = "text/event-stream" } }
    t.equal({ response.status, response.headers["x-one"] }, { 200, "1" })
    local pieces, longest = {}, 0
    for piece in function() return response:read() end do
      pieces[#pieces + 1], longest = piece, math.max(longest, #piece)
      if #pieces % 3 == 0 then time.sleep(0.001) end
    end
    t.ok(table.concat(pieces) == body)
    t.ok(#pieces > 1 and longest <= 128 * 1024, longest)
    t.equal({ response:read() }, {})
    t.equal(sent(server:requests()[1], "accept"), "text/event-stream")
    response = http.stream { method = "POST", url = url_of(server), body = "x" }
    t.equal({ response.status, (response:read()) }, { 204 })
    response = http.stream { url = url_of(server) }
    t.equal({ response.status, (response:read()), (response:read()) }, { 404, "gone" })
  end,

  ["a stream that breaks says so behind what came"] = function(t)
    local server = serve(t, { text = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", close = true }, { text = "", close = true })
    local response = http.stream { url = url_of(server) }
    t.equal(response:read(), "half")
    local piece, message = response:read()
    t.equal(piece, nil)
    t.matches(message, "the connection broke before the end of the answer")
    local none, reason = http.stream { url = url_of(server) }
    t.equal(none, nil)
    t.matches(reason, "the connection was closed without an answer")
    none, reason = http.stream { url = "ftp://127.0.0.1/" }
    t.equal({ none, reason }, { nil, "url: not an http or https address" })
  end,

  ["a stream can be left at any time"] = function(t)
    local server = serve(t, t.answer(200, ("x"):rep(3000000)))
    for round = 1, 20 do
      local response = http.stream { url = url_of(server) }
      if round % 2 == 0 then t.ok(#response:read() > 0) end
      if round % 3 ~= 0 then
        response:close()
        t.equal({ response:read() }, {})
        response:close()
      end
    end
    t.spawn(function() -- still waits when all ends
      local waiting = http.stream { url = url_of(server) }
      while waiting:read() do time.sleep(0) end
      time.sleep(1000)
    end)
    time.sleep(0.01)
  end,

  ["an answer of which nothing comes is given up"] = function(t)
    local server = serve(t, { text = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf" })
    local response = http.stream { url = url_of(server), idle_timeout = 1 }
    t.equal(response:read(), "half")
    local piece, message = response:read()
    t.equal(piece, nil)
    t.matches(message, "nothing came of the answer for too long")
    local none, reason = http.get { url = url_of(server), idle_timeout = 1, timeout = 60 }
    t.equal(none, nil)
    t.matches(reason, "nothing came of the answer for too long")
  end,

  ["each method has a function"] = function(t)
    local server = serve(t, t.answer(200))
    for index, name in ipairs { "get", "post", "put", "patch", "delete", "head" } do
      t.equal(http[name] { url = url_of(server), body = index > 1 and index < 5 and "b" or nil }.status, 200, name)
      t.matches(server:requests()[index], "^" .. name:upper() .. " / ")
    end
    t.raises("llmproxy.http.put: method: this function sends PUT only", http.put, { url = url_of(server), method = "POST" })
  end,

  ["parameters are added to the address, encoded"] = function(t)
    local server = serve(t, t.answer(200))
    http.get { url = url_of(server, "/x?a=1#part"), query = { ["b c"] = "ü&=+ ", [""] = "" } }
    local target = server:requests()[1]:match("^GET (%S+) ")
    t.ok(target == "/x?a=1&b%20c=%C3%BC%26%3D%2B%20&=" or target == "/x?a=1&=&b%20c=%C3%BC%26%3D%2B%20", target)
    http.get { url = url_of(server, "/x"), query = { n = { 1, "two", true, 0.5 } } }
    t.matches(server:requests()[2], "GET /x?n=1&n=two&n=true&n=0.5 ", true)
    http.get { url = url_of(server, "/x"), query = {} }
    t.matches(server:requests()[3], "GET /x HTTP", true)
    t.raises("llmproxy.http.get: query: n: expected a string, a number, true or false, or a list, got a function", http.get, { url = url_of(server), query = { n = print } })
    t.raises("llmproxy.http.get: query: n: expected a list of strings and numbers", http.get, { url = url_of(server), query = { n = { {} } } })
    t.raises("llmproxy.http.get: query: expected names as keys, got a number", http.get, { url = url_of(server), query = { "x" } })
    t.raises("llmproxy.http.get: query: expected a table, got a string", http.get, { url = url_of(server), query = "a=b" })
  end,

  ["a body may come from a function"] = function(t)
    local server = serve(t, t.answer(200))
    local left = 3
    http.post { url = url_of(server), gzip = true, body = function()
      left = left - 1
      return left >= 0 and ("piece %d\n"):format(left) or nil
    end }
    t.equal(codec.gzip.decode(server:requests()[1]:match("\r\n\r\n(.*)$")), "piece 2\npiece 1\npiece 0\n")
    http.post { url = url_of(server), body = function() end }
    t.equal(sent(server:requests()[2], "content-length"), "0")
    t.raises("body: expected a function that returns strings and then nil, it returned a number", http.post, { url = url_of(server), body = function() return 1 end })
    t.raises("not this", http.post, { url = url_of(server), body = function() error("not this") end })
  end,

  ["a body is compressed when asked"] = function(t)
    local server = serve(t, t.answer(200))
    local body = ("hello "):rep(1000)
    http.post { url = url_of(server), body = body, gzip = true, headers = { ["content-type"] = "text/plain" } }
    local request = server:requests()[1]
    t.equal(sent(request, "content-encoding"), "gzip")
    t.equal(codec.gzip.decode(request:match("\r\n\r\n(.*)$")), body)
    http.put { url = url_of(server), body = body, gzip = 9 }
    t.equal(codec.gzip.decode(server:requests()[2]:match("\r\n\r\n(.*)$")), body)
    http.post { url = url_of(server), body = body, gzip = false }
    t.equal(sent(server:requests()[3], "content-encoding"), nil)
    t.raises("llmproxy.http.post: gzip: expected true, false or a level from 1 to 9", http.post, { url = url_of(server), body = body, gzip = 10 })
    t.raises("llmproxy.http.post: gzip: expected true, false or a level from 1 to 9", http.post, { url = url_of(server), body = body, gzip = "6" })
    t.raises("gzip: the header content-encoding is given already", http.post, { url = url_of(server), body = body, gzip = true, headers = { ["Content-Encoding"] = "br" } })
  end,

  ["chunked bodies and answers without an end of their own are read"] = function(t)
    local server = serve(t, { text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n" },
      { text = "HTTP/1.1 200 OK\r\n\r\nuntil the end", close = true })
    local chunked = http.get { url = url_of(server) }
    t.equal(chunked.body, "abcde")
    t.equal(chunked.headers.trailer, nil)
    t.equal(http.get { url = url_of(server) }.body, "until the end")
  end,

  ["an informational answer is not the answer"] = function(t)
    local server = serve(t, { text = "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\nX: y\r\n\r\n" })
    local response = http.get { url = url_of(server) }
    t.equal(response.status, 204)
    t.equal(response.headers, { x = "y" })
  end,

  ["errors of the destination are answers like any other"] = function(t)
    local server = serve(t, t.answer(503, "no", "Retry-After: 7\r\n"))
    local response = http.post { url = url_of(server), body = "" }
    t.equal({ response.status, response.headers["retry-after"], response.body }, { 503, "7", "no" })
  end,

  ["redirects are not followed"] = function(t)
    local server = serve(t, t.answer(307, "", "Location: /elsewhere\r\n"))
    t.equal(http.get { url = url_of(server) }.status, 307)
    t.equal(#server:requests(), 1)
  end,

  ["connections are used again"] = function(t)
    local server = serve(t, t.answer(200, "x"))
    for _ = 1, 5 do t.equal(http.post { url = url_of(server), body = "y" }.status, 200) end
    t.equal(server:connections(), 1)
  end,

  ["a body over the limit is cut and said to be"] = function(t)
    local server = serve(t, t.answer(200, ("x"):rep(5000)))
    local response = http.get { url = url_of(server), max_response_bytes = 4999 }
    t.equal({ response.status, #response.body, response.truncated }, { 200, 4999, true })
    response = http.get { url = url_of(server), max_response_bytes = 5000 }
    t.equal({ response.status, #response.body, response.truncated }, { 200, 5000, false })
    response = http.get { url = url_of(server), max_response_bytes = 0 }
    t.equal({ response.status, #response.body, response.truncated }, { 200, 0, true })
  end,

  ["a head without end is refused"] = function(t)
    local server = serve(t, { text = "HTTP/1.1 200 OK\r\n" .. ("X: " .. ("y"):rep(1000) .. "\r\n"):rep(400) .. "\r\n" })
    local response, reason = http.get { url = url_of(server) }
    t.equal(response, nil)
    t.matches(reason, "head of the answer is larger than", true)
  end,

  ["a broken answer is no answer"] = function(t)
    local cases = {
      { { text = "", close = true }, "closed without an answer" },
      { { text = "HTTP/1.1 200 OK\r\nX: y\r\n", close = true }, "broke before the end" },
      { { text = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", close = true }, "broke before the end" },
      { { text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", close = true }, "broke before the end" },
      { { text = "SSH-2.0-OpenSSH\r\n", close = true }, "" },
    }
    for _, case in ipairs(cases) do
      local response, reason = http.get { url = url_of(serve(t, case[1])) }
      t.equal(response, nil, case[1].text)
      t.matches(reason, case[2], true)
    end
  end,

  ["a destination that is not there is told in words, without secrets"] = function(t)
    local server = serve(t, t.answer(200))
    local port = server:port()
    local _, reason = http.post { url = ("http://user:hunter2@127.0.0.1:1/path?key=hunter2#hunter2") }
    t.equal(reason, "POST http://127.0.0.1:1/path: cannot connect: Connection refused")
    _, reason = http.get { url = "http://no-such-host.invalid/" }
    t.equal(reason, "GET http://no-such-host.invalid/: the host's name was not found")
    t.ok(port > 0)
  end,

  ["nothing but http and https is spoken"] = function(t)
    for _, url in ipairs { "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "127.0.0.1", "", "http://", "http://a b/", "http://[::1" } do
      local response, reason = http.get { url = url }
      t.equal(response, nil, url)
      t.matches(reason, "not an http or https address", true)
    end
  end,

  ["user and password in the address are sent as basic authentication"] = function(t)
    local server = serve(t, t.answer(200))
    http.get { url = ("http://user:pass@127.0.0.1:%d/"):format(server:port()) }
    t.equal(sent(server:requests()[1], "authorization"), "Basic " .. codec.base64.encode("user:pass"))
  end,

  ["a time-out ends a request that hangs"] = function(t)
    local server = serve(t, { text = "", delay = 0 })
    local began = time.monotonic()
    local response, reason = http.get { url = url_of(server), timeout = 0.05 }
    t.equal(response, nil)
    t.matches(reason, "no complete answer within 0.05 s", true)
    t.ok(time.monotonic() - began < 5)
  end,

  ["TLS is verified against the file given"] = function(t)
    local certificate = t.certificate()
    local server = t.listen { certificate = certificate, answers = { t.answer(200, "secret") } }
    local url = ("https://localhost:%d/"):format(server:port())
    t.equal(http.get { url = url, tls = { ca_file = certificate } }.body, "secret")
    local response, reason = http.get { url = url }
    t.equal(response, nil)
    t.matches(reason, "TLS: SSL certificate problem", true)
    t.equal(http.get { url = url, tls = { verify = false } }.body, "secret")
    response, reason = http.get { url = url, tls = { ca_file = t.folder() .. "/none.pem" } }
    t.equal(response, nil)
    t.matches(reason, "TLS: ", true)
  end,

  ["a connection that was verified less is not used again"] = function(t)
    local server = t.listen { certificate = t.certificate(), answers = { t.answer(200) } }
    local url = ("https://localhost:%d/"):format(server:port())
    t.equal(http.get { url = url, tls = { verify = false } }.status, 200)
    t.equal(http.get { url = url }, nil)
  end,

  ["headers that could smuggle raise"] = function(t)
    local url = "http://127.0.0.1:1/"
    for _, value in ipairs { "a\rb", "a\nb", "a\0b", "a\r\nX: y", "\127" } do
      t.raises("headers: x: the value has CR, LF, NUL or another control character", http.get, { url = url, headers = { x = value } })
    end
    for _, name in ipairs { "a b", "a:", "a\r\nb", "a\0", "", "é" } do
      t.raises("headers: a name has characters that are not allowed", http.get, { url = url, headers = { [name] = "x" } })
    end
    for _, name in ipairs { "Content-Length", "transfer-encoding", "Connection", "Expect" } do
      t.raises("is set by the host alone", http.get, { url = url, headers = { [name] = "1" } })
    end
    t.raises("headers: x: expected a string, got a table", http.get, { url = url, headers = { x = {} } })
    t.raises("headers: expected names as keys, got a number", http.get, { url = url, headers = { "x: y" } })
    t.raises("url: expected text, got a string with NUL bytes", http.get, { url = "http://a\0b" })
    t.raises("method: expected a name", http.request, { url = url, method = "GET / HTTP/1.1\r\nX:" })
  end,

  ["a value that fails the check is not shown"] = function(t)
    local _, message = pcall(http.get, { url = "http://127.0.0.1:1/", headers = { authorization = "hunter2\n" } })
    t.equal(message:find("hunter2", 1, true), nil)
  end,

  ["unknown options raise, and name what was meant"] = function(t)
    local url = "http://127.0.0.1:1/"
    t.raises("llmproxy.http.get: there is no option 'timout', did you mean 'timeout'?", http.get, { url = url, timout = 1 })
    t.raises("there is no option 'tls.ca_fil', did you mean 'tls.ca_file'?", http.get, { url = url, tls = { ca_fil = "x" } })
    t.raises("the options are named", http.get, { url })
    t.raises("options: expected a table, got string", http.get, url)
    t.raises("url: expected a string, got nothing", http.get, {})
    t.raises("timeout: expected a number, got a string", http.get, { url = url, timeout = "10s" })
    t.raises("timeout: expected a number from 0.001", http.get, { url = url, timeout = 0 })
    t.raises("timeout: expected a number from 0.001", http.get, { url = url, timeout = 0 / 0 })
    t.raises("body: expected a string or a function, got a table", http.post, { url = url, body = {} })
    t.raises("tls.verify: expected true or false, got a string", http.get, { url = url, tls = { verify = "no" } })
    t.raises("method: this function sends POST only", http.post, { url = url, method = "PUT" })
  end,

  ["it cannot wait while plugins are loaded"] = function(t)
    t.cannot_wait(function() http.get { url = "http://127.0.0.1:1/" } end)
  end,

  ["pcall around a request works"] = function(t)
    local server = serve(t, t.answer(200))
    local done, response = pcall(http.get, { url = url_of(server) })
    t.equal({ done, response.status }, { true, 200 })
  end,

  ["z: a request still running when the script ends is cancelled"] = function(t)
    local server = serve(t, { text = "" })
    t.spawn(function() http.get { url = url_of(server), timeout = 100 } end)
    while #server:requests() == 0 do time.sleep(0.01) end
    t.spawn(function() http.get { url = "http://some-name.invalid/", timeout = 100 } end)
    time.sleep(0)
  end,
}
