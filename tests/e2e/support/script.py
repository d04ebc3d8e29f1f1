"""Peers that follow a script: steps, each of which is given its end of a connection, for the client as for the upstream."""

import os
import socket
import ssl
import threading
import time
from types import SimpleNamespace

from support.waiting import PATIENCE, wait_until
from support.wire import Wire


def send(data):
    return lambda end: end.socket.sendall(data)


def drip(data, pause=0.05):
    """Byte by byte, as long as the peer lets it."""
    def step(end):
        try:
            for byte in data:
                end.socket.sendall(bytes([byte]))
                time.sleep(pause)
        except OSError:
            pass
    return step


def flood(end):
    """As much as the peer takes before it goes."""
    try:
        while True:
            end.flooded += end.socket.send(b"x" * 65536)
    except OSError:
        pass


def take(mark):
    """Reads until it has come, and nothing behind it."""
    def step(end):
        received = b""
        while not received.endswith(mark):
            byte = end.socket.recv(1)
            assert byte, f"ended before {mark!r}: {received!r}"
            received += byte
    return step


HEAD = take(b"\r\n\r\n")


def half_close(end):
    end.socket.shutdown(socket.SHUT_WR)


def reset(end):
    Wire.reset(end)


def close(end):
    end.socket.close()


def meet(end):
    """Waits for the other script to come to its meet."""
    end.barrier.wait(PATIENCE)


def gone(end):
    """Waits for the peer to leave, reading what still comes."""
    try:
        while end.socket.recv(65536):
            pass
    except (ConnectionError, ssl.SSLError):
        pass


def sockets(proxy):
    """How many connections the process has open, when it has one worker."""
    folder, count = f"/proc/{proxy.process.pid}/fd", 0
    for name in os.listdir(folder):
        try:
            count += os.readlink(f"{folder}/{name}").startswith("socket:")
        except FileNotFoundError:
            pass
    return count - 2  # that listen: for clients and for admin


class ScriptedUpstream:
    """Plays one script on each connection. tls: a context, to speak TLS."""

    def __init__(self, script, tls=None):
        self.script, self.tls = script, tls
        self.barrier, self.failures, self.threads, self.ends = threading.Barrier(2), [], [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            self.threads.append(threading.Thread(target=self.play, args=(connection,), daemon=True))
            self.threads[-1].start()

    def play(self, connection):
        connection.settimeout(PATIENCE * 2)
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            end = SimpleNamespace(socket=connection, barrier=self.barrier, flooded=0, ended=None)
            self.ends.append(end)
            for step in self.script:
                step(end)
            end.ended = time.time()
        except Exception as failure:
            self.failures.append(failure)
        finally:
            connection.close()

    def play_client(self, wire, script):
        """A client's script, in step with the upstream's."""
        wire.barrier, wire.flooded = self.barrier, 0
        for step in script:
            step(wire)

    def wait_blocked(self):
        """Waits until a flood is held back."""
        def stands_still():
            before = self.ends[-1].flooded if self.ends else 0
            time.sleep(0.3)
            return before and self.ends[-1].flooded == before
        wait_until(stands_still, "the flood is held back")

    def finish(self):
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the upstream's connection is still open"
        self.listener.close()
        assert not self.failures, self.failures
