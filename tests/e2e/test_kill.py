"""kill -9 at any moment, again and again, under load: what clients saw complete is held against what the destination got. LLM_PROXY_LONG_TESTS=1 kills 200 times."""

import json
import os
import random
import threading
import time
from collections import Counter

import pytest

from support.sink import Sink
from support.waiting import wait_until

CYCLES = 200 if os.environ.get("LLM_PROXY_LONG_TESTS") == "1" else 10  # of each mode
CLIENTS = 4
COMMIT_INTERVAL = 0.1  # seconds, without audit; the default of 5 ms is less than a busy machine may leave a thread without the CPU
STREAM = json.dumps({"model": "m", "stream": True, "messages": []}).encode()


def observability(sink, audit):
    return {
        "bus": {1: "disk", "path": "spool", "audit": audit, "commit_interval": None if audit else COMMIT_INTERVAL},
        "pipelines": [{"name": "events", "dispatcher": {1: "webhook", "url": sink.url}, "batch": {"max_wait": 0.02, "max_events": 20}, "retry": {"min_delay": 0.05, "max_delay": 0.2}}],
    }


class Load:
    """Clients with connections that stay open, until the proxy is gone. complete: when each response's end was seen, by request id."""

    def __init__(self, proxy):
        self.proxy, self.complete = proxy, {}
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(number,)) for number in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def work(self, number):
        try:
            with self.proxy.wire() as wire:
                while not self.stopped.is_set():
                    response = wire.exchange("POST", "/v1/chat/completions", body=STREAM) if number % 2 else wire.exchange("GET", "/bytes", [("x-mock-size", "3000")])
                    if response is None or not response.complete:
                        return
                    assert response.status == 200, response.status
                    self.complete[response.get("x-request-id")] = time.monotonic()
        except OSError:
            pass  # it was killed

    def join(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.timeout(30 * CYCLES)
@pytest.mark.parametrize("audit", [True, False], ids=["audit", "plain"])
def test_nothing_that_was_complete_is_lost(start_proxy, audit):
    seed = int(os.environ.get("LLM_PROXY_SEED", random.randrange(10 ** 9)))
    print("seed:", seed)
    moments = random.Random(seed)
    promised, seen = set(), 0
    with Sink() as sink:
        proxy = start_proxy({"observability": observability(sink, audit)})
        for cycle in range(CYCLES):
            if cycle:
                proxy.start()
            load = Load(proxy)
            wait_until(lambda: load.complete, "the first response")
            time.sleep(moments.uniform(0, 0.4))
            killed = time.monotonic()
            proxy.kill()
            load.join()
            seen += len(load.complete)
            promised |= {request for request, ended in load.complete.items() if audit or ended < killed - COMMIT_INTERVAL}
        proxy.start()
        wait_until(lambda: promised <= {event["request_id"] for event in sink.events()},
                   lambda: f"missing {promised - {event['request_id'] for event in sink.events()}} of {len(promised)}; stderr:\n{proxy.stderr}")
        wait_until(lambda: proxy.metrics().value("llm_proxy_events_waiting") == 0, "nothing waits")
        times = Counter(event["id"] for event in sink.events())
        requests = Counter(event["request_id"] for event in {event["id"]: event for event in sink.events()}.values())
    repeats = sum(times.values()) - len(times)
    print(f"{CYCLES} kills: {seen} responses complete, {len(promised)} of them promised, {len(times)} events, {repeats} came again")
    assert set(requests.values()) == {1}, "an exchange has one event"
    # Cursors are at most 100 ms or 1,000 events behind; what was on its way to the destination comes again as well.
    assert repeats <= CYCLES * (1000 + 2 * 20)
