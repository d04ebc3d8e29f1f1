"""A bus written in Lua, over a queue that speaks HTTP: from the workers through the queue in front of it to the bus, and from there to the pipelines, whatever happens to either."""

import collections
import signal

import pytest

from support.http_queue import HttpQueue
from support.lua import Lua
from support.proxy import ROOT, run
from support.sink import Sink
from support.waiting import wait_until

PLUGINS = str(ROOT / "examples/plugins")
RETRY = {"min_delay": 0.02, "max_delay": 0.1}


@pytest.fixture
def queue():
    with HttpQueue() as server:
        yield server


def bus(server, **more):
    return {1: "http_queue", "url": server.url, "publish": {"retry": RETRY}, **more}


def pipeline(name, dispatcher=None, **more):
    return {"name": name, "from": "oldest", "dispatcher": dispatcher or {1: "file", "path": f"{name}.jsonl"}, "retry": RETRY, **more}


def to_url(name, url, **more):
    return pipeline(name, {1: "webhook", "url": url}, batch={"max_wait": 0.02, "max_events": 5}, **more)


def configuration(queue, *pipelines, plugins=PLUGINS, **observability):
    own = observability.pop("bus", None) or bus(queue)
    return {"plugin_path": [plugins], "observability": {"bus": own, "pipelines": list(pipelines), **observability}}


def send(proxy, count, path="/bytes"):
    with proxy.wire() as wire:
        for _ in range(count):
            assert wire.exchange("GET", path, [("x-mock-size", "10")]).complete


def value(proxy, name, pipeline, **labels):
    return proxy.metrics().value(name, pipeline=pipeline, **labels)


def delivered(proxy, pipeline):
    return value(proxy, "llm_proxy_events_total", pipeline, result="delivered")


def waiting(proxy, pipeline):
    return value(proxy, "llm_proxy_events_waiting", pipeline)


def dropped(proxy, pipeline, reason):
    return value(proxy, "llm_proxy_events_dropped_total", pipeline, reason=reason)


def published(queue):
    return [event["id"] for event in list(queue.events.messages)]


def ids_of(sink):
    return {event["id"] for event in sink.events()}


def test_every_pipeline_gets_every_event_and_acknowledges_it(start_proxy, queue, event_schema):
    proxy = start_proxy(configuration(queue, pipeline("one"), pipeline("two", transforms=[Lua('function(event) event.mark = "two" return event end')])))
    send(proxy, 40)
    for name in ("one", "two"):
        events = proxy.wait_events(40, proxy.folder / f"{name}.jsonl")
        assert sorted(event["id"] for event in events) == sorted(published(queue))
        wait_until(lambda: len(queue.group(name).done) == 40, "all are acknowledged")
        assert not queue.group(name).leased
    event_schema(proxy.events(proxy.folder / "one.jsonl")[0])
    assert all(event["mark"] == "two" for event in events)
    wait_until(proxy.balanced, "all counted")
    assert delivered(proxy, "bus") == 40


def test_pipelines_of_several_proxies_share_the_work(start_proxy, queue):
    proxies = [start_proxy(configuration(queue, pipeline("shared"), buffer_size=100)) for _ in range(2)]
    sent = 0

    def both_have_some():
        nonlocal sent
        send(proxies[sent % 2], 10)
        sent += 10
        return all(delivered(proxy, "shared") for proxy in proxies)

    wait_until(both_have_some, "each gets some of them", every=0.05)
    wait_until(lambda: len(queue.group("shared").done) == sent, "all are acknowledged")
    found = [event["id"] for proxy in proxies for event in proxy.events(proxy.folder / "shared.jsonl")]
    assert sorted(found) == sorted(published(queue))


def test_a_killed_proxy_loses_nothing_that_was_published(start_proxy, queue):
    with Sink() as sink:
        proxy = start_proxy(configuration(queue, to_url("events", sink.url), bus=bus(queue, lease=0.5)))
        for _ in range(3):
            sink.hold.clear()
            before = len(queue.events.messages)
            send(proxy, 30)
            wait_until(lambda: len(queue.events.messages) == before + 30, "all are published")
            wait_until(lambda: len(sink.requests) and queue.group("events").leased, "deliveries are under way")
            proxy.kill()
            sink.hold.set()
            proxy.start()
        wait_until(lambda: ids_of(sink) == set(published(queue)), lambda: f"none is missing: {len(ids_of(sink))}")
        wait_until(lambda: len(queue.group("events").done) == 90 and proxy.balanced(), "all are acknowledged")


@pytest.mark.parametrize("front", ["memory", {1: "disk", "path": "spool"}], ids=["memory", "disk"])
def test_a_bus_that_is_away_is_waited_for(start_proxy, queue, front):
    proxy = start_proxy(configuration(queue, pipeline("events"), bus=bus(queue, queue=front)))
    send(proxy, 5)
    proxy.wait_events(5, proxy.folder / "events.jsonl")
    queue.stop()
    send(proxy, 30)
    wait_until(lambda: waiting(proxy, "bus") == 30 and value(proxy, "llm_proxy_bus_errors_total", "events", operation="fetch"), "they wait in front")
    assert proxy.admin("/readyz")[0] == 200
    if front != "memory":
        assert proxy.stop() == 0, "what waits on disk holds up no restart"
        proxy.start()
        assert waiting(proxy, "bus") == 30
    queue.start()
    wait_until(lambda: len({event["id"] for event in proxy.events(proxy.folder / "events.jsonl")}) == 35, lambda: proxy.stderr)
    assert len(set(published(queue))) == 35


def test_what_the_queue_in_front_cannot_hold_is_counted(start_proxy, queue):
    proxy = start_proxy(configuration(queue, pipeline("events"), buffer_size=20, bus=bus(queue, publish={"retry": RETRY, "batch": {"max_events": 5}})))
    queue.refuse = 503
    send(proxy, 100)
    lost = dropped(proxy, "bus", "buffer_full")
    assert lost >= 100 - 20 - 3 * 5 and not proxy.metrics().unbalanced()
    queue.refuse = None
    wait_until(lambda: delivered(proxy, "events") == 100 - lost, lambda: proxy.metrics().text)


def test_a_stop_publishes_what_waits_and_gives_back_what_is_not_delivered(start_proxy, queue):
    with Sink(judge=lambda body: 503) as sink:
        proxy = start_proxy({**configuration(queue, to_url("events", sink.url), bus=bus(queue, lease=3600)), "shutdown_timeout": 60})
        send(proxy, 10)
        wait_until(lambda: queue.group("events").leased and sink.requests, "they are tried")
        queue.judge = lambda method, path: 503 if path.endswith("events/messages") and method == "POST" else None
        send(proxy, 10)
        wait_until(lambda: waiting(proxy, "bus") == 10, "they wait in front")
        proxy.signal(signal.SIGTERM)
        queue.judge = lambda method, path: None
        assert proxy.wait_exit() == 0
        assert len(published(queue)) == 20
        group = queue.group("events")
        assert not group.leased and len(group.waiting) == 20, "all can be had by others at once"


def test_a_reload_takes_back_what_waits_and_loses_nothing(start_proxy, queue):
    with Sink(judge=lambda body: 503) as away, Sink() as sink:
        own = bus(queue, lease=3600)
        proxy = start_proxy(configuration(queue, to_url("events", away.url), bus=own))
        send(proxy, 30)
        wait_until(lambda: queue.group("events").leased and away.requests, "they are tried")
        received = value(proxy, "llm_proxy_events_received_total", "events")
        proxy.reload(configuration(queue, to_url("events", sink.url), bus=own))
        send(proxy, 10)
        wait_until(lambda: ids_of(sink) == set(published(queue)) and len(published(queue)) == 40, lambda: proxy.stderr)
        wait_until(lambda: len(queue.group("events").done) == 40 and proxy.balanced(), lambda: proxy.metrics().text)
        assert delivered(proxy, "events") == 40 == value(proxy, "llm_proxy_events_received_total", "events") >= received


def test_garbage_on_the_bus_is_counted_and_does_not_come_again(start_proxy, queue):
    proxy = start_proxy(configuration(queue, pipeline("events")))
    wait_until(lambda: "events" in queue.events.groups, "it subscribes")
    queue.publish(5, "text", [], {"id": "no time"}, None, {"id": 7, "time": "2026-01-31T10:00:00Z"})
    send(proxy, 3)
    proxy.wait_events(3, proxy.folder / "events.jsonl")
    wait_until(lambda: len(queue.group("events").done) == 9, "all are acknowledged")
    assert dropped(proxy, "events", "unreadable") == 6
    assert "event dropped: what the bus gave cannot be read as one" in proxy.stderr


def changed_plugin(folder, *changes):
    """The example with other lines in it, as the bus `changed`."""
    text = (ROOT / "examples/plugins/buses/http_queue.lua").read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / "plugins/buses").mkdir(parents=True)
    (folder / "plugins/buses/changed.lua").write_text(text)
    return str(folder / "plugins")


def test_events_whose_publishing_runs_away_are_found_and_the_others_published(start_proxy, queue, tmp_path):
    endless = "publish = function(_, batch)\n for _, event in ipairs(batch.events) do while event.path == '/v1/endless' do end end\n"
    plugins = changed_plugin(tmp_path, ("publish = function(_, batch)\n", endless))
    own = bus(queue, publish={"retry": RETRY, "watchdog": 0.1, "batch": {"max_wait": 0.2}})
    proxy = start_proxy(configuration(queue, pipeline("events"), plugins=plugins, dead_letters="letters", bus={**own, 1: "changed"}))
    send(proxy, 3)
    send(proxy, 1, "/v1/endless")
    send(proxy, 3)
    proxy.wait_events(6, proxy.folder / "events.jsonl")
    wait_until(lambda: value(proxy, "llm_proxy_events_total", "bus", result="dead_lettered") == 1, lambda: proxy.metrics().text)
    assert "pipeline" in run("dlq", "ls", "-c", proxy.config_file, "--json").stdout


@pytest.mark.parametrize("fault", ["error('no')", "while true do end", "return 5", "return nil, 'broken'"])
@pytest.mark.parametrize("function", ["fetch = function(_, max, wait)\n", "ack = function(_, messages) "])
def test_a_subscription_that_fails_is_tried_again(start_proxy, queue, tmp_path, function, fault):
    plugins = changed_plugin(tmp_path, (function, f"{function} calls = calls + 1 if calls % 3 == 1 then {fault} end "), ("local function subscription", "local calls = 0\nlocal function subscription"))
    proxy = start_proxy(configuration(queue, pipeline("events", watchdog=0.1), plugins=plugins, bus={**bus(queue), 1: "changed"}))
    send(proxy, 20)
    wait_until(lambda: len(set(queue.group("events").done)) == 20, lambda: proxy.stderr)
    assert value(proxy, "llm_proxy_bus_errors_total", "events", operation=function[:5].split()[0])
    counts = collections.Counter(event["id"] for event in proxy.events(proxy.folder / "events.jsonl"))
    assert set(counts) == set(published(queue))


def test_faults_of_the_configuration_are_told(queue, tmp_path):
    def errors(changes):
        text = "return { plugin_path = { '%s' }, observability = { %s } }" % (PLUGINS, changes)
        (tmp_path / "llm-proxy.lua").write_text(text)
        result = run("check", "-c", tmp_path / "llm-proxy.lua")
        return result.returncode, result.stderr

    for changes, expected in [
        ("bus = { 'http_queu', url = 'http://localhost' }", "did you mean 'http_queue'?"),
        ("bus = 'http_queue'", "observability.bus.url: expected a URL"),
        ("bus = { 'http_queue', url = 'http://localhost', leas = 3 }", "observability.bus.leas: unknown key"),
        ("bus = { 'http_queue', url = 'http://localhost', queue = 'dsk' }", "observability.bus.queue: expected a queue"),
        ("bus = { 'http_queue', url = 'http://localhost', queue = { 'disk', path = 'x', audit = true } }", "observability.bus.queue.audit: unknown key"),
        ("bus = { 'http_queue', url = 'http://localhost' }, pipelines = { { name = 'bus', dispatcher = 'stdout' } }", "pipelines[1].name: expected another name"),
    ]:
        status, text = errors(changes)
        assert status == 2 and expected in text, (changes, text)
