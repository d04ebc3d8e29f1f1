"""When a client leaves, its upstream transfer is cancelled at once, whatever the exchange is waiting for at that moment.

At once is 100 ms on an idle machine. Here it is only held against a time that no time-out and no name server could explain; what was measured is printed.
"""

import contextlib
import datetime
import fcntl
import socket
import termios
import time
from pathlib import Path

import pytest

from support.script import HEAD, ScriptedUpstream, close, flood, gone, half_close, meet, reset, send, sockets, take
from support.waiting import PATIENCE, wait_until

NEVER = 600
AT_ONCE = 5

GET = b"GET /x HTTP/1.1\r\nHost: example.test\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: example.test\r\nContent-Length: 1000000000\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"


def not_sent(end):
    """Bytes that are still in this end's kernel. Behind them, its end of the connection would have to wait."""
    return int.from_bytes(fcntl.ioctl(end.socket, termios.TIOCOUTQ, b"\0" * 4), "little")


def not_read(end):
    """Bytes of this client that the proxy has left in its kernel."""
    ports = ["%04X" % address[1] for address in (end.socket.getpeername(), end.socket.getsockname())]
    for line in Path("/proc/net/tcp").read_text().splitlines():
        columns = line.split()
        if [columns[1].rpartition(":")[2], columns[2].rpartition(":")[2]] == ports:
            return int(columns[4].rpartition(":")[2], 16)
    raise AssertionError("no such connection")


def flood_until_held_back(end):
    """As much as a proxy without an upstream takes, and a little that it leaves unread."""
    held_back = False
    while not held_back:
        end.socket.sendall(b"x" * 16384)
        until = time.monotonic() + 0.3
        while (held_back := not_read(end) > 0) and time.monotonic() < until:
            time.sleep(0.001)
    wait_until(lambda: not_sent(end) == 0, "the bytes arrive")


def flood_until_blocked(end):
    """As much as the peer takes for now."""
    end.socket.settimeout(1)
    try:
        while True:
            end.socket.send(b"x" * 65536)
    except TimeoutError:
        pass


# What both sides do before the client leaves, and what the upstream does then.
STAGES = {
    "nothing_is_sent": ([send(GET), meet], [HEAD, meet, gone], 0),
    "within_the_response_head": ([send(GET), meet], [HEAD, send(OK[:20]), meet, gone], 0),
    "between_pieces_of_the_response": ([send(GET), take(b"hello")], [HEAD, send(OK + b"hello"), gone], 200),
    "between_pieces_of_the_request": ([send(POST + b"hello"), meet], [HEAD, take(b"hello"), meet, gone], 0),
    "the_client_does_not_read": ([send(GET), meet], [HEAD, send(OK), meet, flood], 200),
}


@pytest.fixture
def start(start_proxy, authority):
    def start(url, **changes):
        timeouts = dict.fromkeys(("request_head", "request_idle", "keep_alive", "connect", "response", "response_idle", "write"), NEVER)
        tls = {"ca_file": str(authority.ca_file)} if url.startswith("https") else None
        return start_proxy({"workers": 1, "timeouts": timeouts, "routes": [{"prefix": "/", "upstream": url, "tls": tls, **changes}]})
    return start


@contextlib.contextmanager
def unanswering():
    """The URL of a listener whose queue is full, so that it answers no connection."""
    with contextlib.ExitStack() as waiting, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield "http://127.0.0.1:%d" % listener.getsockname()[1]


def leave(wire, how):
    """When it was."""
    left = time.time()
    how(wire)
    return left


def check_cancelled(proxy, left, status):
    """The one event says so, in time, and no connection is left."""
    event = proxy.event()
    assert (event["status"], event["error"]["kind"]) == (status, "client_aborted")
    ended = datetime.datetime.fromisoformat(event["time"]).timestamp() + event["duration_ms"] / 1000
    print(f"cancelled after {(ended - left) * 1000:.1f} ms")
    assert ended - left < AT_ONCE
    wait_until(lambda: sockets(proxy) == 0, lambda: f"no connection is left, have {sockets(proxy)}")


@pytest.mark.parametrize("how", [reset, close, half_close])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("stage", STAGES)
def test_cancelled_while(start, authority, stage, scheme, how):
    client, server, status = STAGES[stage]
    upstream = ScriptedUpstream(server, authority.server("server") if scheme == "https" else None)
    proxy = start(upstream.url)
    with proxy.wire(receive_buffer=4096, timeout=PATIENCE * 2) as wire:
        upstream.play_client(wire, client)
        if stage == "the_client_does_not_read":
            upstream.wait_blocked()
        left = leave(wire, how)
        check_cancelled(proxy, left, status)
        upstream.finish()
    seen = upstream.ends[0].ended
    print(f"seen by the upstream after {(seen - left) * 1000:.1f} ms")
    assert seen - left < AT_ONCE


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_cancelled_while_the_upstream_does_not_read(start, authority, scheme):
    """By a reset: an orderly end waits in the client's kernel behind what the proxy does not take."""
    upstream = ScriptedUpstream([HEAD, meet, gone], authority.server("server") if scheme == "https" else None)
    proxy = start(upstream.url)
    with proxy.wire() as wire:
        upstream.play_client(wire, [send(POST), flood_until_blocked])
        check_cancelled(proxy, leave(wire, reset), 0)
        meet(wire)  # it reads what was sent, and the end
        upstream.finish()


@pytest.mark.parametrize("how", [reset, close, half_close])
@pytest.mark.parametrize("client", [[send(GET)], [send(POST), flood_until_held_back]], ids=["get", "post"])
def test_cancelled_while_connecting(start, how, client):
    with unanswering() as url:
        proxy = start(url)
        with proxy.wire() as wire:
            for step in client:
                step(wire)
            wait_until(lambda: sockets(proxy) == 2, "it connects")
            check_cancelled(proxy, leave(wire, how), 0)


@pytest.mark.parametrize("how", [reset, close, half_close])
def test_cancelled_during_the_tls_handshake(start, how):
    upstream = ScriptedUpstream([take(b"\x16"), meet, gone])  # the first byte of a ClientHello
    proxy = start(upstream.url.replace("http", "https"))
    with proxy.wire() as wire:
        upstream.play_client(wire, [send(GET), meet])
        check_cancelled(proxy, leave(wire, how), 0)
        upstream.finish()


@pytest.mark.parametrize("how", [reset, close, half_close])
def test_cancelled_while_the_forward_proxy_is_silent(start, how):
    silent = ScriptedUpstream([HEAD, meet, gone])
    proxy = start("http://api.example.test", proxy=silent.url)
    with proxy.wire() as wire:
        silent.play_client(wire, [send(GET), meet])
        check_cancelled(proxy, leave(wire, how), 0)
        silent.finish()
