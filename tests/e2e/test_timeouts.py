"""Each phase has a time-out of its own; who owes the next byte is told apart by the answer."""

import json
import socket
import threading

import pytest

from support.waiting import wait_until


def answer(response, status, code):
    assert response.status == status
    assert json.loads(response.body)["error"]["code"] == code


@pytest.fixture
def silent_listener():
    """Accepts at the system's level, answers nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        yield listener


def test_request_head(start_proxy):
    proxy = start_proxy({"timeouts": {"request_head": 0.5}})
    with proxy.wire() as wire:
        wire.send("GET /v1/models HTTP/1.1\r\nHost: exa")
        answer(wire.response(), 408, "request_timeout")
        assert wire.is_closed()
    assert proxy.metrics().value("llm_proxy_bad_requests_total") == 1
    assert not proxy.events()


def test_request_head_is_absolute(start_proxy):
    proxy = start_proxy({"timeouts": {"request_head": 1}})
    with proxy.wire() as wire:
        stop = threading.Event()

        def trickle():
            try:
                for byte in b"GET /v1/models HTTP/1.1\r\nX: " + b"a" * 1000:
                    if stop.wait(0.05):
                        return
                    wire.send(bytes([byte]))
            except OSError:
                pass

        thread = threading.Thread(target=trickle)
        thread.start()
        response = wire.response()
        stop.set()
        thread.join()
        answer(response, 408, "request_timeout")


def test_idle_connection_is_closed_silently(start_proxy):
    proxy = start_proxy({"timeouts": {"keep_alive": 0.5, "request_head": 0.5}})
    with proxy.wire() as used, proxy.wire() as unused:
        assert used.exchange("GET", "/v1/models").status == 200
        assert used.is_closed() and unused.is_closed()
    proxy.event()


def test_request_body_that_stalls(start_proxy, upstream):
    proxy = start_proxy({"timeouts": {"request_idle": 0.5}})
    with proxy.wire() as wire:
        wire.request("POST", "/v1/embeddings", [("Content-Length", "10")])
        wire.send("hello")
        answer(wire.response(), 408, "request_timeout")
    event = proxy.event()
    assert (event["status"], event["error"]["kind"], event["request_body"]) == (408, "request_timeout", "hello")
    wait_until(lambda: upstream.requests[0].gone, "the upstream request was broken off")


def test_slow_request_body_is_no_timeout(start_proxy):
    proxy = start_proxy({"timeouts": {"request_idle": 1}})
    with proxy.wire() as wire:
        wire.request("POST", "/v1/embeddings", [("Content-Length", "8")])
        for _ in range(8):
            wire.send("x")
            wire.is_quiet(0.3)
        assert wire.response().status == 200
    proxy.event()


def test_response_head(start_proxy, upstream):
    proxy = start_proxy({"timeouts": {"response": 0.5}})
    with proxy.wire() as wire:
        answer(wire.exchange("GET", "/v1/models", [("x-mock-delay", "30")]), 504, "upstream_timeout")
        assert wire.exchange("GET", "/v1/models").status == 200  # the connection is in order
    event = proxy.wait_events(2)[0]
    assert (event["status"], event["error"]["kind"]) == (504, "upstream_timeout")
    wait_until(lambda: upstream.requests[0].gone, "the upstream request was broken off")


def test_timeouts_of_a_route_go_before_the_general_ones(start_proxy, upstream):
    proxy = start_proxy({"timeouts": {"response": 0.5}, "routes": [
        {"prefix": "/slow/", "upstream": upstream.url, "timeouts": {"response": "20s"}}, {"prefix": "/fast/", "upstream": upstream.url}]})
    assert proxy.exchange("GET", "/slow/v1/models", [("x-mock-delay", "1.5")]).status == 200
    assert proxy.exchange("GET", "/fast/v1/models", [("x-mock-delay", "20")]).status == 504
    proxy.wait_events(2)


def test_response_that_stalls_is_cut(start_proxy, upstream):
    proxy = start_proxy({"timeouts": {"response_idle": 0.5}})
    response = proxy.exchange("GET", "/bytes", [("x-mock-size", "40000"), ("x-mock-pace", "30")])
    assert response.status == 200 and not response.complete and len(response.body) == 16384
    event = proxy.event()
    assert (event["status"], event["error"]["kind"]) == (200, "upstream_timeout")
    wait_until(lambda: upstream.requests[0].gone, "the upstream request was broken off")


def test_slow_stream_is_no_timeout(start_proxy):
    proxy = start_proxy({"timeouts": {"response_idle": 1.5}})
    response = proxy.exchange("GET", "/bytes", [("x-mock-size", str(16384 * 8)), ("x-mock-pace", "0.4")])
    assert response.complete
    assert proxy.event()["error"] is None


def test_client_that_does_not_read(start_proxy, upstream):
    proxy = start_proxy({"timeouts": {"write": 1}})
    with proxy.wire(receive_buffer=4096) as wire:
        wire.request("GET", "/bytes", [("x-mock-size", str(64 << 20))])
        wait_until(lambda: upstream.requests and upstream.requests[0].gone, "the upstream request was broken off")
        response = wire.response()
        assert response is None or not response.complete
    assert proxy.event()["error"] == {"kind": "client_aborted", "message": "the client did not take the response in time (timeouts.write)"}


def test_connect(start_proxy):
    # An address that swallows packets: a listener with a full backlog.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        full = [socket.socket() for _ in range(8)]
        for one in full:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        proxy = start_proxy({"timeouts": {"connect": 0.5}, "routes": [{"prefix": "/", "upstream": "http://127.0.0.1:%d" % listener.getsockname()[1]}]})
        answer(proxy.exchange("GET", "/"), 504, "upstream_timeout")
        for one in full:
            one.close()
    event = proxy.event()
    assert event["error"]["kind"] == "upstream_timeout" and event["status"] == 504


def test_tls_handshake_that_never_ends(start_proxy, silent_listener):
    proxy = start_proxy({"timeouts": {"connect": 0.5}, "routes": [{"prefix": "/", "upstream": "https://127.0.0.1:%d" % silent_listener.getsockname()[1]}]})
    answer(proxy.exchange("GET", "/"), 504, "upstream_timeout")
    assert proxy.event()["error"]["kind"] == "upstream_timeout"


def test_upstream_that_never_reads_the_upload(start_proxy, upstream):
    proxy = start_proxy({"timeouts": {"write": 1, "request_idle": 1}})
    with proxy.wire() as wire:
        wire.request("POST", "/v1/embeddings", [("Content-Length", str(64 << 20)), ("x-mock-read", "never")])
        try:
            for _ in range(1024):
                wire.send(b"x" * 65536)
        except OSError:
            pass
        response = wire.response()
        assert response is None or response.status == 504  # it is not the client that is late
    assert proxy.event()["error"]["kind"] == "upstream_timeout"
