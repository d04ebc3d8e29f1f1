"""What can never be delivered is kept with its reason, as it entered the pipeline, until somebody replays or purges it; whatever happens, every event is counted once."""

import json

import pytest

from support.lua import Lua
from support.ports import free_port
from support.proxy import run
from support.sink import Sink
from support.waiting import wait_until

PROMPT = b"a very private prompt"

REDACTS = Lua('function(event) if event.query == "bad" then error("no key here", 0) end event.request_body = "[gone]" return event end')


def hook(url, name="hook", **more):
    settings = {key: more.pop(key) for key in list(more) if key in ("timeout",)}
    return {"name": name, "transforms": [REDACTS], "batch": {"max_events": 8, "max_wait": 0.2}, "concurrency": 1,
            "retry": {"min_delay": 0.01, "max_delay": 0.05}, "dispatcher": {1: "webhook", "url": url, **settings}, **more}


def observability(*pipelines, **more):
    return {"observability": {"dead_letters": "dlq", "pipelines": list(pipelines), **more}}


def send(proxy, *queries):
    with proxy.wire() as wire:
        for query in queries:
            assert wire.exchange("POST", f"/v1/echo?{query}", (), PROMPT).status == 200


def letters(proxy, pipeline="hook"):
    """The dead letters as `dlq show` prints them."""
    result = run("dlq", "show", pipeline, "-c", proxy.config_file, cwd=proxy.folder)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def wait_outcomes(proxy, pipeline="hook", **wanted):
    def reached():
        outcomes = proxy.metrics().outcomes(pipeline)
        return all(outcomes[name] == value for name, value in wanted.items())
    wait_until(reached, lambda: f"{wanted}, have {proxy.metrics().outcomes(pipeline)}")


def numbers(name, count):
    return [f"{name}={number}" for number in range(count)]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_single_event_that_is_refused_is_kept(start_proxy, status):
    with Sink([status]) as sink:
        proxy = start_proxy(observability(hook(sink.url)))
        send(proxy, "n=1")
        wait_outcomes(proxy, dead_lettered=1, waiting=0)
        (letter,) = letters(proxy)
        assert letter["reason"] == "rejected" and str(status) in letter["error"] and letter["where"] == "webhook" and letter["tries"] == 1
        assert letter["event"]["request_body"] == PROMPT.decode(), "as it entered the pipeline"
        assert json.loads(sink.requests[0][1])[0]["request_body"] == "[gone]", "the destination got what the transform made"
        assert proxy.metrics().value("llm_proxy_dead_letters", pipeline="hook") == 1


def test_batch_that_is_refused_is_split_to_the_event_at_fault(start_proxy):
    def judge(body):
        return 400 if any(event["query"] == "n=3" for event in json.loads(body)) else 200
    with Sink(judge=judge) as sink:
        proxy = start_proxy(observability(hook(sink.url)))
        send(proxy, *numbers("n", 8))
        wait_outcomes(proxy, delivered=7, dead_lettered=1)
        assert [letter["event"]["query"] for letter in letters(proxy)] == ["n=3"]


def test_transform_that_raises_delivers_nothing_and_keeps_the_event(start_proxy):
    with Sink() as sink:
        proxy = start_proxy(observability(hook(sink.url)))
        send(proxy, "good", "bad", "good")
        wait_outcomes(proxy, delivered=2, dead_lettered=1)
        (letter,) = letters(proxy)
        assert letter["reason"] == "transform_error" and "no key here" in letter["error"] and letter["tries"] == 0
        assert letter["event"]["query"] == "bad"
        assert "bad" not in [event["query"] for event in sink.events()]
        assert PROMPT.decode() not in proxy.stderr


def test_event_too_old_is_kept(start_proxy):
    proxy = start_proxy(observability(hook(f"http://127.0.0.1:{free_port()}", retry={"min_delay": 0.01, "max_delay": 0.05, "max_age": 0.5})))
    send(proxy, "n=1")
    wait_outcomes(proxy, dead_lettered=1)
    (letter,) = letters(proxy)
    assert letter["reason"] == "expired" and letter["tries"] > 1


def test_bodies_are_left_out_when_told(start_proxy):
    with Sink([422]) as sink:
        proxy = start_proxy(observability(hook(sink.url), dead_letters={"path": "dlq", "bodies": False}))
        send(proxy, "n=1")
        wait_outcomes(proxy, dead_lettered=1)
        (letter,) = letters(proxy)
        assert letter["event"]["request_body"] is None and letter["event"]["request_bytes"] == len(PROMPT)
        for file in (proxy.folder / "dlq" / "hook").iterdir():
            assert PROMPT not in file.read_bytes()


def test_event_of_which_a_part_is_refused_is_kept_once_and_whole(start_proxy):
    def judge(body):
        return 422 if json.loads(body)[0]["part"] == 2 else 200
    parts = Lua("function(event) return { { id = event.id .. 1, part = 1 }, { id = event.id .. 2, part = 2 }, { id = event.id .. 3, part = 3 } } end")
    with Sink(judge=judge) as sink:
        proxy = start_proxy(observability(hook(sink.url, transforms=[parts], batch={"max_events": 1})))
        send(proxy, "n=1")
        wait_outcomes(proxy, dead_lettered=1, delivered=0)
        assert sorted(event["part"] for event in sink.events()) == [1, 2, 3]
        (letter,) = letters(proxy)
        assert letter["event"]["query"] == "n=1" and letter["event"]["request_body"] == PROMPT.decode()


def test_letters_survive_kill_and_go_through_the_mended_pipeline(start_proxy):
    with Sink([422]) as sink:
        proxy = start_proxy(observability(hook(sink.url)))
        send(proxy, "n=1", "bad")
        wait_outcomes(proxy, dead_lettered=2)
        proxy.kill()
        proxy.configure(observability(hook(sink.url, transforms=[Lua("function(event) event.mended = true return event end")])))
        proxy.start()
        wait_until(lambda: proxy.metrics().value("llm_proxy_dead_letters", pipeline="hook") == 2, "they are there")
        before = len(sink.events())
        result = run("dlq", "replay", "hook", "-c", proxy.config_file, cwd=proxy.folder)
        assert result.returncode == 0, result.stderr
        assert sorted(event["query"] for event in sink.events()[before:] if event["mended"]) == ["bad", "n=1"]
        assert letters(proxy) == []
        wait_until(lambda: proxy.metrics().value("llm_proxy_dead_letters", pipeline="hook") == 0, "the proxy hears of it")


def test_letters_that_cannot_be_written_are_drops(start_proxy):
    """The folder's place is taken away: as on a disk that fails."""
    with Sink([422] * 100) as sink:
        proxy = start_proxy(observability(hook(sink.url, batch={"max_events": 1}), dead_letters={"path": "dlq", "max_bytes": "1MiB"}))
        folder = proxy.folder / "dlq" / "hook"
        send(proxy, "n=0")
        wait_outcomes(proxy, dead_lettered=1)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        with proxy.wire() as wire:
            for number in range(8):
                wire.exchange("POST", f"/v1/echo?n={number}", (), b"p" * 40_000)
        wait_until(lambda: proxy.metrics().value("llm_proxy_events_dropped_total", pipeline="hook", reason="rejected") > 0, "drops")
        wait_until(proxy.balanced, "counters add up")
        assert "dead letters cannot be written" in proxy.stderr


def test_without_a_folder_events_are_dropped_with_their_reason(start_proxy):
    with Sink([422]) as sink:
        proxy = start_proxy({"observability": {"pipelines": [hook(sink.url, batch={"max_events": 1})]}})
        send(proxy, "n=1", "bad")
        wait_outcomes(proxy, dropped=2)
        metrics = proxy.metrics()
        assert metrics.value("llm_proxy_events_dropped_total", reason="rejected") == metrics.value("llm_proxy_events_dropped_total", reason="transform_error") == 1
        assert "setting=observability.dead_letters" in proxy.stderr


@pytest.mark.parametrize("bus", ["memory", "disk"])
def test_every_event_has_one_outcome_over_reloads_and_restarts(start_proxy, bus):
    """All verdicts, from a destination that changes its mind; pipelines replaced under way. Nothing is counted twice or lost, and what is delivered or kept is all there was."""
    def judge(body):
        nonlocal answers
        events = json.loads(body)
        answers += 1
        if answers % 3 == 0:
            return [503, 429, 401, (503, {"Retry-After": "0"})][answers // 3 % 4]
        if any(event["query"].startswith("reject") for event in events):
            return 400
        return 413 if len(events) > 3 else 200
    answers = 0
    mixed = Lua("""function(event)
        if event.query:find("^filter") then return nil end
        if event.query:find("^raise") then error("told to") end
        if event.query:find("^list") then return { event, { id = event.id .. "-2", query = event.query } } end
        return event end""")
    with Sink(judge=judge) as sink:
        changes = observability(hook(sink.url, transforms=[mixed], concurrency=2), **({"bus": {1: "disk", "path": "spool"}} if bus == "disk" else {}))
        proxy = start_proxy(changes)
        queries = [query for kind in ("plain", "filter", "raise", "list", "reject") for query in numbers(kind, 12)]
        for round_of in range(3):
            send(proxy, *queries[round_of::3])
            proxy.reload(changes)
            wait_until(lambda: proxy.stderr.count("configuration reloaded") > round_of, "the reload")
        wait_outcomes(proxy, delivered=24, filtered=12, dead_lettered=24, dropped=0, waiting=0)
        wait_until(proxy.balanced, "counters add up")
        assert sorted(letter["event"]["query"] for letter in letters(proxy)) == sorted(query for query in queries if query.startswith(("raise", "reject")))
        assert {event["query"] for event in sink.events()} >= {query for query in queries if query.startswith(("plain", "list"))}
        assert proxy.metrics().value("llm_proxy_dead_letters", pipeline="hook") == 24
        assert proxy.stop() == 0
        proxy.start()
        assert proxy.metrics().outcomes("hook") == {"delivered": 0, "filtered": 0, "dropped": 0, "dead_lettered": 0, "waiting": 0}
        assert proxy.metrics().value("llm_proxy_dead_letters", pipeline="hook") == 24


def test_disk_bus_does_not_wait_for_a_dead_destination_at_the_end(start_proxy):
    status = 503
    with Sink(judge=lambda _: status) as sink:
        proxy = start_proxy(observability(hook(sink.url, batch={"max_events": 1}, retry={"min_delay": 60, "max_delay": 60}), bus={1: "disk", "path": "spool"}) | {"shutdown_timeout": 600})
        send(proxy, *numbers("n", 20))
        wait_until(lambda: sink.requests, "a try")
        wait_outcomes(proxy, waiting=20)
        assert proxy.stop() == 0, "long before shutdown_timeout"
        tries = len(sink.requests)
        assert tries <= 3
        status = 200
        proxy.start()
        wait_outcomes(proxy, delivered=20, waiting=0)
        assert {event["query"] for event in sink.events()[tries:]} == set(numbers("n", 20))


def test_pipeline_that_goes_and_comes_back_has_what_it_left_on_disk(start_proxy):
    def wait_reloaded(times):
        wait_until(lambda: proxy.stderr.count("configuration reloaded") == times, "the reload")
    bus = {"bus": {1: "disk", "path": "spool"}}
    with Sink() as sink:
        proxy = start_proxy(observability(hook(f"http://127.0.0.1:{free_port()}"), **bus))
        send(proxy, *numbers("n", 5))
        wait_outcomes(proxy, waiting=5)
        proxy.reload(observability({"name": "other", "dispatcher": {1: "file", "path": "other.jsonl"}}, **bus))
        wait_reloaded(1)
        wait_until(lambda: "they stay on the bus" in proxy.stderr, "it has ended")
        wait_until(proxy.balanced, "counters add up while it is gone")
        assert proxy.metrics().outcomes("hook")["waiting"] == 5
        proxy.reload(observability(hook(sink.url), **bus))
        wait_reloaded(2)
        wait_outcomes(proxy, delivered=5, waiting=0)
        wait_until(proxy.balanced, "counters add up when it is back")
        assert proxy.metrics().value("llm_proxy_events_received_total", pipeline="hook") == 5
