"""Events reach their destinations in batches; a slow, broken or dead destination costs the traffic nothing, and everything is counted."""

import base64
import hashlib
import hmac
import time

import pytest

from support.lua import Lua
from support.ports import free_port
from support.sink import Sink
from support.waiting import wait_until

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


def webhook(url, name="hook", **more):
    settings = {key: more.pop(key) for key in list(more) if key in ("gzip", "secret", "headers", "timeout")}
    return {"name": name, "dispatcher": {1: "webhook", "url": url, **settings}, **more}


def pipelines(*all_of_them, **more):
    return {"observability": {"pipelines": list(all_of_them), **more}}


def send(proxy, count):
    with proxy.wire() as wire:
        for number in range(count):
            assert wire.exchange("GET", f"/v1/models?n={number}").status == 200


def test_webhook_gets_batches(start_proxy):
    with Sink() as sink:
        proxy = start_proxy(pipelines(webhook(sink.url, batch={"max_events": 10, "max_wait": 0.5}, concurrency=1)))
        send(proxy, 25)
        wait_until(lambda: len(sink.events()) == 25, lambda: f"25 events, have {len(sink.events())}")
        assert [event["query"] for event in sink.events()] == [f"n={number}" for number in range(25)]
        assert all(len(batch) <= 10 for batch in sink.batches()) and len(sink.batches()) < 25
        headers, _ = sink.requests[0]
        assert headers["content-type"] == "application/json" and headers["webhook-id"]


def test_batch_waits_for_more_no_longer_than_told(start_proxy):
    with Sink() as sink:
        proxy = start_proxy(pipelines(webhook(sink.url, batch={"max_events": 1000, "max_wait": 1})))
        send(proxy, 1)
        wait_until(lambda: len(sink.events()) == 1, "the event though the batch is not full", seconds=15)


def test_batches_are_bounded_in_bytes(start_proxy):
    with Sink() as sink:
        proxy = start_proxy(pipelines(webhook(sink.url, batch={"max_bytes": "16KiB", "max_wait": 0.5}, concurrency=1)))
        with proxy.wire() as wire:
            for _ in range(10):
                wire.exchange("GET", "/v1/x", (), b"p" * 6000)
            wire.exchange("GET", "/v1/x", (), b"p" * 100_000)
        wait_until(lambda: len(sink.events()) == 11, "all events")
        sizes = [(len(body), len(batch)) for (_, body), batch in zip(sink.requests, sink.batches())]
        assert all(size <= 18 * 1024 or count == 1 for size, count in sizes), sizes


def test_gzip_and_signature(start_proxy):
    with Sink() as sink:
        proxy = start_proxy(pipelines(webhook(sink.url, gzip=True, secret=SECRET, headers={"X-Mine": "1"})))
        send(proxy, 1)
        wait_until(lambda: sink.requests, "a request")
        headers, body = sink.requests[0]
        assert headers["content-encoding"] == "gzip" and headers["x-mine"] == "1"
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        wanted = base64.b64encode(hmac.new(b"0123456789abcdef01234567", signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == "v1," + wanted
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        assert len(sink.events()) == 1


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_retry_until_it_works_with_the_same_content(start_proxy, status):
    with Sink([status, status, status]) as sink:
        proxy = start_proxy(pipelines(webhook(sink.url, retry={"min_delay": 0.05, "max_delay": 0.2})))
        send(proxy, 1)
        wait_until(lambda: len(sink.requests) == 4, "three failures and a success")
        bodies = {body for _, body in sink.requests}
        ids = {headers["webhook-id"] for headers, _ in sink.requests}
        assert len(bodies) == len(ids) == 1
        wait_until(lambda: proxy.metrics().value("llm_proxy_events_total", pipeline="hook", result="delivered") == 1, "counted as delivered")


def test_retry_after_is_a_minimum(start_proxy):
    with Sink([(429, {"Retry-After": "2"})]) as sink:
        proxy = start_proxy(pipelines(webhook(sink.url, retry={"min_delay": 0.01, "max_delay": 0.02})))
        send(proxy, 1)
        wait_until(lambda: sink.requests, "the first try")
        began = time.monotonic()
        wait_until(lambda: len(sink.requests) == 2, "the second try")
        assert time.monotonic() - began > 1.8


def test_rejected_batch_is_split_to_the_event_at_fault(start_proxy):
    """A 400 for one event must not drop the rest of its batch."""
    with Sink() as sink:
        proxy = start_proxy(pipelines({"name": "picky", "concurrency": 1, "batch": {"max_events": 8, "max_wait": 1}, "dispatcher": Lua("""function(batch)
            local http, verdict = require "llmproxy.http", require "llmproxy.verdict"
            for _, event in ipairs(batch.events) do
              if event.query == "n=3" then
                if #batch.events > 1 then return verdict.split() end
                return verdict.reject("n=3 is not wanted")
              end
            end
            return verdict.from_http(http.post { url = "%s", body = batch:json() })
          end""" % sink.url)}))
        send(proxy, 8)
        wait_until(lambda: len(sink.events()) == 7, lambda: f"7 events, have {len(sink.events())}")
        assert sorted(event["query"] for event in sink.events()) == [f"n={n}" for n in range(8) if n != 3]
        metrics = wait_until(lambda: (found := proxy.metrics()).value("llm_proxy_events_total", pipeline="picky", result="dropped") == 1 and found, "counted")
        assert metrics.value("llm_proxy_events_dropped_total", pipeline="picky", reason="rejected") == 1


@pytest.mark.parametrize("status, outcome", [(400, "dropped"), (422, "dropped")])
def test_single_event_that_is_refused_for_good(start_proxy, status, outcome):
    with Sink([status]) as sink:
        proxy = start_proxy(pipelines(webhook(sink.url)))
        send(proxy, 1)
        wait_until(lambda: proxy.metrics().value("llm_proxy_events_total", pipeline="hook", result=outcome) == 1, "counted")
        assert len(sink.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_wrong_credentials_or_address_keep_everything(start_proxy, status):
    with Sink([status] * 3) as sink:
        proxy = start_proxy(pipelines(webhook(sink.url)) | {"shutdown_timeout": 1})
        send(proxy, 3)
        wait_until(lambda: sink.requests, "a try")
        wait_until(lambda: "hook" in proxy.stderr, "said in the log")
        outcomes = proxy.metrics().outcomes("hook")
        assert outcomes["dropped"] == outcomes["dead_lettered"] == 0


def test_dead_destination_does_not_slow_the_traffic(start_proxy):
    proxy = start_proxy(pipelines(webhook(f"http://127.0.0.1:{free_port()}", retry={"min_delay": 0.05}), buffer_size=50) | {"shutdown_timeout": 1})
    began = time.monotonic()
    send(proxy, 500)
    assert time.monotonic() - began < 30
    wait_until(lambda: proxy.metrics().value("llm_proxy_events_received_total", pipeline="hook") == 500, "every event was offered")
    wait_until(proxy.balanced, "counters add up")
    assert proxy.metrics().value("llm_proxy_events_dropped_total", pipeline="hook", reason="buffer_full") > 0
    assert "buffer_size" in proxy.stderr, "the first drop names the setting"


def test_hanging_destination_does_not_slow_the_traffic(start_proxy):
    with Sink() as sink:
        sink.hold.clear()
        proxy = start_proxy(pipelines(webhook(sink.url, timeout=30), buffer_size=50) | {"shutdown_timeout": 1})
        send(proxy, 300)
        wait_until(proxy.balanced, "counters add up")
        sink.hold.set()


def test_overflow_drops_the_newest_and_counts(start_proxy):
    with Sink() as sink:
        sink.hold.clear()
        proxy = start_proxy(pipelines(webhook(sink.url, batch={"max_events": 1}, concurrency=1), buffer_size=5))
        send(proxy, 60)
        wait_until(proxy.balanced, "counters add up")
        dropped = proxy.metrics().value("llm_proxy_events_dropped_total", pipeline="hook", reason="buffer_full")
        assert 0 < dropped < 60
        sink.hold.set()
        wait_until(lambda: proxy.metrics().outcomes("hook")["delivered"] == 60 - dropped, "the rest is delivered")
        numbers = [int(event["query"][2:]) for event in sink.events()]
        assert numbers == sorted(set(numbers)) and numbers[:5] == list(range(5)), "in order, the oldest are kept"


def test_environment_sets_the_buffer_size(start_proxy):
    with Sink() as sink:
        sink.hold.clear()
        proxy = start_proxy(pipelines(webhook(sink.url, batch={"max_events": 1}, concurrency=1)), env={"OBSERVABILITY_BUFFER_SIZE": "3"})
        send(proxy, 60)
        wait_until(lambda: proxy.metrics().value("llm_proxy_events_dropped_total", reason="buffer_full") > 0, "drops")
        sink.hold.set()


def test_buffer_is_bounded_in_bytes(start_proxy):
    with Sink() as sink:
        sink.hold.clear()
        proxy = start_proxy(pipelines(webhook(sink.url, batch={"max_events": 1}, concurrency=1), buffer_size=100_000, buffer_bytes="1MiB"))
        with proxy.wire() as wire:
            for _ in range(60):
                wire.exchange("POST", "/v1/echo", (), b"p" * 100_000)
        wait_until(proxy.balanced, "counters add up")
        assert proxy.metrics().value("llm_proxy_events_dropped_total", reason="buffer_full") >= 20
        sink.hold.set()


def test_one_pipeline_does_not_hold_up_another(start_proxy, tmp_path):
    file = tmp_path / "good.jsonl"
    with Sink() as sink:
        sink.hold.clear()
        proxy = start_proxy(pipelines(webhook(sink.url, timeout=60), {"name": "good", "dispatcher": {1: "file", "path": str(file)}}))
        send(proxy, 50)
        proxy.wait_events(50, file)
        sink.hold.set()


def test_undelivered_events_are_counted_and_said_at_the_end(start_proxy):
    proxy = start_proxy(pipelines(webhook(f"http://127.0.0.1:{free_port()}")) | {"shutdown_timeout": 1})
    send(proxy, 7)
    wait_until(lambda: proxy.metrics().value("llm_proxy_events_received_total", pipeline="hook") == 7, "received")
    assert proxy.stop() == 0
    assert "7" in proxy.stderr.splitlines()[-1] or any("7" in line and "hook" in line for line in proxy.stderr.splitlines())


def test_no_text_of_the_destination_and_no_body_in_the_log(start_proxy):
    with Sink([422]) as sink:
        proxy = start_proxy(pipelines(webhook(sink.url)))
        proxy.exchange("POST", "/v1/echo", (), b"a very private prompt")
        wait_until(lambda: proxy.metrics().value("llm_proxy_events_total", result="dropped") == 1, "dropped")
        assert "private" not in proxy.stderr
