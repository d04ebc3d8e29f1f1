"""A raw HTTP/1.1 client: sends bytes as they are, reads responses strictly, and knows a complete one from a cut one."""

import socket
import struct
import time


class Response:
    def __init__(self, head):
        self.raw_head = head
        lines = head.decode("latin-1").split("\r\n")
        version, status, _, = (lines[0] + "  ").split(" ", 2)
        assert version == "HTTP/1.1", lines[0]
        self.status = int(status)
        self.headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            assert colon and name and name == name.strip(), f"bad field line {line!r}"
            self.headers.append((name.lower(), value.strip(" \t")))
        self.body = b""
        self.complete = False
        self.framing = None  # "length", "chunked", "close" or "none"
        self.chunks = []     # sizes
        self.interim = []    # responses before this one

    def all(self, name):
        return [value for key, value in self.headers if key == name]

    def get(self, name, default=None):
        values = self.all(name)
        assert len(values) <= 1, f"{name} is repeated: {values}"
        return values[0] if values else default


class Wire:
    """One connection. A context manager."""

    def __init__(self, address, timeout=30, receive_buffer=None, source=None):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.ended = None  # "fin" or "rst" once the peer has ended

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def request(self, method, target, headers=(), body=b"", host="example.test"):
        """Sends a request; Content-Length is added when there is a body and no framing."""
        lines = [f"{method} {target} HTTP/1.1"]
        names = [name.lower() for name, _ in headers]
        if "host" not in names:
            lines.append(f"Host: {host}")
        lines += [f"{name}: {value}" for name, value in headers]
        if body and "transfer-encoding" not in names and "content-length" not in names:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines + ["", ""]).encode("latin-1") + body)

    def exchange(self, method, target, headers=(), body=b"", host="example.test"):
        self.request(method, target, headers, body, host)
        return self.response(method)

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def more(self):
        """Reads what is there; False at the end."""
        try:
            data = self.socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            self.ended = "rst"
            return False
        if not data:
            self.ended = "fin"
            return False
        self.buffer += data
        return True

    def until(self, mark):
        """Bytes up to and with mark; None when the connection ends before."""
        while mark not in self.buffer:
            if not self.more():
                return None
        at = self.buffer.index(mark) + len(mark)
        data, self.buffer = self.buffer[:at], self.buffer[at:]
        return data

    def exactly(self, size):
        """size bytes, or fewer when the connection ends before."""
        parts, missing = [], size
        while missing and (self.buffer or self.more()):
            data, self.buffer = self.buffer[:missing], self.buffer[missing:]
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def head(self):
        """The next response head, interim ones included; None when the connection ends first."""
        data = self.until(b"\r\n\r\n")
        return Response(data[:-4]) if data else None

    def response(self, method="GET", interim=True):
        """The next response with its body. None when the connection ends before its head is complete."""
        before = []
        while True:
            response = self.head()
            if response is None or not (interim and response.status < 200):
                break
            before.append(response)
        if response is not None:
            response.interim = before
            self.read_body(response, method)
        return response

    def read_body(self, response, method="GET"):
        if method == "HEAD" or response.status < 200 or response.status in (204, 304):
            response.framing, response.complete = "none", True
            return
        length, coding = response.get("content-length"), response.get("transfer-encoding")
        assert not (length and coding), "Content-Length with Transfer-Encoding"
        if coding:
            assert coding == "chunked"
            response.framing = "chunked"
            response.complete = self.read_chunks(response)
        elif length is not None:
            assert length.isdigit()
            response.framing = "length"
            response.body = self.exactly(int(length))
            response.complete = len(response.body) == int(length)
        else:
            response.framing = "close"
            while self.more():
                pass
            response.body, self.buffer = self.buffer, b""
            response.complete = self.ended == "fin"

    def read_chunks(self, response):
        parts = []
        try:
            while True:
                line = self.until(b"\r\n")
                if line is None:
                    return False
                size = int(line[:-2], 16)
                if size == 0:
                    return self.until(b"\r\n") == b"\r\n"
                data = self.exactly(size)
                parts.append(data)
                response.chunks.append(len(data))
                if len(data) < size or self.exactly(2) != b"\r\n":
                    return False
        finally:
            response.body = b"".join(parts)

    def next_chunk(self):
        """The bytes of the next chunk of a chunked body; b"" at its end, None when the connection ended."""
        line = self.until(b"\r\n")
        if line is None:
            return None
        size = int(line[:-2], 16)
        data = self.exactly(size + 2)
        return data[:-2] if len(data) == size + 2 else None

    def is_closed(self, seconds=30):
        """Does the peer end the connection within that time, with nothing more sent?"""
        self.socket.settimeout(seconds)
        try:
            while self.more():
                pass
            return not self.buffer
        except TimeoutError:
            return False

    def is_quiet(self, seconds=0.3):
        """Nothing comes and the connection stays for that time."""
        self.socket.settimeout(seconds)
        try:
            return not self.buffer and not self.more() and False
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(30)


def chunked(*pieces):
    """A chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def drip(wire, data, size=1, pause=0.0):
    """Sends data in pieces of that size."""
    for at in range(0, len(data), size):
        wire.send(data[at:at + size])
        if pause:
            time.sleep(pause)
