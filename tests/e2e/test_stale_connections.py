"""A kept connection that the upstream closes just when it is used again: what is sent a second time, and what never is. Each clause of the rule in docs/configuration.md."""

import socket
import struct

import pytest

from support.tls_server import ScriptedServer, answer, read_request
from support.waiting import wait_until

EDGE = 65536  # bytes of a body that are held for a repetition


class Upstream(ScriptedServer):
    """Answers the first request of a connection; at the second says `last` and ends the connection. requests: (number of the connection, bytes)."""

    def __init__(self, last=b"", how="fin", always=False, fields=b""):
        super().__init__(self._script)
        self.requests, self._last, self._how, self._always, self._fields = [], last, how, always, fields

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def _script(self, connection, number):
        count = 0
        while request := read_request(connection):
            self.requests.append((number, request))
            count += 1
            if count == 2 or (self._always and number > 0):
                connection.sendall(self._last)
                if self._how == "rst":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            reply = answer(b"" if request.startswith(b"HEAD ") else b"ok")
            connection.sendall(reply.replace(b"OK\r\n", b"OK\r\n" + self._fields))


def start(start_proxy, server, **route):
    return start_proxy({"workers": 1, "routes": [{"prefix": "/", "upstream": server.url, **route}]})


def second(proxy, method, body=b"", headers=()):
    """The response to a request behind another one, on the same connection to the upstream."""
    assert proxy.exchange("GET", "/first").body == b"ok"
    return proxy.exchange(method, "/second", headers, body)


def connections_of(server, target=b" /second "):
    return [number for number, request in server.requests if target in request]


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("method, size, retry_stale, repeated", [
    ("GET", 0, False, True), ("HEAD", 0, False, True), ("GET", 10, False, True), ("GET", EDGE, False, True), ("GET", EDGE + 1, False, False),
    ("POST", 0, False, False), ("POST", 10, False, False), ("POST", 0, True, True), ("POST", 10, True, True), ("POST", EDGE, True, True), ("POST", EDGE + 1, True, False),
    ("PUT", 10, True, False), ("DELETE", 0, True, False), ("OPTIONS", 0, True, False), ("get", 0, True, False), ("GET", 0, True, True)])
def test_what_is_sent_again(start_proxy, how, method, size, retry_stale, repeated):
    with Upstream(how=how) as server:
        proxy = start(start_proxy, server, retry_stale=retry_stale)
        response = second(proxy, method, b"b" * size)
        assert (response.status, connections_of(server)) == ((200, [0, 1]) if repeated else (502, [0]))
        assert len({request for _, request in server.requests if b" /second " in request}) == 1, "the same bytes both times"
        error = proxy.wait_events(2)[1]["error"]
        assert error is None if repeated else error["kind"] == "upstream_unreachable"


@pytest.mark.parametrize("last", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"junk"])
def test_nothing_is_sent_again_after_a_byte_of_a_response(start_proxy, last):
    with Upstream(last) as server:
        proxy = start(start_proxy, server, retry_stale=True)
        response = second(proxy, "GET")
        assert response.status == 502 or not response.complete
        assert connections_of(server) == [0]
        assert proxy.wait_events(2)[1]["error"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_is_sent_a_third_time(start_proxy, method):
    with Upstream(always=True) as server:
        proxy = start(start_proxy, server, retry_stale=True)
        assert second(proxy, method).status == 502
        assert connections_of(server) == [0, 1]
        proxy.wait_events(2)


def test_nothing_is_sent_again_that_went_over_a_fresh_connection(start_proxy):
    with Upstream(always=True) as server:
        proxy = start(start_proxy, server, retry_stale=True)
        assert second(proxy, "GET").status == 502
        assert connections_of(server) == [0, 1]
        assert proxy.exchange("GET", "/third").status == 502
        assert connections_of(server, b" /third ") == [2]
        proxy.wait_events(3)


def test_a_body_that_is_still_coming_goes_on_over_the_fresh_connection(start_proxy):
    def script(connection, number):
        data = b""
        while more := connection.recv(65536):
            data += more
            if data.startswith(b"GET ") and data.endswith(b"\r\n\r\n"):
                connection.sendall(answer(b"ok"))
                data = b""
            elif data.endswith(b"\r\none\r\n") and number == 0:
                return
            elif data.endswith(b"0\r\n\r\n"):
                bodies.append(data.partition(b"\r\n\r\n")[2])
                connection.sendall(answer(b"ok"))
                data = b""

    bodies = []
    with ScriptedServer(script) as server:
        proxy = start_proxy({"workers": 1, "routes": [{"prefix": "/", "upstream": server.url.replace("https", "http"), "retry_stale": True}]})
        assert proxy.exchange("GET", "/first").body == b"ok"
        with proxy.wire() as wire:
            wire.request("POST", "/second", [("Transfer-Encoding", "chunked")])
            wire.send(b"3\r\none\r\n")
            wait_until(lambda: server.connections == 2, "the fresh connection")
            wire.send(b"3\r\ntwo\r\n0\r\n\r\n")
            assert wire.response().status == 200
        assert bodies == [b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"]
        proxy.wait_events(2)


def test_a_post_that_finds_its_connection_closed_goes_to_a_fresh_one(start_proxy):
    """No byte of it was written: the end of the idle connection was noticed, at the latest when it was to be used."""
    def script(connection, _):
        requests.append(read_request(connection))
        connection.sendall(answer(b"ok"))

    requests = []
    with ScriptedServer(script) as server:
        proxy = start_proxy({"workers": 1, "routes": [{"prefix": "/", "upstream": server.url.replace("https", "http")}]})
        for number in range(10):
            assert proxy.exchange("POST", "/", (), b"once").body == b"ok"
            wait_until(lambda: server.ended == number + 1, "the upstream has closed the connection")
        assert len(requests) == 10
        proxy.wait_events(10)


@pytest.mark.parametrize("keep_alive, upstream_idle", [(b"timeout=2", 600), (b"timeout=2, max=100", 600), (b"max=5, TIMEOUT=2", 600), (b"timeout=600", 0.5), (b"timeout=junk", 0.5), (None, 0.5)])
def test_an_idle_connection_is_closed_ahead_of_the_upstream(start_proxy, keep_alive, upstream_idle):
    with Upstream(fields=b"Keep-Alive: " + keep_alive + b"\r\n" if keep_alive else b"") as server:
        proxy = start(start_proxy, server, timeouts={"upstream_idle": upstream_idle})
        assert proxy.exchange("GET", "/first").body == b"ok"
        wait_until(lambda: server.ended == 1, "the proxy has closed the connection")
        proxy.wait_events(1)


@pytest.mark.parametrize("keep_alive", [b"timeout=0", b"timeout=1"])
def test_a_connection_that_the_upstream_hardly_keeps_is_not_kept(start_proxy, keep_alive):
    with Upstream(fields=b"Keep-Alive: " + keep_alive + b"\r\n") as server:
        proxy = start(start_proxy, server)
        for number in range(3):
            assert proxy.exchange("POST", "/", (), b"once").body == b"ok"
            wait_until(lambda: server.ended == number + 1, "the proxy has closed the connection")
        assert [number for number, _ in server.requests] == [0, 1, 2]
        proxy.wait_events(3)
