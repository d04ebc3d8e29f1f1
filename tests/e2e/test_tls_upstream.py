"""Upstreams over TLS: verified, and when they cannot be, the client gets 502 and the event says why."""

import json
import socket
import ssl

import pytest

from support.nginx import Nginx
from support.tls_server import OpenSslServer, ScriptedServer, answer, read_request, repeat
from support.waiting import wait_until
from upstream import MockUpstream, body_of_size


def https_route(url, **tls):
    return {"routes": [{"name": "tls", "prefix": "/", "upstream": url, "tls": tls}]}


def refused(proxy, *words):
    """A 502 whose event's message has one of the words."""
    response = proxy.exchange("GET", "/v1/models")
    assert response.status == 502 and json.loads(response.body)["error"]["code"] == "upstream_unreachable"
    message = proxy.event()["error"]["message"].lower()
    assert any(word in message for word in words), message


def test_verified_by_ca_file(start_proxy, tls_upstream, authority):
    proxy = start_proxy(https_route(tls_upstream.url, ca_file=str(authority.ca_file)))
    with proxy.wire() as wire:
        for size in (0, 1, 100_000, 3_000_000):
            response = wire.exchange("POST", "/bytes", [("x-mock-size", str(size))], body_of_size(size))
            assert response.complete and response.body == body_of_size(size)
            assert tls_upstream.requests[-1].body_bytes == size
    assert tls_upstream.connections == 1
    assert proxy.wait_events(4)[0]["upstream"] == tls_upstream.url


def test_host_name_is_verified_and_sent(start_proxy, authority):
    with MockUpstream(tls=authority.server("named", "DNS:localhost")) as mock:
        proxy = start_proxy(https_route(f"https://localhost:{mock.port}", ca_file=str(authority.ca_file)))
        assert proxy.exchange("GET", "/v1/models").status == 200
        proxy.event()


def test_server_name_setting(start_proxy, authority):
    with MockUpstream(tls=authority.server("elsewhere", "DNS:api.example.test")) as mock:
        proxy = start_proxy(https_route(mock.url, ca_file=str(authority.ca_file), server_name="api.example.test"))
        assert proxy.exchange("GET", "/v1/models").status == 200
        proxy.event()


def test_unknown_authority_by_the_systems_store(start_proxy, tls_upstream):
    refused(start_proxy(https_route(tls_upstream.url)), "certificate")


def test_ssl_cert_file_is_the_systems_store(start_proxy, tls_upstream, authority):
    proxy = start_proxy(https_route(tls_upstream.url), env={"SSL_CERT_FILE": str(authority.ca_file)})
    assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.event()


def test_verification_can_be_switched_off(start_proxy, tls_upstream):
    proxy = start_proxy(https_route(tls_upstream.url, verify=False))
    assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.event()


def test_old_protocol_versions_are_refused(start_proxy, authority):
    context = authority.server("old")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with MockUpstream(tls=context) as mock:
        proxy = start_proxy(https_route(mock.url, ca_file=str(authority.ca_file)))
        assert proxy.exchange("GET", "/v1/models").status == 502
        proxy.event()


SHOW = "return 200 '$ssl_protocol $ssl_server_name $ssl_alpn_protocol $ssl_session_reused $ssl_client_verify $connection_requests';"


def test_what_nginx_sees(start_proxy, authority, tmp_path):
    """The name, the protocol, and one connection for all requests."""
    with Nginx(tmp_path / "nginx", *authority.issue("nginx", "DNS:localhost"), "ssl_protocols TLSv1.2; " + SHOW) as nginx:
        proxy = start_proxy({"workers": 1, **https_route(f"https://localhost:{nginx.port}", ca_file=str(authority.ca_file))})
        assert [proxy.exchange("GET", "/").body.decode() for _ in range(3)] == [f"TLSv1.2 localhost http/1.1 . NONE {number}" for number in (1, 2, 3)]
        proxy.wait_events(3)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_nginx_resumes_sessions(start_proxy, authority, tmp_path, version):
    with Nginx(tmp_path / "nginx", *authority.issue("nginx"), f"ssl_protocols {version}; keepalive_timeout 0; {SHOW}") as nginx:
        proxy = start_proxy(https_route(nginx.url, ca_file=str(authority.ca_file)))
        assert [proxy.exchange("GET", "/").body.split()[-3] for _ in range(4)] == [b".", b"r", b"r", b"r"]
        proxy.wait_events(4)


@pytest.mark.parametrize("version", ["1_2", "1_3"])
@pytest.mark.parametrize("tickets", [(), ("-no_ticket",)], ids=["tickets", "cache"])
def test_openssl_resumes_sessions(start_proxy, authority, version, tickets):
    with OpenSslServer(*authority.issue("resuming"), f"-tls{version}", "-www", *tickets) as server:
        proxy = start_proxy(https_route(server.url, ca_file=str(authority.ca_file)))
        answers = [proxy.exchange("GET", "/").body for _ in range(4)]
        assert b"New, TLSv1." in answers[0] and all(b"Reused, TLSv1." in answer for answer in answers[1:])
        proxy.wait_events(4)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_the_routes_own(start_proxy, authority, other_authority, version):
    """A session that was begun without verification, or with another authority, opens no other route, nor the same one after a reload."""
    context = authority.server("sessions")
    context.minimum_version = context.maximum_version = version
    with ScriptedServer(repeat(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), context) as server:
        routes = [{"name": name, "prefix": f"/{name}", "upstream": server.url, "tls": tls} for name, tls in (
            ("open", {"verify": False}), ("right", {"ca_file": str(authority.ca_file)}), ("wrong", {"ca_file": str(other_authority.ca_file)}))]
        proxy = start_proxy({"routes": routes})
        assert [proxy.exchange("GET", path).status for path in ("/open", "/right", "/wrong", "/open", "/right", "/wrong")] == [200, 200, 502, 200, 200, 502]
        assert server.resumed == [False, False, True, True]
        routes[1]["tls"] = routes[2]["tls"]
        proxy.reload({"routes": routes})
        wait_until(lambda: "configuration reloaded" in proxy.stderr, lambda: proxy.stderr)
        assert proxy.exchange("GET", "/right").status == 502
        proxy.wait_events(7)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_outlives_an_end_without_close_notify(start_proxy, authority, version):
    def answer_and_leave(connection, _):
        read_request(connection)
        connection.sendall(answer(b"ok"))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):  # until the proxy has seen it
            pass

    context = authority.server("rude")
    context.minimum_version = context.maximum_version = version
    with ScriptedServer(answer_and_leave, context) as server:
        proxy = start_proxy({"workers": 1, **https_route(server.url, ca_file=str(authority.ca_file))})
        for number in range(4):
            assert proxy.exchange("GET", "/").body == b"ok"
            wait_until(lambda: server.ended == number + 1, "the end of the connection")
        assert server.resumed == [False, True, True, True]
        proxy.wait_events(4)


@pytest.mark.parametrize("version", ["1_2", "1_3"])
def test_client_certificates(start_proxy, authority, other_authority, version):
    """Given; not given; one that the server does not know: of TLS 1.3 the refusal comes after the handshake."""
    def route(name, issuer):
        certificate, key = issuer.issue(f"client-{name}", None, usage="clientAuth") if issuer else (None, None)
        return {"name": name, "prefix": f"/{name}", "upstream": server.url, "strip_prefix": True,
                "tls": {"ca_file": str(authority.ca_file), **({"client_cert": str(certificate), "client_key": str(key)} if issuer else {})}}

    with OpenSslServer(*authority.issue("mutual"), "-Verify", "1", "-verify_return_error", "-CAfile", authority.ca_file, f"-tls{version}", "-www") as server:
        proxy = start_proxy({"routes": [route("given", authority), route("missing", None), route("wrong", other_authority)]})
        assert b"client-given" in proxy.exchange("GET", "/given/").body
        for name in ("missing", "wrong"):
            for _ in range(2):
                response = proxy.exchange("POST", f"/{name}/", (), b"prompt")
                assert response.status == 502 and json.loads(response.body)["error"]["code"] == "upstream_unreachable"
        events = proxy.wait_events(5)
        messages = [event["error"] and event["error"]["message"].split("TLS alert of the peer: ")[-1] for event in events]
        missing = "certificate required" if version == "1_3" else "handshake failure"
        assert messages == [None, missing, missing, "unknown ca", "unknown ca"]


def test_nginx_verifies_the_client(start_proxy, authority, tmp_path):
    certificate, key = authority.issue("client", None, usage="clientAuth")
    with Nginx(tmp_path / "nginx", *authority.issue("nginx"), f"ssl_verify_client on; ssl_client_certificate {authority.ca_file}; {SHOW}") as nginx:
        proxy = start_proxy(https_route(nginx.url, ca_file=str(authority.ca_file), client_cert=str(certificate), client_key=str(key)))
        assert proxy.exchange("GET", "/").body.split()[-2] == b"SUCCESS"
        without = start_proxy(https_route(nginx.url, ca_file=str(authority.ca_file)))
        assert b"No required SSL certificate was sent" in without.exchange("GET", "/").body  # nginx's own answer, passed on
        proxy.event()
        without.event()


@pytest.mark.parametrize("tls, words", [({"ca_file": "/no/such/ca.pem"}, "/no/such/ca.pem"), ({"ca_file": "/"}, "ca_file"),
                                        ({"client_cert": "/no/such.pem", "client_key": "/no/such.key"}, "client_cert")])
def test_missing_files_stop_the_start(start_proxy, tls, words):
    proxy = start_proxy(https_route("https://127.0.0.1:9", **tls), wait=False)
    assert proxy.wait_exit() == 2
    assert words in proxy.stderr
