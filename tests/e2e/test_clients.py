"""Who may come in: tokens and networks, whose word on the client's address counts, and how many connections one address may have."""

import json

import pytest

from support.proxy import run
from support.waiting import wait_until
from support.wire import Wire

ALICE, BOB, KEY = "alice-s3cr3t", "bob-s3cr3t", "sk-of-the-operator"
TOKENS = {"clients": {"tokens": {"alice": ALICE, "bob": BOB}}}
FIELDS = [("Authorization", "Bearer {}"), ("authorization", "bearer {}"), ("x-api-key", "{}"), ("api-key", "{}"), ("X-Goog-Api-Key", "{}")]


def carry(field, token):
    return field[0], field[1].format(token)


def is_unauthorized(response):
    return response.status == 401 and json.loads(response.body)["error"]["code"] == "unauthorized"


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field[0])
def test_a_token_lets_in_and_goes_no_further(start_proxy, upstream, field):
    proxy = start_proxy(TOKENS)
    assert proxy.exchange("GET", "/v1/models", [("X-Before", "1"), carry(field, BOB), ("X-After", "2")]).status == 200
    request, event = upstream.requests[0], proxy.event()
    assert request.all(field[0].lower()) == [] and (request.get("x-before"), request.get("x-after")) == ("1", "2")
    assert BOB not in repr(request.headers)
    assert event["client_name"] == "bob" and event["error"] is None
    assert event["credential"]["kind"] == field[0].lower() and event["request_headers"][field[0].lower()] == "[redacted]"


def test_the_fingerprint_of_a_token_is_that_of_what_came(start_proxy):
    open_to_all = start_proxy({"observability": {"fingerprint_key": "k"}})
    guarded = start_proxy({**TOKENS, "observability": {"fingerprint_key": "k"}})
    for proxy in (open_to_all, guarded):
        proxy.exchange("GET", "/v1/models", [("x-api-key", ALICE)])
    assert open_to_all.event()["credential"] == guarded.event()["credential"]


def test_a_key_beside_the_token_passes(start_proxy, upstream):
    proxy = start_proxy(TOKENS)
    assert proxy.exchange("GET", "/v1/models", [("Authorization", "Bearer sk-own"), ("x-api-key", ALICE)]).status == 200
    assert upstream.requests[0].get("authorization") == "Bearer sk-own" and upstream.requests[0].all("x-api-key") == []
    assert proxy.event()["client_name"] == "alice"


def test_a_token_sent_twice_stays_here_twice(start_proxy, upstream):
    proxy = start_proxy(TOKENS)
    assert proxy.exchange("GET", "/v1/models", [("Authorization", f"Bearer {ALICE}"), ("x-api-key", ALICE), ("api-key", BOB)]).status == 200
    assert ALICE not in repr(upstream.requests[0].headers) and BOB not in repr(upstream.requests[0].headers)
    assert proxy.event()["client_name"] == "alice"


@pytest.mark.parametrize("scheme", ["Basic ", "Token ", ""])
def test_a_token_behind_another_scheme_goes_no_further(start_proxy, upstream, scheme):
    proxy = start_proxy(TOKENS)
    assert proxy.exchange("GET", "/v1/models", [("x-api-key", ALICE), ("Authorization", scheme + BOB)]).status == 200
    assert ALICE not in repr(upstream.requests[0].headers) and BOB not in repr(upstream.requests[0].headers)


def test_the_routes_own_credential_takes_the_tokens_place(start_proxy, upstream):
    proxy = start_proxy({**TOKENS, "routes": [{"prefix": "/", "upstream": upstream.url, "headers": {"Authorization": f"Bearer {KEY}"}}], "log": {"level": "debug", "access": True}})
    assert proxy.exchange("GET", "/v1/models", [("Authorization", f"Bearer {ALICE}")]).status == 200
    assert upstream.requests[0].all("authorization") == [f"Bearer {KEY}"]
    proxy.event()
    assert proxy.exchange("GET", "/v1/models", [("x-api-key", BOB + "x")]).status == 401
    proxy.wait_events(2)
    for secret in (ALICE, BOB, KEY):
        assert secret not in proxy.stderr + proxy.stdout + proxy.events_file.read_text()


@pytest.mark.parametrize("headers", [[], [("Authorization", "Bearer wrong")], [("Authorization", "Bearer " + ALICE[:-1])], [("Authorization", f"Basic {ALICE}")],
                                     [("x-api-key", "")], [("x-api-key", "alice")], [("X-Other-Key", ALICE)], [("Cookie", ALICE)]])
def test_without_a_token_nothing_goes_upstream(start_proxy, upstream, headers):
    proxy = start_proxy(TOKENS)
    with proxy.wire() as wire:
        response = wire.exchange("POST", "/v1/echo", headers, b"a question")
        assert is_unauthorized(response) and response.get("www-authenticate") == "Bearer"
        assert wire.exchange("GET", "/v1/models", [("x-api-key", ALICE)]).status == 200  # the connection lives on
    refused, served = proxy.wait_events(2)
    assert (refused["status"], refused["error"]["kind"], refused["client_name"]) == (401, "unauthorized", None)
    assert "clients.tokens" in refused["error"]["message"] and refused["request_body"] == "a question"
    assert served["client_name"] == "alice"
    assert [request.target for request in upstream.requests] == ["/v1/models"]


@pytest.mark.parametrize("method, target", [("GET", "/nowhere"), ("OPTIONS", "*")])
def test_strangers_learn_nothing_about_routes(start_proxy, upstream, method, target):
    proxy = start_proxy({**TOKENS, "routes": [{"prefix": "/v1", "upstream": upstream.url}]})
    assert is_unauthorized(proxy.exchange(method, target))
    assert proxy.event()["error"]["kind"] == "unauthorized"


def test_the_body_is_not_called_for(start_proxy):
    proxy = start_proxy(TOKENS)
    with proxy.wire() as wire:
        wire.request("POST", "/v1/echo", [("Expect", "100-continue"), ("Content-Length", "1000000")])
        response = wire.response("POST")
        assert is_unauthorized(response) and response.interim == []
    proxy.event()


def from_networks(address):
    return {"clients": {"networks": [address]}}


def test_networks_decide_by_the_peer(start_proxy, upstream):
    inside, outside = start_proxy(from_networks("127.0.0.0/8")), start_proxy(from_networks("10.0.0.0/8"))
    assert inside.exchange("GET", "/v1/models").status == 200
    assert is_unauthorized(outside.exchange("GET", "/v1/models", [("X-Forwarded-For", "10.0.0.1")]))
    assert inside.event()["client_name"] is None
    event = outside.event()
    assert event["status"] == 401 and "clients.networks" in event["error"]["message"]
    assert len(upstream.requests) == 1


def test_unix_sockets_are_a_network_of_their_own(start_proxy, tmp_path):
    path = str(tmp_path / "s")
    proxy = start_proxy(file=f"""return {{ listen = {{ "127.0.0.1:@PORT@", "unix:{path}" }}, admin = "127.0.0.1:@ADMIN@", clients = {{ networks = {{ "unix:" }} }},
        limits = {{ max_connections_per_client = 1 }}, routes = {{ {{ prefix = "/", upstream = "@UPSTREAM@" }} }} }}""")
    with Wire(path) as first, Wire(path) as second:
        assert first.exchange("GET", "/v1/models").status == second.exchange("GET", "/v1/models").status == 200
    assert is_unauthorized(proxy.exchange("GET", "/v1/models"))


def test_network_and_token_are_both_needed(start_proxy):
    proxy = start_proxy({"clients": {"tokens": {"alice": ALICE}, "networks": ["127.0.0.1"]}})
    assert proxy.exchange("GET", "/v1/models", [("x-api-key", ALICE)]).status == 200
    assert is_unauthorized(proxy.exchange("GET", "/v1/models"))
    with proxy.wire(source="127.0.0.2") as wire:
        assert is_unauthorized(wire.exchange("GET", "/v1/models", [("x-api-key", ALICE)]))
    assert [event["status"] for event in proxy.wait_events(3)] == [200, 401, 401]


def test_a_trusted_proxy_names_the_client(start_proxy):
    proxy = start_proxy({"trusted_proxies": ["127.0.0.1", "192.0.2.0/24"], "log": {"access": True}})
    for value in ("8.8.8.8", "1.1.1.1, 2001:db8::9, 192.0.2.3", "1.1.1.1, junk", None):
        proxy.exchange("GET", "/v1/models", [("X-Forwarded-For", value)] if value else [])
    with proxy.wire(source="127.0.0.2") as wire:
        wire.exchange("GET", "/v1/models", [("X-Forwarded-For", "8.8.8.8")])
    clients = [event["client"] for event in proxy.wait_events(5)]
    assert clients[:2] == ["8.8.8.8", "2001:db8::9"]
    assert all(client.startswith("127.0.0.1:") for client in clients[2:4]) and clients[4].startswith("127.0.0.2:")
    assert "client=8.8.8.8" in proxy.stderr


def test_networks_hold_for_the_client_that_is_named(start_proxy):
    proxy = start_proxy({"trusted_proxies": ["127.0.0.1"], **from_networks("192.0.2.0/24")})
    assert proxy.exchange("GET", "/v1/models", [("X-Forwarded-For", "8.8.8.8, 192.0.2.1")]).status == 200
    assert is_unauthorized(proxy.exchange("GET", "/v1/models", [("X-Forwarded-For", "192.0.2.1, 8.8.8.8")]))
    assert is_unauthorized(proxy.exchange("GET", "/v1/models"))
    proxy.wait_events(3)


def test_forwarded_adds_to_what_a_trusted_proxy_sent(start_proxy, upstream):
    proxy = start_proxy({"trusted_proxies": ["127.0.0.1"], "routes": [{"prefix": "/", "upstream": upstream.url, "forwarded": True}]})
    sent = [("X-Forwarded-For", "1.2.3.4"), ("x-forwarded-for", "5.6.7.8"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "api.example"), ("X-Forwarded-Port", "443"),
            ("X-Real-IP", "1.2.3.4"), ("Forwarded", "for=9.9.9.9")]
    proxy.exchange("GET", "/", sent, host="inner.example")
    proxy.exchange("GET", "/", host="inner.example")
    with proxy.wire(source="127.0.0.2") as wire:
        wire.exchange("GET", "/", sent, host="inner.example")
    trusted, bare, other = upstream.requests
    assert (trusted.all("x-forwarded-for"), trusted.all("x-forwarded-proto"), trusted.all("x-forwarded-host")) == \
        (["1.2.3.4, 5.6.7.8, 127.0.0.1"], ["https, http"], ["api.example, inner.example"])
    assert (bare.all("x-forwarded-for"), bare.all("x-forwarded-proto"), bare.all("x-forwarded-host")) == (["127.0.0.1"], ["http"], ["inner.example"])
    assert (other.all("x-forwarded-for"), other.all("x-forwarded-proto"), other.all("x-forwarded-host")) == (["127.0.0.2"], ["http"], ["inner.example"])
    assert [(request.get("x-forwarded-port"), request.get("x-real-ip")) for request in upstream.requests] == [("443", "1.2.3.4"), (None, None), (None, None)]
    assert all(request.all("forwarded") == [] for request in upstream.requests)
    proxy.wait_events(3)


def test_reload_changes_who_may_come_in(start_proxy):
    proxy = start_proxy({"clients": {"tokens": {"alice": ALICE}}})
    with proxy.wire() as wire:
        assert wire.exchange("GET", "/v1/models", [("x-api-key", ALICE)]).status == 200
        proxy.reload({"clients": {"tokens": {"bob": BOB}}, "trusted_proxies": ["127.0.0.1"]})
        wait_until(lambda: wire.exchange("GET", "/v1/models", [("x-api-key", BOB), ("X-Forwarded-For", "8.8.8.8")]).status == 200, "bob may come in")
        assert wire.exchange("GET", "/v1/models", [("x-api-key", ALICE)]).status == 401
    last = wait_until(lambda: [event for event in proxy.events() if event["client_name"] == "bob"], "bob's event")[-1]
    assert last["client"] == "8.8.8.8"


def refused_connections(proxy):
    return proxy.metrics().value("llm_proxy_bad_requests_total", reason="max_connections_per_client")


@pytest.mark.parametrize("workers", [1, 3])
def test_an_address_has_so_many_connections_and_no_more(start_proxy, workers):
    proxy = start_proxy({"workers": workers, "limits": {"max_connections_per_client": 2}})
    with proxy.wire() as first, proxy.wire() as second:
        for wire in (first, second):
            assert wire.exchange("GET", "/v1/models").status == 200
        with proxy.wire() as third:
            response = third.response("GET")
            assert response.status == 503 and json.loads(response.body)["error"]["code"] == "overloaded"
            assert third.is_closed()
        assert refused_connections(proxy) == 1
        with proxy.wire(source="127.0.0.2") as other:
            assert other.exchange("GET", "/v1/models").status == 200
        assert first.exchange("GET", "/v1/models").status == 200
    wait_until(lambda: proxy.exchange("GET", "/v1/models").status == 200, "a place is free again")
    assert not any(event["error"] for event in proxy.events())


def test_a_trusted_proxy_has_as_many_as_it_needs(start_proxy):
    proxy = start_proxy({"limits": {"max_connections_per_client": 1}, "trusted_proxies": ["127.0.0.1"]})
    with proxy.wire() as first, proxy.wire() as second, proxy.wire() as third:
        for wire in (first, second, third):
            assert wire.exchange("GET", "/v1/models").status == 200
    proxy.wait_events(3)


def test_a_limit_set_at_a_reload_counts_what_is_there(start_proxy):
    proxy = start_proxy()
    with proxy.wire() as first:
        assert first.exchange("GET", "/v1/models").status == 200
        proxy.reload({"limits": {"max_connections_per_client": 1}})

        def refused():
            with proxy.wire() as second:
                return second.exchange("GET", "/v1/models").status == 503
        wait_until(refused, "a second connection is refused")
        assert first.exchange("GET", "/v1/models").status == 200


@pytest.mark.parametrize("changes, parts", [
    ('clients = {}', ["clients: ", "tokens or networks"]),
    ('clients = { tokens = {} }', ["clients.tokens: ", "at least one token"]),
    ('clients = { tokens = { a = "" } }', ["clients.tokens.a: ", "not empty"]),
    ('clients = { tokens = { a = "hush hush" } }', ["clients.tokens.a: ", "without spaces"]),
    ('clients = { tokens = { a = "hush", b = "hush" } }', ["clients.tokens: ", "'a' and 'b' have the same secret"]),
    ('clients = { tokens = "hush" }', ["clients.tokens: ", "names as keys"]),
    ('clients = { tokens = { "hush" } }', ["clients.tokens: "]),
    ('clients = { token = { a = "hush" } }', ["clients.token: ", "tokens"]),
    ('clients = { networks = { "10.0.0.0/33" } }', ["clients.networks[1]: ", "a network", "10.0.0.0/33"]),
    ('clients = { networks = {} }', ["clients.networks: "]),
    ('trusted_proxies = { "10.0.0.1", "proxy.example" }', ["trusted_proxies[2]: ", "proxy.example"]),
    ('limits = { max_connections_per_client = 0 }', ["limits.max_connections_per_client: ", "from 1"]),
    ('listen = ":1", routes = { { prefix = "/", upstream = "http://x", headers = { authorization = "hush" } } }', ["routes[1]: ", "clients, or open = true"]),
])
def test_what_is_wrong_is_said(tmp_path, changes, parts):
    file = tmp_path / "c.lua"
    file.write_text("return { " + changes + " }")
    result = run("check", "-c", file)
    assert result.returncode == 2
    assert all(part in result.stderr for part in parts), result.stderr
    assert "hush" not in result.stderr


def test_clients_open_a_route_with_a_secret_to_the_world(tmp_path):
    for clients in ('{ tokens = { alice = "hush" } }', '{ networks = { "10.0.0.0/8", "unix:" } }'):
        file = tmp_path / "c.lua"
        file.write_text("return { listen = ':1', clients = " + clients + ", routes = { { prefix = '/', upstream = 'http://x', headers = { authorization = 'hush' } } } }")
        text, as_json = run("check", "-c", file), run("check", "-c", file, "--json")
        assert text.returncode == as_json.returncode == 0, text.stderr
        assert "hush" not in text.stdout + as_json.stdout + text.stderr
        assert ("clients.tokens.alice = [secret]  (file)" in text.stdout) == ("alice" in clients)
