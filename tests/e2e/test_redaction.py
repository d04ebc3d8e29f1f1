"""Secrets never reach an event: headers, query parameters and the location header are redacted; a credential leaves its fingerprint."""


import pytest

REDACTED = "[redacted]"
SECRET = "s3cr3t-value"


@pytest.mark.parametrize("name", ["Authorization", "Proxy-Authorization", "Cookie", "Sec-WebSocket-Protocol", "Helicone-Auth",
                                  "cf-aig-authorization", "x-api-key", "api-key", "X-Goog-Api-Key", "X-Amz-Security-Token", "x-my-secret",
                                  "X-Upstream-Authorization"])
def test_secret_request_headers(proxy, upstream, name):
    proxy.exchange("GET", "/v1/models", [(name, f"Bearer {SECRET}")])
    if name != "Proxy-Authorization":  # that one is for us, and goes no further
        assert SECRET in upstream.requests[0].get(name.lower())
    event = proxy.event()
    assert event["request_headers"][name.lower()] == REDACTED
    assert SECRET not in proxy.events_file.read_text()


def test_idempotency_key_is_no_secret(proxy):
    proxy.exchange("GET", "/v1/models", [("Idempotency-Key", "abc"), ("X-Keyboard", "qwertz")])
    headers = proxy.event()["request_headers"]
    assert (headers["idempotency-key"], headers["x-keyboard"]) == ("abc", "qwertz")


def test_secret_response_headers(proxy):
    response = proxy.exchange("GET", "/v1/models", [("x-mock-header", f"Set-Cookie: a={SECRET}"), ("x-mock-header", f"Set-Cookie: b={SECRET}"),
                                                    ("x-mock-header", f"X-Session-Token: {SECRET}")])
    assert response.all("set-cookie") == [f"a={SECRET}", f"b={SECRET}"]
    headers = proxy.event()["response_headers"]
    assert set(headers["set-cookie"].replace(REDACTED, "").replace(", ", "")) == set()
    assert headers["x-session-token"] == REDACTED


@pytest.mark.parametrize("parameter", ["key", "api_key", "api-key", "access_token", "token", "sig", "signature", "subscription-key",
                                       "x-amz-signature", "X-Amz-Credential", "KEY", "%6bey", "Api%5FKey"])
def test_secret_query_parameters(proxy, upstream, parameter):
    proxy.exchange("GET", f"/v1/models?alt=sse&{parameter}={SECRET}&keynote=x")
    assert upstream.requests[0].target == f"/v1/models?alt=sse&{parameter}={SECRET}&keynote=x"
    event = proxy.event()
    assert SECRET not in event["query"] and REDACTED in event["query"]
    assert event["query"].startswith("alt=sse&") and event["query"].endswith("&keynote=x")


def test_secret_in_a_location(proxy):
    location = f"https://example.test/file?sig={SECRET}&page=2"
    response = proxy.exchange("GET", "/v1/models", [("x-mock-status", "302"), ("x-mock-header", f"Location: {location}")])
    assert response.get("location") == location
    assert proxy.event()["response_headers"]["location"] == "https://example.test/file?sig=" + REDACTED + "&page=2"


def test_configured_names_are_redacted_too(start_proxy):
    proxy = start_proxy({"observability": {"redact": {"headers": ["X-Internal"], "query": ["user"]}}})
    proxy.exchange("GET", f"/v1/models?user={SECRET}&other=1", [("x-internal", SECRET), ("x-other", "1")])
    event = proxy.event()
    assert event["request_headers"]["x-internal"] == REDACTED and event["request_headers"]["x-other"] == "1"
    assert event["query"] == f"user={REDACTED}&other=1"


def test_secrets_of_a_route_are_in_no_event_or_log(start_proxy, upstream):
    proxy = start_proxy({"routes": [{"prefix": "/", "upstream": upstream.url, "headers": {"Authorization": f"Bearer {SECRET}"}}], "log": {"level": "debug"}})
    proxy.exchange("GET", "/v1/models", [("Authorization", "Bearer of-the-client")])
    assert upstream.requests[0].all("authorization") == [f"Bearer {SECRET}"]
    proxy.event()
    assert SECRET not in proxy.events_file.read_text() + proxy.stderr
    assert "of-the-client" not in proxy.events_file.read_text() + proxy.stderr


def test_logs_hold_no_body_and_no_header_value(start_proxy):
    proxy = start_proxy({"log": {"level": "debug", "access": True}})
    proxy.exchange("POST", f"/v1/echo?key={SECRET}", [("Authorization", f"Bearer {SECRET}"), ("X-Team", "marker-of-a-header")], b"marker-of-a-body")
    proxy.event()
    for text in (SECRET, "marker-of-a-header", "marker-of-a-body"):
        assert text not in proxy.stderr


@pytest.mark.parametrize("name, value, kind", [("Authorization", "Bearer sk-1", "authorization"), ("x-api-key", "sk-1", "x-api-key"),
                                               ("api-key", "sk-1", "api-key"), ("x-goog-api-key", "sk-1", "x-goog-api-key")])
def test_credential_fingerprint(start_proxy, name, value, kind):
    proxy = start_proxy({"observability": {"fingerprint_key": "a key for fingerprints"}})
    proxy.exchange("GET", "/v1/models", [(name, value)])
    proxy.exchange("GET", "/v1/models", [(name, value)])
    proxy.exchange("GET", "/v1/models", [(name, value + "2")])
    first, again, other = (event["credential"] for event in proxy.wait_events(3))
    assert first["kind"] == kind and len(first["fingerprint"]) == 12 and int(first["fingerprint"], 16) >= 0
    assert first == again and first["fingerprint"] != other["fingerprint"]


def test_fingerprints_agree_between_instances_with_the_same_key_only(start_proxy):
    prints = []
    for key in ("one", "one", "two", None, None):
        proxy = start_proxy({"observability": {"fingerprint_key": key}})
        proxy.exchange("GET", "/v1/models", [("x-api-key", "sk-1")])
        prints.append(proxy.event()["credential"]["fingerprint"])
        if key is None:
            assert "fingerprint_key" in proxy.stderr
    assert prints[0] == prints[1] and len(set(prints)) == 4


def test_one_connection_with_changing_credentials(start_proxy):
    proxy = start_proxy()
    with proxy.wire() as wire:
        for key in ("a", "b", "a", None):
            wire.exchange("GET", "/v1/models", [("x-api-key", key)] if key else [])
    a, b, again, none = (event["credential"] for event in proxy.wait_events(4))
    assert a == again and a != b and none is None
