"""The catalogue of broken and hostile responses: the client gets what is sound, sees what is cut, and nobody gets another one's answer."""

import json

import pytest

from support.proxy import ROOT, Proxy
from support.waiting import wait_until
from upstream import MockUpstream

VECTORS = json.loads((ROOT / "tests/vectors/http/hostile-responses.json").read_text())
GENERATED = {
    "hdr-big": b"X-A: " + b"a" * 90_000 + b"\r\n",
    "hdr-toobig": b"X-A: " + b"a" * 110_000 + b"\r\n",
    "hdr-total-350k": b"".join(b"X-A%d: %b\r\n" % (number, b"a" * 1000) for number in range(350)),
    "hdr-many-6000": b"".join(b"X-A%d: a\r\n" % number for number in range(6000)),
}


@pytest.fixture(scope="module", params=["http", "https"])
def stage(request, authority, tmp_path_factory):
    with MockUpstream(tls=authority.server("hostile") if request.param == "https" else None) as mock:
        mock.default = b"ok"
        route = {"name": "mock", "prefix": "/", "upstream": mock.url, "tls": {"ca_file": str(authority.ca_file)} if mock.tls else None}
        proxy = Proxy(tmp_path_factory.mktemp("hostile"), {"workers": 1, "timeouts": {"response": 10, "response_idle": 10}, "routes": [route]})
        yield proxy, mock
        proxy.finish()


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_vector(stage, vector):
    proxy, mock = stage
    path, expect = "/" + vector["name"], vector["expect"]
    raw = vector["raw"]
    mock.raw[path] = raw.encode("latin-1") if raw is not None else b"HTTP/1.1 200 OK\r\n" + GENERATED[vector["name"]] + b"Content-Length: 5\r\n\r\nhello"
    if not vector["close_after"]:
        mock.keep_open.add(path)
    mock.requests.clear()
    with proxy.wire() as wire:
        response = wire.exchange(vector["method"], path)
        assert response is not None and response.status in expect["status"], response and (response.status, response.body)
        if response.status == 502:
            assert response.complete and json.loads(response.body)["error"]["code"] in ("upstream_invalid_response", "upstream_unreachable")
        elif expect["complete"]:
            assert response.complete
            check_body(vector, response)
        elif expect["status"][0] == response.status:
            assert not response.complete, "the client must see that it is cut"
        for name, value in response.headers:
            assert "\r" not in value and "\0" not in value and name not in ("transfer-encoding" if response.framing == "length" else "", "keep-alive", "upgrade")
        assert len(response.all("date")) == 1
        assert not [one for one in response.interim if one.status not in expect.get("interim", []) or one.get("content-length") or one.get("transfer-encoding")]
    with proxy.wire() as wire:
        after = wire.exchange("GET", "/after")
        assert after.status == 200 and after.body == b"ok", "somebody else got what was left over"
    if expect.get("reuse") is False:
        first, second = mock.requests
        assert first.connection != second.connection
    event = wait_until(lambda: [event for event in proxy.events() if event["path"] == path], "the event")[0]
    assert event["status"] == response.status
    if response.status == 502 or not response.complete:
        assert event["error"]["kind"] in ("upstream_invalid_response", "upstream_unreachable", "upstream_aborted")
    else:
        assert event["error"] is None


def check_body(vector, response):
    if vector["method"] == "HEAD" or response.status in (204, 205, 304):
        assert response.body == b""
        assert response.status != 204 or response.get("content-length") is None and response.get("transfer-encoding") is None
    else:
        assert response.body == b"hello"
