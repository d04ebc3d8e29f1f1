"""What can go wrong between the proxy and an upstream that speaks TLS: handshakes that stall, break or are junk, ends with and without close_notify, bytes that somebody in
between changed, records cut anywhere."""

import json
import socket
import ssl
from contextlib import ExitStack

import pytest

from support.tls_server import OpenSslServer, Relay, ScriptedServer, answer, read_request, repeat
from support.waiting import wait_until
from support.wire import chunked
from upstream import body_of_size

VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}


@pytest.fixture(scope="module", params=VERSIONS)
def context(request, authority):
    context = authority.server("faults")
    context.minimum_version = context.maximum_version = VERSIONS[request.param]
    return context


@pytest.fixture(scope="module")
def identity(authority):
    return authority.issue("openssl")


def to(server, authority, **route):
    """A configuration with one route to the server."""
    return {"workers": 1, "routes": [{"name": "tls", "prefix": "/", "upstream": server.url, "tls": {"ca_file": str(authority.ca_file)}, **route}]}


def routes_to(servers, authority, **route):
    return {"workers": 1, "routes": [{"name": str(name), "prefix": f"/{name}", "upstream": server.url, "tls": {"ca_file": str(authority.ca_file)}, **route}
                                     for name, server in servers.items()]}


# The handshake


@pytest.mark.parametrize("then, status, kind, ends", [
    ("stall", 504, "upstream_timeout", ("timed out",)), ("close", 502, "upstream_unreachable", ("closed by the peer",)),
    ("reset", 502, "upstream_unreachable", ("connection reset by peer", "closed by the peer"))])
def test_a_handshake_that_stops_anywhere(start_proxy, authority, context, then, status, kind, ends):
    places = (0, 1, 5, 90, 400)  # in the server's first flight
    with ScriptedServer(repeat(answer(b"ok")), context) as server, ExitStack() as relays:
        servers = {place: relays.enter_context(Relay(server.port, limit=place, then=then)) for place in places}
        proxy = start_proxy(routes_to(servers, authority, timeouts={"connect": 0.7 if then == "stall" else 30}))
        wires = {place: proxy.wire() for place in places}
        for place, wire in wires.items():
            wire.request("GET", f"/{place}")
        for place, wire in wires.items():
            response = wire.response()
            assert (response.status, json.loads(response.body)["error"]["code"]) == (status, kind), place
            wire.socket.close()
        for event in proxy.wait_events(len(places)):
            assert event["error"]["kind"] == kind
            assert event["error"]["message"] in [f"TLS handshake with 127.0.0.1: {end}" for end in ends]
        if then == "stall":
            assert all(relay.client_ended.wait(30) for relay in servers.values())


def test_a_stalled_handshake_stalls_nobody_else_and_ends_with_its_client(start_proxy, authority, identity, upstream):
    with OpenSslServer(*identity, "-www") as server, Relay(server.port, limit=100) as relay:
        stuck = to(relay, authority)["routes"][0]
        proxy = start_proxy({"workers": 1, "routes": [{**stuck, "prefix": "/stuck"}, {"name": "plain", "prefix": "/", "upstream": upstream.url}]})
        with proxy.wire() as wire:
            wire.request("GET", "/stuck")
            wait_until(lambda: relay.connections == 1, "the connection")
            assert proxy.exchange("GET", "/v1/models").status == 200
        assert relay.client_ended.wait(30)
        assert [event["error"] and event["error"]["kind"] for event in proxy.wait_events(2)] == ["client_aborted", None]


JUNK = {
    "http": (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "the answer is not TLS"),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not TLS"),
    "alert": (b"\x15\x03\x03\x00\x02\x02\x28", "TLS alert of the peer: handshake failure"),
    "unknown-name": (b"\x15\x03\x03\x00\x02\x02\x70", "TLS alert of the peer: unrecognized name"),
    "close-notify": (b"\x15\x03\x03\x00\x02\x01\x00", "closed by the peer"),
    "half-an-alert": (b"\x15\x03\x03\x00\x01\x02", None),
    "odd-alert": (b"\x15\x03\x03\x00\x02\x09\xff", None),
    "large-record": (b"\x16\x03\x03\xff\xff" + b"x" * 1000, None),
    "large-message": (b"\x16\x03\x03\x00\x04\x02\xff\xff\xff", None),
    "data-before-its-time": (b"\x17\x03\x03\x00\x05hello", None),
    "done-before-its-time": (b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00", None),
    "no-record-at-all": (b"\x99\x03\x03\x00\x04\x0e\x00\x00\x00", None),
    "empty-records": (b"\x16\x03\x03\x00\x00" * 100, None),
    "old-hello": (b"\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01" + b"r" * 32 + b"\x00\xc0\x13\x00", "unsupported protocol"),
    "odd-hello": (b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03" + b"r" * 32 + b"\x00\x12\x34\x00", None),
}


def test_junk_in_the_handshake(start_proxy, authority):
    def send(junk):
        def script(connection, _):
            connection.recv(65536)
            connection.sendall(junk)
            while connection.recv(65536):
                pass
        return script

    with ExitStack() as stack:
        servers = {name: stack.enter_context(ScriptedServer(send(junk))) for name, (junk, _) in JUNK.items()}
        proxy = start_proxy(routes_to(servers, authority))
        for name, (_, text) in JUNK.items():
            assert proxy.exchange("GET", f"/{name}").status == 502, name
        for event in proxy.wait_events(len(JUNK)):
            kind, message, text = event["error"]["kind"], event["error"]["message"], JUNK[event["route"]][1]
            start = "TLS handshake with 127.0.0.1: "
            assert kind == "upstream_unreachable" and message.startswith(start) and len(message) > len(start), event["route"]
            assert text is None or message == start + text


# The end


def leave(connection, how):
    """Ends it with close_notify, with FIN alone, or with RST, and waits until the proxy has done so as well."""
    if how == "close_notify":
        connection.unwrap()
    elif how == "fin":
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def framed(framing, body):
    if framing == "length":
        return answer(body)
    if framing == "chunked":
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body[:100], body[100:])
    return b"HTTP/1.1 200 OK\r\n\r\n" + body


@pytest.mark.parametrize("how", ["close_notify", "fin"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("missing", [0, 6])
def test_only_a_complete_response_is_complete(start_proxy, authority, context, framing, missing, how):
    """An end without close_notify is a cut, unless the framing says that all is there. With it a body that is too short is cut as well."""
    body = body_of_size(1000)

    def script(connection, _):
        read_request(connection)
        response = framed(framing, body)
        connection.sendall(response[:len(response) - missing])
        leave(connection, how)

    with ScriptedServer(script, context) as server:
        proxy = start_proxy(to(server, authority))
        complete = how == "close_notify" if framing == "close" else missing == 0
        response = proxy.exchange("GET", "/")
        assert response.status == 200 and response.complete == complete
        error = proxy.event()["error"]
        if complete:
            assert error is None and response.body == body[:1000 - missing]
        else:
            words = "closed the connection before the response was complete" if how == "close_notify" else "closed without close_notify"
            assert error == {"kind": "upstream_aborted", "message": words}


@pytest.mark.parametrize("how, words", [("close_notify", "closed the connection "), ("fin", "closed without close_notify")])
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Len"])
def test_an_end_before_or_within_the_head(start_proxy, authority, context, sent, how, words):
    def script(connection, _):
        read_request(connection)
        connection.sendall(sent)
        leave(connection, how)

    with ScriptedServer(script, context) as server:
        proxy = start_proxy(to(server, authority))
        assert proxy.exchange("GET", "/").status == 502
        assert server.connections == 1
        error = proxy.event()["error"]
        assert error["kind"] == "upstream_invalid_response" and error["message"].startswith(words)


@pytest.mark.parametrize("how", ["close_notify", "fin"])
def test_an_idle_connection_that_ended_is_not_used_again(start_proxy, authority, context, how):
    def script(connection, _):
        read_request(connection)
        connection.sendall(answer(b"ok"))
        leave(connection, how)

    with ScriptedServer(script, context) as server:
        proxy = start_proxy(to(server, authority))
        for number in range(3):
            assert proxy.exchange("POST", "/", (), b"once").body == b"ok"
            wait_until(lambda: server.ended == number + 1, "the proxy has let go of the connection")
        assert all(event["error"] is None for event in proxy.wait_events(3))


@pytest.mark.parametrize("how", ["close_notify", "fin"])
@pytest.mark.parametrize("method, retry_stale, status", [("GET", False, 200), ("HEAD", False, 200), ("POST", False, 502), ("POST", True, 200)])
def test_a_kept_connection_that_ends_when_it_is_used(start_proxy, authority, context, how, method, retry_stale, status):
    seen = []

    def script(connection, number):
        while request := read_request(connection):
            seen.append((number, request))
            if len(seen) == 2:
                return leave(connection, how)
            connection.sendall(answer(b"" if request.startswith(b"HEAD") else b"ok"))

    with ScriptedServer(script, context) as server:
        proxy = start_proxy(to(server, authority, retry_stale=retry_stale))
        assert proxy.exchange("GET", "/first").body == b"ok"
        body = b"prompt" if method == "POST" else b""
        assert proxy.exchange(method, "/second", (), body).status == status
        assert [number for number, _ in seen] == ([0, 0, 1] if status == 200 else [0, 0])
        assert len({request.partition(b"\r\n\r\n")[2] for _, request in seen[1:]}) == 1
        error = proxy.wait_events(2)[1]["error"]
        assert error is None if status == 200 else error["kind"] == "upstream_unreachable"


# In between


@pytest.mark.parametrize("towards", ["proxy", "server"])
def test_bytes_that_somebody_put_in(start_proxy, authority, context, towards):
    """Towards the server: it notices, and says so by an alert in the middle of its response."""
    def script(connection, _):
        read_request(connection)
        connection.sendall(answer(b"x" * 1000, 2000))
        connection.recv(1)

    with ScriptedServer(script, context) as server, Relay(server.port) as relay:
        proxy = start_proxy(to(relay, authority))
        with proxy.wire() as wire:
            wire.request("GET", "/")
            response = wire.head()
            assert response.status == 200 and wire.exactly(1000) == b"x" * 1000
            relay.inject(b"\x17\x03\x03\x00\x20" + b"j" * 32, towards)
            assert wire.exactly(1000) == b""
        error = proxy.event()["error"]
        assert error["kind"] == "upstream_aborted" and error["message"].startswith("TLS alert of the peer: ") == (towards == "server"), error


def test_junk_on_an_idle_connection_is_nobodys_answer(start_proxy, authority, context):
    with ScriptedServer(repeat(answer(b"ok")), context) as server, Relay(server.port) as relay:
        proxy = start_proxy(to(relay, authority))
        for number in range(3):
            assert proxy.exchange("POST", "/", (), b"once").body == b"ok"
            relay.client_ended.clear()
            relay.inject(b"\x17\x03\x03\x00\x20" + b"j" * 32)
            assert relay.client_ended.wait(30) and relay.connections == number + 1
        proxy.wait_events(3)


def test_records_split_anywhere(start_proxy, authority, context):
    records = [1] * 40 + [2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987]
    body = body_of_size(sum(records))

    def script(connection, _):
        while request := read_request(connection):
            response = answer(request.partition(b"\r\n\r\n")[2])
            for size in [len(response) - len(body), *records]:
                connection.sendall(response[:size])
                response = response[size:]

    with ScriptedServer(script, context) as server, Relay(server.port, split=5) as relay:
        proxy = start_proxy(to(relay, authority))
        for _ in range(2):
            response = proxy.exchange("POST", "/", (), body)
            assert response.complete and response.body == body
        assert relay.connections == 1
        proxy.wait_events(2)


def test_many_small_records(start_proxy, authority, context):
    body = body_of_size(10_000)

    def script(connection, _):
        while read_request(connection):
            connection.sendall(answer(b"", len(body)))
            for at in range(len(body)):
                connection.sendall(body[at:at + 1])

    with ScriptedServer(script, context) as server:
        proxy = start_proxy(to(server, authority))
        for _ in range(2):
            assert proxy.exchange("GET", "/").body == body
        assert server.connections == 1
        proxy.wait_events(2)


# After the handshake


class Conversation:
    """A request, answered by hand on the terminal of s_server."""

    def __init__(self, proxy, server):
        self.wire, self.server = proxy.wire(), server

    def ask(self, target):
        self.wire.request("GET", target)
        wait_until(lambda: f"GET {target} HTTP/1.1" in self.server.output(), self.server.output)

    def begin_answer(self):
        self.server.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        return self.wire.head().status == 200 and self.wire.exactly(5) == b"hello"

    def end_answer(self):
        self.server.write("world")
        return self.wire.exactly(5) == b"world"


@pytest.mark.parametrize("command", ["k", "K"])
def test_key_updates_within_a_response_and_on_an_idle_connection(start_proxy, authority, identity, command):
    """k: the server changes its key; K: and wants the proxy to change its own."""
    with OpenSslServer(*identity, "-tls1_3") as server:
        proxy = start_proxy(to(server, authority))
        talk = Conversation(proxy, server)
        for number in range(3):
            talk.ask(f"/{number}")
            assert talk.begin_answer()
            server.write(command + "\n")
            assert talk.end_answer()
            server.write(command + "\n")
        assert server.output().count("CIPHER is") == 1, "the connection was kept"
        assert all(event["error"] is None for event in proxy.wait_events(3))


def test_renegotiation_is_refused(start_proxy, authority, identity):
    """s_server gives up when it is refused: in a response that is a cut, on an idle connection nobody notices."""
    with OpenSslServer(*identity, "-tls1_2") as server:
        proxy = start_proxy(to(server, authority))
        first = Conversation(proxy, server)
        first.ask("/first")
        assert first.begin_answer() and first.end_answer()
        server.write("r\n")
        second = Conversation(proxy, server)
        second.ask("/second")
        assert second.begin_answer()
        server.write("r\n")
        assert second.wire.exactly(5) == b""
        events = proxy.wait_events(2)
        assert events[0]["error"] is None and events[1]["error"]["kind"] == "upstream_aborted"
        assert server.output().count("CIPHER is") == 2
