"""Every limit: what is at it passes, what is one above is refused, with the status and the reason it is counted under."""

import contextlib
import json
import re

import pytest

from support.proxy import ROOT, run
from support.waiting import wait_until
from support.wire import chunked

SLOW = [("x-mock-delay", "600")]


def code_of(response):
    return json.loads(response.body)["error"]["code"]


def counted(proxy):
    """The counters that are not 0, by what tells them apart."""
    metrics = proxy.metrics()
    bad = {dict(labels)["reason"]: value for (name, labels), value in metrics.samples.items() if name == "llm_proxy_bad_requests_total"}
    codes = {int(dict(labels)["code"]): value for (name, labels), value in metrics.samples.items() if name == "llm_proxy_requests_total"}
    return bad, codes


def check_counted(proxy, bad, codes):
    """An exchange is counted when it is over, which can be a moment after its answer has come."""
    wait_until(lambda: counted(proxy) == (bad, codes), lambda: f"counted {bad} {codes}: {counted(proxy)}")


def head(size=0, headers=2, target=10):
    """A request head of that many bytes (0: as many as it takes), fields, and bytes of target."""
    lines = ["GET " + "/v1/models".ljust(target, "x") + " HTTP/1.1", "Host: example.test"] + ["X: y"] * (headers - 2)
    length = sum(len(line) + 2 for line in lines) + len("Fill: \r\n\r\n")
    return "\r\n".join([*lines, "Fill: " + "x" * (size - length), "", ""])


@pytest.mark.parametrize("limit, at, above, status, code, reason", [
    ("max_head_bytes", head(size=2000), head(size=2001), 431, "headers_too_large", "head_too_large"),
    ("max_headers", head(headers=12), head(headers=13), 431, "headers_too_large", "too_many_headers"),
    ("max_target_bytes", head(target=100), head(target=101), 414, "uri_too_long", "target_too_long"),
])
@pytest.mark.parametrize("pieces", [1, 100])
def test_limits_of_a_head(start_proxy, upstream, limit, at, above, status, code, reason, pieces):
    proxy = start_proxy({"limits": {"max_head_bytes": 2000, "max_headers": 12, "max_target_bytes": 100}})
    upstream.default = b"found"
    with proxy.wire() as wire:
        wire.send(at)
        assert wire.response().status == 200
        for begin in range(0, len(above), len(above) // pieces):
            wire.send(above[begin:begin + len(above) // pieces])
        response = wire.response()
        assert (response.status, code_of(response)) == (status, code) and wire.is_closed()
    check_counted(proxy, {reason: 1}, {200: 1})
    assert len(upstream.requests) == 1
    proxy.event()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_max_body_bytes(start_proxy, upstream, framing):
    proxy = start_proxy({"limits": {"max_body_bytes": 5000}})

    def post(size):
        if framing == "length":
            return proxy.exchange("POST", "/v1/echo", (), b"x" * size)
        return proxy.exchange("POST", "/v1/echo", [("Transfer-Encoding", "chunked")], chunked(b"x" * 2500, b"x" * (size - 2500)))

    assert json.loads(post(5000).body)["body_bytes"] == 5000
    response = post(5001)
    assert (response.status, code_of(response)) == (413, "request_too_large")
    check_counted(proxy, {}, {200: 1, 413: 1})
    assert [event["error"] and event["error"]["kind"] for event in proxy.wait_events(2)] == [None, "request_too_large"]
    assert [request.complete for request in upstream.requests] == [True] + [False] * (len(upstream.requests) - 1)


def test_max_connections(start_proxy, upstream):
    proxy = start_proxy({"limits": {"max_connections": 3}})
    with proxy.wire() as first, proxy.wire() as second, proxy.wire() as third:
        for wire in (first, second, third):
            wire.request("GET", "/v1/models", SLOW)
        wait_until(lambda: len(upstream.requests) == 3, "three running requests")
        response = proxy.exchange("GET", "/v1/models")
        assert (response.status, code_of(response)) == (503, "overloaded")
        check_counted(proxy, {"max_connections": 1}, {})
        first.reset()
        check_counted(proxy, {"max_connections": 1}, {0: 1})
        assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.wait_events(4)


def test_max_connections_closes_the_longest_idle_first(start_proxy):
    proxy = start_proxy({"limits": {"max_connections": 3}, "workers": 1})
    wires = [proxy.wire() for _ in range(3)]
    for wire in (wires[0], wires[2], wires[1]):
        assert wire.exchange("GET", "/v1/models").status == 200
    for longest in (wires[0], wires[2]):
        wires.append(proxy.wire())
        assert wires[-1].exchange("GET", "/v1/models").status == 200 and longest.is_closed()
    assert wires[1].exchange("GET", "/v1/models").status == 200
    assert proxy.metrics().value("llm_proxy_idle_connections_closed_total", reason="room") == 2 and counted(proxy)[0] == {}
    for wire in wires:
        wire.socket.close()
    proxy.wait_events(6)


def test_max_connections_per_client(start_proxy):
    proxy = start_proxy({"limits": {"max_connections_per_client": 2}})
    with proxy.wire() as first, proxy.wire() as second, proxy.wire(source="127.0.0.2") as other:
        for wire in (first, second, other):
            assert wire.exchange("GET", "/v1/models").status == 200
        response = proxy.exchange("GET", "/v1/models")
        assert (response.status, code_of(response)) == (503, "overloaded")
        check_counted(proxy, {"max_connections_per_client": 1}, {200: 3})
    proxy.wait_events(3)


def test_max_requests_per_connection(start_proxy):
    proxy = start_proxy({"limits": {"max_requests_per_connection": 3}})
    with proxy.wire() as wire:
        answers = [wire.exchange("GET", "/v1/models") for _ in range(3)]
        assert [(answer.status, answer.get("connection")) for answer in answers] == [(200, None), (200, None), (200, "close")]
        assert wire.is_closed()
    proxy.wait_events(3)


def test_requests_behind_the_last_of_a_connection_are_not_run(start_proxy, upstream):
    proxy = start_proxy({"limits": {"max_requests_per_connection": 2}})
    with proxy.wire() as wire:
        wire.send(b"GET /v1/models HTTP/1.1\r\nHost: example.test\r\n\r\n" * 3)
        assert wire.response().status == 200 and wire.response().get("connection") == "close"
        assert wire.is_closed()
    proxy.wait_events(2)
    assert len(upstream.requests) == 2


def test_max_connections_of_a_route(start_proxy, upstream):
    """Above it a request is refused at once, it does not wait; another route is not concerned, and a connection that is kept for later does not count."""
    proxy = start_proxy({"routes": [{"name": "few", "prefix": "/v1", "upstream": upstream.url, "max_connections": 2}, {"name": "many", "prefix": "/", "upstream": upstream.url}]})
    with proxy.wire() as first, proxy.wire() as second, proxy.wire() as third:
        for wire in (first, second, third):  # leaves idle connections
            assert wire.exchange("GET", "/v1/models").status == 200
        for wire in (first, second):
            wire.request("GET", "/v1/models", SLOW)
        wait_until(lambda: len(upstream.requests) == 5, "two running requests")
        for _ in range(2):  # the client's connection lives on
            response = third.exchange("GET", "/v1/models")
            assert (response.status, code_of(response)) == (503, "overloaded")
        assert third.exchange("GET", "/models").status == 200
        first.reset()
        wait_until(lambda: upstream.requests[3].gone or upstream.requests[4].gone, "one has left")
        assert third.exchange("GET", "/v1/models").status == 200
    metrics = proxy.metrics()
    assert metrics.value("llm_proxy_requests_total", route="few", code="503") == 2 and metrics.value("llm_proxy_requests_total", route="many", code="200") == 1
    events = [event["error"]["kind"] for event in proxy.wait_events(9) if event["error"]]
    assert sorted(events) == ["client_aborted"] * 2 + ["overloaded"] * 2


def test_a_response_that_was_seen_has_left_its_place(start_proxy, upstream):
    """One request after the other never needs more than one connection, whichever worker has it."""
    proxy = start_proxy({"workers": 4, "routes": [{"name": "one", "prefix": "/", "upstream": upstream.url, "max_connections": 1}]})
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(proxy.wire()) for _ in range(16)]
        for _ in range(60):
            assert [wire.exchange("GET", "/v1/models").status for wire in wires] == [200] * 16


DEFAULTS = {"max_head_bytes": (65536, "64 KiB"), "max_headers": (100, "100"), "max_target_bytes": (16384, "16 KiB"), "max_body_bytes": (None, "none"),
            "max_connections": (10_000, "10,000"), "max_connections_per_client": (None, "none"), "max_requests_per_connection": (None, "none")}


def test_the_defaults_are_those_of_the_documentation(tmp_path):
    file = tmp_path / "llm-proxy.lua"
    file.write_text('return { routes = { { prefix = "/", upstream = "http://127.0.0.1:9" } } }')
    settings = json.loads(run("check", "--json", "-c", file).stdout)["settings"]
    limits = {key.removeprefix("limits."): entry["value"] for key, entry in settings.items() if key.startswith("limits.")}
    assert limits == {name: value for name, (value, _) in DEFAULTS.items()}
    documentation = (ROOT / "docs/configuration.md").read_text()
    for name, (_, text) in DEFAULTS.items():
        assert re.search(rf"^\| `{name}` \|[^|]*\({text}[);]", documentation, re.MULTILINE), f"{name}: {text} is not documented"
