"""A destination that fails, refuses, answers nonsense, hangs or is not there costs no event: what it refuses for now comes again, what it refuses for the address's or the credentials' sake waits until they are mended."""

import json
import socket
import threading
import time
from email.utils import formatdate

import pytest

from support.ports import free_port
from support.sink import Sink
from support.waiting import wait_until


def hook(url, **more):
    settings = {key: more.pop(key) for key in list(more) if key in ("timeout",)}
    pipeline = {"name": "hook", "concurrency": 1, "batch": {"max_events": 4, "max_wait": 0.1}, "retry": {"min_delay": 0.01, "max_delay": 0.1},
                "dispatcher": {1: "webhook", "url": url, **settings}, **more}
    return {"observability": {"pipelines": [pipeline]}, "shutdown_timeout": 1}


def send(proxy, *numbers):
    with proxy.wire() as wire:
        for number in numbers:
            assert wire.exchange("GET", f"/v1/models?n={number}").status == 200


def wait_delivered(proxy, count):
    wait_until(lambda: proxy.metrics().outcomes("hook") == {"delivered": count, "filtered": 0, "dropped": 0, "dead_lettered": 0, "waiting": 0},
               lambda: f"{count} delivered, have {proxy.metrics().outcomes('hook')}")


def state(proxy):
    return proxy.metrics().value("llm_proxy_pipeline_state", pipeline="hook")


def test_retry_after_as_a_date_is_a_minimum(start_proxy):
    until = int(time.time()) + 3
    with Sink([(503, {"Retry-After": formatdate(until, usegmt=True)})]) as sink:
        proxy = start_proxy(hook(sink.url))
        send(proxy, 1)
        wait_delivered(proxy, 1)
        assert time.time() >= until and len(sink.requests) == 2


@pytest.mark.parametrize("status", [401, 403, 404, 407, 410, 307])
def test_pause_keeps_everything_and_ends_by_itself(start_proxy, status):
    refuses = True
    with Sink(judge=lambda _: (status, {"Location": "/elsewhere"}) if refuses else 200) as sink:
        proxy = start_proxy(hook(sink.url))
        send(proxy, 1)
        wait_until(lambda: state(proxy) == 2, "the pipeline is paused")
        send(proxy, 2, 3)
        tries = len(sink.requests)
        wait_until(lambda: len(sink.requests) > tries + 2, "it is tried now and then")
        assert proxy.metrics().outcomes("hook")["waiting"] == 3
        assert proxy.stderr.count("the pipeline is paused") == 1 and str(status) in proxy.stderr
        refuses = False
        wait_delivered(proxy, 3)
        assert state(proxy) == 0 and "delivers again" in proxy.stderr
        assert {event["query"] for event in sink.events()} == {"n=1", "n=2", "n=3"}


def test_too_large_a_batch_is_halved(start_proxy):
    with Sink(judge=lambda body: 413 if len(json.loads(body)) > 1 else 200) as sink:
        proxy = start_proxy(hook(sink.url))
        send(proxy, 1, 2, 3, 4)
        wait_delivered(proxy, 4)
        assert sorted(event["query"] for batch in sink.batches() if len(batch) == 1 for event in batch) == ["n=1", "n=2", "n=3", "n=4"]


def test_destination_that_hangs_is_tried_again(start_proxy):
    with Sink() as sink:
        sink.hold.clear()
        proxy = start_proxy(hook(sink.url, timeout=0.3))
        send(proxy, 1)
        wait_until(lambda: len(sink.requests) > 1, "another try")
        sink.hold.set()
        wait_delivered(proxy, 1)


def test_destination_that_comes_late_gets_everything(start_proxy):
    port = free_port()
    proxy = start_proxy(hook(f"http://127.0.0.1:{port}/hook"))
    send(proxy, 1, 2)
    wait_until(lambda: state(proxy) == 1, "it tries again")
    wait_until(lambda: proxy.metrics().value("llm_proxy_delivery_seconds_count", pipeline="hook") > 5, "again and again")
    send(proxy, 3)
    with Sink(port=port) as sink:
        wait_delivered(proxy, 3)
        assert sorted(event["query"] for event in sink.events()) == ["n=1", "n=2", "n=3"] and state(proxy) == 0


class Nonsense:
    """A destination that answers each connection with the next of these bytes, and closes it; then its port is free."""

    def __init__(self, *answers):
        self.answers, self.listener = list(answers), socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while self.answers:
            connection, _ = self.listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(self.answers.pop(0))
        self.listener.close()


def test_nonsense_for_an_answer_is_no_delivery(start_proxy):
    nonsense = Nonsense(b"", b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", b"HTTP/1.1 999", b"\0" * 100)
    proxy = start_proxy(hook(f"http://127.0.0.1:{nonsense.port}/hook"))
    send(proxy, 1)
    wait_until(lambda: not nonsense.thread.is_alive(), "all answers were given")
    with Sink(port=nonsense.port) as sink:
        wait_delivered(proxy, 1)
        assert [event["query"] for event in sink.events()] == ["n=1"]
