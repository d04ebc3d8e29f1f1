"""What the proxy refuses or cannot do it answers itself: status, code, a body that OpenAI clients parse; and the event says the same."""

import json

import pytest

from support.ports import free_port
from support.waiting import wait_until

HOST = "Host: example.test\r\n"


def check_error(response, status, code, request_id=None):
    assert response.status == status, response.body
    assert response.get("content-type") == "application/json" and response.get("x-content-type-options") == "nosniff"
    assert response.framing == "length" and response.get("date")
    error = json.loads(response.body)["error"]
    assert set(error) == {"message", "type", "code", "request_id"}
    assert (error["type"], error["code"]) == ("proxy_error", code) and error["message"]
    if request_id:
        assert error["request_id"] == request_id
    return error


def check_event(event, status, code):
    assert event["status"] == status and event["error"]["kind"] == code and event["error"]["message"]


@pytest.fixture
def bounded(start_proxy, upstream):
    return start_proxy({"routes": [{"name": "only", "prefix": "/t", "upstream": upstream.url}],
                        "limits": {"max_head_bytes": "8KiB", "max_headers": 20, "max_target_bytes": 1000, "max_body_bytes": "10KiB"}})


def test_no_route(bounded, upstream):
    check_error(bounded.exchange("GET", "/other", [("X-Request-Id", "abc")]), 404, "no_route", "abc")
    event = bounded.event()
    check_event(event, 404, "no_route")
    assert event["route"] is None and event["upstream"] is None and event["ttfb_ms"] is None
    assert json.loads(event["response_body"])["error"]["code"] == "no_route"
    assert not upstream.requests


def test_no_route_keeps_the_connection(bounded):
    with bounded.wire() as wire:
        check_error(wire.exchange("POST", "/other", (), b"body"), 404, "no_route")
        check_error(wire.exchange("GET", "/other"), 404, "no_route")
    bounded.wait_events(2)


def test_upstream_down(start_proxy):
    proxy = start_proxy({"routes": [{"name": "down", "prefix": "/", "upstream": f"http://127.0.0.1:{free_port()}"}]})
    with proxy.wire() as wire:
        check_error(wire.exchange("POST", "/v1/x", (), b"prompt"), 502, "upstream_unreachable")
        check_error(wire.exchange("GET", "/v1/x"), 502, "upstream_unreachable")
    first, second = proxy.wait_events(2)
    check_event(first, 502, "upstream_unreachable")
    assert first["route"] == "down" and "prompt".startswith(first["request_body"])


def test_upstream_name_that_does_not_resolve(start_proxy):
    proxy = start_proxy({"routes": [{"prefix": "/", "upstream": "http://no-such-host.invalid"}]})
    check_error(proxy.exchange("GET", "/"), 502, "upstream_unreachable")
    event = proxy.event()
    check_event(event, 502, "upstream_unreachable")
    assert "no-such-host.invalid" in event["error"]["message"]


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x0a", b"HTTP/1.1 999 X\r\n\r\n"])
def test_upstream_that_speaks_something_else(proxy, upstream, answer):
    upstream.raw["/odd"] = answer
    check_error(proxy.exchange("GET", "/odd"), 502, "upstream_invalid_response")
    check_event(proxy.event(), 502, "upstream_invalid_response")


@pytest.mark.parametrize("raw, status, code", [
    (f"GET /t HTTP/1.1\r\n{HOST}X: {'a' * 9000}\r\n\r\n", 431, "headers_too_large"),
    (f"GET /t HTTP/1.1\r\n{HOST}" + "X: a\r\n" * 30 + "\r\n", 431, "headers_too_large"),
    (f"GET /t{'a' * 1000} HTTP/1.1\r\n{HOST}\r\n", 414, "uri_too_long"),
    ("GET /t HTTP/1.1\r\n\r\n", 400, "bad_request"),
    (f"GET /t HTTP/1.1\r\n{HOST}Bad Header: x\r\n\r\n", 400, "bad_request"),
    (f"GET /t HTTP/2.0\r\n{HOST}\r\n", 505, "version_not_supported"),
    (f"POST /t HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "unsupported"),
])
def test_heads_that_are_refused_are_counted_and_are_no_event(bounded, upstream, raw, status, code):
    with bounded.wire() as wire:
        wire.send(raw)
        check_error(wire.response(), status, code)
        assert wire.is_closed()
    metrics = bounded.metrics()
    assert metrics.value("llm_proxy_bad_requests_total") == 1
    assert metrics.value("llm_proxy_events_received_total") == 0
    assert not upstream.requests and not bounded.events()


@pytest.mark.parametrize("method, target", [("CONNECT", "example.test:443"), ("TRACE", "/t")])
def test_connect_and_trace(bounded, upstream, method, target):
    with bounded.wire() as wire:
        response = wire.exchange(method, target)
        check_error(response, 405, "method_not_allowed")
    assert not upstream.requests
    bounded.balanced()


def test_unknown_expectation(bounded):
    with bounded.wire() as wire:
        check_error(wire.exchange("POST", "/t", [("Expect", "miracles")], b"x"), 417, "expectation_failed")


def test_body_over_the_limit_with_length_never_reaches_the_upstream(bounded, upstream):
    with bounded.wire() as wire:
        wire.request("POST", "/t/v1/embeddings", [("Content-Length", "10241")])
        check_error(wire.response(), 413, "request_too_large")
    check_event(bounded.event(), 413, "request_too_large")
    assert not upstream.requests


def test_chunked_body_over_the_limit_is_broken_off(bounded, upstream):
    with bounded.wire() as wire:
        wire.request("POST", "/t/v1/embeddings", [("Transfer-Encoding", "chunked")])
        wire.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n" + b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        check_error(wire.response(), 413, "request_too_large")
    check_event(bounded.event(), 413, "request_too_large")
    assert all(not request.complete for request in upstream.requests)


def test_broken_chunked_body(bounded, upstream):
    with bounded.wire() as wire:
        wire.request("POST", "/t/v1/embeddings", [("Transfer-Encoding", "chunked")])
        wire.send("5\r\nhello\r\nzz\r\n")
        check_error(wire.response(), 400, "bad_request")
        assert wire.is_closed()
    event = bounded.event()
    check_event(event, 400, "bad_request")
    assert "hello".startswith(event["request_body"])
    assert all(not request.complete for request in upstream.requests)


def test_a_refused_client_gets_its_answer_before_the_connection_ends(bounded):
    """Not a reset, though much of what it sends is never read."""
    with bounded.wire() as wire:
        wire.request("POST", "/t", [("Content-Length", str(10 << 20))])
        try:
            for _ in range(40):
                wire.send(b"x" * 65536)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
        check_error(wire.response(), 413, "request_too_large")
    bounded.event()


def test_junk_and_port_scans_are_no_events(bounded):
    for junk in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, b"\r\n\r\n\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 50, b"GET"):
        with bounded.wire() as wire:
            wire.send(junk)
            wire.half_close()
            wire.is_closed()
    with bounded.wire():
        pass
    assert bounded.exchange("GET", "/t").status == 404  # of the mock
    assert len(bounded.wait_events(1)) == 1


def test_max_connections(start_proxy, upstream):
    proxy = start_proxy({"limits": {"max_connections": 4}, "workers": 1})
    wires = [proxy.wire() for _ in range(4)]
    for wire in wires:
        wire.request("GET", "/v1/models", [("x-mock-delay", "2")])
    wait_until(lambda: len(upstream.requests) == 4, "four running requests")
    with proxy.wire() as fifth:
        check_error(fifth.exchange("GET", "/v1/models"), 503, "overloaded")
    for wire in wires:
        assert wire.response().status == 200
    # All four are idle now: the longest idle one makes room.
    assert proxy.exchange("GET", "/v1/models").status == 200
    assert [wire.is_quiet(0.2) for wire in wires].count(False) == 1
    for wire in wires:
        wire.socket.close()
