"""HTTP/1.1 as an intermediary must speak it: persistent connections, messages without bodies, hop-by-hop fields, Via, Expect."""

import json
import re

import pytest

from support.wire import chunked


def test_keep_alive_on_both_sides(proxy, upstream):
    with proxy.wire() as wire:
        for _ in range(50):
            assert wire.exchange("GET", "/v1/models").status == 200
    assert upstream.connections == 1
    proxy.wait_events(50)


def test_pipelined_requests_are_answered_in_order(proxy, upstream):
    with proxy.wire() as wire:
        wire.send("".join(f"GET /bytes HTTP/1.1\r\nHost: example.test\r\nx-mock-size: {size}\r\nx-mock-delay: {delay}\r\n\r\n"
                          for size, delay in [(11, 0.2), (22, 0), (33, 0.1), (44, 0)]))
        assert [len(wire.response().body) for _ in range(4)] == [11, 22, 33, 44]
    assert [event["response_bytes"] for event in proxy.wait_events(4)] == [11, 22, 33, 44]


def test_pipelined_requests_with_bodies(proxy, upstream):
    with proxy.wire() as wire:
        parts = []
        for number in range(20):
            body = b"%d" % number * 1000
            parts.append(b"POST /v1/embeddings HTTP/1.1\r\nHost: example.test\r\n" + (
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body) if number % 2 else b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body[:7], body[7:])))
        wire.send(b"".join(parts))
        assert all(wire.response().status == 200 for _ in range(20))
    assert [request.body for request in upstream.requests] == [b"%d" % number * 1000 for number in range(20)]
    proxy.wait_events(20)


def test_connection_close_of_the_client_is_honoured(proxy):
    with proxy.wire() as wire:
        response = wire.exchange("GET", "/v1/models", [("Connection", "close")])
        assert response.complete and response.get("connection", "").lower() == "close"
        assert wire.is_closed()
    proxy.event()


def test_connection_close_of_the_upstream_does_not_close_the_clients(proxy, upstream):
    with proxy.wire() as wire:
        for _ in range(3):
            response = wire.exchange("GET", "/bytes", [("x-mock-framing", "close")])
            assert response.complete and response.framing == "chunked"
            assert "close" not in (response.get("connection") or "")
    assert upstream.connections == 3
    proxy.wait_events(3)


@pytest.mark.parametrize("first", [100, 16384, 30000])
def test_large_head_in_several_packets(proxy, upstream, first):
    head = b"GET /v1/models HTTP/1.1\r\nHost: example.test\r\n" + b"".join(b"X-%d: %b\r\n" % (number, b"a" * 1000) for number in range(40)) + b"\r\n"
    with proxy.wire() as wire:
        wire.send(head[:first])
        assert wire.is_quiet(0.2)
        wire.send(head[first:])
        assert wire.response().status == 200
    assert upstream.requests[0].get("x-39") == "a" * 1000
    proxy.event()


def test_http_1_0_client(proxy, upstream):
    with proxy.wire() as wire:
        wire.send("GET /bytes HTTP/1.0\r\nx-mock-framing: chunked\r\n\r\n")
        response = wire.response()
        assert response.complete and response.framing == "close" and len(response.body) == 1000
    assert upstream.requests[0].version == "HTTP/1.1"
    proxy.event()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_head_has_no_body(proxy, framing):
    with proxy.wire() as wire:
        response = wire.exchange("HEAD", "/bytes", [("x-mock-framing", framing)])
        assert response.status == 200
        if framing == "length":
            assert response.get("content-length") == "1000"
        assert wire.exchange("GET", "/bytes").complete  # the connection is in order
    event = proxy.wait_events(2)[0]
    assert (event["method"], event["status"], event["response_bytes"]) == ("HEAD", 200, 0)


@pytest.mark.parametrize("lines", ["HEAD /v1/models HTTP/1.1\r\n\r\n", "\r\nHEAD /v1/models HTTP/1.1\r\nHost : x\r\n\r\n", "HEAD /v1/models HTTP/3.0\r\n\r\n",
                                   "HEAD /v1/../x HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD * HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD /v1/models HTTP/1.1\r\nHost: x\r\n"])
def test_a_refused_head_has_no_body_either(start_proxy, lines):
    proxy = start_proxy({"timeouts": {"request_head": 1}})
    with proxy.wire() as wire:
        wire.send(lines)
        response = wire.response("HEAD")
        assert response.status in (400, 408, 505) and int(response.get("content-length")) > 0
        assert wire.is_closed()


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(proxy, status):
    with proxy.wire() as wire:
        response = wire.exchange("GET", "/bytes", [("x-mock-status", str(status))])
        assert response.status == status and response.get("transfer-encoding") is None
        assert wire.exchange("GET", "/bytes").complete
    assert proxy.wait_events(2)[0]["status"] == status


def test_expect_100_continue_is_answered_here_and_not_forwarded(proxy, upstream):
    with proxy.wire() as wire:
        wire.request("POST", "/v1/embeddings", [("Expect", "100-continue"), ("Content-Length", "5")])
        interim = wire.head()
        assert interim.status == 100
        wire.send("hello")
        assert wire.response().status == 200
    assert upstream.requests[0].get("expect") is None and upstream.requests[0].body == b"hello"
    proxy.event()


def test_expect_100_continue_of_curl(proxy, upstream, tmp_path):
    import subprocess
    file = tmp_path / "body"
    file.write_bytes(b"x" * 2_000_000)
    done = subprocess.run(["curl", "-sS", "-m", "60", "-H", "Expect: 100-continue", "--data-binary", f"@{file}", "-o", "/dev/null", "-w", "%{http_code}",
                           proxy.url + "/v1/embeddings"], capture_output=True, text=True, check=True)
    assert done.stdout == "200" and upstream.requests[0].body_bytes == 2_000_000
    proxy.event()


def test_a_refused_request_gets_no_100(start_proxy):
    proxy = start_proxy({"routes": [{"prefix": "/only", "upstream": "http://127.0.0.1:9"}]})
    with proxy.wire() as wire:
        wire.request("POST", "/elsewhere", [("Expect", "100-continue"), ("Content-Length", "5")])
        assert wire.head().status == 404
    proxy.event()


HOP = [("Connection", "keep-alive, X-Private"), ("X-Private", "1"), ("Keep-Alive", "timeout=5"), ("TE", "trailers"), ("Upgrade", "websocket"),
       ("Proxy-Connection", "keep-alive"), ("Proxy-Authorization", "Basic eDp5"), ("Trailer", "X-T")]


def test_hop_by_hop_fields_of_the_request_go_no_further(proxy, upstream):
    proxy.exchange("GET", "/v1/models", [*HOP, ("X-Public", "2")])
    request = upstream.requests[0]
    for name in ("x-private", "keep-alive", "te", "upgrade", "proxy-connection", "proxy-authorization", "trailer"):
        assert request.get(name) is None, name
    assert request.get("x-public") == "2"
    proxy.event()


def test_hop_by_hop_fields_of_the_response_go_no_further(proxy):
    response = proxy.exchange("GET", "/v1/models", [("x-mock-header", line) for line in (
        "Connection: X-Private", "X-Private: 1", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic", "Trailer: X-T", "X-Public: 2")])
    names = {name for name, _ in response.headers}
    assert not names & {"x-private", "keep-alive", "proxy-authenticate", "trailer"} and response.get("x-public") == "2"
    proxy.event()


def test_end_to_end_fields_pass_in_order_and_unchanged(proxy, upstream):
    sent = [("X-One", "a"), ("x-TWO", "b,  c"), ("X-One", "d"), ("User-Agent", "test/1 (odd; \"quoted\")"), ("Accept", "*/*;q=0.1"), ("X-Empty", "")]
    response = proxy.exchange("GET", "/v1/models", [*sent, ("x-mock-header", "X-R: 1"), ("x-mock-header", "X-r: 2"), ("x-mock-header", "Server: mock")])
    received = [(name, value) for name, value in upstream.requests[0].headers if name.lower() in {"x-one", "x-two", "user-agent", "accept", "x-empty"}]
    assert received == sent
    assert response.all("x-r") == ["1", "2"] and response.get("server") == "mock"
    proxy.event()


def test_host_is_the_upstreams(proxy, upstream):
    proxy.exchange("GET", "/v1/models", host="client.example:1234")
    assert upstream.requests[0].all("host") == [f"127.0.0.1:{upstream.port}"]
    assert proxy.event()["request_headers"]["host"] == "client.example:1234"


def test_via_is_added_once_and_no_forwarding_headers(proxy, upstream):
    proxy.exchange("GET", "/v1/models", [("Via", "1.0 somebody")])
    request = upstream.requests[0]
    via = ", ".join(request.all("via"))
    assert re.fullmatch(r"1\.0 somebody, 1\.1 \S.*", via)
    assert not [name for name, _ in request.headers if name.lower().startswith("x-forwarded") or name.lower() == "forwarded"]
    proxy.event()


def test_a_loop_is_detected(start_proxy):
    proxy = start_proxy({"routes": [{"prefix": "/", "upstream": "http://127.0.0.1:9"}]})
    proxy.kill()
    proxy.configure({"routes": [{"name": "self", "prefix": "/", "upstream": proxy.url}]})
    proxy.start()
    response = proxy.exchange("GET", "/v1/models")
    assert response.status == 508 and json.loads(response.body)["error"]["code"] == "loop_detected"
    events = proxy.wait_events(2)
    kinds = {event["error"]["kind"] if event["error"] else None for event in events}  # one from each worker: in no order
    assert kinds == {"loop_detected", None}


@pytest.mark.parametrize("before, behind", [("1.1 ", ""), ("1.0 a, HTTP/1.1 ", " (comment), 1.1 b"), ("1.0 it\"s, 1.1 ", ""), ("1.0 a (\", 1.1 ", ""), ("1.1\t", ""), ("1.1 ", ":80")])
def test_a_loop_is_detected_in_whatever_others_made_of_via(proxy, upstream, before, behind):
    proxy.exchange("GET", "/v1/models")
    name = upstream.requests[0].get("via").split(" ")[1]
    assert proxy.exchange("GET", "/v1/models", [("Via", "1.1 somebody"), ("Via", before + name + behind)]).status == 508
    assert proxy.exchange("GET", "/v1/models", [("Via", before + name[:-1] + behind)]).status == 200
    proxy.wait_events(3)


def test_method_and_target_pass_as_they_came(proxy, upstream):
    for method, target in [("PATCH", "/v1/a?b=c?d=e&&=%zz"), ("DELETE", "/v1/a;b=c/d%20e"), ("get", "/v1/models"), ("M-SEARCH", "/v1/x"), ("PUT", "/v1/caf%c3%a9")]:
        proxy.exchange(method, target)
        assert (upstream.requests[-1].method, upstream.requests[-1].target) == (method, target)
    proxy.wait_events(5)


def test_request_with_body_whatever_the_method(proxy, upstream):
    for method in ("GET", "DELETE", "OPTIONS"):
        proxy.exchange(method, "/v1/embeddings", (), b"body")
        assert upstream.requests[-1].body == b"body"
    proxy.wait_events(3)


def test_early_hints_reach_the_client_and_100_does_not(proxy, upstream):
    upstream.raw["/hints"] = (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
                              b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    response = proxy.exchange("GET", "/hints")
    assert response.status == 200 and response.body == b"ok"
    assert [(one.status, one.get("link")) for one in response.interim] in ([(103, "</x>")], [])
    assert proxy.event()["status"] == 200


def test_date_is_there(proxy, upstream):
    upstream.raw["/undated"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert proxy.exchange("GET", "/undated").get("date", "").endswith("GMT")
    assert proxy.exchange("GET", "/v1/models").get("date") == "Thu, 01 Jan 2026 00:00:00 GMT"
    proxy.wait_events(2)


def test_an_idle_upstream_connection_that_closed_is_not_used(proxy, upstream):
    upstream.raw["/close"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"  # and closes, without having said so
    with proxy.wire() as wire:
        for _ in range(5):
            assert wire.exchange("GET", "/close").status == 200
            wire.is_quiet(0.1)
    proxy.wait_events(5)


def test_stray_bytes_on_an_idle_connection_are_never_the_next_answer(proxy, upstream):
    upstream.raw["/stray"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
    upstream.keep_open.add("/stray")
    with proxy.wire() as wire:
        for _ in range(5):
            assert wire.exchange("GET", "/stray").body == b"ok"
            assert b"EVIL" not in wire.exchange("GET", "/v1/models").body
    proxy.wait_events(10)


def test_a_post_is_never_sent_twice(proxy, upstream):
    with proxy.wire() as wire:
        assert wire.exchange("GET", "/v1/models").status == 200
        # On the kept connection: read whole, then closed without an answer.
        response = wire.exchange("POST", "/v1/embeddings", [("x-mock-abort", "head")], b"once")
    assert response.status == 502
    assert [request.method for request in upstream.requests] == ["GET", "POST"]
    proxy.wait_events(2)


def test_requests_per_connection_limit(start_proxy):
    proxy = start_proxy({"limits": {"max_requests_per_connection": 3}})
    with proxy.wire() as wire:
        answers = [wire.exchange("GET", "/v1/models").get("connection") for _ in range(3)]
        assert answers[-1] == "close" and "close" not in answers[:2]
        assert wire.is_closed()
    proxy.wait_events(3)
