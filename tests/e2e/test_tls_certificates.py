"""Certificates of upstreams, held against `openssl s_server`: the right ones are taken, the wrong ones answered with 502, and what is wrong is said so that somebody can
mend it."""

import json
from collections import namedtuple
from contextlib import ExitStack

import pytest

from support.certificates import Authority
from support.proxy import Proxy
from support.tls_server import OpenSslServer
from support.waiting import wait_until

API = "api.example.test"
WILD = {"server_name": API}


Authorities = namedtuple("Authorities", "own other intermediate impostor")


def issued(names, by="own", **options):
    return lambda authorities, name: getattr(authorities, by).issue(name, names, **options)


def with_chain(names, by):
    """The server sends its issuer's certificate along."""
    return lambda authorities, name: (*issued(names, by)(authorities, name), "-cert_chain", getattr(authorities, by).ca_file)


def self_signed(authorities, name):
    return authorities.own.self_signed(name, "IP:127.0.0.1")


# What the server shows, what the route's tls says, and what must be in the message; nothing: the certificate is taken.
CASES = {
    "address": (issued("IP:127.0.0.1"), {}, []),
    "name": (issued(f"DNS:{API}"), WILD, []),
    "name-with-a-dot": (issued(f"DNS:{API}"), {"server_name": API + "."}, []),
    "name-in-capitals": (issued(f"DNS:{API.upper()}"), WILD, []),
    "wildcard": (issued("DNS:*.example.test"), WILD, []),
    "second-of-two-names": (issued(f"DNS:other.example.test,DNS:{API}"), WILD, []),
    "unverified": (self_signed, {"verify": False}, []),
    "other-name": (issued("DNS:other.example.test,DNS:third.example.test"), WILD,
                   ["hostname mismatch: the certificate is not for api.example.test but for other.example.test, third.example.test"]),
    "other-address": (issued("IP:127.0.0.2,DNS:127.0.0.1,IP:::1"), {}, ["the certificate is not for 127.0.0.1 but for 127.0.0.2, 127.0.0.1, ::1"]),
    "name-for-an-address": (issued("DNS:localhost"), {}, ["the certificate is not for 127.0.0.1 but for localhost"]),
    "address-for-a-name": (issued("IP:127.0.0.1"), WILD, ["the certificate is not for api.example.test but for 127.0.0.1"]),
    "many-names": (issued(",".join(f"DNS:n{number}.example.test" for number in range(50))), WILD, ["but for n0.example.test, n1.example.test", " and 46 more"]),
    "wildcard-of-another-level": (issued("DNS:*.example.test"), {"server_name": "a.b.example.test"}, ["is not for a.b.example.test but for *.example.test"]),
    "wildcard-of-the-domain-itself": (issued("DNS:*.example.test"), {"server_name": "example.test"}, ["is not for example.test but for *.example.test"]),
    "wildcard-within-a-label": (issued("DNS:a*.example.test"), WILD, ["is not for api.example.test but for a*.example.test"]),
    "wildcard-in-the-middle": (issued("DNS:api.*.test"), WILD, ["is not for api.example.test but for api.*.test"]),
    "wildcard-for-an-address": (issued("DNS:*.0.0.1"), {}, ["is not for 127.0.0.1"]),
    "expired": (issued("IP:127.0.0.1", start="20200101000000Z", end="20210203040506Z"), {},
                ["certificate has expired: CN=expired was valid until 2021-02-03 04:05:06Z"]),
    "not-yet-valid": (issued("IP:127.0.0.1", start="20480203040506Z", end="20490101000000Z"), {},
                      ["certificate is not yet valid: CN=not-yet-valid is valid from 2048-02-03 04:05:06Z"]),
    "self-signed": (self_signed, {}, ["self-signed certificate: CN=self-signed is no trusted authority"]),
    "for-clients-only": (issued("IP:127.0.0.1", usage="clientAuth"), {}, ["CN=for-clients-only", "purpose"]),
    "odd-characters": (issued("DNS:a\x01b.example.test\x7f"), WILD, ["is not for api.example.test but for"]),
    "intermediate": (with_chain("IP:127.0.0.1", "intermediate"), {}, []),
    "missing-intermediate": (issued("IP:127.0.0.1", "intermediate"), {},
                             ["unable to get local issuer certificate: CN=intermediate is no trusted authority, nor was its certificate sent; "
                              "it issued that of CN=missing-intermediate"]),
    "unknown-authority": (issued("IP:127.0.0.1", "other"), {}, ["unable to get local issuer certificate: CN=somebody else is no trusted authority"]),
    "unknown-authority-sent-along": (with_chain("IP:127.0.0.1", "other"), {},
                                     ["self-signed certificate in certificate chain: CN=somebody else is no trusted authority"]),
    "issued-by-no-authority": (with_chain("IP:127.0.0.1", "impostor"), {}, ["invalid CA certificate: CN=impostor"]),
}


class Impostor(Authority):
    """Has a good certificate that makes it no authority, and issues with it."""

    def __init__(self, authority):
        self.folder = authority.folder
        self.ca_file, self.ca_key = authority.issue("impostor")


@pytest.fixture(scope="module")
def stage(authority, other_authority, tmp_path_factory):
    """One proxy with a route for each case, each to a server of its own."""
    folder = tmp_path_factory.mktemp("certificates")
    authorities = Authorities(authority, other_authority, Authority(folder / "intermediate", "intermediate", issuer=authority), Impostor(authority))
    with ExitStack() as servers:
        routes = []
        for name, (make, tls, _) in CASES.items():
            server = servers.enter_context(OpenSslServer(*make(authorities, name), "-www"))
            routes.append({"name": name, "prefix": f"/{name}/", "upstream": server.url, "strip_prefix": True, "tls": {"ca_file": str(authority.ca_file), **tls}})
        proxy = Proxy(folder, {"routes": routes})
        yield proxy
        proxy.finish()


@pytest.mark.parametrize("name", CASES)
def test_certificate(stage, name):
    words = CASES[name][2]
    response = stage.exchange("GET", f"/{name}/")
    event = wait_until(lambda: [event for event in stage.events() if event["route"] == name], "the event")[0]
    if not words:
        assert response.status == 200 and b"Secure Renegotiation" in response.body and event["error"] is None, response.body
        return
    assert (response.status, json.loads(response.body)["error"]["code"]) == (502, "upstream_unreachable")
    kind, message = event["error"]["kind"], event["error"]["message"]
    assert kind == "upstream_unreachable" and message.startswith("TLS handshake with 127.0.0.1: ") and message.isprintable()
    assert all(word in message for word in words), message
    assert stage.metrics().value("llm_proxy_requests_total", route=name, code="502") == 1
    assert b"127.0.0.1" not in response.body and b"certificate" not in response.body, "what the upstream is called is not for strangers"
