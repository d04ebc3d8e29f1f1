"""TLS servers with manners of their own: the real `openssl s_server`, one that follows a script, and a relay in between that splits, stalls and meddles."""

import fcntl
import random
import select
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


class Listening:
    """A context manager that accepts in a thread of its own. Has _listener, _threads and _accept."""

    @property
    def port(self):
        return self._listener.getsockname()[1]

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self):
        start(self._threads, self._accept)
        return self


class ScriptedServer(Listening):
    """Calls script(connection, number) in a thread for each connection, number from 0. With a context the connection is a TLS one after its handshake, else the bare
    socket. resumed: for each connection whether its session was one of before; handshake failures are kept as text in failures."""

    def __init__(self, script, context=None, host="127.0.0.1", port=0):
        self._script, self._context = script, context
        self._listener = socket.create_server((host, port))
        self._sockets, self._threads = [], []
        self.connections, self.ended = 0, 0
        self.resumed, self.failures = [], []

    def __exit__(self, *_):
        end([self._listener, *self._sockets], self._threads)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(60)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connection)
            self.connections += 1
            start(self._threads, self._serve, connection, self.connections - 1)

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


def start(threads, function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    threads.append(thread)
    thread.start()


def end(sockets, threads):
    """Closes the sockets when nobody uses them any more: the number of a closed one may already be another's."""
    for one in sockets:
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
    for thread in threads:
        thread.join(10)
    for one in sockets:
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


class Relay(Listening):
    """Between the proxy and a server on this machine. split: bytes pass in pieces of random sizes up to this, with a pause after each; limit: how many bytes of the server
    pass before `then`, "stall" or "close" or "reset". A context manager."""

    def __init__(self, port, split=None, limit=None, then="stall"):
        self._target, self._split, self._limit, self._then = port, split, limit, then
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._random = random.Random(20)
        self._pairs, self._threads = [], []
        self.connections = 0
        self.client_ended = threading.Event()  # the proxy closed a connection

    def __exit__(self, *_):
        end([self._listener, *(one for pair in self._pairs for one in pair)], self._threads)

    def inject(self, data, towards="proxy"):
        """Bytes that neither side sent, into the newest connection."""
        client, server = self._pairs[-1]
        (client if towards == "proxy" else server).sendall(data)

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
            start(self._threads, self._relay, client, server)

    def _relay(self, client, server):
        """Both ways in one thread, until the proxy ends its side."""
        left, sources = self._limit, [client, server]
        while True:
            for source in select.select(sources, [], [])[0]:
                data = receive(source)
                if source is client and not data:
                    self.client_ended.set()
                    return end_side(server)
                if source is server and left is not None and len(data) >= left:
                    self._send(client, data[:left])
                    sources.remove(server)
                    if self._then == "reset":
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        client.close()
                        return end_side(server)
                    if self._then == "close":
                        end_side(client)
                elif not data:
                    sources.remove(server)
                    end_side(client)
                else:
                    left = left - len(data) if source is server and left is not None else left
                    self._send(server if source is client else client, data)

    def _send(self, sink, data):
        try:
            while data:
                size = self._random.randint(1, self._split) if self._split else len(data)
                sink.sendall(data[:size])
                data = data[size:]
                if self._split:
                    time.sleep(0.0002)  # so that the other side reads it before the next
        except OSError:
            pass  # its end is seen by reading


def receive(source):
    try:
        return source.recv(65536)
    except OSError:
        return b""


def end_side(one):
    try:
        one.shutdown(socket.SHUT_WR)
    except OSError:
        pass
