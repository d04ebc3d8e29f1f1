"""Names of upstreams: a name server that is slow, dead or wrong stalls nobody else; several addresses are tried in turn; a changed one is noticed."""

import json
import os
import socket
import time

import pytest

from support.names import NXDOMAIN, SERVFAIL, BlackHole, NameServer, with_names
from support.ports import free_port
from support.waiting import wait_until
from upstream import MockUpstream

NAME, OTHER = "api.example.test", "other.example.test"


@pytest.fixture
def names():
    with NameServer({NAME: ["127.0.0.1"], OTHER: ["127.0.0.1"]}) as server:
        yield server


@pytest.fixture
def start_named(start_proxy, names, tmp_path):
    """Starts the proxy with routes /NAME to http://NAME:port, and "/" to the mock by its address. connect: the time-out of those whose name is never answered."""
    def start(port, *hosts, options="timeout:25 attempts:2", files=None, upstream=None, connect=None, **changes):
        routes = [{"name": host, "prefix": f"/{host}", "upstream": f"http://{host}:{port}", "strip_prefix": True,
                   "timeouts": {"connect": connect} if connect and host in names.silent() else None} for host in hosts]
        if upstream:
            routes.append({"name": "plain", "prefix": "/", "upstream": upstream.url})
        return start_proxy({"routes": routes, **changes}, binary=with_names(tmp_path, names, options, files))
    return start


def refused(proxy, host, status=502, code="upstream_unreachable"):
    response = proxy.exchange("GET", f"/{host}/v1/models")
    assert (response.status, json.loads(response.body)["error"]["code"]) == (status, code)


def threads(proxy):
    return len(os.listdir(f"/proc/{proxy.process.pid}/task"))


def test_a_name_is_asked_for_once_and_kept(start_named, names, upstream):
    proxy = start_named(upstream.port, NAME)
    for _ in range(5):
        assert proxy.exchange("GET", f"/{NAME}/v1/models", [("x-mock-header", "Connection: close")]).status == 200
    assert len(names.questions(NAME)) == 1 and upstream.requests[0].all("host") == [f"{NAME}:{upstream.port}"]
    proxy.wait_events(5)


@pytest.mark.parametrize("found, words", [
    (NXDOMAIN, f"cannot resolve {NAME}: name or service not known"), ([], f"cannot resolve {NAME}: no address associated with hostname"),
    (SERVFAIL, f"cannot resolve {NAME}: temporary failure in name resolution")])
def test_a_name_without_an_address(start_named, names, upstream, found, words):
    """And when it gets one, that is noticed soon: failures are kept for a second."""
    names.names[NAME] = found
    proxy = start_named(upstream.port, NAME)
    refused(proxy, NAME)
    event = proxy.event()
    assert event["error"] == {"kind": "upstream_unreachable", "message": words}
    names.names[NAME] = ["127.0.0.1"]
    wait_until(lambda: proxy.exchange("GET", f"/{NAME}/v1/models").status == 200, "the new address is noticed", every=0.2)


def test_a_slow_name_server_is_waited_for(start_named, names, upstream):
    names.delays[NAME] = 0.5
    proxy = start_named(upstream.port, NAME)
    assert proxy.exchange("GET", f"/{NAME}/v1/models").status == 200
    assert proxy.event()["duration_ms"] >= 500


def test_a_dead_name_server_costs_the_connect_time_out_and_nobody_else_anything(start_named, names, upstream):
    names.names[NAME] = None
    proxy = start_named(upstream.port, NAME, OTHER, upstream=upstream, workers=1, connect=1.5)
    before = threads(proxy)
    wires = [proxy.wire() for _ in range(30)]
    for wire in wires:
        wire.request("GET", f"/{NAME}/v1/models")
    wait_until(lambda: names.questions(NAME), "the question")
    assert proxy.exchange("GET", "/v1/models").status == 200
    assert proxy.exchange("GET", f"/{OTHER}/v1/models").status == 200
    assert len(names.questions(NAME)) == 1 and threads(proxy) <= before + 2
    for wire in wires:
        response = wire.response()
        assert (response.status, json.loads(response.body)["error"]["code"]) == (504, "upstream_timeout")
        wire.socket.close()
    events = proxy.wait_events(32)
    late = [event["error"] for event in events if event["status"] == 504]
    assert late == [{"kind": "upstream_timeout", "message": f"cannot resolve {NAME}: timed out"}] * 30


def test_many_dead_names_are_asked_for_by_a_bounded_number_of_threads(start_named, names, upstream):
    dead = [f"dead{number}.example.test" for number in range(40)]
    names.names.update(dict.fromkeys(dead))
    proxy = start_named(upstream.port, *dead, upstream=upstream, connect=2)
    before = threads(proxy)
    wires = [proxy.wire() for _ in dead]
    for wire, name in zip(wires, dead):
        wire.request("GET", f"/{name}/v1/models")
    wait_until(lambda: len({name for name, _ in names.asked}) == 16, "as many questions as threads")
    assert proxy.exchange("GET", "/v1/models").status == 200
    assert threads(proxy) <= before + 16
    assert [wire.response().status for wire in wires] == [504] * len(dead)
    for wire in wires:
        wire.socket.close()
    proxy.wait_events(len(dead) + 1)


def test_a_client_that_leaves_while_its_name_is_asked_for(start_named, names, upstream):
    names.names[NAME] = None
    proxy = start_named(upstream.port, NAME, upstream=upstream, workers=1)
    with proxy.wire() as wire:
        wire.request("GET", f"/{NAME}/v1/models")
        wait_until(lambda: names.questions(NAME), "the question")
    event = proxy.event()
    assert event["error"]["kind"] == "client_aborted" and event["duration_ms"] < 10_000
    assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.wait_events(2)


def test_the_end_does_not_wait_for_a_name_server(start_named, names, upstream):
    names.names[NAME] = None
    proxy = start_named(upstream.port, NAME, shutdown_timeout=1)
    with proxy.wire() as wire:
        wire.request("GET", f"/{NAME}/v1/models")
        wait_until(lambda: names.questions(NAME), "the question")
        begun = time.monotonic()
        assert proxy.stop() == 0
        assert time.monotonic() - begun < 25, "not the name server's time"
    assert proxy.event()["error"]["kind"] == "shutdown"


def test_the_second_address_is_tried_when_the_first_refuses(start_named, names):
    with MockUpstream("127.77.0.3") as mock:
        names.names[NAME] = ["127.77.0.2", "127.77.0.3"]
        proxy = start_named(mock.port, NAME)
        assert proxy.exchange("GET", f"/{NAME}/v1/models").status == 200
        proxy.event()


def test_the_second_address_is_tried_when_the_first_is_silent(start_named, names):
    with MockUpstream("127.77.0.3") as mock, BlackHole("127.77.0.2", mock.port):
        names.names[NAME] = ["127.77.0.2", "127.77.0.3"]
        proxy = start_named(mock.port, NAME)
        assert proxy.exchange("GET", f"/{NAME}/v1/models").status == 200
        assert proxy.event()["duration_ms"] >= 250


def test_an_ip6_address_that_leads_nowhere_comes_first(start_named, names, upstream):
    names.names[NAME] = ["::1", "2001:db8::1", "127.0.0.1"]
    proxy = start_named(upstream.port, NAME)
    assert proxy.exchange("GET", f"/{NAME}/v1/models").status == 200
    proxy.event()


def test_all_addresses_are_dead(start_named, names):
    names.names[NAME] = ["127.77.0.2", "127.77.0.3", "::1"]
    port = free_port()
    proxy = start_named(port, NAME)
    refused(proxy, NAME)
    assert proxy.event()["error"]["message"] == f"connect to {NAME}:{port}: connection refused"


def test_all_addresses_are_silent(start_named, names):
    port = free_port()
    with BlackHole("127.77.0.2", port), BlackHole("127.77.0.3", port):
        names.names[NAME] = ["127.77.0.2", "127.77.0.3"]
        proxy = start_named(port, NAME, timeouts={"connect": 1})
        refused(proxy, NAME, 504, "upstream_timeout")
        assert proxy.event()["error"]["message"] == f"connect to {NAME}:{port}: timed out"


def test_a_name_with_very_many_addresses(start_named, names, upstream):
    """Eight are tried."""
    names.names[NAME] = [f"127.77.1.{number}" for number in range(1, 21)]
    with MockUpstream("127.77.1.3") as mock:
        proxy = start_named(mock.port, NAME, OTHER)
        assert proxy.exchange("GET", f"/{NAME}/v1/models").status == 200
        proxy.event()


def test_etc_hosts_is_read(start_named, names, upstream):
    proxy = start_named(upstream.port, "box.example.test", files={"hosts": "127.0.0.1 localhost box.example.test\n"})
    assert proxy.exchange("GET", "/box.example.test/v1/models").status == 200
    assert not names.asked
    proxy.event()


@pytest.mark.skipif(not os.environ.get("LLM_PROXY_LONG_TESTS"), reason="takes the 30 s of the cache: set LLM_PROXY_LONG_TESTS=1")
def test_a_changed_address_is_noticed(start_named, names):
    with MockUpstream("127.77.0.2") as old, MockUpstream("127.77.0.3", old.port) as new:
        names.names[NAME] = ["127.77.0.2"]
        proxy = start_named(old.port, NAME)

        def ask():
            assert proxy.exchange("GET", f"/{NAME}/v1/models", [("x-mock-header", "Connection: close")]).status == 200

        ask()
        names.names[NAME] = ["127.77.0.3"]
        wait_until(lambda: ask() or new.requests, "the new address is used", seconds=60, every=1)
        assert old.requests and len(names.questions(NAME)) == 2
