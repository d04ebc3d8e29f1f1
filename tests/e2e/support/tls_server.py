"""TLS servers with manners of their own: the real `openssl s_server`, one that follows a script, and a relay in between that splits, stalls and meddles."""

import fcntl
import random
import socket
import struct
import subprocess
import termios
import threading
import time

from support.waiting import wait_until


class OpenSslServer:
    """`openssl s_server`, a context manager. Without options it talks with a terminal: write() is what is typed, output() what is shown, the request included."""

    def __init__(self, certificate, key, *options):
        self._command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", certificate, "-key", key, *options]

    def __enter__(self):
        self._shown = bytearray()
        self._process = subprocess.Popen(list(map(str, self._command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        threading.Thread(target=self._read, daemon=True).start()
        wait_until(lambda: "ACCEPT " in self.output() and "\n" in self.output().split("ACCEPT ", 1)[1], self.output)
        self.port = int(self.output().split("ACCEPT ", 1)[1].split("\n")[0].rsplit(":", 1)[1])
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def _read(self):
        while data := self._process.stdout.read1(65536):
            self._shown += data

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def output(self):
        return bytes(self._shown).decode("latin-1")

    def write(self, text):
        """One line or more, all of it one read for the server: a command is a letter at its beginning. Returns when the server has it."""
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()
        wait_until(lambda: not any(fcntl.ioctl(self._process.stdin, termios.FIONREAD, b"\0\0\0\0")), "the server reads its input")


class ScriptedServer:
    """Calls script(connection, number) in a thread for each connection, number from 0. With a context the connection is a TLS one after its handshake, else the bare
    socket. resumed: for each connection whether its session was one of before; handshake failures are kept as text in failures."""

    def __init__(self, script, context=None, host="127.0.0.1", port=0):
        self._script, self._context = script, context
        self._listener = socket.create_server((host, port))
        self._sockets = []
        self.connections, self.ended = 0, 0
        self.resumed, self.failures = [], []

    @property
    def port(self):
        return self._listener.getsockname()[1]

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        end(self._listener)
        for one in self._sockets:
            end(one)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(60)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connection)
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()
            self.connections += 1

    def _serve(self, connection, number):
        try:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
                self._sockets.append(connection)
                self.resumed.append(connection.session_reused)
            self._script(connection, number)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            self.failures.append(str(error))
        finally:
            connection.close()  # without close_notify: who wants one calls unwrap()
            self.ended += 1


def end(one):
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()


def read_request(connection):
    """One request, its head and a body by Content-Length, as bytes; b"" when the connection ended."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields.get(b"content-length", 0)):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answer(body, length=None):
    """A response with that Content-Length."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) if length is None else length) + body


def repeat(response):
    """A script: the same response to each request."""
    def script(connection, _):
        while read_request(connection):
            connection.sendall(response)
    return script


class Relay:
    """Between the proxy and a server on this machine. split: every so many bytes a piece and a pause (sizes vary up to that); limit: how many bytes of the server pass before
    `then`, "stall" or "close" or "reset". A context manager."""

    def __init__(self, port, split=None, limit=None, then="stall"):
        self._target, self._split, self._limit, self._then = port, split, limit, then
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._random = random.Random(20)
        self._pairs = []
        self.connections = 0
        self.client_ended = threading.Event()  # the proxy closed a connection

    @property
    def port(self):
        return self._listener.getsockname()[1]

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        end(self._listener)
        for pair in self._pairs:
            for one in pair:
                end(one)

    def inject(self, data, towards="proxy"):
        """Bytes that neither side sent, into the newest connection."""
        client, server = self._pairs[-1]
        (client if towards == "proxy" else server).sendall(data)

    def close(self):
        """Ends the newest connection without a word of TLS."""
        for one in self._pairs[-1]:
            end(one)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((client, server))
            self.connections += 1
            threading.Thread(target=self._copy, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, self._limit), daemon=True).start()

    def _pieces(self, data):
        while data and self._split:
            size = self._random.randint(1, self._split)
            yield data[:size]
            data = data[size:]
            time.sleep(0.0002)  # so that the other side reads it before the next
        if data:
            yield data

    def _copy(self, source, sink, limit):
        try:
            while data := source.recv(65536):
                if limit is not None and len(data) >= limit:
                    sink.sendall(data[:limit])
                    return self._stop(source, sink)
                limit = limit and limit - len(data)
                for piece in self._pieces(data):
                    sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        if (source, sink) in self._pairs:
            self.client_ended.set()

    def _stop(self, server, client):
        if self._then == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.shutdown(socket.SHUT_RD)  # wakes up who reads from it, and so keeps it open
            client.close()
        elif self._then == "close":
            client.shutdown(socket.SHUT_WR)
        else:
            while server.recv(65536):
                pass
