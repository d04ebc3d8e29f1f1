"""A crowd of connections disturbs nobody: idle ones, slow ones, and more than there are file descriptors for."""

import json
import os
import re
import resource
import socket
import threading
import time
from pathlib import Path

import pytest

from support.proxy import SANITIZED
from support.waiting import wait_until

CROWD = 12_000         # connections, a sixth of them slow-loris
SMALLEST_CROWD = 1_000
PER_CONNECTION = 8192  # bytes of memory that an idle one may cost; measured: 1,600

MODELS = b"GET /v1/models HTTP/1.1\r\nHost: example.test\r\n\r\n"


@pytest.fixture(scope="module")
def crowd():
    """How many connections the proxy and this process can have, once both have all the file descriptors they can get. The proxy has two for each."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    possible = CROWD if before[1] == resource.RLIM_INFINITY else min(CROWD, before[1] // 2 - 300)
    if possible < SMALLEST_CROWD:
        pytest.skip(f"the limit of open files, {before[1]}, is too low for a crowd")
    if possible < CROWD:
        print(f"the limit of open files, {before[1]}, allows {possible} connections only")
    yield possible
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Crowd:
    """Many sockets. A context manager."""

    def __init__(self, port):
        self.port, self.sockets = port, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.sockets:
            one.close()

    def connect(self, count, send=b""):
        """Count more connections, each of which sends this and waits for nothing."""
        added = [socket.create_connection(("127.0.0.1", self.port), timeout=60) for _ in range(count)]
        self.sockets += added
        if send:
            for one in added:
                one.sendall(send)
        return added


def is_open(connection):
    """Has nothing come of it, neither bytes nor an end?"""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) is None
    except BlockingIOError:
        return True
    except OSError:
        return False


def serve(connection, request=MODELS):
    """One small request on a connection, with its answer."""
    connection.sendall(request)
    read_answer(connection)


def read_answer(connection):
    connection.settimeout(60)
    received = b""
    while b'"object"' not in received:
        data = connection.recv(65536)
        assert data, received
        received += data
    assert received.startswith(b"HTTP/1.1 200 "), received


def drip(slow, stop):
    """Another byte of a head that never ends, to each in turn."""
    while not stop.is_set():
        for connection in slow:
            connection.send(b"x")
            if stop.is_set():
                return


def test_idle_and_slow_connections_disturb_nobody(start_proxy, crowd):
    proxy = start_proxy({"limits": {"max_connections": crowd}, "timeouts": {"request_head": 600, "keep_alive": 600}})
    before, stop = proxy.memory_kib(), threading.Event()
    with Crowd(proxy.port) as people:
        slow = people.connect(crowd // 6, b"GET /v1/models HTTP/1.1\r\nX: ")
        people.connect(crowd * 4 // 6)
        used = people.connect(crowd // 12)
        for connection in used:
            serve(connection)
        thread = threading.Thread(target=drip, args=(slow, stop))
        thread.start()
        try:
            for number in range(200):
                body = os.urandom(number * 50)
                response = proxy.exchange("POST", "/v1/echo", [("x-number", str(number))], body)
                assert response.status == 200 and json.loads(response.body)["body_bytes"] == len(body)
            grown = (proxy.memory_kib() - before) * 1024
        finally:
            stop.set()
            thread.join()
        assert all(is_open(connection) for connection in people.sockets)
        proxy.wait_events(len(used) + 200)
        metrics = proxy.metrics()
        assert metrics.value("llm_proxy_requests_total") == metrics.value("llm_proxy_requests_total", code="200") == len(used) + 200
        assert metrics.value("llm_proxy_bad_requests_total") == 0
        assert metrics.value("llm_proxy_idle_connections_closed_total") == 0
        if not SANITIZED:
            assert grown / len(people.sockets) < PER_CONNECTION
    wait_until(lambda: proxy.metrics().value("llm_proxy_bad_requests_total", reason="closed_within_head") == len(slow), "each slow one was counted")
    assert len(proxy.events()) == len(used) + 200


def test_slow_heads_are_thrown_out_one_and_all(start_proxy, crowd):
    count = min(2000, crowd)
    proxy = start_proxy({"limits": {"max_connections": count + 100}, "timeouts": {"request_head": 3}})
    with Crowd(proxy.port) as people:
        for connection in people.connect(count, b"GET /v1/models HTTP/1.1\r\nX: "):
            assert connection.recv(13) == b"HTTP/1.1 408 "
        metrics = proxy.metrics()
        assert metrics.value("llm_proxy_bad_requests_total") == metrics.value("llm_proxy_bad_requests_total", reason="request_head_timeout") == count
        assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.event()


def test_a_large_request_leaves_nothing_at_its_connection(start_proxy):
    if SANITIZED:
        pytest.skip("a sanitizer keeps freed memory for a while")
    proxy = start_proxy({"workers": 1, "observability": {"enabled": False}, "timeouts": {"keep_alive": 600}})
    body = b"x" * 60_000
    request = b"POST /v1/embeddings HTTP/1.1\r\nHost: example.test\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with Crowd(proxy.port) as people:
        serve(people.connect(1)[0], request)
        before = proxy.memory_kib()
        for connection in people.connect(400):
            serve(connection, request)
        assert (proxy.memory_kib() - before) * 1024 / 400 < PER_CONNECTION


# Without file descriptors: the limit of the running process is lowered to what it has open.


def descriptors(proxy):
    return {int(name) for name in os.listdir(f"/proc/{proxy.process.pid}/fd")}


def admin_is_quiet(proxy):
    """Has the proxy closed every connection to its admin listener? (Linux, /proc/net/tcp: the local address and the state; established, or the client has closed.)"""
    with open("/proc/net/tcp") as lines:
        return not any(fields[1].endswith(f":{proxy.admin_port:04X}") and fields[3] in ("01", "08") for fields in map(str.split, lines))


def without_gap(proxy):
    """How many descriptors are open, once they are the lowest numbers, and none of them will soon be closed."""
    wait_until(lambda: admin_is_quiet(proxy), "the last look at admin is over")
    return wait_until(lambda: (now := descriptors(proxy)) == set(range(len(now))) and len(now), lambda: f"a gap is closed: {descriptors(proxy)}")


def leave_no_descriptor(proxy):
    """Only numbers that are in use now can be used, once they are free again."""
    hard = resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (without_gap(proxy), hard))


def allow_descriptors(proxy):
    hard = resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (hard, hard))


def cpu_seconds(proxy):
    times = Path(f"/proc/{proxy.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def idle_closed(proxy, **labels):
    return proxy.metrics().value("llm_proxy_idle_connections_closed_total", **labels)


def begin_stream(wire):
    wire.request("GET", "/bytes", [("x-mock-size", str(1 << 22)), ("x-mock-framing", "chunked"), ("x-mock-pace", "0.1")])
    assert wire.head().status == 200


def still_streams(wire):
    return all(wire.next_chunk() for _ in range(5))


@pytest.mark.parametrize("workers", [1, 2])
def test_idle_connections_give_way_when_descriptors_run_out(start_proxy, workers):
    proxy = start_proxy({"workers": workers, "timeouts": {"keep_alive": 600, "request_head": 600}})
    without_gap(proxy)
    with Crowd(proxy.port) as people, proxy.wire() as running:
        idle = people.connect(60)
        for connection in idle:
            serve(connection)
        begin_stream(running)
        leave_no_descriptor(proxy)
        for _ in range(20):  # each needs one for itself, and one for its upstream connection
            assert proxy.exchange("GET", "/v1/models", [("Connection", "close")]).status == 200
        assert "no file descriptor left" in proxy.stderr and still_streams(running)
        gone = [not is_open(connection) for connection in idle]
        assert any(gone) and not all(gone)
        if workers == 1:
            assert gone == sorted(gone, reverse=True), "the longest idle ones went first"
        allow_descriptors(proxy)
    assert idle_closed(proxy, reason="room") == gone.count(True)
    assert {event["status"] for event in proxy.wait_events(81)} == {200}


def test_accepting_pauses_and_resumes(start_proxy, upstream):
    proxy = start_proxy({"workers": 1})
    without_gap(proxy)
    with Crowd(proxy.port) as people, proxy.wire() as running:
        busy = people.connect(4, b"GET /v1/models HTTP/1.1\r\nHost: example.test\r\nx-mock-delay: 600\r\n\r\n")
        begin_stream(running)
        wait_until(lambda: len(upstream.requests) == 5, "five running requests")
        leave_no_descriptor(proxy)
        waiting = people.connect(1, MODELS)
        wait_until(lambda: "no file descriptor left" in proxy.stderr, "accepting has paused")
        before, began = cpu_seconds(proxy), time.monotonic()
        time.sleep(1)
        assert cpu_seconds(proxy) - before < (time.monotonic() - began) / 4, "it spins"
        assert all(is_open(connection) for connection in [*busy, *waiting]), "nobody is refused"
        busy[0].close()  # which makes room for one, and for its upstream connection
        read_answer(waiting[0])
        assert still_streams(running) and all(is_open(connection) for connection in busy[1:])
        allow_descriptors(proxy)
    events = proxy.wait_events(6)
    assert sorted((event["status"], (event["error"] or {}).get("kind", "")) for event in events) == \
        [(0, "client_aborted")] * 4 + [(200, "")] + [(200, "client_aborted")]


def test_no_descriptor_for_the_upstream(start_proxy):
    """The client has its connection already: it is told that there is no room."""
    proxy = start_proxy({"workers": 1})
    without_gap(proxy)
    with proxy.wire() as wire, proxy.wire() as running:
        begin_stream(running)
        assert wire.exchange("OPTIONS", "*").status == 204  # without an upstream
        leave_no_descriptor(proxy)
        response = wire.exchange("GET", "/v1/models")
        assert response.status == 503 and json.loads(response.body)["error"]["code"] == "overloaded"
        assert still_streams(running)
        allow_descriptors(proxy)
        assert wire.exchange("GET", "/v1/models").status == 200
    metrics = proxy.metrics()
    assert metrics.value("llm_proxy_requests_total", code="503") == 1
    assert sorted(event["error"]["kind"] if event["error"] else "" for event in proxy.wait_events(4)) == ["", "", "client_aborted", "overloaded"]
