"""Upstreams behind a forward proxy: reached through a tunnel that CONNECT opens, and when the proxy does not let through, the client gets 502 or 504 and the event
says whose fault it was."""

import json

import pytest

from support.forward_proxy import ForwardProxy
from support.proxy import run
from upstream import MockUpstream, body_of_size

NAME = "api.example.test"  # leads nowhere but through a forward proxy that knows it


@pytest.fixture
def named(authority):
    """An https upstream with a certificate for NAME."""
    with MockUpstream(tls=authority.server("named", f"DNS:{NAME}")) as mock:
        yield mock


def routed(url, authority=None, **route):
    tls = {"tls": {"ca_file": str(authority.ca_file)}} if authority else {}
    return {"routes": [{"name": "far", "prefix": "/", "upstream": url, **tls, **route}]}


def with_user(forward, user_info):
    return forward.url.replace("//", f"//{user_info}@")


def refused(proxy, status, kind, *parts):
    """Answered by us, and the event's message has all the parts."""
    response = proxy.exchange("GET", "/v1/models")
    assert response.status == status and json.loads(response.body)["error"]["code"] == kind
    error = proxy.event()["error"]
    assert error["kind"] == kind and all(part in error["message"] for part in parts), error


def test_https_through_the_proxy_is_verified_and_kept(start_proxy, named, authority):
    with ForwardProxy(names={NAME: "127.0.0.1"}) as forward:
        url = f"https://{NAME}:{named.port}"
        proxy = start_proxy(routed(url, authority, proxy=forward.url))
        with proxy.wire() as wire:
            for size in (0, 1, 100_000, 3_000_000):
                response = wire.exchange("POST", "/bytes", [("x-mock-size", str(size))], body_of_size(size))
                assert response.complete and response.body == body_of_size(size)
        assert forward.heads == [f"CONNECT {NAME}:{named.port} HTTP/1.1\r\nHost: {NAME}:{named.port}\r\n\r\n"]
        assert named.connections == 1
        assert [event["upstream"] for event in proxy.wait_events(4)] == [url] * 4


def test_the_certificate_must_be_the_upstreams(start_proxy, tls_upstream, authority):
    with ForwardProxy(names={NAME: "127.0.0.1"}) as forward:
        refused(start_proxy(routed(f"https://{NAME}:{tls_upstream.port}", authority, proxy=forward.url)), 502, "upstream_unreachable",
                f"TLS handshake with {NAME}", "the certificate is not for")


def test_http_through_the_proxy_that_the_route_names(start_proxy, upstream):
    with ForwardProxy() as forward:
        proxy = start_proxy(routed(upstream.url, proxy=forward.url))
        with proxy.wire() as wire:
            assert wire.exchange("POST", "/bytes", [("x-mock-size", "1000")], b"x").body == body_of_size(1000)
            assert wire.exchange("GET", "/v1/models").status == 200
        assert forward.targets == [f"127.0.0.1:{upstream.port}"] and forward.tunnels == 1
        assert not any(name.lower().startswith("proxy-") for name, _ in upstream.requests[-1].headers)
        proxy.wait_events(2)


def test_an_ip6_upstream_is_asked_for_in_brackets(start_proxy):
    with MockUpstream(host="::1") as mock, ForwardProxy() as forward:
        proxy = start_proxy(routed(mock.url, proxy=forward.url))
        assert proxy.exchange("GET", "/v1/models").status == 200
        assert forward.targets == [f"[::1]:{mock.port}"]
        proxy.event()


def test_a_tunnel_that_was_closed_while_idle_is_replaced(start_proxy, upstream):
    with ForwardProxy() as forward:
        proxy = start_proxy(routed(upstream.url, proxy=forward.url, timeouts={"upstream_idle": 0.2}))
        with proxy.wire() as wire:
            assert wire.exchange("GET", "/v1/models").status == 200
            assert wire.is_quiet(0.6)
            assert wire.exchange("GET", "/v1/models").status == 200
        assert forward.tunnels == 2
        proxy.wait_events(2)


def test_credentials_are_sent_to_the_proxy_and_shown_nowhere(start_proxy, upstream):
    with ForwardProxy(credentials="us@er:p:a ss/%") as forward:
        changes = {**routed(upstream.url, proxy=with_user(forward, "us%40er:p%3aa%20ss%2F%25")), "log": {"level": "debug", "access": True}}
        proxy = start_proxy(changes)
        assert proxy.exchange("GET", "/v1/models").status == 200
        assert "Proxy-Authorization: Basic dXNAZXI6cDphIHNzLyU=\r\n" in forward.heads[0]
        event = json.dumps(proxy.event())
        for text in (event, proxy.stderr, str(upstream.requests[-1].headers)):
            assert "us%40er" not in text and "us@er" not in text and "dXNAZXI6" not in text
        assert proxy.stderr


@pytest.mark.parametrize("user_info", ["", "user:wrong"])
def test_407_is_told_without_the_password(start_proxy, upstream, user_info):
    with ForwardProxy(credentials="user:right") as forward:
        url = with_user(forward, user_info) if user_info else forward.url
        proxy = start_proxy(routed(upstream.url, proxy=url))
        refused(proxy, 502, "upstream_unreachable", f"forward proxy 127.0.0.1:{forward.port}: ", "status 407")
        assert "wrong" not in json.dumps(proxy.event()) and "wrong" not in proxy.stderr
        assert upstream.connections == 0


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["nothing", "half a head"])
def test_a_proxy_that_closes(start_proxy, upstream, answer):
    with ForwardProxy(answer=answer) as forward:
        refused(start_proxy(routed(upstream.url, proxy=forward.url)), 502, "upstream_unreachable",
                f"forward proxy 127.0.0.1:{forward.port}: CONNECT 127.0.0.1:{upstream.port}: closed the connection")


@pytest.mark.parametrize("answer, words", [
    (b"HTTP/1.1 403 Forbidden\r\n\r\n", "status 403"),
    (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "status 502"),
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "status 101"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
    (b"HTTP/1.1 200 OK\r\nno field\r\n\r\n", "malformed"),
    (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "behind the head"),
    (b"HTTP/1.1 200 OK\r\n" + b"X-Pad: %b\r\n" % (b"x" * 1000) * 20 + b"\r\n", "larger than 16 KiB"),
], ids=["403", "502", "101", "junk", "bad field", "surplus", "large"])
@pytest.mark.parametrize("hang", [False, True], ids=["closes", "stays"])
def test_no_tunnel_no_response(start_proxy, upstream, answer, words, hang):
    with ForwardProxy(answer=answer, hang=hang) as forward:
        refused(start_proxy(routed(upstream.url, proxy=forward.url)), 502, "upstream_unreachable", f"forward proxy 127.0.0.1:{forward.port}: ", words)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nVia: x\r\n"], ids=["silent", "half a head"])
def test_a_proxy_that_hangs_times_out(start_proxy, upstream, answer):
    with ForwardProxy(answer=answer, hang=True) as forward:
        refused(start_proxy(routed(upstream.url, proxy=forward.url, timeouts={"connect": 0.3})), 504, "upstream_timeout",
                f"forward proxy 127.0.0.1:{forward.port}: ", "timed out")


def test_a_proxy_that_is_not_there(start_proxy, upstream):
    with ForwardProxy() as gone:
        port = gone.port
    refused(start_proxy(routed(upstream.url, proxy=f"http://127.0.0.1:{port}")), 502, "upstream_unreachable",
            f"forward proxy 127.0.0.1:{port}: connection refused")


def test_a_client_that_leaves_closes_the_tunnel(start_proxy, upstream):
    with ForwardProxy(answer=b"", hang=True) as forward:
        proxy = start_proxy(routed(upstream.url, proxy=forward.url))
        with proxy.wire() as wire:
            wire.request("GET", "/v1/models")
            assert wire.is_quiet(0.2)
        assert proxy.event()["error"]["kind"] == "client_aborted"


# The environment


@pytest.mark.parametrize("variables", [
    {"HTTPS_PROXY": "@URL@"}, {"https_proxy": "@URL@", "HTTPS_PROXY": "http://127.0.0.1:9"}, {"HTTPS_PROXY": "@HOST@"},
    {"HTTPS_PROXY": "@URL@", "NO_PROXY": "other.test, .le.test, 10.0.0.0/8 api.example.test:1"},
], ids=["upper", "lower is stronger", "without scheme", "no exception"])
def test_https_proxy_is_used(start_proxy, named, authority, variables):
    with ForwardProxy(names={NAME: "127.0.0.1"}) as forward:
        env = {name: value.replace("@URL@", forward.url).replace("@HOST@", f"127.0.0.1:{forward.port}") for name, value in variables.items()}
        proxy = start_proxy(routed(f"https://{NAME}:{named.port}", authority), env=env)
        assert proxy.exchange("GET", "/v1/models").status == 200
        assert forward.targets == [f"{NAME}:{named.port}"]
        proxy.event()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_this_machine_is_reached_directly(start_proxy, tls_upstream, authority, host):
    with ForwardProxy() as forward:
        proxy = start_proxy(routed(f"https://{host}:{tls_upstream.port}", authority), env={"HTTPS_PROXY": forward.url})
        assert proxy.exchange("GET", "/v1/models").status == 200
        assert forward.connections == 0
        proxy.event()


def test_http_upstreams_are_reached_directly(start_proxy, upstream):
    with ForwardProxy() as forward:
        env = {"HTTPS_PROXY": forward.url, "HTTP_PROXY": forward.url, "http_proxy": forward.url}
        proxy = start_proxy(routed(f"http://{NAME}:{upstream.port}", timeouts={"connect": 5}), env=env)
        assert proxy.exchange("GET", "/v1/models").status in (502, 504)
        assert forward.connections == 0
        proxy.event()


def test_an_upstream_that_no_proxy_excepts_is_reached_directly(start_proxy, named, authority):
    with ForwardProxy(names={NAME: "127.0.0.1"}) as forward:
        env = {"HTTPS_PROXY": forward.url, "NO_PROXY": "example.test"}
        proxy = start_proxy(routed(f"https://{NAME}:{named.port}", authority, timeouts={"connect": 5}), env=env)
        assert proxy.exchange("GET", "/v1/models").status in (502, 504)
        assert forward.connections == 0
        proxy.event()


def test_what_a_route_says_is_stronger_than_the_environment(start_proxy, upstream, named, authority):
    with ForwardProxy(names={NAME: "127.0.0.1"}) as forward, ForwardProxy() as other:
        routes = routed(f"https://{NAME}:{named.port}", authority, proxy=forward.url)
        proxy = start_proxy(routes, env={"HTTPS_PROXY": other.url, "NO_PROXY": "*"})
        assert proxy.exchange("GET", "/v1/models").status == 200
        assert forward.tunnels == 1 and other.connections == 0
        proxy.event()


def test_false_is_none(start_proxy, named, authority):
    with ForwardProxy() as forward:
        proxy = start_proxy(routed(f"https://{NAME}:{named.port}", authority, proxy=False, timeouts={"connect": 5}), env={"HTTPS_PROXY": forward.url})
        assert proxy.exchange("GET", "/v1/models").status in (502, 504)
        assert forward.connections == 0
        proxy.event()


def test_check_shows_the_proxy_without_its_password(tmp_path):
    file = tmp_path / "llm-proxy.lua"
    file.write_text('return { routes = { { prefix = "/", upstream = "https://far.test" }, { prefix = "/near", upstream = "https://near.test" },'
                    ' { prefix = "/own", upstream = "https://far.test", proxy = "http://joe:hush@own.test:1" } } }')
    result = run("check", "-c", file, "--json", env={"HTTPS_PROXY": "jane:hush@given.test:3128", "NO_PROXY": "near.test"})
    assert result.returncode == 0 and "hush" not in result.stdout + result.stderr and "jane" not in result.stdout
    settings = json.loads(result.stdout)["settings"]
    assert settings["routes[1].proxy"] == {"value": "http://[secret]@given.test:3128", "source": "env HTTPS_PROXY"}
    assert settings["routes[2].proxy"] == {"value": False, "source": "env NO_PROXY"}
    assert settings["routes[3].proxy"] == {"value": "http://[secret]@own.test:1", "source": "file"}
