"""Whoever reads slowly holds back whoever sends to him, and the proxy holds next to nothing in between: in both directions, over http and https, with and without kept
bodies, several exchanges at once."""

import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from support.proxy import SANITIZED
from support.waiting import PATIENCE, wait_until

KIB, MIB = 1 << 10, 1 << 20
EXCHANGES = 2 if SANITIZED else 4
SIZE = (1024 if os.environ.get("LLM_PROXY_LONG_TESTS") else 64) * MIB  # of a body; the kernel's buffers on the way take some of it
HELD_BACK = SIZE // 2    # of which the sender can hand over no more while nobody reads
PER_EXCHANGE = 1 * MIB   # of memory, besides the kept bodies
KEPT = 64 * KIB          # of a body, when bodies are kept
TAIL = 32 * KIB
PIECE = b"0123456789abcdef" * 4096

REQUEST_HEAD = b"POST /x HTTP/1.1\r\nHost: example.test\r\nContent-Length: %d\r\n\r\n"
RESPONSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


def read_head(end):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = end.recv(1)
        assert byte, head
        head += byte
    return head


class Body:
    """One body on its way: what its sender has handed over, and what its reader has got. The reader waits for release."""

    def __init__(self, release):
        self.release, self.sent, self.received = release, 0, 0

    def send(self, end):
        while self.sent < SIZE:
            self.sent += end.send(PIECE[:SIZE - self.sent])

    def read(self, end):
        """In gulps, with rests: slower than it is sent."""
        assert self.release.wait(PATIENCE * 4)
        rest_at = 0
        while self.received < SIZE:
            data = end.recv(min(256 * KIB, SIZE - self.received))
            assert data, f"ended after {self.received} bytes"
            self.received += len(data)
            if self.received > rest_at:
                rest_at += 256 * KIB
                time.sleep(0.001)


class Exchanges:
    """The clients and the upstream of several exchanges at once, with a large body in one direction: "download" or "upload". A context manager."""

    def __init__(self, direction, tls=None):
        self.direction, self.tls = direction, tls
        self.release, self.bodies, self.threads, self.failures = threading.Event(), [], [], []
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self, function, *arguments):
        def guarded():
            try:
                function(*arguments)
            except Exception as failure:
                self.failures.append(failure)

        self.threads.append(threading.Thread(target=guarded, daemon=True))
        self.threads[-1].start()

    def accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            self.run(self.serve, connection)

    def serve(self, connection):
        connection.settimeout(PATIENCE * 4)
        with self.tls.wrap_socket(connection, server_side=True) if self.tls else connection as end:
            number = int(re.match(rb"POST /x/(\d+) ", read_head(end))[1])
            if self.direction == "upload":
                self.bodies[number].read(end)
                end.sendall(RESPONSE_HEAD % 0)
            else:
                end.sendall(RESPONSE_HEAD % SIZE)
                self.bodies[number].send(end)
            end.recv(1)

    def begin(self, proxy):
        number = len(self.bodies)
        self.bodies.append(Body(self.release))
        self.run(self.ask, proxy, number)

    def ask(self, proxy, number):
        upload = self.direction == "upload"
        with proxy.wire(receive_buffer=64 * KIB, timeout=PATIENCE * 4) as wire:
            wire.send((REQUEST_HEAD % (SIZE if upload else 0)).replace(b"/x", b"/x/%d" % number))
            if upload:
                self.bodies[number].send(wire.socket)
            assert read_head(wire.socket).startswith(b"HTTP/1.1 200 ")
            if not upload:
                self.bodies[number].read(wire.socket)

    def sent(self):
        return [body.sent for body in self.bodies]

    def stand_still(self):
        """Waits until nobody can hand over more."""
        def no_progress():
            before = self.sent()
            time.sleep(1)
            return all(before) and self.sent() == before
        wait_until(no_progress, lambda: f"the senders stand still: {self.sent()} {self.failures}")

    def finish(self):
        wait_until(lambda: self.failures or all(body.received == SIZE for body in self.bodies), "all bodies arrive", seconds=PATIENCE * 4)
        assert not self.failures, self.failures


def memory(proxy, name):
    return int(re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{proxy.process.pid}/status").read_text())[1]) * KIB


def forget_peak(proxy):
    Path(f"/proc/{proxy.process.pid}/clear_refs").write_text("5")


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not_kept"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("direction", ["download", "upload"])
def test_the_sender_is_held_back_and_memory_stays_small(start_proxy, authority, direction, scheme, kept):
    with Exchanges(direction, authority.server("server") if scheme == "https" else None) as exchanges:
        tls = {"ca_file": str(authority.ca_file)} if scheme == "https" else None
        proxy = start_proxy({"workers": 1, "routes": [{"prefix": "/", "upstream": exchanges.url, "tls": tls, "capture": kept}],
                             "observability": {"max_request_body_bytes": KEPT, "max_response_body_bytes": KEPT}})
        before = memory(proxy, "VmRSS")
        forget_peak(proxy)
        for _ in range(EXCHANGES):
            exchanges.begin(proxy)
        exchanges.stand_still()
        held_back = max(exchanges.sent())
        while_held_back = memory(proxy, "VmHWM") - before
        exchanges.release.set()
        exchanges.finish()
        peak = memory(proxy, "VmHWM") - before
        events = proxy.wait_events(EXCHANGES)
    print(f"{EXCHANGES} exchanges: {held_back // KIB} KiB handed over, memory {while_held_back // KIB} KiB while held back, {peak // KIB} KiB at most")
    assert held_back < HELD_BACK
    name = {"download": "response", "upload": "request"}[direction]
    assert {(event["error"], event[f"{name}_bytes"], event[f"{name}_truncated"]) for event in events} == {(None, SIZE, kept)}
    assert all(len(event[f"{name}_body"]) == KEPT if kept else event[f"{name}_body"] is None for event in events)
    if not SANITIZED:
        assert peak < EXCHANGES * (PER_EXCHANGE + (KEPT + TAIL if kept else 0))
