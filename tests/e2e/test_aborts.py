"""When one side breaks off, the other side learns it at once, and the event says what happened."""

import json
import time

import pytest

from support.waiting import wait_until

STREAM = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
ENDLESS = [("x-mock-pieces", "10000"), ("x-mock-pace", "0.05")]


def begin_stream(wire, knobs):
    wire.request("POST", "/v1/chat/completions", knobs, STREAM)
    assert wire.head().status == 200
    wire.next_chunk()


@pytest.mark.parametrize("how", ["close", "half_close", "reset"])
def test_client_abort_cancels_the_upstream(proxy, upstream, how):
    with proxy.wire() as wire:
        begin_stream(wire, ENDLESS)
        getattr(wire.socket if how == "close" else wire, how)()
        wait_until(lambda: upstream.requests[0].gone, "the upstream connection is closed", seconds=10)
    event = proxy.event()
    assert event["error"]["kind"] == "client_aborted" and event["status"] == 200
    assert event["response_body"].startswith("data: ") and event["streamed"] is True


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_abort_while_nothing_is_sent(proxy, upstream, how):
    with proxy.wire() as wire:
        wire.request("POST", "/v1/chat/completions", [("x-mock-delay", "60")], STREAM)
        wait_until(lambda: upstream.requests and upstream.requests[0].complete, "the request at the upstream")
        getattr(wire.socket if how == "close" else wire, how)()
        wait_until(lambda: upstream.requests[0].gone, "the upstream connection is closed", seconds=10)
    event = proxy.event()
    assert (event["error"]["kind"], event["status"], event["ttfb_ms"]) == ("client_aborted", 0, None)


def test_client_abort_while_it_does_not_read(proxy, upstream):
    with proxy.wire(receive_buffer=4096) as wire:
        wire.request("GET", "/bytes", [("x-mock-size", str(64 << 20))])
        assert wire.head().status == 200
        sent = -1
        while sent != upstream.requests[0].bytes_sent:
            sent = upstream.requests[0].bytes_sent
            time.sleep(0.3)
        wire.reset()
        wait_until(lambda: upstream.requests[0].gone, "the upstream connection is closed", seconds=20)
    assert proxy.event()["error"]["kind"] == "client_aborted"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_client_abort_in_the_upload(proxy, upstream, framing):
    with proxy.wire() as wire:
        wire.request("POST", "/v1/embeddings", [("Content-Length", "1000") if framing == "length" else ("Transfer-Encoding", "chunked")])
        wire.send("hello" if framing == "length" else "5\r\nhello\r\n")
        request = wait_until(lambda: upstream.requests and upstream.requests[0].body_bytes and upstream.requests[0], "the beginning at the upstream")
    wait_until(lambda: request.gone, "the upstream connection is closed")
    assert not request.complete
    event = proxy.event()
    assert event["error"]["kind"] == "client_aborted" and event["request_body"] == "hello"


def test_half_close_route_goes_on(start_proxy, upstream):
    proxy = start_proxy({"routes": [{"prefix": "/", "upstream": upstream.url, "half_close": True}]})
    with proxy.wire() as wire:
        wire.request("POST", "/v1/chat/completions", [("x-mock-delay", "0.3"), ("x-mock-pace", "0.05")], STREAM)
        wire.half_close()
        response = wire.response()
        assert response.complete and response.body.endswith(b"[DONE]\n\n")
    assert proxy.event()["error"] is None


def test_abort_of_one_client_leaves_others_alone(proxy):
    with proxy.wire() as stays_here, proxy.wire() as leaves:
        begin_stream(stays_here, [("x-mock-pieces", "20"), ("x-mock-pace", "0.05")])
        begin_stream(leaves, ENDLESS)
        leaves.reset()
        while (piece := stays_here.next_chunk()):
            last = piece
        assert piece == b"" and b"[DONE]" in last
    kinds = sorted(event["error"]["kind"] if event["error"] else "" for event in proxy.wait_events(2))
    assert kinds == ["", "client_aborted"]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upstream_abort_cuts_the_response(proxy, framing, reset):
    knobs = [("x-mock-abort", "2"), ("x-mock-framing", framing), ("x-mock-size", "100000"), ("x-mock-pace", "0.05")]
    with proxy.wire() as wire:
        response = wire.exchange("GET", "/bytes", knobs + ([("x-mock-reset", "1")] if reset else []))
        assert response.status == 200 and not response.complete
        assert wire.is_closed()
    event = proxy.event()
    assert event["error"]["kind"] == "upstream_aborted" and event["error"]["message"]
    assert event["status"] == 200 and 0 < event["response_bytes"] < 100000


def test_upstream_abort_in_a_stream_keeps_what_came(proxy):
    response = proxy.exchange("POST", "/v1/chat/completions", [("x-mock-abort", "3"), ("x-mock-pace", "0.05")], STREAM)
    assert not response.complete and response.body.count(b"data: ") == 3
    event = proxy.event()
    assert event["error"]["kind"] == "upstream_aborted" and event["response_body"].count("data: ") == 3


@pytest.mark.parametrize("reset", [False, True])
def test_upstream_abort_of_a_body_until_close(proxy, reset):
    knobs = [("x-mock-abort", "1"), ("x-mock-framing", "close"), ("x-mock-size", "50000")] + ([("x-mock-reset", "1")] if reset else [])
    response = proxy.exchange("GET", "/bytes", knobs)
    event = proxy.event()
    assert response.complete is not reset  # a FIN is the end of such a body, a reset is none
    assert (event["error"] or {}).get("kind") == ("upstream_aborted" if reset else None)


def test_upstream_abort_towards_an_http_1_0_client_is_a_reset(proxy):
    with proxy.wire() as wire:
        wire.send("GET /bytes HTTP/1.0\r\nx-mock-framing: chunked\r\nx-mock-abort: 1\r\nx-mock-size: 50000\r\n\r\n")
        response = wire.response()
        assert response is None or not response.complete
    assert proxy.event()["error"]["kind"] == "upstream_aborted"


@pytest.mark.parametrize("reset", [False, True])
def test_upstream_that_closes_instead_of_answering(proxy, reset):
    response = proxy.exchange("GET", "/v1/models", [("x-mock-abort", "head")] + ([("x-mock-reset", "1")] if reset else []))
    assert response.status == 502
    error = json.loads(response.body)["error"]
    event = proxy.event()
    assert event["status"] == 502 and event["error"]["kind"] == error["code"] == "upstream_invalid_response"


def test_streams_that_are_aborted_in_a_row_leave_nothing(proxy, upstream):
    for _ in range(50):
        with proxy.wire() as wire:
            begin_stream(wire, ENDLESS)
    wait_until(lambda: all(request.gone for request in upstream.requests), "all upstream connections are closed")
    assert {event["error"]["kind"] for event in proxy.wait_events(50)} == {"client_aborted"}
