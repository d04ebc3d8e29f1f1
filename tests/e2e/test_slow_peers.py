"""Slow, silent and vanishing peers at every stage of an exchange: each ends by a time-out or at once, is counted once, is exactly one event when its request's head had
been understood and none before, and leaves nothing open.

A situation is a script for the client, one for the upstream, and what must come of it. The time-out that matters is short, all others are never over.
"""

import pytest

from support.script import HEAD, ScriptedUpstream, close, drip, flood, gone, half_close, meet, reset, send, sockets, take
from support.waiting import PATIENCE, wait_until

NEVER = 600
TIMEOUTS = ("request_head", "request_idle", "keep_alive", "upstream_idle", "connect", "response", "response_idle", "write")

GET = b"GET /x HTTP/1.1\r\nHost: example.test\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: example.test\r\nContent-Length: 100\r\n\r\n"
POST_CHUNKED = b"POST /x HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\n\r\n"
POST_LARGE = b"POST /x HTTP/1.1\r\nHost: example.test\r\nContent-Length: 1000000000\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OK_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"
OK_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
OK_UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhello"
OK_LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"

def answered(status):
    """The client gets a complete response with this status."""
    def check(wire):
        response = wire.response()
        assert response.status == status and response.complete
    return check


def cut(wire):
    """The client sees that the response is not complete."""
    response = wire.response()
    assert response.status == 200 and not response.complete


def closed(wire):
    """The connection ends without a word."""
    assert wire.is_closed()


def situation(name, client, upstream=(), event=None, bad=None, idle=None, **options):
    """event: (status, kind) of the one event, None: there is none. bad, idle: the reason under which it is counted. The rest: time-outs, and half_close of the route."""
    return pytest.param(client, upstream, event, bad, idle, options, id=name.replace(" ", "_"))


LEFT, LEFT_LATE = (0, "client_aborted"), (200, "client_aborted")
INVALID, BROKE, LATE = (502, "upstream_invalid_response"), (200, "upstream_aborted"), (504, "upstream_timeout")

SITUATIONS = [
    # The client, before its head was understood.
    situation("client says nothing", [closed], idle="timeout", request_head=1),
    situation("client resets before its head", [reset]),
    situation("client closes its side before its head", [half_close, closed]),
    situation("client sends its head byte by byte", [drip(GET[:-2] + b"X: " + b"x" * 20), answered(408), closed], bad="request_head_timeout", request_head=1),
    situation("client stops in its head", [send(GET[:-2]), answered(408), closed], bad="request_head_timeout", request_head=1),
    situation("client resets in its head", [send(GET[:-2]), reset], bad="closed_within_head"),
    situation("client closes its side in its head", [send(GET[:-2]), half_close, closed], bad="closed_within_head"),
    situation("client resets in its second head", [send(GET), answered(200), send(GET[:9]), reset], [HEAD, send(OK)], (200, None), bad="closed_within_head"),
    situation("client stays after its request", [send(GET), answered(200), closed], [HEAD, send(OK)], (200, None), idle="timeout", keep_alive=1),

    # The client, in its request's body.
    situation("client stops in its body", [send(POST + b"hello"), answered(408), closed], [HEAD, gone], (408, "request_timeout"), request_idle=1),
    situation("client stops in a chunk", [send(POST_CHUNKED + b"5\r\nhel"), answered(408), closed], [HEAD, gone], (408, "request_timeout"), request_idle=1),
    situation("client sends its body byte by byte", [send(POST), drip(b"x" * 100, 0.02), answered(200)], [HEAD, take(b"x" * 100), send(OK)], (200, None), request_idle=5),
    situation("client resets in its body", [send(POST + b"hello"), meet, reset], [HEAD, take(b"hello"), meet, gone], LEFT),
    situation("client closes its side in its body", [send(POST + b"hello"), meet, half_close, closed], [HEAD, take(b"hello"), meet, gone], LEFT),
    situation("client closes its side in a chunk", [send(POST_CHUNKED + b"5\r\nhel"), meet, half_close, closed], [HEAD, take(b"hel"), meet, gone], LEFT),
    situation("client closes its side in its body, half_close", [send(POST + b"hello"), meet, half_close, closed], [HEAD, take(b"hello"), meet, gone], LEFT,
              half_close=True),

    # The client, after its request.
    situation("client resets before the response", [send(GET), meet, reset], [HEAD, meet, gone], LEFT),
    situation("client closes before the response", [send(GET), meet, close], [HEAD, meet, gone], LEFT),
    situation("client closes its side before the response", [send(GET), meet, half_close, closed], [HEAD, meet, gone], LEFT),
    situation("client closes its side before the response, half_close", [send(GET), meet, half_close, meet, answered(200), closed], [HEAD, meet, meet, send(OK)], (200, None),
              half_close=True),
    situation("client closes its side and resets, half_close", [send(GET), meet, half_close, reset], [HEAD, meet, gone], LEFT, half_close=True),
    situation("client resets in the response's head", [send(GET), meet, reset], [HEAD, send(OK[:20]), meet, gone], LEFT),
    situation("client resets in the response's body", [send(GET), take(b"hello"), reset], [HEAD, send(OK_BODY), gone], LEFT_LATE),
    situation("client closes its side in the response's body", [send(GET), take(b"hello"), half_close, closed], [HEAD, send(OK_BODY), gone], LEFT_LATE),
    situation("client never reads", [send(GET), meet], [HEAD, send(OK_LARGE), flood, meet], LEFT_LATE, write=1),

    # The upstream, before its response.
    situation("upstream resets in the request's head", [send(GET), answered(502)], [take(b"GET"), reset], INVALID),
    situation("upstream closes in the request's head", [send(GET), answered(502)], [take(b"GET"), close], INVALID),
    situation("upstream closes its side at once", [send(GET), answered(502)], [half_close, gone], INVALID),
    situation("upstream resets in the request's body", [send(POST + b"hello"), answered(502)], [HEAD, take(b"hello"), reset], INVALID),
    situation("upstream closes its side in the request's body", [send(POST + b"hello"), answered(502)], [HEAD, take(b"hello"), half_close, gone], INVALID),
    situation("upstream never reads", [send(POST_LARGE), flood], [meet], LATE, write=1),
    situation("upstream never answers", [send(GET), answered(504)], [HEAD, gone], LATE, response=1),
    situation("upstream never answers a body", [send(POST + b"x" * 100), answered(504)], [HEAD, take(b"x" * 100), gone], LATE, response=1),
    situation("upstream resets instead of its response", [send(GET), answered(502)], [HEAD, reset], INVALID),
    situation("upstream closes its side instead of its response", [send(GET), answered(502)], [HEAD, half_close, gone], INVALID),

    # The upstream, in its response.
    situation("upstream sends its head byte by byte", [send(GET), answered(504)], [HEAD, drip(OK[:20] + b"X: " + b"x" * 20), gone], LATE, response=1),
    situation("upstream sends interim responses for ever", [send(GET), answered(502)], [HEAD, send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100), gone], INVALID),
    situation("upstream resets in its head", [send(GET), answered(502)], [HEAD, send(OK[:20]), reset], INVALID),
    situation("upstream closes in its head", [send(GET), answered(502)], [HEAD, send(OK[:20]), close], INVALID),
    situation("upstream stops in its body", [send(GET), cut, closed], [HEAD, send(OK_BODY), gone], (200, "upstream_timeout"), response_idle=1),
    situation("upstream stops in a chunk", [send(GET), cut, closed], [HEAD, send(OK_CHUNKED + b"5\r\nhel"), gone], (200, "upstream_timeout"), response_idle=1),
    situation("upstream sends its body byte by byte", [send(GET), answered(200)], [HEAD, send(OK[:-2]), drip(b"ok", 0.2)], (200, None), response_idle=5),
    situation("upstream resets in its body", [send(GET), meet, cut, closed], [HEAD, send(OK_BODY), meet, reset], BROKE),
    situation("upstream closes in its body", [send(GET), meet, cut, closed], [HEAD, send(OK_BODY), meet, close], BROKE),
    situation("upstream closes its side in a chunk", [send(GET), cut, closed], [HEAD, send(OK_CHUNKED + b"5\r\nhel"), half_close, gone], BROKE),
    situation("upstream resets a body that ends with the connection", [send(GET), meet, cut, closed], [HEAD, send(OK_UNTIL_CLOSE), meet, reset], BROKE),
    situation("upstream closes its side after its response", [send(GET), answered(200)], [HEAD, send(OK), half_close, gone], (200, None)),
    situation("upstream stays after its response", [send(GET), answered(200)], [HEAD, send(OK), gone], (200, None), upstream_idle=1),
]


def counted(proxy):
    metrics = proxy.metrics()
    name = {"llm_proxy_requests_total": "code", "llm_proxy_bad_requests_total": "reason", "llm_proxy_idle_connections_closed_total": "reason"}
    return {(sample, dict(labels)[name[sample]]): value for (sample, labels), value in metrics.samples.items() if sample in name}


@pytest.mark.parametrize("client, server, event, bad, idle, options", SITUATIONS)
def test_situation(start_proxy, client, server, event, bad, idle, options):
    upstream = ScriptedUpstream(server)
    timeouts = {name: options.get(name, NEVER) for name in TIMEOUTS}
    proxy = start_proxy({"workers": 1, "timeouts": timeouts, "routes": [
        {"name": "scripted", "prefix": "/", "upstream": upstream.url, "half_close": options.get("half_close", False)}]})
    with proxy.wire(receive_buffer=4096, timeout=PATIENCE * 2) as wire:
        upstream.play_client(wire, client)
        if server == [meet]:
            meet(wire)
    upstream.finish()
    expected = {}
    if event:
        status, kind = event
        found = proxy.event()
        assert (found["status"], found["error"] and found["error"]["kind"]) == (status, kind)
        expected["llm_proxy_requests_total", str(status)] = 1
    if bad:
        expected["llm_proxy_bad_requests_total", bad] = 1
    if idle:
        expected["llm_proxy_idle_connections_closed_total", idle] = 1
    wait_until(lambda: counted(proxy) == expected, lambda: f"counted as {expected}: {counted(proxy)}")
    wait_until(lambda: sockets(proxy) == 0, lambda: f"no connection is left, have {sockets(proxy)}")
    assert len(proxy.events()) == (1 if event else 0)
