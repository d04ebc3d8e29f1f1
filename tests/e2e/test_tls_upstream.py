"""Upstreams over TLS: verified, and when they cannot be, the client gets 502 and the event says why."""

import json
import socket
import ssl
import subprocess
import threading

import pytest

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


def test_wrong_authority(start_proxy, tls_upstream, other_authority):
    refused(start_proxy(https_route(tls_upstream.url, ca_file=str(other_authority.ca_file))), "certificate")


def test_unknown_authority_by_the_systems_store(start_proxy, tls_upstream):
    refused(start_proxy(https_route(tls_upstream.url)), "certificate")


def test_ssl_cert_file_is_the_systems_store(start_proxy, tls_upstream, authority):
    proxy = start_proxy(https_route(tls_upstream.url), env={"SSL_CERT_FILE": str(authority.ca_file)})
    assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.event()


def test_wrong_host_name(start_proxy, authority):
    with MockUpstream(tls=authority.server("wrong", "DNS:somewhere.else")) as mock:
        refused(start_proxy(https_route(mock.url, ca_file=str(authority.ca_file))), "certificate", "mismatch", "name")


def test_verification_can_be_switched_off(start_proxy, tls_upstream):
    proxy = start_proxy(https_route(tls_upstream.url, verify=False))
    assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.event()


def test_plain_http_where_tls_was_expected(start_proxy):
    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        proxy = start_proxy(https_route("https://127.0.0.1:%d" % listener.getsockname()[1], verify=False))
        assert proxy.exchange("GET", "/v1/models").status == 502
        assert proxy.event()["error"]["kind"] == "upstream_unreachable"


def test_old_protocol_versions_are_refused(start_proxy, authority):
    context = authority.server("old")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with MockUpstream(tls=context) as mock:
        proxy = start_proxy(https_route(mock.url, ca_file=str(authority.ca_file)))
        assert proxy.exchange("GET", "/v1/models").status == 502
        proxy.event()


def test_client_certificate(start_proxy, authority):
    context = authority.server("mutual")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_file)
    certificate, key = authority.folder / "client.pem", authority.folder / "client.key"
    subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", authority.folder / "client.csr",
                    "-subj", "/CN=client"], check=True, capture_output=True)
    subprocess.run(["openssl", "x509", "-req", "-in", authority.folder / "client.csr", "-CA", authority.ca_file, "-CAkey", authority.ca_key, "-CAcreateserial",
                    "-days", "2", "-out", certificate], check=True, capture_output=True)
    with MockUpstream(tls=context) as mock:
        proxy = start_proxy(https_route(mock.url, ca_file=str(authority.ca_file), client_cert=str(certificate), client_key=str(key)))
        assert proxy.exchange("GET", "/v1/models").status == 200
        proxy.event()
        without = start_proxy(https_route(mock.url, ca_file=str(authority.ca_file)))
        assert without.exchange("GET", "/v1/models").status == 502
        without.event()


def test_alpn_is_http_1_1(start_proxy, authority):
    context, offered = authority.server("alpn"), []
    context.set_alpn_protocols(["http/1.1"])
    context.sni_callback = lambda _socket, name, _context: offered.append(name)
    with MockUpstream(tls=context) as mock:
        proxy = start_proxy(https_route(f"https://localhost:{mock.port}", ca_file=str(authority.ca_file)))
        assert proxy.exchange("GET", "/v1/models").status == 200
        proxy.event()
    assert offered == ["localhost"]


@pytest.mark.parametrize("framing", ["close", "chunked", "length"])
def test_truncation_over_tls_is_seen(start_proxy, tls_upstream, authority, framing):
    """A connection that ends without TLS's own goodbye is cut, whatever the framing."""
    proxy = start_proxy(https_route(tls_upstream.url, ca_file=str(authority.ca_file)))
    response = proxy.exchange("GET", "/bytes", [("x-mock-abort", "1"), ("x-mock-reset", "1"), ("x-mock-size", "50000"), ("x-mock-framing", framing),
                                                ("x-mock-pace", "0.1")])
    assert response.status == 200 and not response.complete
    assert proxy.event()["error"]["kind"] == "upstream_aborted"


@pytest.mark.parametrize("tls, words", [({"ca_file": "/no/such/ca.pem"}, "/no/such/ca.pem"), ({"ca_file": "/"}, "ca_file"),
                                        ({"client_cert": "/no/such.pem", "client_key": "/no/such.key"}, "client_cert")])
def test_missing_files_stop_the_start(start_proxy, tls, words):
    proxy = start_proxy(https_route("https://127.0.0.1:9", **tls), wait=False)
    assert proxy.wait_exit() == 2
    assert words in proxy.stderr
