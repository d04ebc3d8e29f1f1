"""Routes: the longest prefix wins, on segment boundaries; what is put in front, taken off, set and removed."""

import json

import pytest

from upstream import MockUpstream


def route(prefix, upstream, **more):
    return {"prefix": prefix, "upstream": upstream.url, **more}


@pytest.mark.parametrize("prefix", ["/v1", "/v1/"])
def test_segment_boundary(start_proxy, upstream, prefix):
    proxy = start_proxy({"routes": [route(prefix, upstream)]})
    statuses = {path: json.loads(proxy.exchange("GET", path).body)["error"].get("code") for path in
                ("/v1", "/v1/", "/v1/x", "/v1?x=1", "/v1x", "/v10/x", "/V1/x", "/", "/x/v1/")}
    reached = {path for path, code in statuses.items() if code != "no_route"}
    assert reached == {"/v1", "/v1/", "/v1/x", "/v1?x=1"}
    proxy.wait_events(9)


def test_longest_prefix_wins(start_proxy, upstream):
    names = ["/", "/v1", "/v1/chat", "/v1/chat/completions/"]
    proxy = start_proxy({"routes": [route(prefix, upstream, name=prefix) for prefix in (names[1], names[3], names[0], names[2])]})
    for path in ("/x", "/v1/models", "/v1/chat", "/v1/chatx", "/v1/chat/x", "/v1/chat/completions", "/v1/chat/completions/x"):
        proxy.exchange("GET", path)
    assert [event["route"] for event in proxy.wait_events(7)] == ["/", "/v1", "/v1/chat", "/v1", "/v1/chat", names[3], names[3]]


@pytest.mark.parametrize("prefix, base, strip, path, expected", [
    ("/v1/", "", False, "/v1/models", "/v1/models"),
    ("/", "/api", False, "/v1/models", "/api/v1/models"),
    ("/", "/api/", False, "/v1/models?x=/y", "/api/v1/models?x=/y"),
    ("/anthropic/", "", True, "/anthropic/v1/messages", "/v1/messages"),
    ("/anthropic", "", True, "/anthropic/v1/messages", "/v1/messages"),
    ("/anthropic/", "/base", True, "/anthropic/v1/messages", "/base/v1/messages"),
    ("/anthropic", "", True, "/anthropic", "/"),
    ("/anthropic", "", True, "/anthropic?x=1", "/?x=1"),
    ("/anthropic/", "/base/", True, "/anthropic/", "/base/"),
    ("/a/b/", "/c/d", True, "/a/b/%2e%2e%2e;x?a=%2F", "/c/d/%2e%2e%2e;x?a=%2F"),
])
def test_paths_to_the_upstream(start_proxy, upstream, prefix, base, strip, path, expected):
    proxy = start_proxy({"routes": [{"prefix": prefix, "upstream": upstream.url + base, "strip_prefix": strip}]})
    proxy.exchange("GET", path)
    assert upstream.requests[0].target == expected
    event = proxy.event()
    assert event["path"] + ("?" + event["query"] if event["query"] is not None else "") == path


def test_headers_are_set_and_removed(start_proxy, upstream):
    proxy = start_proxy({"routes": [route("/", upstream, headers={"X-Set": "by the route", "x-remove": False, "User-Agent": "llm-proxy"})]})
    proxy.exchange("GET", "/", [("x-set", "by the client"), ("X-Remove", "1"), ("user-agent", "curl"), ("x-keep", "2")])
    request = upstream.requests[0]
    assert request.all("x-set") == ["by the route"] and request.all("x-remove") == []
    assert request.all("user-agent") == ["llm-proxy"] and request.all("x-keep") == ["2"]
    seen = proxy.event()["request_headers"]
    assert (seen["x-set"], seen["x-remove"]) == ("by the client", "1")  # the event has what the client sent


@pytest.mark.parametrize("field", ["Authorization", "x-api-key", "api-key", "x-goog-api-key"])
def test_credential_of_a_route_removes_every_credential_of_the_client(start_proxy, upstream, field):
    proxy = start_proxy({"routes": [route("/", upstream, headers={field: "ours"})]})
    given = [("Authorization", "Bearer theirs"), ("x-api-key", "theirs"), ("api-key", "theirs"), ("x-goog-api-key", "theirs")]
    proxy.exchange("GET", "/", given)
    request = upstream.requests[0]
    for name, _ in given:
        assert request.all(name.lower()) == (["ours"] if name.lower() == field.lower() else [])
    assert "theirs" not in request.head.decode()
    proxy.event()


def test_forwarded_adds_the_usual_three(start_proxy, upstream):
    proxy = start_proxy({"routes": [route("/", upstream, forwarded=True)]})
    proxy.exchange("GET", "/", [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Proto", "https")], host="client.example")
    request = upstream.requests[0]
    assert request.all("x-forwarded-for") == ["127.0.0.1"]  # who is not trusted has no say
    assert request.all("x-forwarded-proto") == ["http"] and request.all("x-forwarded-host") == ["client.example"]
    proxy.event()


def test_routes_go_to_upstreams_of_their_own(start_proxy, upstream):
    with MockUpstream() as other:
        proxy = start_proxy({"routes": [route("/a", upstream), route("/b", other)]})
        for path in ("/a/1", "/b/2", "/a/3"):
            proxy.exchange("GET", path)
        assert [request.target for request in upstream.requests] == ["/a/1", "/a/3"]
        assert [request.target for request in other.requests] == ["/b/2"]
        assert [event["upstream"] for event in proxy.wait_events(3)] == [upstream.url, other.url, upstream.url]


def test_name_of_a_route_is_its_prefix_by_default(start_proxy, upstream):
    proxy = start_proxy({"routes": [route("/v1/", upstream)]})
    proxy.exchange("GET", "/v1/models")
    assert proxy.event()["route"] == "/v1/"
    assert proxy.metrics().value("llm_proxy_requests_total", route="/v1/", code="200") == 1


@pytest.mark.parametrize("path", ["/v1/../admin", "/v1/%2e%2e/admin", "/v1/.%2E/admin", "/v1/..;/admin", "/v1/a%2fb", "/v1/a%5cb", "/v1/%00", "/v1/./x"])
def test_paths_that_could_mean_something_else_upstream_are_refused(start_proxy, upstream, path):
    proxy = start_proxy({"routes": [route("/v1/", upstream)]})
    assert proxy.exchange("GET", path).status == 400
    assert not upstream.requests


def test_options_asterisk_is_answered_here(start_proxy, upstream):
    proxy = start_proxy({"routes": [route("/v1/", upstream)]})
    assert proxy.exchange("OPTIONS", "*").status in (200, 204, 404)
    assert not upstream.requests
