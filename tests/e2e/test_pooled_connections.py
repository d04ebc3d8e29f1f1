"""A kept upstream connection never carries one client's bytes into another's answer: what comes unasked closes it, and nobody gets to see it."""

import json
import threading

import pytest

from support.tls_server import ScriptedServer, answer, read_request
from support.waiting import wait_until

EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"


@pytest.fixture(params=["http", "https"])
def start_stage(request, start_proxy, authority):
    """start_stage(script): a scripted server and a proxy with one worker in front of it."""
    servers = []

    def start(script, **route):
        is_tls = request.param == "https"
        server = ScriptedServer(script, authority.server("pooled") if is_tls else None).__enter__()
        servers.append(server)
        tls = {"tls": {"ca_file": str(authority.ca_file)}} if is_tls else {}
        url = f"{request.param}://127.0.0.1:{server.port}"
        return server, start_proxy({"workers": 1, "routes": [{"name": "stage", "prefix": "/", "upstream": url, **tls, **route}]})

    yield start
    for server in servers:
        server.__exit__()


@pytest.mark.parametrize("stray", [EVIL, EVIL * 1000, b"x", b"\r\n", b"0\r\n\r\n", b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"],
                         ids=["response", "responses", "byte", "empty-line", "chunk", "408", "100"])
def test_what_comes_while_it_is_idle(start_stage, stray):
    """Long after the response, in a packet of its own: the connection is closed at once, not when it is used again."""
    idle = threading.Semaphore(0)

    def script(connection, _):
        assert read_request(connection)
        connection.sendall(answer(b"mine"))
        idle.acquire(timeout=60)
        connection.sendall(stray)
        assert not read_request(connection)

    server, proxy = start_stage(script)
    for number in range(3):
        assert proxy.exchange("POST", "/", (), b"prompt").body == b"mine"
        idle.release()
        wait_until(lambda: server.ended == number + 1, "the proxy closes the connection")
    assert server.connections == 3
    assert all(event["error"] is None and event["response_body"] == "mine" for event in proxy.wait_events(3))


@pytest.mark.parametrize("behind", [EVIL, b"x"], ids=["response", "byte"])
@pytest.mark.parametrize("first", [answer(b"mine"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmine\r\n0\r\n\r\n"], ids=["length", "chunked"])
def test_what_comes_along_behind_a_response(start_stage, first, behind):
    def script(connection, _):
        while read_request(connection):
            connection.sendall(first + behind)

    server, proxy = start_stage(script)
    for _ in range(4):
        with proxy.wire() as wire:
            response = wire.exchange("GET", "/")
            assert response.complete and response.body == b"mine"
            assert not wire.buffer
    assert server.connections == 4
    proxy.wait_events(4)


def test_a_flood_of_interim_responses_is_broken_off(start_stage):
    def script(connection, _):
        read_request(connection)
        try:
            for _ in range(100_000):
                connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        except OSError:
            pass

    server, proxy = start_stage(script)
    response = proxy.exchange("GET", "/")
    assert response.status == 502 and json.loads(response.body)["error"]["code"] == "upstream_invalid_response"
    assert len(response.interim) <= 16
    wait_until(lambda: server.ended == 1, "the end of the flood")
    assert proxy.event()["error"] == {"kind": "upstream_invalid_response", "message": "too many interim responses"}


def test_a_response_before_its_request_is_complete_ends_the_connection(start_stage):
    """What the server has not read of the request would be the beginning of the next."""
    def script(connection, number):
        if number == 0:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            connection.sendall(answer(b"early"))
            while connection.recv(65536):
                pass
        while read_request(connection):
            connection.sendall(answer(b"mine"))

    server, proxy = start_stage(script)
    with proxy.wire() as wire:
        wire.request("POST", "/", [("Content-Length", "1000")])
        wire.send(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.response().body == b"early"
    assert proxy.exchange("GET", "/").body == b"mine"
    assert server.connections == 2
    proxy.wait_events(2)


def test_a_response_before_any_request_is_nobodys(start_stage):
    """Unasked on a fresh connection it cannot be told from a fast answer; but nothing of it stays for the next request."""
    def script(connection, _):
        connection.sendall(EVIL + EVIL)
        while read_request(connection):
            connection.sendall(answer(b"mine"))

    server, proxy = start_stage(script)
    for number in range(3):
        assert proxy.exchange("POST", "/", (), b"prompt").body in (b"EVIL", b"mine")
        wait_until(lambda: server.ended == number + 1, "the connection is not kept")
    assert server.connections == 3
    proxy.wait_events(3)
