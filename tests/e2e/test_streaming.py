"""Both directions stream: nothing waits for a body's end, a slow reader slows its own writer, and memory stays bounded."""

import hashlib
import json
import socket
import threading
import time

import pytest

from support.proxy import SANITIZED
from support.waiting import wait_until
from upstream import MockUpstream, body_of_size

MIB = 1 << 20


def test_upload_reaches_the_upstream_before_it_ends(proxy, upstream):
    with proxy.wire() as wire:
        wire.request("POST", "/v1/embeddings", [("Content-Length", "10")])
        request = wait_until(lambda: upstream.requests and upstream.requests[0], "the head at the upstream")
        wire.send("hello")
        wait_until(lambda: request.body == b"hello", "the first half at the upstream")
        assert not request.complete
        wire.send("world")
        assert wire.response().status == 200
    assert request.body == b"helloworld"
    proxy.event()


def test_chunked_upload_reaches_the_upstream_piece_by_piece(proxy, upstream):
    with proxy.wire() as wire:
        wire.request("POST", "/v1/embeddings", [("Transfer-Encoding", "chunked")])
        for number in range(1, 6):
            wire.send("3\r\nabc\r\n")
            wait_until(lambda: upstream.requests and upstream.requests[0].body == b"abc" * number, f"piece {number} at the upstream")
        wire.send("0\r\n\r\n")
        assert wire.response().status == 200
    proxy.event()


def test_head_and_pieces_reach_the_client_one_by_one(proxy, upstream):
    body = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
    with proxy.wire() as wire:
        wire.request("POST", "/v1/chat/completions", [("x-mock-pieces", "5"), ("x-mock-pace", "0.2")], body)
        assert wire.head().status == 200
        assert not upstream.requests[0].answered
        received = []
        while (piece := wire.next_chunk()):
            received.append(piece)
            if len(received) <= 3:
                assert not upstream.requests[0].answered, "pieces come while the upstream still writes"
        assert len(received) >= 6
    proxy.event()


def test_answer_before_the_upload_ended(proxy, upstream):
    with proxy.wire() as wire:
        wire.request("POST", "/v1/embeddings", [("Content-Length", str(50 * MIB)), ("x-mock-early", "1"), ("x-mock-status", "429")])
        wire.send(b"x" * 1000)
        response = wire.response()
        assert response.status == 429 and response.complete
    event = proxy.event()
    assert event["status"] == 429


def test_slow_client_slows_the_upstream_and_memory_stays_bounded(start_proxy, upstream):
    proxy = start_proxy({"workers": 1, "observability": {"max_response_body_bytes": "64KiB"}})
    before = proxy.memory_kib()
    size = 64 * MIB
    with proxy.wire(receive_buffer=65536, timeout=60) as wire:
        wire.request("GET", "/bytes", [("x-mock-size", str(size))])
        request = wait_until(lambda: upstream.requests and upstream.requests[0].bytes_sent and upstream.requests[0], "the first bytes")
        sent = -1
        while sent != request.bytes_sent:  # until it stands still
            sent = request.bytes_sent
            time.sleep(0.5)
        assert sent < 20 * MIB, "the upstream was not slowed"
        if not SANITIZED:
            assert proxy.memory_kib() - before < 8 * 1024
        response = wire.response()
        assert response.complete and hashlib.sha256(response.body).digest() == hashlib.sha256(body_of_size(size)).digest()
    if not SANITIZED:
        assert proxy.memory_kib() - before < 8 * 1024
    assert proxy.event()["response_bytes"] == size


def test_slow_upstream_slows_the_client_and_memory_stays_bounded(start_proxy):
    with MockUpstream(receive_buffer=65536) as mock:
        proxy = start_proxy({"workers": 1, "observability": {"max_request_body_bytes": "64KiB"}}, upstream=mock)
        before = proxy.memory_kib()
        sent = 0
        with proxy.wire() as wire:
            wire.request("POST", "/v1/embeddings", [("Content-Length", str(1 << 30)), ("x-mock-read", "never")])
            wire.socket.settimeout(2)
            with pytest.raises(TimeoutError):
                while sent < 1 << 30:
                    sent += wire.socket.send(b"x" * 65536)
            assert sent < 20 * MIB
            if not SANITIZED:
                assert proxy.memory_kib() - before < 8 * 1024
    proxy.event()


def test_one_slow_client_slows_nobody_else(start_proxy):
    proxy = start_proxy({"workers": 1})
    with proxy.wire(receive_buffer=4096) as slow, proxy.wire() as fast:
        slow.request("GET", "/bytes", [("x-mock-size", str(32 * MIB))])
        assert slow.head().status == 200
        for _ in range(100):
            assert fast.exchange("GET", "/v1/models").status == 200
    proxy.wait_events(101)


def test_upload_of_many_clients_at_once(proxy, upstream):
    failures = []

    def upload(number):
        body = body_of_size(300_000 + number)
        with proxy.wire() as wire:
            for _ in range(3):
                response = wire.exchange("POST", "/v1/echo", [("x-number", str(number))], body)
                if json.loads(response.body)["body_sha256"] != hashlib.sha256(body).hexdigest():
                    failures.append(number)

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    proxy.wait_events(60)


def test_many_requests_leave_no_memory_behind(start_proxy):
    if SANITIZED:
        pytest.skip("a sanitizer keeps freed memory for a while")
    proxy = start_proxy({"workers": 1})

    def burst():
        with proxy.wire() as wire:
            for _ in range(500):
                wire.exchange("POST", "/v1/embeddings", [("x-mock-pieces", "3")], b"x" * 20000)

    burst()
    before = proxy.memory_kib()
    for _ in range(4):
        burst()
    proxy.wait_events(2500)
    assert proxy.memory_kib() - before < 8 * 1024


def test_byte_by_byte_in_both_directions(proxy, upstream):
    raw = b"POST /v1/echo HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    with proxy.wire() as wire:
        for at in range(len(raw)):
            wire.send(raw[at:at + 1])
        assert json.loads(wire.response().body)["body_bytes"] == 5
    assert upstream.requests[0].body == b"hello"
    proxy.event()


def test_response_head_in_single_bytes(start_proxy):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n":
                connection.sendall(bytes([byte]))

    threading.Thread(target=serve, daemon=True).start()
    proxy = start_proxy({"routes": [{"prefix": "/", "upstream": "http://127.0.0.1:%d" % listener.getsockname()[1]}]})
    with listener:
        response = proxy.exchange("GET", "/")
    assert response.complete and response.body == b"hello"
    proxy.event()
