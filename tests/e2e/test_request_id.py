"""The request id: the client's if it is a good one, else a UUIDv7; upstream, in the event, and to the client if the response has none."""

import re

import pytest

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.mark.parametrize("given", ["abc", "A.b_c:1/2+3=@-", "x" * 128])
def test_good_id_is_kept(proxy, upstream, given):
    response = proxy.exchange("GET", "/v1/models", [("X-Request-Id", given)])
    assert upstream.requests[0].all("x-request-id") == [given]
    assert response.get("x-request-id") == given
    assert proxy.event()["request_id"] == given


@pytest.mark.parametrize("given", ["", "has space", "x" * 129, "semi;colon", "quote\"", "bracket<"])
def test_bad_id_is_replaced(proxy, upstream, given):
    response = proxy.exchange("GET", "/v1/models", [("X-Request-Id", given)])
    sent = upstream.requests[0].all("x-request-id")
    assert len(sent) == 1 and UUID7.fullmatch(sent[0])
    assert response.get("x-request-id") == sent[0] == proxy.event()["request_id"]


def test_missing_id_is_made_and_is_unique(proxy, upstream):
    with proxy.wire() as wire:
        for _ in range(20):
            wire.exchange("GET", "/v1/models")
    ids = [event["request_id"] for event in proxy.wait_events(20)]
    assert len(set(ids)) == 20 and all(UUID7.fullmatch(one) for one in ids)
    assert ids == [request.get("x-request-id") for request in upstream.requests]
    assert ids == sorted(ids), "UUIDv7 in order of time"


def test_providers_own_id_reaches_the_client(proxy, upstream):
    response = proxy.exchange("GET", "/v1/models", [("X-Request-Id", "mine"), ("x-mock-header", "x-request-id: theirs")])
    assert response.get("x-request-id") == "theirs"
    assert proxy.event()["request_id"] == "mine"


def test_errors_of_the_proxy_carry_it(start_proxy):
    import json
    proxy = start_proxy({"routes": [{"prefix": "/only", "upstream": "http://127.0.0.1:9"}]})
    response = proxy.exchange("GET", "/elsewhere", [("X-Request-Id", "mine")])
    assert response.get("x-request-id") == "mine"
    assert json.loads(response.body)["error"]["request_id"] == "mine"
    assert proxy.event()["request_id"] == "mine"


def test_repeated_id_is_not_trusted_as_one(proxy, upstream):
    proxy.exchange("GET", "/v1/models", [("X-Request-Id", "one"), ("X-Request-Id", "two")])
    sent = upstream.requests[0].all("x-request-id")
    assert len(sent) == 1 and sent[0] == proxy.event()["request_id"]
