#!/usr/bin/env python3
"""A mock LLM upstream: speaks the providers' formats over HTTP/1.1, and misbehaves when it is asked to.

Standalone:      python3 tests/mock/upstream.py --port 0        prints the port, serves until it is ended
In a test:       with MockUpstream() as upstream: ...           in a thread of its own; upstream.requests are what it received

Only the standard library (br and zstd need the packages brotli and zstandard). What it answers is decided by the end of the path:

    …/chat/completions, …/responses, …/embeddings, …/models     OpenAI
    …/messages                                                  Anthropic
    …/echo                what was received, as JSON: method, target, head, size and SHA-256 of the body
    …/bytes               x-mock-size bytes (default 1000), see body_of_size()
    …/_mock/requests      all requests so far, as JSON

Any request can carry knobs:

    x-mock-status: 429         answer with this status (the provider's error body for 4xx and 5xx)
    x-mock-delay: 0.5          seconds before the head of the response
    x-mock-pace: 0.05          seconds between the pieces of a stream, or between 16 KiB blocks of a whole body
    x-mock-pieces: 20          pieces of content in a stream
    x-mock-size: 5000          bytes of …/bytes
    x-mock-framing: length | chunked | close
    x-mock-coding: gzip | deflate | br | zstd
    x-mock-abort: head | N     close the connection instead of the head, or after N pieces or blocks
    x-mock-reset: 1            x-mock-abort with RST instead of FIN
    x-mock-early: 1            answer before the request body is read
    x-mock-read: never | SECONDS   do not read the request body; or wait this long before each 64 KiB
    x-mock-header: name: value     a header of the response (any number)
    x-mock-error-event: 1      a stream that fails in its middle with the provider's error event
"""

import argparse
import asyncio
import base64
import gzip
import hashlib
import json
import socket
import ssl
import struct
import sys
import threading
import time
import zlib

HEAD_LIMIT = 1 << 20
BLOCK = 16384
KEPT_BODY = 8 << 20


def body_of_size(size):
    """The same bytes every time, hard to compress, all byte values."""
    blocks = (hashlib.sha256(b"%d" % number).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def encode_content(coding, data):
    """data under a Content-Encoding."""
    if coding == "gzip":
        return gzip.compress(data)
    if coding == "deflate":
        return zlib.compress(data)
    if coding == "br":
        import brotli
        return brotli.compress(data)
    if coding == "zstd":
        import zstandard
        return zstandard.compress(data)
    raise ValueError(f"unknown coding {coding}")


class Request:
    """One request as it was received; grows while it is being received."""

    def __init__(self, head, connection):
        self.head = head
        self.connection = connection
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = lines[0].split(" ", 2)
        self.headers = [tuple(part.strip(" \t") for part in line.split(":", 1)) for line in lines[1:] if line]
        self.body = b""             # the first 8 MiB
        self.body_bytes = 0
        self.body_hash = hashlib.sha256()
        self.complete = False       # the whole body arrived
        self.answered = False       # the whole response was written
        self.gone = False           # the peer closed before that
        self.bytes_sent = 0
        self.time = time.monotonic()
        self.gone_time = None

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name]

    def get(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def json(self):
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        return value if isinstance(value, dict) else {}

    def add(self, data):
        self.body_bytes += len(data)
        self.body_hash.update(data)
        if len(self.body) < KEPT_BODY:
            self.body += data

    def describe(self):
        return {"method": self.method, "target": self.target, "head": self.head.decode("latin-1"),
                "connection": self.connection, "body_bytes": self.body_bytes, "body_sha256": self.body_hash.hexdigest(),
                "complete": self.complete, "answered": self.answered, "gone": self.gone}


class Gone(Exception):
    """The peer left."""


class Connection:
    """One accepted connection: reads requests, writes responses."""

    def __init__(self, server, reader, writer, number):
        self.server, self.reader, self.writer, self.number = server, reader, writer, number

    async def serve(self):
        try:
            while True:
                try:
                    head = await self.reader.readuntil(b"\r\n\r\n")
                except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
                    return
                request = Request(head[:-4], self.number)
                if not request.target.endswith("/_mock/requests"):
                    self.server.requests.append(request)
                if not await self.exchange(request):
                    return
        except (Gone, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.writer.close()

    async def exchange(self, request):
        """Answers; True when the connection can be used again."""
        try:
            if request.get("x-mock-read") == "never":
                await self.pause(3600)
            if not request.get("x-mock-early"):
                await self.read_body(request)
            await self.pause(float(request.get("x-mock-delay", 0)))
            keep = await self.server.answer(request, self)
            request.answered = True
            return keep and request.complete and request.get("connection", "").lower() != "close"
        except (Gone, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            request.gone, request.gone_time = True, time.monotonic()
            raise

    async def read_body(self, request):
        wait = float(request.get("x-mock-read", 0))
        if request.get("expect", "").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
                if size == 0:
                    while await self.reader.readuntil(b"\r\n") != b"\r\n":
                        pass
                    break
                await self.read_exactly(request, size, wait)
                if await self.reader.readexactly(2) != b"\r\n":
                    raise Gone
        else:
            await self.read_exactly(request, int(request.get("content-length", 0)), wait)
        request.complete = True

    async def read_exactly(self, request, size, wait):
        while size:
            if wait:
                await asyncio.sleep(wait)
            data = await self.reader.read(min(size, 65536))
            if not data:
                raise Gone
            request.add(data)
            size -= len(data)

    async def pause(self, seconds):
        """Waits, but not for a peer that has left."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.reader.at_eof() or self.writer.is_closing():
                raise Gone
            await asyncio.sleep(min(left, 0.01))

    async def write(self, data):
        if self.writer.is_closing():
            raise Gone
        self.writer.write(data)
        await self.writer.drain()

    def abort(self, reset):
        if reset:
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()  # without TLS's goodbye
        self.writer.close()
        return False

    async def respond(self, request, status, content_type, pieces, streamed=False):
        """Sends pieces (bytes each) as one response, by the knobs."""
        coding = request.get("x-mock-coding")
        if coding:
            pieces = [encode_content(coding, b"".join(pieces))]
        if not streamed or coding:
            body = b"".join(pieces)
            pieces = [body[at:at + BLOCK] for at in range(0, len(body), BLOCK)]
        size = sum(map(len, pieces))
        framing = request.get("x-mock-framing", "chunked" if streamed else "length")
        abort = request.get("x-mock-abort")
        reset = request.get("x-mock-reset") is not None
        if abort == "head":
            return self.abort(reset)
        bodiless = request.method == "HEAD" or status in (204, 304)
        head = [f"HTTP/1.1 {status} Mock", "Date: Thu, 01 Jan 2026 00:00:00 GMT"]
        if content_type and status != 204:
            head.append(f"Content-Type: {content_type}")
        if coding:
            head.append(f"Content-Encoding: {coding}")
        head += request.all("x-mock-header")
        if status not in (204, 304):
            head += {"length": [f"Content-Length: {size}"], "chunked": ["Transfer-Encoding: chunked"],
                     "close": ["Connection: close"]}[framing]
        await self.write("\r\n".join(head + ["", ""]).encode("latin-1"))
        if bodiless:
            return framing != "close"
        pace = float(request.get("x-mock-pace", 0))
        for number, piece in enumerate(pieces):
            if number:
                await self.pause(pace)
            if abort is not None and number >= int(abort):
                return self.abort(reset)
            await self.write(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
            request.bytes_sent += len(piece)
        if abort is not None:
            return self.abort(reset)
        if framing == "chunked":
            await self.write(b"0\r\n\r\n")
        return framing != "close"


def data_line(value):
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def event_lines(kind, value):
    return b"event: " + kind.encode() + b"\n" + data_line({"type": kind, **value})


WORDS = ["Grüße", " from", " the", " mock", " upstream", ",", " word", " by", " word", "."]


def words(request, default=5):
    """The pieces of content of an answer."""
    return [WORDS[number % len(WORDS)] for number in range(int(request.get("x-mock-pieces", default)))]


class OpenAI:
    """Chat completions, Responses, embeddings, models."""

    USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18,
             "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
             "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0}}
    ARGUMENTS = ['{"city":', ' "Zürich",', ' "unit": "celsius"}']

    @staticmethod
    def error(status):
        kind = {401: "invalid_request_error", 429: "rate_limit_error"}.get(status, "server_error")
        code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
        return {"error": {"message": f"mock error {status}", "type": kind, "param": None, "code": code}}

    @classmethod
    def chat(cls, request, asked):
        base = {"id": "chatcmpl-mock", "created": 1767225600, "model": asked.get("model", "mock") + "-2026-01-01",
                "system_fingerprint": "fp_mock"}
        wants_tools = bool(asked.get("tools"))
        choices = range(asked.get("n") or 1)
        if not asked.get("stream"):
            return [json.dumps({**base, "object": "chat.completion", "usage": cls.USAGE,
                                "choices": [cls.choice(request, index, wants_tools) for index in choices]},
                               ensure_ascii=False).encode()]
        with_usage = (asked.get("stream_options") or {}).get("include_usage")

        def chunk(choices, usage=None):
            return data_line({**base, "object": "chat.completion.chunk", "choices": choices, **({"usage": usage} if with_usage else {})})

        def delta(index, delta, finish=None):
            return chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}])

        pieces = [delta(index, {"role": "assistant", "content": None if wants_tools else "", "refusal": None}) for index in choices]
        for one in (cls.tool_deltas() if wants_tools else [{"content": word} for word in words(request)]):
            pieces += [delta(index, one) for index in choices]
        if request.get("x-mock-error-event"):
            return pieces[:-1] + [data_line(cls.error(500))]
        pieces += [delta(index, {}, "tool_calls" if wants_tools else "stop") for index in choices]
        if with_usage:
            pieces.append(chunk([], cls.USAGE))
        return pieces + [b"data: [DONE]\n\n"]

    @classmethod
    def choice(cls, request, index, wants_tools):
        message = {"role": "assistant", "content": "".join(words(request)), "refusal": None, "annotations": []}
        if wants_tools:
            call = {"id": "call_mock_0", "type": "function", "function": {"name": "get_weather", "arguments": "".join(cls.ARGUMENTS)}}
            message.update(content=None, tool_calls=[call])
        return {"index": index, "message": message, "logprobs": None, "finish_reason": "tool_calls" if wants_tools else "stop"}

    @classmethod
    def tool_deltas(cls):
        yield {"tool_calls": [{"index": 0, "id": "call_mock_0", "type": "function", "function": {"name": "get_weather", "arguments": ""}}]}
        for piece in cls.ARGUMENTS:
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}

    @classmethod
    def responses(cls, request, asked):
        text = "".join(words(request))
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        item = {"type": "message", "id": "msg_mock", "status": "completed", "role": "assistant", "content": [part]}
        usage = {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0}, "output_tokens": 7,
                 "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 18}
        whole = {"id": "resp_mock", "object": "response", "created_at": 1767225600, "status": "completed", "model": asked.get("model", "mock"),
                 "output": [item], "usage": usage, "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
                 "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0}
        if not asked.get("stream"):
            return [json.dumps(whole, ensure_ascii=False).encode()]
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        place = {"item_id": "msg_mock", "output_index": 0, "content_index": 0}
        events = [("response.created", {"response": begun}), ("response.in_progress", {"response": begun}),
                  ("response.output_item.added", {"output_index": 0, "item": {**item, "status": "in_progress", "content": []}}),
                  ("response.content_part.added", {**place, "part": {**part, "text": ""}})]
        events += [("response.output_text.delta", {**place, "delta": word, "logprobs": []}) for word in words(request)]
        events += [("response.output_text.done", {**place, "text": text, "logprobs": []}), ("response.content_part.done", {**place, "part": part}),
                   ("response.output_item.done", {"output_index": 0, "item": item}), ("response.completed", {"response": whole})]
        return [event_lines(kind, {**value, "sequence_number": number}) for number, (kind, value) in enumerate(events)]

    @staticmethod
    def embeddings(asked):
        vector = [0.7, -0.25, 1e-9]
        if asked.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
        count = len(asked["input"]) if isinstance(asked.get("input"), list) else 1
        return {"object": "list", "model": asked.get("model"), "usage": {"prompt_tokens": 4, "total_tokens": 4},
                "data": [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]}

    @staticmethod
    def models():
        return {"object": "list", "data": [{"id": "mock", "object": "model", "created": 1767225600, "owned_by": "mock"}]}


class Anthropic:
    """Messages."""

    USAGE = {"input_tokens": 11, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 7}

    @staticmethod
    def error(status):
        kind = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": f"mock error {status}"}, "request_id": "req_mock"}

    @classmethod
    def messages(cls, request, asked):
        tools = bool(asked.get("tools"))
        stop = "tool_use" if tools else "end_turn"
        blocks = [{"type": "text", "text": "".join(words(request))}]
        if tools:
            blocks.append({"type": "tool_use", "id": "toolu_mock", "name": "get_weather", "input": json.loads("".join(OpenAI.ARGUMENTS))})
        message = {"id": "msg_mock", "type": "message", "role": "assistant", "model": asked.get("model", "mock"), "content": blocks,
                   "stop_reason": stop, "stop_sequence": None, "usage": cls.USAGE}
        if not asked.get("stream"):
            return [json.dumps(message, ensure_ascii=False).encode()]
        begun = {**message, "content": [], "stop_reason": None, "usage": {**cls.USAGE, "output_tokens": 1}}
        pieces = [event_lines("message_start", {"message": begun}), event_lines("ping", {})]
        pieces += cls.block(0, {"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in words(request)])
        if tools:
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *OpenAI.ARGUMENTS]]
            pieces += cls.block(1, {**blocks[1], "input": {}}, deltas)
        if request.get("x-mock-error-event"):
            return pieces[:-1] + [event_lines("error", {"error": {"type": "overloaded_error", "message": "Overloaded"}})]
        return pieces + [event_lines("message_delta", {"delta": {"stop_reason": stop, "stop_sequence": None}, "usage": cls.USAGE}),
                         event_lines("message_stop", {})]

    @staticmethod
    def block(index, start, deltas):
        return [event_lines("content_block_start", {"index": index, "content_block": start}),
                *(event_lines("content_block_delta", {"index": index, "delta": delta}) for delta in deltas),
                event_lines("content_block_stop", {"index": index})]


class MockUpstream:
    """The server, in a thread with an event loop of its own. A context manager."""

    def __init__(self, host="127.0.0.1", port=0, tls=None, receive_buffer=None):
        self.host, self.port, self.tls, self.receive_buffer = host, port, tls, receive_buffer
        self.requests = []
        self.connections = 0
        self.raw = {}            # path: bytes to send as they are, then close (see also keep_open)
        self.keep_open = set()   # paths whose raw answer leaves the connection open
        self.default = None      # the bytes answered where nothing else is known, else 404
        self._loop = asyncio.new_event_loop()
        self._tasks = set()

    @property
    def url(self):
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def __enter__(self):
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, started):
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # peers that vanish during TLS are part of the tests
        server = self._loop.run_until_complete(self.start())
        started.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0.01))
            self._loop.close()

    async def start(self):
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only where it sees this
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        listener.bind((self.host, self.port))
        listener.listen(1024)
        self.port = listener.getsockname()[1]
        return await asyncio.start_server(self._accept, sock=listener, ssl=self.tls, limit=HEAD_LIMIT if not self.receive_buffer else 65536)

    async def _accept(self, reader, writer):
        self.connections += 1
        await Connection(self, reader, writer, self.connections).serve()

    async def answer(self, request, connection):
        path = request.target.split("?")[0]
        if path in self.raw:
            await connection.write(self.raw[path])
            return path in self.keep_open
        if path.endswith("/_mock/requests"):
            text = json.dumps([one.describe() for one in self.requests])
            return await connection.respond(request, 200, "application/json", [text.encode()])
        status = int(request.get("x-mock-status", 200))
        asked = request.json() if request.method == "POST" else {}
        provider = Anthropic if path.endswith("/messages") else OpenAI
        if status >= 400:
            return await connection.respond(request, status, "application/json", [json.dumps(provider.error(status)).encode()])
        content_type, pieces = self.content(path, request, asked)
        if pieces is None and self.default is not None:
            content_type, pieces = "text/plain", [self.default]
        if pieces is None:
            return await connection.respond(request, 404, "application/json", [json.dumps(provider.error(404)).encode()])
        return await connection.respond(request, status, content_type, pieces, streamed=content_type == "text/event-stream")

    @staticmethod
    def content(path, request, asked):
        for end, make in (("/chat/completions", OpenAI.chat), ("/responses", OpenAI.responses), ("/messages", Anthropic.messages)):
            if path.endswith(end):
                return "text/event-stream" if asked.get("stream") else "application/json", make(request, asked)
        if path.endswith("/embeddings"):
            return "application/json", [json.dumps(OpenAI.embeddings(asked)).encode()]
        if path.endswith("/models"):
            return "application/json", [json.dumps(OpenAI.models()).encode()]
        if path.endswith("/echo"):
            return "application/json", [json.dumps(request.describe()).encode()]
        if path.endswith("/bytes"):
            return "application/octet-stream", [body_of_size(int(request.get("x-mock-size", 1000)))]
        return None, None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--tls-cert", help="PEM certificate; with --tls-key: serve https")
    parser.add_argument("--tls-key")
    options = parser.parse_args()
    tls = None
    if options.tls_cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.tls_cert, options.tls_key)
    with MockUpstream(options.host, options.port, tls) as upstream:
        print(upstream.port, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            sys.exit(0)


if __name__ == "__main__":
    main()
