"""Audit mode: whoever has seen a response to its end finds its exchange in the log, whatever becomes of the process; and all but the end streams as ever."""

import contextlib
import json
import threading

import anthropic
import openai
import pytest

from support.disk_faults import DiskFaults
from support.ports import free_port
from support.sink import Sink
from support.waiting import wait_until
from upstream import body_of_size

CHAT = json.dumps({"model": "m", "messages": []}).encode()
STREAM = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
TEXT = "Grüße from the mock upstream"
ENDLESS = [("x-mock-pieces", "10000"), ("x-mock-pace", "0.05")]


def audit(**more):
    return {"bus": {1: "disk", "path": "spool", "audit": True}, **more}


def to_webhook(url):
    """A pipeline that goes on trying."""
    return [{"name": "events", "dispatcher": {1: "webhook", "url": url}, "batch": {"max_wait": 0.05}, "retry": {"min_delay": 0.1, "max_delay": 0.2}}]


def completed(proxy):
    """The status of a small request's response if all of it came."""
    response = proxy.exchange("GET", "/bytes")
    return response and response.complete and response.status


@pytest.fixture
def proxy(start_proxy):
    return start_proxy({"observability": audit()})


@pytest.fixture
def faulty(start_proxy, tmp_path):
    """A proxy whose disk can be made to fail, and what makes it fail."""
    faults = DiskFaults(tmp_path / "proxy" / "spool", tmp_path / "faults")
    return start_proxy({"observability": audit()}, env=faults.environment), faults


# What a client sees -----------------------------------------------------------------------------------------------------------------------------------------

MESSAGES = [
    ("POST", "/v1/chat/completions", [], CHAT, 200),
    ("POST", "/v1/chat/completions", [], STREAM, 200),
    ("POST", "/v1/chat/completions", [("x-mock-framing", "close")], STREAM, 200),
    ("GET", "/bytes", [("x-mock-size", "0")], b"", 200),
    ("GET", "/bytes", [("x-mock-size", "1")], b"", 200),
    ("GET", "/bytes", [("x-mock-size", "100000"), ("x-mock-framing", "chunked")], b"", 200),
    ("HEAD", "/bytes", [], b"", 200),
    ("GET", "/bytes", [("x-mock-status", "204")], b"", 204),
    ("GET", "/v1/models", [("x-mock-status", "429")], b"", 429),
    ("OPTIONS", "*", [], b"", 204),
    ("GET", "/v1/models", [("x-mock-abort", "head")], b"", 502),
    ("GET", "/nowhere", [], b"", 404),
]


def test_every_kind_of_message_is_complete_and_recorded(proxy):
    with proxy.wire() as wire:
        for method, target, knobs, body, status in MESSAGES:
            response = wire.exchange(method, target, knobs, body)
            assert response.status == status and response.complete, (method, target, knobs)
            if wire.ended or response.get("connection") == "close":
                pytest.fail(f"{method} {target} {knobs} ended the connection")
    events = proxy.wait_events(len(MESSAGES))
    assert [(event["method"], event["status"]) for event in events] == [(method, status) for method, _, _, _, status in MESSAGES]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_bodies_are_the_same_to_the_last_byte(proxy, framing):
    sizes = [0, 1, 2, 16384, 65535, 65536, 65537, 400_000]
    for size in sizes:
        response = proxy.exchange("GET", "/bytes", [("x-mock-size", str(size)), ("x-mock-framing", framing)])
        assert response.complete and response.body == body_of_size(size)
    assert [event["response_bytes"] for event in proxy.wait_events(len(sizes))] == sizes


def test_openai_client(proxy):
    messages = [{"role": "user", "content": "Grüß Gott"}]
    with openai.OpenAI(base_url=proxy.url + "/v1", api_key="sk-test", max_retries=0) as client:
        assert client.chat.completions.create(model="m", messages=messages).choices[0].message.content == TEXT
        chunks = client.chat.completions.create(model="m", messages=messages, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert [event["streamed"] for event in proxy.wait_events(2)] == [False, True]


def test_anthropic_client(proxy):
    ask = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "Grüß Gott"}]}
    with anthropic.Anthropic(base_url=proxy.url, api_key="sk-test", max_retries=0) as client:
        assert client.messages.create(**ask).content[0].text == TEXT
        with client.messages.stream(**ask) as stream:
            assert "".join(stream.text_stream) == TEXT
    assert [event["streamed"] for event in proxy.wait_events(2)] == [False, True]


def test_pieces_arrive_while_the_stream_runs(proxy, upstream):
    with proxy.wire() as wire:
        wire.request("POST", "/v1/chat/completions", ENDLESS, STREAM)
        assert wire.head().status == 200
        assert all(wire.next_chunk().startswith(b"data: ") for _ in range(5))
        wire.reset()
        wait_until(lambda: upstream.requests[0].gone, "the upstream connection is closed")
    assert proxy.event()["error"]["kind"] == "client_aborted"


# What is recorded -------------------------------------------------------------------------------------------------------------------------------------------

def test_what_was_complete_survives_a_kill(start_proxy):
    """Kills the process each time some client has just seen the end of a response, while others are in the middle of theirs. Nothing is delivered meanwhile; in the end all of it is."""
    observability = audit(pipelines=to_webhook(f"http://127.0.0.1:{free_port()}/"))
    proxy = start_proxy({"observability": observability})
    complete = set()

    def load(killing):
        number = 0
        while not killing.is_set():
            method, target, knobs, body, status = MESSAGES[number % len(MESSAGES)]
            number += 1
            try:
                response = proxy.exchange(method, target, knobs, body)
            except (OSError, AssertionError):
                continue  # it was killed
            if response and response.complete and response.status == status:
                complete.add(response.get("x-request-id"))

    for cycle in range(4):
        if cycle:
            proxy.start()
        before, killing = len(complete), threading.Event()
        threads = [threading.Thread(target=load, args=(killing,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(complete) >= before + 20 + 7 * cycle, "responses", every=0)
        proxy.kill()
        killing.set()
        for thread in threads:
            thread.join()

    proxy.configure({"observability": audit()})
    proxy.start()
    wait_until(lambda: complete <= {event["request_id"] for event in proxy.events()}, lambda: f"{len(complete)} events, have {len(proxy.events())}; stderr:\n{proxy.stderr}")


def test_a_client_that_leaves_while_the_end_is_held_had_a_complete_exchange(faulty):
    proxy, faults = faulty
    with faults.slow_syncs(1000), proxy.wire() as wire:
        wire.request("POST", "/v1/chat/completions", [], STREAM)
        assert wire.until(b"[DONE]\n\n")
        wait_until(lambda: proxy.metrics().value("llm_proxy_requests_total") == 1, "the event is made")
        wire.reset()
    event = proxy.event()
    assert (event["status"], event["error"]) == (200, None)
    assert event["response_body"].endswith("data: [DONE]\n\n")


# What cannot be recorded ------------------------------------------------------------------------------------------------------------------------------------

def test_a_response_whose_event_is_late_is_cut(faulty):
    proxy, faults = faulty
    with faults.slow_syncs(8000):
        with proxy.wire() as wire:
            response = wire.exchange("POST", "/v1/chat/completions", [], STREAM)
            assert response.body.endswith(b"data: [DONE]\n\n") and not response.complete
            assert wire.ended == "rst"
        assert proxy.metrics().value("llm_proxy_audit_cut_total", reason="timeout") == 1
    assert proxy.event()["error"] is None


def test_without_a_disk_that_works_nothing_is_complete(faulty, upstream):
    proxy, faults = faulty
    assert proxy.exchange("POST", "/v1/chat/completions", [], CHAT).complete
    faults.fail_syncs(1000)
    response = proxy.exchange("POST", "/v1/chat/completions", [], CHAT)
    assert response.status == 200 and not response.complete
    wait_until(lambda: proxy.admin("/readyz")[0] == 503, "it is not ready")
    before = len(upstream.requests)
    response = proxy.exchange("POST", "/v1/chat/completions", [], CHAT)
    assert (response.status, response.complete) == (503, True)
    assert json.loads(response.body)["error"]["code"] == "overloaded"
    assert len(upstream.requests) == before


def test_a_full_log_refuses_requests_until_there_is_room(start_proxy, upstream):
    with Sink() as sink:
        sink.hold.clear()
        bus = {1: "disk", "path": "spool", "audit": True, "max_bytes": "1MiB"}
        proxy = start_proxy({"observability": {"bus": bus, "pipelines": to_webhook(sink.url)}})
        wire = proxy.wire()
        for number in range(100):
            response = wire.exchange("GET", "/bytes", [("x-mock-size", "100000")])
            if response is None or response.status == 503 or not response.complete:
                break
        else:
            pytest.fail("the log takes more than it may")
        before = len(upstream.requests)
        assert completed(proxy) == 503 and len(upstream.requests) == before
        sink.hold.set()
        wait_until(lambda: completed(proxy) == 200, "there is room again")
        wire.socket.close()


def test_an_exhausted_capture_memory_refuses_requests(start_proxy, upstream):
    proxy = start_proxy({"observability": audit(capture_memory="200KiB")})
    with contextlib.ExitStack() as uploads:
        for _ in range(30):
            if (status := completed(proxy)) != 200:
                break
            wire = uploads.enter_context(proxy.wire())
            before = len(upstream.requests)
            wire.request("POST", "/v1/embeddings", [("Content-Length", "1000000")])
            wire.send(b"x" * 20_000)
            wait_until(lambda: len(upstream.requests) > before and upstream.requests[-1].body_bytes == 20_000, "the beginning at the upstream")
        assert status == 503
        before = len(upstream.requests)
        assert completed(proxy) == 503 and len(upstream.requests) == before
    wait_until(lambda: completed(proxy) == 200, "there is memory again")


@pytest.mark.parametrize("change", [{"capture": False}, {"overflow": "drop_oldest"}])
def test_what_would_leave_gaps_is_a_configuration_error(start_proxy, upstream, change):
    route = {"name": "mock", "prefix": "/", "upstream": upstream.url, **({"capture": False} if "capture" in change else {})}
    observability = audit()
    if "overflow" in change:
        observability["bus"]["overflow"] = "drop_oldest"
    proxy = start_proxy({"routes": [route], "observability": observability}, wait=False)
    assert proxy.wait_exit() != 0
    assert next(iter(change)) in proxy.stderr and "audit" in proxy.stderr
