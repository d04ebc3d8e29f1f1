"""Random messages and the two peers that exchange them through a proxy: raw asyncio streams, so that every byte of head and framing is ours.

A Plan is one exchange: what the client sends, what the upstream answers, how both are framed and cut. Everything in it comes from one random.Random, so a seed tells it
all. The upstream finds the plan by the number in the target and checks the request; the client checks the response.
"""

import asyncio
import bz2
import gzip
import re
import zlib

import brotli
import zstandard

EDGES = [0, 1, 2, 127, 128, 1023, 1024, 1025, 4095, 4096, 4097, 8191, 16383, 16384, 16385, 32768, 65535, 65536, 65537, 131071, 131072, 131073, 262144]
TOKEN = "!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAMES = ["Accept", "ACCEPT-LANGUAGE", "user-agent", "Content-Type", "x-CusTom", "X-Custom", "Cookie", "anthropic-version", "OpenAI-Beta", "Content-MD5", "If-None-Match", "Set-Cookie",
         "Vary", "Link", "Cache-Control", "x-ratelimit-remaining", "Accept-Encoding", "Range"]
VALUE = bytes(byte for byte in range(0x20, 0x100) if byte != 0x7F).decode("latin-1") + "\t"
CODINGS = {"identity": lambda data: data, "gzip": lambda data: gzip.compress(data, 1), "deflate": lambda data: zlib.compress(data, 1), "br": lambda data: brotli.compress(data, quality=1),
           "zstd": zstandard.ZstdCompressor(1).compress, "x-unknown": lambda data: data, "gzip, br": lambda data: brotli.compress(gzip.compress(data, 1), quality=1),
           "bzip2": lambda data: bz2.compress(data, 1)}


class Side:
    """One message of a plan: its fields as they go end to end, its body, its framing, and how it is cut into writes."""

    def __init__(self, rng, pool, size, framings):
        self.framing = rng.choice(framings)
        self.coding = rng.choice(list(CODINGS)) if size < 2_000_000 and rng.random() < 0.5 else None
        start = rng.randrange(len(pool) // 2)
        plain = (pool[start:] + pool * (size // len(pool) + 1))[:size]
        if self.coding and rng.random() < 0.5:
            plain = plain.hex().encode()[:size]
        self.body = CODINGS[self.coding](plain) if self.coding else plain
        self.fields = random_fields(rng)
        if self.coding:
            self.fields.insert(rng.randrange(len(self.fields) + 1), (b"Content-Encoding", self.coding.encode()))
        self.pace = rng.choice([0, 0, 0, 0.001, 0.003])
        self.cuts, self.chunks = random_cuts(rng, len(self.body)), random_cuts(rng, len(self.body))
        self.extensions = [random_extension(rng) for _ in range(8)]
        self.trailers = b"".join(b"X-T%d: %d\r\n" % (number, number) for number in range(rng.choice([0, 0, 0, 1, 3])))
        self.cut_head = rng.random() < 0.2

    def framing_fields(self):
        if self.framing == "chunked":
            return [(b"Transfer-Encoding", b"chunked")]
        return [(b"Content-Length", b"%d" % len(self.body))] if self.framing == "length" else []

    def framed(self):
        """The body as it goes over the wire, in pieces of no particular size."""
        if self.framing != "chunked":
            yield self.body
            return
        at = 0
        for number, size in enumerate(self.chunks):
            yield b"%x%b\r\n" % (size, self.extensions[number % 8] if number < 100 else b"")
            yield self.body[at:at + size]
            yield b"\r\n"
            at += size
        yield b"0\r\n" + self.trailers + b"\r\n"

    async def write(self, writer, start_line, extra=(), wait=None):
        """Sends it; wait is awaited before the last piece."""
        fields = [*self.fields, *extra, *self.framing_fields()]
        head = b"\r\n".join([start_line, *(name + b": " + value for name, value in fields), b"", b""])
        wire = b"".join(self.framed())
        if wait or self.cut_head:
            pieces = [head[at:at + 97] for at in range(0, len(head), 97)]
        else:
            pieces, wire = [], head + wire
        at = 0
        for size in [*self.cuts, len(wire)]:
            pieces.append(wire[at:at + size])
            at += size
        for number, piece in enumerate(pieces := [piece for piece in pieces if piece]):
            if wait and number == len(pieces) - 1:
                await wait()
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(self.pace)


def random_cuts(rng, size):
    """Sizes that add up to size: few large ones, or many small ones."""
    scale = rng.choice([size // 200 + 1, size // 20 + 1, size // 3 + 1, size + 1, 16384, 65536])
    scale = max(scale, size // 300 + 1)
    sizes = []
    while size > 0:
        sizes.append(min(size, rng.choice([rng.randint(1, scale), scale])))
        size -= sizes[-1]
    return sizes


def random_extension(rng):
    return rng.choice([b"", b"", b"", b";a", b";a=b", b' ; a = "b;\\"\tc\xe9"', b";" + b"n" * rng.randrange(1, 100), b"; x=1;y=2 ;z"])


def random_fields(rng):
    fields = []
    for _ in range(rng.choice([0, 1, 3, 10, 30])):
        name = rng.choice(NAMES) if rng.random() < 0.6 else "X-" + "".join(rng.choices(TOKEN, k=rng.randint(1, 20)))
        value = "".join(rng.choices(VALUE, k=rng.choice([0, 1, 5, 40, 300]))).strip(" \t")
        fields.append((name.encode(), value.encode("latin-1")))
    return fields


class Plan:
    """One exchange."""

    def __init__(self, number, rng, pool, request_size, response_size, client):
        self.number, self.client = number, client
        self.method = rng.choice(["POST", "POST", "PUT", "PATCH", "GET", "DELETE", "HEAD", "x-own"])
        self.route = rng.choice(["plain", "tls"])
        self.target = f"/{self.route}/{number}/" + "".join(rng.choices("abcXYZ019-._~!$&'()*+,=:@%", k=rng.randrange(20))).replace("%", "%4a")
        if not re.search(r"/\.{1,2}$", self.target):
            self.target += rng.choice(["", "/", "?", "?a=b&c=%zz?/", "?" + "q" * 3000, "//x", ";v=1/y"])
        else:
            self.target += "x"
        self.request = Side(rng, pool, request_size, ["length"] if client == "1.0" else ["length", "chunked"])
        self.has_body = self.request.framing == "chunked" or self.request.body or rng.random() < 0.5
        if not self.has_body:
            self.request.framing = "none"
        self.response = Side(rng, pool, response_size, ["length", "chunked", "close"])
        self.status = rng.choice([200, 200, 200, 201, 206, 299, 400, 404, 429, 500, 529, 204, 304])
        self.version = "1.0" if self.response.framing != "chunked" and rng.random() < 0.1 else "1.1"
        self.interim = rng.random() < 0.1
        self.dated = rng.random() < 0.5
        self.bodiless = self.method == "HEAD" or self.status in (204, 304)
        self.duplex = client == "close" and self.has_body and self.response.body and not self.bodiless and rng.random() < 0.5
        self.seen = self.answered = 0

    def __str__(self):
        return (f"exchange {self.number}: {self.client} client, {self.method} {self.target[:80]}, request {self.request.framing} {self.request.coding} {len(self.request.body)} bytes, "
                f"response {self.status} {self.response.framing} {self.response.coding} {len(self.response.body)} bytes, HTTP/{self.version}{', duplex' if self.duplex else ''}")


class Reader:
    """Reads messages strictly; everything that is odd is an assertion."""

    def __init__(self, stream):
        self.stream = stream

    async def head(self):
        """Start line and fields, or None at the end of the connection."""
        try:
            data = await self.stream.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as incomplete:
            assert not incomplete.partial, incomplete.partial
            return None
        start, *lines = data[:-4].split(b"\r\n")
        fields = []
        for line in lines:
            name, colon, value = line.partition(b": ")
            assert colon and name, line
            fields.append((name, value))
        return start.decode("latin-1"), fields

    async def body(self, fields, until_close):
        framing = {name.lower(): value for name, value in fields if name.lower() in (b"content-length", b"transfer-encoding")}
        assert len(framing) <= 1, framing
        if b"content-length" in framing:
            return await self.stream.readexactly(int(framing[b"content-length"]))
        if b"transfer-encoding" in framing:
            assert framing[b"transfer-encoding"] == b"chunked"
            return await self.chunked()
        return await self.stream.read() if until_close else b""

    async def chunked(self):
        pieces = []
        while True:
            line = await self.stream.readuntil(b"\r\n")
            assert re.fullmatch(rb"[0-9a-f]+\r\n", line), line
            size = int(line, 16)
            if size == 0:
                assert await self.stream.readexactly(2) == b"\r\n"  # trailers go no further
                return b"".join(pieces)
            pieces.append(await self.stream.readexactly(size))
            assert await self.stream.readexactly(2) == b"\r\n"


def same(received, sent, what):
    """Bytes are equal; a failure tells where they are not, not what they are."""
    if received != sent:
        at = next((index for index, pair in enumerate(zip(received, sent)) if pair[0] != pair[1]), min(len(received), len(sent)))
        raise AssertionError(f"{what}: {len(received)} bytes instead of {len(sent)}, differ from byte {at} on: {received[at:at + 40]!r} instead of {sent[at:at + 40]!r}")


class Upstream:
    """The server. Its plans are those that are to come; faults it finds are collected, since nobody waits for its tasks."""

    def __init__(self, plans):
        self.plans, self.port, self.faults, self.connections = plans, None, [], 0

    async def serve(self, stream, writer):
        self.connections += 1
        plan = None
        try:
            reader = Reader(stream)
            while (head := await reader.head()) is not None:
                plan = self.plans[int(head[0].split("/")[2])]
                plan.seen += 1
                if not await self.exchange(plan, reader, writer, *head):
                    break
        except (AssertionError, asyncio.IncompleteReadError, KeyError, ConnectionError) as fault:
            self.faults.append(f"at the upstream: {fault!r} ({plan})")
        finally:
            writer.close()

    async def exchange(self, plan, reader, writer, start, fields):
        assert start == f"{plan.method} {plan.target} HTTP/1.1", start
        sent = plan.request.fields
        assert fields[0] == (b"Host", b"127.0.0.1:%d" % self.port), fields[0]
        assert fields[1:1 + len(sent)] == sent, (fields, sent)
        rest = fields[1 + len(sent):]
        assert [name for name, _ in rest[:2]] == [b"Via", b"X-Request-Id"] and rest[2:] == plan.request.framing_fields(), rest
        if plan.interim:
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")

        async def take_request():
            same(await reader.body(fields, False), plan.request.body, f"request body of {plan}")

        if not plan.duplex:
            await take_request()
        await self.answer(plan, writer, take_request if plan.duplex else None)
        return (plan.bodiless or plan.response.framing != "close") and plan.version == "1.1"  # nothing closes that was not announced

    async def answer(self, plan, writer, wait):
        response, extra = plan.response, [(b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT")] if plan.dated else []
        line = f"HTTP/{plan.version} {plan.status} Whatever".encode()
        if plan.bodiless:
            fields = [*response.fields, *extra]
            if plan.status != 204 and response.framing == "length":
                fields += response.framing_fields()
            writer.write(b"\r\n".join([line, *(name + b": " + value for name, value in fields), b"", b""]))
            await writer.drain()
        else:
            await response.write(writer, line, extra, wait)


async def send_request(plan, writer):
    version = "1.0" if plan.client == "1.0" else "1.1"
    line = f"{plan.method} {plan.target} HTTP/{version}\r\nHost: example.test".encode()
    if plan.client == "close":
        line += b"\r\nConnection: close"
    await plan.request.write(writer, line)


async def check_response(plan, reader, last):
    """Reads the response to this plan and holds it against what the upstream sent."""
    head = await reader.head()
    assert head is not None, "closed without an answer"
    if head[0].startswith("HTTP/1.1 103"):
        assert plan.interim and plan.client != "1.0" and head[1] == [(b"Link", b"</a>")], head
        head = await reader.head()
    start, fields = head
    assert start.startswith(f"HTTP/1.1 {plan.status} "), start
    sent = plan.response.fields + ([(b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT")] if plan.dated else [])
    assert fields[:len(sent)] == sent, (fields, sent)
    rest = fields[len(sent):]
    names = [name for name, _ in rest]
    assert set(names) <= {b"Content-Length", b"Transfer-Encoding", b"Connection", b"Date", b"X-Request-Id"} and len(names) == len(set(names)), rest
    assert (b"Date" in names) != plan.dated and b"X-Request-Id" in names
    assert (b"Connection" in names) == (plan.client in ("1.0", "close")), rest
    if plan.bodiless:
        assert b"Transfer-Encoding" not in names
        length = plan.response.framing == "length" and plan.status != 204
        assert (b"Content-Length" in names) == length, rest
    else:
        same(await reader.body(rest, plan.client == "1.0"), plan.response.body, f"response body of {plan}")
        assert (b"Content-Length" in names) == (plan.response.framing == "length"), rest
    if last:
        assert await reader.stream.read() == b"", "bytes behind the last response"
    plan.answered += 1
