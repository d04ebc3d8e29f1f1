"""Reload and end under load: clients of every kind keep sending while the configuration, the plugins and the pipelines change, or the process ends.

What is compared is three lists: what the clients were answered, what reached the upstream, and the events. Every number is in all of them exactly once, or in none.
"""

import asyncio
import collections
import itertools
import json
import os
import re
import signal

import pytest

from support.exact import Reader
from support.lua import Lua
from support.waiting import wait_until

ROUNDS = 20 if os.environ.get("LLM_PROXY_LONG_TESTS") == "1" else 1
STREAM = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
KINDS = ["post", "post", "upload", "stream", "short"]  # each against both upstreams
PIECES = [b"x" * 7000 + b"%d" % number for number in range(10)]


class Load:
    """Clients, and what became of their requests."""

    def __init__(self, port):
        self.port, self.numbers, self.answered, self.unanswered = port, itertools.count(), [], []
        self.ending = False

    async def run(self, count):
        """All kinds of clients, each with that many requests."""
        await asyncio.gather(*(self.client(kind, route, count) for route in ("plain", "tls") for kind in KINDS))

    async def client(self, kind, route, count):
        while count > 0:
            try:
                stream, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionError:
                assert self.ending, "a connection was refused"
                return
            try:
                while count > 0 and await self.exchange(kind, route, next(self.numbers), Reader(stream), writer):
                    count -= 1
                count -= 1
            finally:
                writer.close()

    async def exchange(self, kind, route, number, reader, writer):
        """One request and its answer; does the connection go on?"""
        try:
            await self.send(kind, route, number, writer)
            head = await reader.head()
        except ConnectionError:  # the end crossed the request
            head = None
        if head is None:
            assert self.ending, f"request {number} ({kind}, {route}) was not answered"
            self.unanswered.append(number)
            return False
        start, fields = head
        body = await reader.body(fields, False)
        assert start.startswith("HTTP/1.1 200 "), (number, kind, start, body)
        if kind == "stream":
            assert body.endswith(b"data: [DONE]\n\n"), (number, body)
        else:
            assert json.loads(body)["body_bytes"] == (len(b"".join(PIECES)) if kind == "upload" else 1000), (number, body)
        self.answered.append(number)
        return (b"Connection", b"close") not in fields

    async def send(self, kind, route, number, writer):
        path, more = ("v1/chat/completions", b"x-mock-pieces: 15\r\nx-mock-pace: 0.005\r\n") if kind == "stream" else ("v1/echo", b"")
        more += b"Connection: close\r\n" if kind == "short" else b""
        head = b"POST /%b/%b?n=%d HTTP/1.1\r\nHost: example.test\r\n%b" % (route.encode(), path.encode(), number, more)
        if kind == "upload":
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for piece in PIECES:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
                await asyncio.sleep(0.003)
            writer.write(b"0\r\n\r\n")
        else:
            body = STREAM if kind == "stream" else b"x" * 1000
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()


def numbers_of(texts):
    return sorted(int(re.search(r"n=(\d+)", text)[1]) for text in texts)


def check(load, events, *upstreams):
    """Whatever was answered reached an upstream once and is one event; what was not did neither."""
    answered = sorted(load.answered)
    assert len(set(answered)) == len(answered)
    for what, found in (("requests at the upstreams", numbers_of(request.target for upstream in upstreams for request in upstream.requests)),
                        ("events", numbers_of(event["query"] for event in events))):
        counts = collections.Counter(found)
        counts.subtract(answered)
        wrong = {number: count for number, count in counts.items() if count}
        assert not wrong, f"{what}: too many or too few of {wrong}"
    assert not [event for event in events if event["error"] or event["status"] != 200]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "plugins/transforms").mkdir(parents=True)
    return tmp_path


def configuration(folder, upstream, tls_upstream, authority, generation):
    """Routes, limits, a plugin's file, an inline function and the pipelines differ from generation to generation."""
    plugin = folder / "plugins/transforms/mark.lua"
    written = plugin.with_suffix(".new")
    written.write_text(f'return {{ kind = "transform", api = 1, summary = "Marks.", new = function() return function(event) event.plugin = {generation} return event end end }}')
    written.replace(plugin)

    def pipeline(name, path):
        function = Lua(f"function(event) event.inline = {generation} return event end")
        return {"name": name, "transforms": ["mark", function], "batch": {"max_events": 7 + generation % 5, "max_wait": 0.05}, "dispatcher": {1: "file", "path": str(folder / path)}}

    pipelines = [pipeline("always", "always.jsonl")]
    if generation % 2:
        pipelines.append(pipeline("sometimes", "sometimes.jsonl"))
    return {"plugin_path": [str(folder / "plugins")], "timeouts": {"upstream_idle": 1 + generation % 3},
            "routes": [{"prefix": "/plain/", "upstream": upstream.url, "strip_prefix": True}, {"prefix": f"/new{generation}/", "upstream": upstream.url},
                       {"prefix": "/tls/", "upstream": tls_upstream.url, "strip_prefix": True, "tls": {"ca_file": str(authority.ca_file)}}],
            "observability": {"buffer_size": 20_000 + generation, "pipelines": pipelines}}


@pytest.mark.parametrize("number", range(ROUNDS))
def test_reloads_lose_no_request_and_no_event(start_proxy, upstream, tls_upstream, authority, folder, number):
    proxy = start_proxy(configuration(folder, upstream, tls_upstream, authority, 0))
    load, reloads = Load(proxy.port), 0

    async def run():
        nonlocal reloads
        running = asyncio.create_task(load.run(25))
        while not running.done() or reloads < 4:
            reloads += 1
            proxy.reload(configuration(folder, upstream, tls_upstream, authority, reloads))
            await asyncio.to_thread(wait_until, lambda: proxy.stderr.count("configuration reloaded") == reloads, lambda: f"reload {reloads}: {proxy.stderr}")
            await asyncio.sleep(0.1)
        await running

    asyncio.run(run())
    events = wait_until(lambda: len(found := proxy.events(folder / "always.jsonl")) >= len(load.answered) and found, lambda: f"all events: {proxy.metrics().text}")
    check(load, events, upstream, tls_upstream)
    generations = {(event["plugin"], event["inline"]) for event in events}
    assert all(plugin == inline for plugin, inline in generations) and len(generations) >= 3, generations
    wait_until(proxy.balanced, "all counted")
    assert not proxy.metrics().value("llm_proxy_events_total", result="dropped")
    sometimes = numbers_of(event["query"] for event in proxy.events(folder / "sometimes.jsonl"))
    assert sometimes and len(sometimes) == len(set(sometimes)) and set(sometimes) <= set(load.answered)
    assert len(sometimes) == proxy.metrics().value("llm_proxy_events_total", pipeline="sometimes", result="delivered")


@pytest.mark.parametrize("number", range(ROUNDS))
def test_sigterm_finishes_what_runs_and_loses_no_event(start_proxy, upstream, tls_upstream, authority, folder, number):
    proxy = start_proxy({**configuration(folder, upstream, tls_upstream, authority, 1), "shutdown_timeout": 60})
    load = Load(proxy.port)

    async def run():
        running = asyncio.create_task(load.run(1_000_000))
        while len(load.answered) < 150 and not running.done():
            await asyncio.sleep(0.01)
        load.ending = True
        proxy.signal(signal.SIGTERM)
        await running

    asyncio.run(run())
    assert proxy.wait_exit() == 0
    for path in ("always.jsonl", "sometimes.jsonl"):
        check(load, proxy.events(folder / path), upstream, tls_upstream)


def test_sigterm_ends_idle_connections_without_a_reset(proxy):
    wires = [proxy.wire() for _ in range(200)]
    for wire in wires[::2]:
        assert wire.exchange("GET", "/v1/models").get("connection") is None
    proxy.signal(signal.SIGTERM)
    for wire in wires:
        assert wire.is_closed() and wire.ended == "fin"
        wire.socket.close()
    assert proxy.wait_exit() == 0
