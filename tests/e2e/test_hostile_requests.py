"""The catalogue of hostile requests: each is answered as it should be, however it is cut into packets, and none smuggles another one through."""

import json
import re

import pytest

from support.proxy import ROOT, Proxy
from support.waiting import wait_until
from upstream import MockUpstream

VECTORS = json.loads((ROOT / "tests/vectors/http/hostile-requests.json").read_text())
EXPANSION = re.compile(r"\{\{(.+?)\*(\d+)\}\}", re.DOTALL)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A proxy with the routes /t and /smuggled to a recording upstream that answers "ok"."""
    with MockUpstream() as mock:
        mock.default = b"ok"
        proxy = Proxy(tmp_path_factory.mktemp("hostile"), upstream=mock, changes={
            "workers": 1, "timeouts": {"request_head": 2, "request_idle": 1}, "limits": {"max_target_bytes": "48KiB", "max_body_bytes": "1MiB"},
            "routes": [{"prefix": prefix, "upstream": mock.url, "forwarded": True} for prefix in ("/t", "/smuggled")]})
        yield proxy, mock
        proxy.finish()


def bytes_of(vector):
    raw = vector["raw"]
    if vector.get("expand"):
        raw = EXPANSION.sub(lambda match: match[1] * int(match[2]), raw)
    return raw.encode("latin-1")


def pieces_of(raw, cut):
    if cut == "whole":
        return [raw]
    if cut == "bytes":
        return [raw[at:at + 1] for at in range(len(raw))]
    return re.findall(rb".*?\r\n|.+", raw, re.DOTALL)


def send(wire, vector, cut):
    """Sends it in pieces; the proxy may end the connection before all is sent."""
    try:
        for piece in pieces_of(bytes_of(vector), cut):
            wire.send(piece)
        if vector.get("half_close"):
            wire.half_close()
    except OSError:
        pass


def is_alive(wire, mock):
    """Does the connection serve another request?"""
    try:
        wire.send("GET /t/again HTTP/1.1\r\nHost: example.test\r\n\r\n")
    except OSError:
        return False
    for _ in range(4):  # what was still in the vector may be answered first
        response = wire.response()
        if response is None or any(request.target == "/t/again" for request in mock.requests):
            break
    return response is not None and response.status == 200


@pytest.mark.parametrize("cut", ["whole", "bytes", "lines"])
@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_vector(stage, vector, cut):
    if cut == "bytes" and len(bytes_of(vector)) > 20_000:
        pytest.skip("as long as that it is cut by the line only")
    proxy, mock = stage
    mock.requests.clear()
    expect = vector["expect"]
    strict, lax = expect["status"], vector.get("alt_status", [])
    with proxy.wire() as wire:
        send(wire, vector, cut)
        if "then" in vector:
            assert wire.head().status == 100
            wire.send(vector["then"])
            strict = [200]
        response = wire.response(vector["raw"].split(" ")[0])
        if response is None:
            assert vector.get("half_close") or "clos" in vector.get("note", ""), "closed without an answer"
            status = strict[0]
        else:
            status = response.status
            assert status in strict + lax and response.complete, (status, response.body)
        if status in strict and "responses" in expect:
            assert [status, *(wire.response().status for _ in expect["responses"][1:])] == expect["responses"]
        may_end = expect["close"] or vector.get("alt_close") or status in lax or status != strict[0]
        if expect["close"] and status == strict[0]:
            assert wire.is_closed(), "the connection should end"
        else:
            assert is_alive(wire, mock) or may_end, "the connection should go on"
    check_upstream(mock, vector, status)


def check_upstream(mock, vector, status):
    """What reached the upstream for this vector."""
    expect = vector["expect"]
    requests = [request for request in mock.requests if request.target != "/t/again"]
    complete = [request for request in requests if request.complete]
    if status not in vector.get("alt_status", []):
        for text in expect.get("must_not_forward", []):
            assert not [request.target for request in requests if text.encode("latin-1") in request.head], f"{text} reached the upstream"
    if not 200 <= status < 300:
        assert not complete, [request.target for request in complete]
        if not expect.get("body_phase"):
            assert not requests, [request.target for request in requests]
        return
    if expect["forwarded"]:
        wait_until(lambda: complete or any(request.complete for request in mock.requests), "the request at the upstream")
        check_request(complete[0], expect.get("upstream", {}))


def check_request(request, wanted):
    for name in ("method", "target"):
        if name in wanted:
            assert getattr(request, name) == wanted[name]
    if "body" in wanted:
        assert request.body == wanted["body"].encode("latin-1")
    for name in wanted.get("absent", []):
        assert not request.all(name.lower()), name
    for name, value in wanted.get("present", {}).items():
        assert request.get(name.lower()) == value
    for name in wanted.get("present_names", []):
        assert request.all(name.lower()), name


@pytest.mark.parametrize("octet", [*range(0x00, 0x21), 0x7F, 0x80, 0x85, 0xA0, 0xFF])
@pytest.mark.parametrize("place", ["before the value", "after the value", "before the colon", "at the line's start", "in the chunk size", "after chunk data"])
def test_no_octet_hides_a_body(stage, octet, place):
    """A request with an odd octet near its framing: whatever is answered, the hidden request never reaches the upstream."""
    proxy, mock = stage
    mock.requests.clear()
    odd = bytes([octet])
    parts = {name: b"" for name in ("before the value", "after the value", "before the colon", "at the line's start", "in the chunk size", "after chunk data")}
    parts[place] = odd
    head = b"POST /t HTTP/1.1\r\nHost: example.test\r\n%bTransfer-Encoding%b: %bchunked%b\r\n\r\n" % (
        parts["at the line's start"], parts["before the colon"], parts["before the value"], parts["after the value"])
    after = odd + b"\n" if place == "after chunk data" else b"\r\n"
    body = b"5%b\r\nhello%b0\r\n\r\n" % (parts["in the chunk size"], after)
    with proxy.wire() as wire:
        try:
            wire.send(head + body + b"GET /smuggled HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n")
        except OSError:
            pass
        statuses = []
        while (response := wire.response()) is not None:
            statuses.append(response.status)
    assert statuses and statuses[0] in (200, 400, 501), statuses
    if statuses[0] == 200:  # then the message was understood to its end, and the second is one of its own
        assert mock.requests[0].body == b"hello" and statuses[1:] == [200]
    else:
        assert statuses[1:] == [] and not [request for request in mock.requests if request.complete or request.target == "/smuggled"]


@pytest.mark.parametrize("raw", [b"POST /t HTTP/1.1\r\nHost: example.test\r\nContent-Length: 5\r\n\r\nhello",
                                 b"POST /t HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"])
def test_no_prefix_of_a_request_is_a_request(stage, raw):
    proxy, mock = stage
    for end in range(0, len(raw), 3):
        mock.requests.clear()
        with proxy.wire() as wire:
            wire.send(raw[:end])
            wire.half_close()
            response = wire.response()
            assert response is None or response.status in (400, 408), (end, response.status)
            assert wire.is_closed()
        assert not [request for request in mock.requests if request.complete], end
