"""SIGTERM ends it without loss, SIGHUP reads the configuration again and reopens files; a bad configuration is refused and the old one stays."""

import json
import os
import signal

from support.lua import Lua
from support.proxy import BINARY, get
from support.sink import Sink
from support.waiting import wait_until
from support.wire import Wire

STREAM = json.dumps({"model": "m", "stream": True, "messages": []}).encode()


def begin(wire, pieces=20, pace=0.1):
    wire.request("POST", "/v1/chat/completions", [("x-mock-pieces", str(pieces)), ("x-mock-pace", str(pace))], STREAM)
    assert wire.head().status == 200


def finish(wire):
    """Reads the rest of a chunked body; was it complete?"""
    body = b""
    while (piece := wire.next_chunk()):
        body += piece
    return piece == b"" and b"[DONE]" in body


def test_sigterm_lets_a_running_stream_finish(proxy):
    with proxy.wire() as wire, proxy.wire() as idle:
        assert idle.exchange("GET", "/v1/models").status == 200
        begin(wire)
        proxy.signal(signal.SIGTERM)
        assert idle.is_closed()
        assert finish(wire)
    assert proxy.wait_exit() == 0
    events = proxy.events()
    assert len(events) == 2 and events[1]["error"] is None and events[1]["response_body"].endswith("[DONE]\n\n")


def test_sigterm_stops_accepting_and_is_not_ready(proxy):
    with proxy.wire() as wire:
        begin(wire)
        proxy.signal(signal.SIGTERM)
        wait_until(lambda: get(proxy.admin_port, "/readyz")[0] == 503, "not ready")
        assert get(proxy.admin_port, "/healthz")[0] == 200

        def refused():
            try:
                with Wire(("127.0.0.1", proxy.port), timeout=5) as late:
                    late.request("GET", "/v1/models")
                    return late.head() is None
            except OSError:
                return True

        wait_until(refused, "new connections are refused")
        assert finish(wire)
    assert proxy.wait_exit() == 0


def test_response_during_the_end_says_close(proxy):
    with proxy.wire() as wire:
        wire.request("GET", "/v1/models", [("x-mock-delay", "1")])
        wait_until(lambda: proxy.upstream.requests, "the request is running")
        proxy.signal(signal.SIGTERM)
        response = wire.response()
        assert response.status == 200 and response.get("connection") == "close"
    assert proxy.wait_exit() == 0
    assert len(proxy.events()) == 1


def test_shutdown_timeout_ends_what_does_not(start_proxy):
    proxy = start_proxy({"shutdown_timeout": 1})
    with proxy.wire() as wire:
        begin(wire, 10000)
        proxy.signal(signal.SIGTERM)
        assert not finish(wire)
    assert proxy.wait_exit(30) == 0
    assert [event["error"]["kind"] for event in proxy.events()] == ["shutdown"]


def test_second_sigterm_ends_at_once(start_proxy):
    proxy = start_proxy({"shutdown_timeout": 600})
    with proxy.wire() as wire:
        begin(wire, 10000)
        proxy.signal(signal.SIGTERM)
        wait_until(lambda: get(proxy.admin_port, "/readyz")[0] == 503, "the first one has begun")
        proxy.signal(signal.SIGTERM)
        proxy.wait_exit(20)


def test_shutdown_delay_still_accepts(start_proxy):
    proxy = start_proxy({"shutdown_delay": 1.5})
    proxy.signal(signal.SIGTERM)
    wait_until(lambda: get(proxy.admin_port, "/readyz")[0] == 503, "not ready")
    assert proxy.exchange("GET", "/v1/models").status == 200
    assert proxy.wait_exit(30) == 0
    assert len(proxy.events()) == 1


def test_pipelines_are_drained(start_proxy, tmp_path):
    """A slow dispatcher still gets everything that was accepted before the end."""
    file = tmp_path / "slow.jsonl"
    proxy = start_proxy(file="""
        local time, file, verdict = require "llmproxy.time", require "llmproxy.file", require "llmproxy.verdict"
        return { listen = "127.0.0.1:@PORT@", admin = "127.0.0.1:@ADMIN@", routes = { { prefix = "/", upstream = "@UPSTREAM@" } },
          observability = { enabled = true, pipelines = { { name = "slow", batch = { max_events = 2, max_wait = 0.1 }, concurrency = 1,
            dispatcher = function(batch)
              time.sleep(0.3)
              local handle = assert(file.append("%s"))
              handle:write(batch:json_lines())
              handle:close()
              return verdict.ok()
            end } } } }""" % file)
    with proxy.wire() as wire:
        for _ in range(10):
            wire.exchange("GET", "/v1/models")
    assert proxy.stop() == 0
    assert len(proxy.events(file)) == 10


def test_sigint_ends_like_sigterm(proxy):
    proxy.exchange("GET", "/v1/models")
    proxy.signal(signal.SIGINT)
    assert proxy.wait_exit() == 0
    assert len(proxy.events()) == 1


def test_sighup_applies_new_routes_while_running_exchanges_keep_theirs(proxy, upstream):
    with proxy.wire() as wire:
        begin(wire)
        proxy.reload({"routes": [{"name": "new", "prefix": "/new/", "upstream": upstream.url}]})
        wait_until(lambda: proxy.exchange("GET", "/v1/models").status == 404, "the old route is gone")
        assert proxy.exchange("GET", "/new/v1/models").status == 200
        assert finish(wire)
        # The connection lives on, with the new routes.
        assert wire.exchange("GET", "/new/v1/models").status == 200
    wait_until(lambda: {event["route"] for event in proxy.events()} >= {"new", "mock"}, "events of both")


def test_sighup_with_a_bad_configuration_keeps_the_old_one(proxy, upstream):
    proxy.reload(file="return { rutes = {} }")
    wait_until(lambda: "rutes" in proxy.stderr, "the error in the log")
    assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.reload(file="return {")
    wait_until(lambda: proxy.stderr.count(str(proxy.config_file.name)) >= 2, "the second error in the log")
    assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.wait_events(2)


def test_sighup_refuses_what_needs_a_restart_by_name(proxy):
    for key, value in (("listen", "127.0.0.1:1"), ("admin", "127.0.0.1:1"), ("workers", 7)):
        before = len(proxy.stderr)
        proxy.reload({key: value})
        wait_until(lambda: key in proxy.stderr[before:], f"{key} is named")
        assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.wait_events(3)


def test_sighup_reopens_the_event_file(proxy):
    proxy.exchange("GET", "/v1/models")
    proxy.event()
    rotated = proxy.events_file.with_suffix(".1")
    os.rename(proxy.events_file, rotated)
    proxy.signal(signal.SIGHUP)

    def written_anew():
        proxy.exchange("GET", "/v1/models")
        return proxy.events_file.exists()

    wait_until(written_anew, "the file is there again", every=0.2)
    wait_until(proxy.balanced, "all delivered")
    delivered = proxy.metrics().value("llm_proxy_events_total", result="delivered")
    assert len(proxy.events()) + len(proxy.events(rotated)) == delivered


def test_sighup_under_load_loses_nothing(proxy, upstream):
    import threading
    failures, done = [], threading.Event()

    def load():
        with proxy.wire() as wire:
            for _ in range(200):
                response = wire.exchange("POST", "/v1/echo", (), b"x" * 1000)
                if response is None or response.status != 200 or not response.complete:
                    failures.append(response)
                    return

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        proxy.signal(signal.SIGHUP)
        done.wait(0.1)
    assert not failures
    wait_until(lambda: proxy.metrics().value("llm_proxy_events_total", result="delivered") == 800, lambda: f"all are delivered: {proxy.metrics().text}")


def reloads(proxy, level="configuration reloaded"):
    return proxy.stderr.count(level)


def reload_and_wait(proxy, changes=None, file=None):
    before = reloads(proxy)
    proxy.reload(changes, file)
    wait_until(lambda: reloads(proxy) > before, lambda: f"the reload: {proxy.stderr}")


def test_sighup_applies_a_changed_function_and_a_changed_plugin_file(start_proxy, tmp_path):
    (tmp_path / "plugins/transforms").mkdir(parents=True)
    (tmp_path / "plugins/lib").mkdir()
    plugin, library, file = tmp_path / "plugins/transforms/mark.lua", tmp_path / "plugins/lib/words.lua", tmp_path / "marked.jsonl"
    plugin.write_text('local words = require "words"\n'
                      'return { kind = "transform", api = 1, summary = "Marks.", new = function() return function(event) event.word = words.word return event end end }')

    def configuration(inline):
        function = Lua(f"function(event) event.inline = {inline} return event end")
        return {"plugin_path": [str(tmp_path / "plugins")],
                "observability": {"pipelines": [{"name": "marked", "transforms": ["mark", function], "dispatcher": {1: "file", "path": str(file)}}]}}

    library.write_text('return { word = "one" }')
    proxy = start_proxy(configuration(1))
    proxy.exchange("GET", "/v1/models")
    proxy.wait_events(1, file)
    reload_and_wait(proxy, configuration(2))
    proxy.exchange("GET", "/v1/models")
    proxy.wait_events(2, file)
    library.write_text('return { word = "two" }')
    reload_and_wait(proxy, configuration(2))
    proxy.exchange("GET", "/v1/models")
    assert [(event["word"], event["inline"]) for event in proxy.wait_events(3, file)] == [("one", 1), ("one", 2), ("two", 2)]
    library.write_text("return {")
    proxy.signal(signal.SIGHUP)
    wait_until(lambda: reloads(proxy, "configuration not reloaded"), "the fault is said")
    proxy.exchange("GET", "/v1/models")
    assert proxy.wait_events(4, file)[3]["word"] == "two"


def test_sighup_adds_and_removes_pipelines_and_turns_observability_off_and_on(start_proxy, tmp_path):
    files = {name: tmp_path / f"{name}.jsonl" for name in "ab"}

    def configuration(*names, **more):
        return {"observability": {"pipelines": [{"name": name, "dispatcher": {1: "file", "path": str(files[name])}} for name in names], **more}}

    proxy = start_proxy(configuration("a"))
    for changes in (configuration("a", "b"), configuration("b"), configuration("b", enabled=False), configuration("a", "b"), configuration("a", "b", buffer_size=500)):
        proxy.exchange("GET", "/v1/models")
        reload_and_wait(proxy, changes)
    proxy.exchange("GET", "/v1/models")
    # a, ab, b, -, ab, ab
    proxy.wait_events(4, files["a"])
    proxy.wait_events(4, files["b"])
    metrics = proxy.metrics()
    assert [metrics.value("llm_proxy_events_received_total", pipeline=name) for name in "ab"] == [4, 4]
    assert not metrics.value("llm_proxy_events_total", result="dropped")


def test_sighup_moves_what_waits_to_the_new_destination(start_proxy):
    """The old one is down, or hangs."""
    for answers, hang in (((500, 500, 500), False), ((), True)):
        with Sink(answers) as old, Sink() as new:
            if hang:
                old.hold.clear()

            def configuration(url):
                return {"shutdown_timeout": 3, "observability": {"pipelines": [
                    {"name": "hook", "concurrency": 1, "batch": {"max_events": 5, "max_wait": 0.05}, "retry": {"min_delay": 600, "max_delay": 600},
                     "dispatcher": {1: "webhook", "url": url}}]}}

            proxy = start_proxy(configuration(old.url))
            with proxy.wire() as wire:
                for number in range(40):
                    wire.exchange("GET", f"/v1/models?n={number}")
                wait_until(lambda: old.requests, "a try")
                reload_and_wait(proxy, configuration(new.url))
                for number in range(40, 50):
                    wire.exchange("GET", f"/v1/models?n={number}")
            wait_until(lambda: len(new.events()) >= 50, lambda: f"all events at the new destination, have {len(new.events())}")
            assert [event["query"] for event in new.events()] == [f"n={number}" for number in range(50)]
            wait_until(lambda: proxy.metrics().value("llm_proxy_events_total", result="delivered") == 50, "all are counted")
            assert not proxy.metrics().value("llm_proxy_events_total", result="dropped")


def test_removed_pipeline_whose_destination_is_down_ends_with_shutdown_timeout(start_proxy):
    with Sink([500] * 1000) as sink:
        proxy = start_proxy({"shutdown_timeout": 1, "observability": {"pipelines": [{"name": "hook", "dispatcher": {1: "webhook", "url": sink.url}}]}})
        proxy.exchange("GET", "/v1/models")
        wait_until(lambda: sink.requests, "a try")
        reload_and_wait(proxy, {"shutdown_timeout": 1})
        proxy.exchange("GET", "/v1/models")
        wait_until(lambda: proxy.metrics().value("llm_proxy_events_dropped_total", pipeline="hook", reason="shutdown") == 1, "the event is counted")
        assert proxy.metrics().value("llm_proxy_events_waiting", pipeline="hook") == 0
        proxy.wait_events(1)


def test_sigterm_during_a_reload_loses_nothing(start_proxy):
    with Sink() as sink:
        sink.hold.clear()

        def changes(size):
            return {"observability": {"pipelines": [{"name": "hook", "buffer_size": size, "concurrency": 1, "batch": {"max_events": 2, "max_wait": 0.05},
                                                     "dispatcher": {1: "webhook", "url": sink.url}}]}}

        proxy = start_proxy(changes(100))
        with proxy.wire() as wire:
            for number in range(9):
                wire.exchange("GET", f"/v1/models?n={number}")
            wait_until(lambda: sink.requests, "a delivery")
            for size in (101, 102, 103):
                reload_and_wait(proxy, changes(size))
            wire.exchange("GET", "/v1/models?n=9")
        proxy.signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in proxy.stderr, "the end begins")
        sink.hold.set()
        assert proxy.wait_exit() == 0
        assert [event["query"] for event in sink.events()] == [f"n={number}" for number in range(10)]


def test_lowered_max_connections_are_said_once(start_proxy, tmp_path):
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -n 500\nexec {BINARY} "$@"\n')
    limited.chmod(0o700)
    proxy = start_proxy({"limits": {"max_connections": 1000}}, binary=limited)
    for _ in range(3):
        reload_and_wait(proxy, {"limits": {"max_connections": 1000}})
    assert proxy.stderr.count("max_connections is lowered") == 1
    reload_and_wait(proxy, {"limits": {"max_connections": 2000}})
    assert proxy.stderr.count("max_connections is lowered") == 2


def test_unix_socket_file_is_gone_after_the_end(start_proxy, tmp_path):
    path = tmp_path / "proxy.sock"
    proxy = start_proxy({"listen": [f"unix:{path}"]})
    assert path.exists()
    assert proxy.stop() == 0
    assert not path.exists()


HOG = """local ffi = require "ffi"
ffi.cdef "int pipe(int ends[2]); long read(int fd, void *to, unsigned long size);"
return { kind = "transform", api = 1, summary = "Reads what nobody writes.", new = function()
  return function() local ends = ffi.new "int[2]" ffi.C.pipe(ends) ffi.C.read(ends[0], ffi.new "char[1]", 1) end
end }
"""


def test_code_that_nothing_interrupts_does_not_keep_the_process(start_proxy, tmp_path):
    """A plugin that is trusted with C waits there for ever: no hook stops it. The end comes without it, by itself or by a second signal."""
    (tmp_path / "plugins/transforms").mkdir(parents=True)
    (tmp_path / "plugins/transforms/hog.lua").write_text(HOG)
    for signals in (1, 2):
        proxy = start_proxy({"shutdown_timeout": 1, "plugin_path": [str(tmp_path / "plugins")], "trusted_plugins": ["hog"], "observability": {"pipelines": [
            {"name": "hog", "transforms": ["hog"], "dispatcher": {1: "file", "path": str(tmp_path / f"hog{signals}.jsonl")}}]}})
        assert proxy.exchange("GET", "/v1/models").status == 200
        wait_until(lambda: proxy.metrics().value("llm_proxy_events_received_total", pipeline="hog") == 1, "the event is taken")
        proxy.signal(signal.SIGTERM)
        if signals == 2:
            wait_until(lambda: "stopping" in proxy.stderr, "the end begins")
            proxy.signal(signal.SIGTERM)
        assert proxy.wait_exit(30) == 1
        assert ("does not end" if signals == 1 else "second signal") in proxy.stderr
