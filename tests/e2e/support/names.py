"""Names as a test wants them: a name server on port 53 of an address of this machine, and a view of /etc for the proxy alone that leads to it."""

import os
import random
import socket
import struct
import subprocess
import threading

import pytest

from support.proxy import BINARY

A, AAAA = 1, 28
SERVFAIL, NXDOMAIN = 2, 3
FILES = {"hosts": "127.0.0.1 localhost\n", "nsswitch.conf": "hosts: files dns\n"}


class NameServer:
    """A context manager. names: for each what it leads to: a list of addresses (empty: a name without one), SERVFAIL, NXDOMAIN, or None: no answer ever. Other names do
    not exist. delays: seconds before the answer."""

    def __init__(self, names):
        self.names, self.delays = dict(names), {}
        self.asked = []  # (name, type), in order

    def __enter__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while True:
            self.address = f"127.{random.randint(100, 200)}.{random.randint(1, 250)}.{random.randint(1, 250)}"
            try:
                self._socket.bind((self.address, 53))
                break
            except PermissionError:
                self._socket.close()
                pytest.skip("a name server of the test's own needs port 53, which is for root")
            except OSError:
                continue
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes up the thread, though it says that there is no connection
        except OSError:
            pass
        self._thread.join(10)
        self._socket.close()

    def silent(self):
        return [name for name, found in self.names.items() if found is None]

    def questions(self, name):
        return [one for one, kind in self.asked if one == name and kind == A]

    def _serve(self):
        while True:
            try:
                question, peer = self._socket.recvfrom(2048)
            except OSError:
                return
            if not question:
                return
            name, kind, end = read_question(question)
            self.asked.append((name, kind))
            found = self.names.get(name, NXDOMAIN)
            if found is not None:
                threading.Timer(self.delays.get(name, 0), self._answer, (question[:end], kind, found, peer)).start()

    def _answer(self, question, kind, found, peer):
        addresses = [one for one in found if (":" in one) == (kind == AAAA)] if isinstance(found, list) else []
        records = [b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, 16 if kind == AAAA else 4) + socket.inet_pton(socket.AF_INET6 if kind == AAAA else socket.AF_INET, one)
                   for one in addresses]
        flags = 0x8180 | (found if isinstance(found, int) else 0)
        try:
            self._socket.sendto(question[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + question[12:] + b"".join(records), peer)
        except OSError:
            pass  # the test is over


def read_question(message):
    """Name, type, and where the question ends."""
    labels, at = [], 12
    while message[at]:
        labels.append(message[at + 1:at + 1 + message[at]].decode())
        at += 1 + message[at]
    return ".".join(labels).lower(), struct.unpack("!H", message[at + 1:at + 3])[0], at + 5


def with_names(folder, server, options="timeout:1 attempts:2", files=None):
    """A program that is the proxy in a mount namespace of its own, where /etc says that names are asked for at that server. Skips the test where that is not permitted."""
    mounts = []
    for name, text in {**FILES, "resolv.conf": f"nameserver {server.address}\noptions {options}\n", **(files or {})}.items():
        (folder / name).write_text(text)
        mounts.append(f"mount --bind {folder / name} /etc/{name}")
    inside = f"unshare --mount sh -c '{' && '.join(mounts)} && exec \"$0\" \"$@\"'"
    probe = subprocess.run(f"{inside} true", shell=True, capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"names of the test's own need a mount namespace: {probe.stderr.strip()}")
    program = folder / "llm-proxy-with-names"
    program.write_text(f'#!/bin/sh\nexec {inside} {BINARY} "$@"\n')
    os.chmod(program, 0o700)
    return program


class BlackHole:
    """An address that answers no connection: a listener whose queue is full. A context manager."""

    def __init__(self, host, port):
        self._listener = socket.socket()
        self._listener.bind((host, port))
        self._listener.listen(0)
        self.address = self._listener.getsockname()
        self._waiting = []

    def __enter__(self):
        for _ in range(8):  # as many as get in, and some that do not
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(self.address)
            self._waiting.append(one)
        return self

    def __exit__(self, *_):
        for one in [*self._waiting, self._listener]:
            one.close()
