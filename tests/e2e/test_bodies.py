"""Bodies pass byte for byte, both ways, whatever their size, framing and coding; the event has them decoded."""

import base64
import gzip
import hashlib
import zlib

import brotli
import pytest
import zstandard

from support.wire import chunked
from upstream import body_of_size, encode_content

SIZES = [0, 1, 2, 1023, 1024, 16383, 16384, 16385, 65535, 65536, 65537, 1 << 20, 5 << 20]
CODINGS = ["gzip", "deflate", "br", "zstd"]
DECODE = {"gzip": gzip.decompress, "deflate": zlib.decompress, "br": brotli.decompress,
          "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)}


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_request_bodies_of_all_sizes(proxy, upstream, framing):
    with proxy.wire() as wire:
        for size in SIZES:
            body = body_of_size(size)
            if framing == "chunked":
                pieces = [body[at:at + 70000] for at in range(0, size, 70000)]
                response = wire.exchange("POST", "/v1/embeddings", [("Transfer-Encoding", "chunked")], chunked(*pieces))
            else:
                response = wire.exchange("POST", "/v1/embeddings", [("Content-Length", str(size))], body)
            assert response.status == 200, size
            received = upstream.requests[-1]
            assert (received.body_bytes, received.body_hash.hexdigest()) == (size, sha(body))
            wanted = ("chunked", None) if framing == "chunked" else (None, str(size))
            assert (received.get("transfer-encoding"), received.get("content-length")) == wanted
    events = proxy.wait_events(len(SIZES))
    assert [event["request_bytes"] for event in events] == SIZES
    assert [event["request_truncated"] for event in events] == [size > 1 << 20 for size in SIZES]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_response_bodies_of_all_sizes(proxy, framing):
    for size in SIZES:
        response = proxy.exchange("GET", "/bytes", [("x-mock-size", str(size)), ("x-mock-framing", framing)])
        assert response.complete and sha(response.body) == sha(body_of_size(size))
        assert response.framing == ("length" if framing == "length" else "chunked")
    events = proxy.wait_events(len(SIZES))
    assert [event["response_bytes"] for event in events] == SIZES
    for event, size in zip(events, SIZES):
        body = event["response_body"] or ""
        kept = base64.b64decode(body) if event["response_body_encoding"] == "base64" else body.encode()
        assert event["response_truncated"] is False and sha(kept) == sha(body_of_size(size))


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("coding", CODINGS)
def test_coded_responses_pass_untouched_and_are_decoded_in_the_event(proxy, coding, framing):
    response = proxy.exchange("GET", "/bytes", [("x-mock-coding", coding), ("x-mock-framing", framing), ("x-mock-size", "150000")])
    plain = body_of_size(150000)
    if coding == "gzip":  # the mock's gzip has a time in it
        assert gzip.decompress(response.body) == plain
    else:
        assert response.body == encode_content(coding, plain)
    assert response.get("content-encoding") == coding
    event = proxy.event()
    assert event["response_bytes"] == len(response.body) and event["response_content_coding"] is None
    assert base64.b64decode(event["response_body"]) == plain
    assert event["response_headers"]["content-encoding"] == coding


@pytest.mark.parametrize("coding", CODINGS)
def test_coded_requests_pass_untouched_and_are_decoded_in_the_event(proxy, upstream, coding):
    body = encode_content(coding, "Grüße, ".encode() * 1000)
    proxy.exchange("POST", "/v1/embeddings", [("Content-Encoding", coding)], body)
    assert upstream.requests[0].body == body
    event = proxy.event()
    assert event["request_body"] == "Grüße, " * 1000 and event["request_content_coding"] is None
    assert event["request_bytes"] == len(body)


def test_two_codings_are_undone(proxy):
    body = encode_content("br", encode_content("gzip", b"twice"))
    proxy.exchange("POST", "/v1/embeddings", [("Content-Encoding", "gzip, br")], body)
    assert proxy.event()["request_body"] == "twice"


@pytest.mark.parametrize("coding, body", [("unknown", b"abc\xff"), ("gzip", b"this is no gzip"), ("gzip, br, zstd", b"three\xff"),
                                          ("gzip", gzip.compress(b"whole", mtime=0)[:-6] + b"brokn!")])
def test_what_cannot_be_decoded_is_kept_as_it_is(proxy, upstream, coding, body):
    proxy.exchange("POST", "/v1/embeddings", [("Content-Encoding", coding)], body)
    assert upstream.requests[0].body == body
    event = proxy.event()
    assert event["request_content_coding"] == coding
    assert event["request_body_encoding"] == "base64" and base64.b64decode(event["request_body"]) == body


def test_a_bomb_is_kept_compressed(start_proxy):
    proxy = start_proxy({"observability": {"max_decoded_bytes": "1MiB"}})
    bomb = gzip.compress(b"\0" * (50 << 20))
    before = proxy.memory_kib()
    proxy.exchange("POST", "/v1/embeddings", [("Content-Encoding", "gzip")], bomb)
    event = proxy.event()
    assert event["request_content_coding"] == "gzip" and base64.b64decode(event["request_body"]) == bomb
    assert proxy.memory_kib() - before < 40 * 1024


def test_accept_encoding_is_the_clients_own(proxy, upstream):
    proxy.exchange("GET", "/v1/models", [("Accept-Encoding", "x-odd;q=0.5")])
    proxy.exchange("GET", "/v1/models")
    assert [request.get("accept-encoding") for request in upstream.requests] == ["x-odd;q=0.5", None]


def test_response_length_is_kept(proxy):
    response = proxy.exchange("GET", "/bytes", [("x-mock-size", "12345")])
    assert response.get("content-length") == "12345" and response.get("transfer-encoding") is None
