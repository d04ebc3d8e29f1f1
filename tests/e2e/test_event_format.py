"""An event has the canonical form: these keys in this order, null where there is nothing to say, valid by the documented schema."""

import json
import re
import time
from datetime import datetime, timezone

from support.wire import chunked
from upstream import body_of_size

KEYS = """id request_id time method path query status duration_ms ttfb_ms client client_name route upstream credential request_headers
response_headers request_body response_body request_body_encoding response_body_encoding request_content_coding response_content_coding
request_bytes response_bytes request_truncated response_truncated response_tail bodies_withheld streamed chunks error trace_id span_id
proxy""".split()
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def all_kinds(proxy):
    """Exchanges of every kind an event can come from; their events."""
    proxy.exchange("GET", "/v1/models?limit=3")
    proxy.exchange("POST", "/v1/chat/completions", [("Content-Type", "application/json")], b'{"model":"m","stream":true,"messages":[]}')
    proxy.exchange("POST", "/v1/echo", [("Transfer-Encoding", "chunked")], chunked(b"\xff\xfe", b"binary"))
    proxy.exchange("GET", "/bytes", [("x-mock-size", "5000")])
    proxy.exchange("GET", "/bytes", [("x-mock-coding", "gzip")])
    proxy.exchange("HEAD", "/bytes")
    proxy.exchange("GET", "/v1/models", [("x-mock-status", "204")])
    proxy.exchange("GET", "/v1/models", [("x-mock-status", "429")])
    proxy.exchange("GET", "/nowhere/at/all")
    proxy.exchange("GET", "/v1/models", [("x-mock-abort", "head")])
    proxy.exchange("GET", "/bytes", [("x-mock-abort", "1"), ("x-mock-size", "40000")])
    proxy.exchange("OPTIONS", "/v1/chat/completions", [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")])
    return proxy.wait_events(12)


def test_every_event_has_the_keys_in_order_and_fits_the_schema(start_proxy, upstream, event_schema):
    proxy = start_proxy({"routes": [{"prefix": "/v1/", "upstream": upstream.url}, {"prefix": "/bytes", "upstream": upstream.url}]})
    for event in all_kinds(proxy):
        assert list(event) == KEYS, event["path"]
        assert list(event["proxy"]) == ["version", "instance"]
        event_schema(event)


def test_values_of_a_simple_exchange(proxy, upstream):
    before = datetime.now(timezone.utc)
    with proxy.wire() as wire:
        response = wire.exchange("POST", "/v1/echo?a=1&b=%20", [("Content-Type", "text/plain"), ("X-Team", "red"), ("X-Team", "blue")], "Grüße".encode())
        client = "%s:%d" % wire.socket.getsockname()
    event = proxy.event()
    assert UUID7.fullmatch(event["id"]) and UUID7.fullmatch(event["request_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["time"])
    assert before <= datetime.fromisoformat(event["time"]) <= datetime.now(timezone.utc)
    assert (event["method"], event["path"], event["query"], event["status"]) == ("POST", "/v1/echo", "a=1&b=%20", 200)
    assert event["client"] == client and event["client_name"] is None
    assert (event["route"], event["upstream"]) == ("mock", upstream.url)
    assert 0 <= event["ttfb_ms"] <= event["duration_ms"] < 30000
    assert event["credential"] is None
    assert event["request_headers"]["x-team"] == "red, blue"
    assert event["request_headers"]["host"] == "example.test"
    assert event["response_headers"]["content-type"] == "application/json"
    assert (event["request_body"], event["request_body_encoding"], event["request_content_coding"]) == ("Grüße", "utf8", None)
    assert event["response_body"].encode() == response.body
    assert (event["request_bytes"], event["response_bytes"]) == (7, len(response.body))
    assert (event["request_truncated"], event["response_truncated"], event["response_tail"], event["bodies_withheld"]) == (False, False, None, None)
    assert (event["streamed"], event["error"], event["trace_id"], event["span_id"]) == (False, None, None, None)
    assert event["proxy"]["version"] and event["proxy"]["instance"]


def test_response_headers_are_what_the_client_was_sent(proxy):
    response = proxy.exchange("GET", "/v1/models", [("x-mock-header", "X-Request-Id: from-the-provider"), ("x-mock-header", "Keep-Alive: timeout=5")])
    seen = proxy.event()["response_headers"]
    assert seen["x-request-id"] == "from-the-provider" == response.get("x-request-id")
    assert "keep-alive" not in seen
    assert set(seen) == {name for name, _ in response.headers}


def test_durations_are_measured_from_the_first_byte(proxy):
    with proxy.wire() as wire:
        wire.send("GET /v1/models HTTP/1.1\r\nHost: ")
        time.sleep(0.3)
        wire.send("example.test\r\nx-mock-delay: 0.3\r\n\r\n")
        assert wire.response().status == 200
    event = proxy.event()
    assert event["duration_ms"] >= 590
    assert event["ttfb_ms"] >= 590


def test_binary_bodies_are_base64(proxy):
    import base64
    proxy.exchange("POST", "/bytes", [("x-mock-size", "3000")], b"\x00\xff\xfe")
    event = proxy.event()
    assert (event["request_body_encoding"], event["response_body_encoding"]) == ("base64", "base64")
    assert base64.b64decode(event["request_body"]) == b"\x00\xff\xfe"
    assert base64.b64decode(event["response_body"]) == body_of_size(3000)


def test_text_with_every_odd_character_survives(proxy):
    text = "".join(map(chr, range(0, 0x80))) + "\u2028\u2029\ufeff\U0001f600\ud7ff\ue000" + "</script>"
    proxy.exchange("POST", "/v1/echo", (), text.encode())
    assert proxy.event()["request_body"] == text


def test_empty_bodies_are_empty_text(proxy):
    proxy.exchange("GET", "/bytes", [("x-mock-size", "0")])
    event = proxy.event()
    assert (event["request_bytes"], event["response_bytes"]) == (0, 0)
    assert event["response_body"] in ("", None) and event["request_body"] in ("", None)


def test_headers_that_are_not_utf8_read_as_latin1(proxy, upstream):
    with proxy.wire() as wire:
        wire.send(b"GET /v1/models HTTP/1.1\r\nHost: example.test\r\nX-Name: Gr\xfc\xdfe\r\nX-Good: " + "Grüße".encode() + b"\r\n\r\n")
        assert wire.response().status == 200
    assert b"Gr\xfc\xdfe" in upstream.requests[0].head
    assert proxy.event()["request_headers"]["x-name"] == "Grüße"


def test_traceparent_is_understood(proxy):
    proxy.exchange("GET", "/v1/models", [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")])
    event = proxy.event()
    assert (event["trace_id"], event["span_id"]) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")


def test_invalid_traceparents_are_null(proxy):
    bad = ["00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", "nonsense",
           "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"]
    for value in bad:
        proxy.exchange("GET", "/v1/models", [("traceparent", value)])
    assert [(event["trace_id"], event["span_id"]) for event in proxy.wait_events(len(bad))] == [(None, None)] * len(bad)


def test_pieces_of_a_stream_are_counted(proxy):
    body = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
    response = proxy.exchange("POST", "/v1/chat/completions", [("x-mock-pieces", "10"), ("x-mock-pace", "0.05")], body)
    event = proxy.event()
    assert event["streamed"] is True
    assert 5 <= event["chunks"] <= len(response.chunks) + 1


def test_capture_off_gives_an_event_without_bodies(start_proxy, upstream):
    proxy = start_proxy({"routes": [{"prefix": "/", "upstream": upstream.url, "capture": False}]})
    proxy.exchange("POST", "/v1/echo", (), b"secret prompt")
    event = proxy.event()
    assert event["bodies_withheld"] == "off"
    assert (event["request_body"], event["response_body"], event["request_body_encoding"], event["response_body_encoding"]) == (None,) * 4
    assert event["request_bytes"] == 13 and event["response_bytes"] > 0
