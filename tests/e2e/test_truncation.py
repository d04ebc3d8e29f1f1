"""Kept bodies are bounded, a cut is marked and falls between characters, and the end of a long answer is kept."""

import base64
import json

import pytest

from support.waiting import wait_until
from upstream import body_of_size


def limits(request, response, **more):
    return {"observability": {"max_request_body_bytes": request, "max_response_body_bytes": response, **more}}


def test_bodies_at_the_limit_are_whole(start_proxy):
    proxy = start_proxy(limits(1000, 2000))
    proxy.exchange("POST", "/bytes", [("x-mock-size", "2000")], b"x" * 1000)
    event = proxy.event()
    assert (event["request_truncated"], event["response_truncated"], event["response_tail"]) == (False, False, None)
    assert event["request_body"] == "x" * 1000


def test_bodies_over_the_limit_are_cut_and_marked(start_proxy):
    proxy = start_proxy(limits(1000, 2000))
    response = proxy.exchange("POST", "/bytes", [("x-mock-size", "2001")], b"x" * 1001)
    assert response.body == body_of_size(2001)
    event = proxy.event()
    assert (event["request_truncated"], event["response_truncated"]) == (True, True)
    assert (event["request_bytes"], event["response_bytes"]) == (1001, 2001)
    assert event["request_body"] == "x" * 1000
    assert base64.b64decode(event["response_body"]) == body_of_size(2000)


@pytest.mark.parametrize("limit", range(10, 15))
def test_cut_falls_between_characters(start_proxy, limit):
    text = "aé€😀" * 10  # 1 + 2 + 3 + 4 bytes
    proxy = start_proxy(limits(limit, 100))
    proxy.exchange("POST", "/v1/echo", (), text.encode())
    event = proxy.event()
    kept = event["request_body"]
    assert event["request_body_encoding"] == "utf8" and text.startswith(kept)
    assert limit - 3 <= len(kept.encode()) <= limit


def test_tail_has_the_last_32_kib(start_proxy):
    proxy = start_proxy(limits("1MiB", 1000))
    proxy.exchange("GET", "/bytes", [("x-mock-size", "300000")])
    event = proxy.event()
    assert base64.b64decode(event["response_tail"]) == body_of_size(300000)[-32768:]
    assert base64.b64decode(event["response_body"]) == body_of_size(300000)[:1000]


def test_tail_of_a_long_stream_has_its_usage_and_its_end(start_proxy):
    proxy = start_proxy(limits("1MiB", "16KiB"))
    body = {"model": "m", "stream": True, "stream_options": {"include_usage": True}, "messages": []}
    response = proxy.exchange("POST", "/v1/chat/completions", [("x-mock-pieces", "2000")], json.dumps(body).encode())
    event = proxy.event()
    assert event["response_truncated"] is True and event["response_bytes"] == len(response.body)
    assert len(event["response_body"].encode()) <= 16384 and response.body.startswith(event["response_body"].encode())
    assert event["response_tail"].endswith("data: [DONE]\n\n") and '"total_tokens": 18' in event["response_tail"]
    assert len(event["response_tail"].encode()) <= 32768


def test_llm_is_incomplete_where_the_capture_is_but_has_the_usage(start_proxy, tmp_path):
    file = tmp_path / "llm.jsonl"
    proxy = start_proxy(limits("1MiB", "16KiB", pipelines=[{"name": "llm", "transforms": ["llm"], "dispatcher": {1: "file", "path": str(file)}}]))
    body = {"model": "m", "stream": True, "stream_options": {"include_usage": True}, "messages": []}
    proxy.exchange("POST", "/v1/chat/completions", [("x-mock-pieces", "2000")], json.dumps(body).encode())
    llm = proxy.wait_events(1, file)[0]["llm"]
    assert llm["complete"] is False and llm["usage"]["total_tokens"] == 18
    assert llm["output"][0]["content"].startswith("Grüße from")


def test_compressed_body_has_no_tail(start_proxy):
    proxy = start_proxy(limits(1000, 2000))
    proxy.exchange("GET", "/bytes", [("x-mock-size", "100000"), ("x-mock-coding", "gzip")])
    event = proxy.event()
    assert event["response_truncated"] is True and event["response_tail"] is None
    kept = base64.b64decode(event["response_body"])
    assert event["response_content_coding"] is None and body_of_size(100000).startswith(kept) and kept


def test_zero_keeps_nothing(start_proxy):
    proxy = start_proxy(limits(0, 0))
    proxy.exchange("POST", "/v1/echo", (), b"secret prompt")
    event = proxy.event()
    assert not event["request_body"] and not event["response_body"]
    assert "secret" not in proxy.events_file.read_text()
    assert event["request_bytes"] == 13 and event["response_bytes"] > 0


def test_capture_memory_is_bounded_and_says_so(start_proxy, upstream):
    proxy = start_proxy(limits("8MiB", "8MiB", capture_memory="1MiB"))
    with proxy.wire() as wire:
        wire.request("POST", "/v1/embeddings", [("Content-Length", "2000001")])
        wire.send(b"x" * 2_000_000)
        wait_until(lambda: upstream.requests and upstream.requests[0].body_bytes == 2_000_000, "all but one byte at the upstream")
        response = proxy.exchange("POST", "/bytes", [("x-mock-size", "3000000")], b"hello")
        assert response.body == body_of_size(3_000_000)
        withheld = proxy.event()
        assert withheld["bodies_withheld"] == "memory" and not withheld["response_body"] and withheld["response_bytes"] == 3_000_000
        wire.send("x")
        assert wire.response().status == 200
    greedy = proxy.wait_events(2)[0]
    assert greedy["request_truncated"] is True and len(greedy["request_body"]) <= 1 << 20
    proxy.exchange("GET", "/bytes", [("x-mock-size", "3000")])
    after = proxy.wait_events(3)[2]
    assert after["bodies_withheld"] is None and after["response_body"]  # the memory was given back
