"""Pipelines: transforms in a chain, functions in the configuration, plugins of one's own, each pipeline a failure domain."""

import gzip
import json
import time

import pytest

from support.lua import Lua
from support.waiting import wait_until


def chain(tmp_path, *transforms, **more):
    """A configuration with one pipeline "x" of these transforms (text: Lua functions), into out.jsonl."""
    as_lua = [Lua(one) if isinstance(one, str) and one.startswith("function") else one for one in transforms]
    return {"observability": {"pipelines": [{"name": "x", "transforms": as_lua, "dispatcher": {1: "file", "path": str(tmp_path / "out.jsonl")}, **more}]}}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


def counts(proxy, pipeline="x"):
    wait_until(proxy.balanced, "counters add up")
    return {result: count for result, count in proxy.metrics().outcomes(pipeline).items() if count}


def test_function_changes_the_event(start_proxy, tmp_path, out):
    proxy = start_proxy(chain(tmp_path, 'function(event) event.team = event.request_headers["x-team"]; event.query = nil; return event end'))
    proxy.exchange("GET", "/v1/models?x=1", [("X-Team", "red")])
    event = proxy.wait_events(1, out)[0]
    assert event["team"] == "red" and event.get("query") is None and event["path"] == "/v1/models"


def test_function_makes_a_schema_of_its_own(start_proxy, tmp_path, out):
    proxy = start_proxy(chain(tmp_path, """function(event)
        return { RequestID = event.request_id, Method = event.method, Path = event.path, Status = event.status, Duration = event.duration_ms,
                 ResponseHeaders = event.response_headers, ResponseBody = event.response_body } end"""))
    response = proxy.exchange("GET", "/v1/models", [("X-Request-Id", "abc")])
    event = proxy.wait_events(1, out)[0]
    assert set(event) == {"RequestID", "Method", "Path", "Status", "Duration", "ResponseHeaders", "ResponseBody"}
    assert (event["RequestID"], event["Method"], event["Status"], event["ResponseBody"]) == ("abc", "GET", 200, response.body.decode())


def test_nil_and_empty_table_filter(start_proxy, tmp_path, out):
    proxy = start_proxy(chain(tmp_path, 'function(event) if event.query == "nil" then return nil elseif event.query == "empty" then return {} end return event end'))
    for query in ("nil", "empty", "kept"):
        proxy.exchange("GET", f"/v1/models?{query}")
    assert proxy.wait_events(1, out)[0]["query"] == "kept"
    assert counts(proxy) == {"delivered": 1, "filtered": 2}


def test_list_makes_several(start_proxy, tmp_path, out):
    proxy = start_proxy(chain(tmp_path, "function(event) return { { part = 1 }, { part = 2 }, { part = 3 } } end",
                              "function(event) event.seen = true; return event end"))
    proxy.exchange("GET", "/v1/models")
    assert proxy.wait_events(3, out) == [{"part": part, "seen": True} for part in (1, 2, 3)]
    assert counts(proxy) == {"delivered": 1}


def test_raise_fails_closed(start_proxy, tmp_path, out):
    proxy = start_proxy(chain(tmp_path, 'function(event) if event.query == "bad" then error("cannot redact this") end return event end'))
    for query in ("bad", "good"):
        proxy.exchange("GET", f"/v1/models?{query}")
    assert proxy.wait_events(1, out)[0]["query"] == "good"
    assert counts(proxy) == {"delivered": 1, "dropped": 1}
    assert proxy.metrics().value("llm_proxy_events_dropped_total", pipeline="x", reason="transform_error") == 1
    assert "cannot redact this" in proxy.stderr


@pytest.mark.parametrize("result", ["7", "'text'", "true", "function() end", "{ f = function() end }"])
def test_results_that_are_no_event_are_counted(start_proxy, tmp_path, out, result):
    proxy = start_proxy(chain(tmp_path, f'function(event) if event.query == "bad" then return {result} end return event end'))
    for query in ("bad", "good"):
        proxy.exchange("GET", f"/v1/models?{query}")
    assert proxy.wait_events(1, out)[0]["query"] == "good"
    assert counts(proxy) == {"delivered": 1, "dropped": 1}


def test_redact_and_drop(start_proxy, tmp_path, out):
    proxy = start_proxy(chain(tmp_path, {1: "drop", "paths": ["/health"]}, {1: "drop", "statuses": [429], "methods": ["GET"]},
                              {1: "redact", "headers": ["X-Internal"], "query": ["user"]}))
    proxy.exchange("GET", "/health")
    proxy.exchange("GET", "/v1/models", [("x-mock-status", "429")])
    proxy.exchange("GET", "/v1/models?user=me&x=1", [("x-internal", "secret")])
    event = proxy.wait_events(1, out)[0]
    assert event["request_headers"]["x-internal"] == "[redacted]" and event["query"] == "user=[redacted]&x=1"
    assert counts(proxy) == {"delivered": 1, "filtered": 2}


def test_json_keeps_what_it_reads(start_proxy, tmp_path, out):
    proxy = start_proxy(chain(tmp_path, """function(event)
        local json = require "llmproxy.json"
        event.body = json.decode(event.request_body)
        event.raw = json.raw(event.request_body)
        return event end"""))
    text = '{"empty":[],"object":{},"null":null,"big":12345678901234567890123,"float":0.7,"zero":"\\u0000","list":[null,1,[]],"one":1.0,"neg":-0.5e-7}'
    proxy.exchange("POST", "/v1/echo", (), text.encode())
    event = proxy.wait_events(1, out)[0]
    assert event["body"] == event["raw"] == json.loads(text)
    line = out.read_text()
    assert "12345678901234567890123" in line and '"float":0.7' in line


def test_bodies_are_bytes_in_lua(start_proxy, tmp_path, out):
    proxy = start_proxy(chain(tmp_path, "function(event) return { size = #event.request_body, first = event.request_body:byte(1), coding = event.request_content_coding } end"))
    proxy.exchange("POST", "/v1/echo", [("Content-Encoding", "gzip")], gzip.compress(b"\xff\x00abc"))
    assert proxy.wait_events(1, out) == [{"size": 5, "first": 255}]


def test_untouched_event_is_the_same_with_and_without_a_transform(start_proxy, tmp_path, out):
    proxy = start_proxy({"observability": {"pipelines": [
        {"name": "plain", "dispatcher": {1: "file", "path": str(tmp_path / "plain.jsonl")}},
        {"name": "lua", "transforms": [Lua("function(event) return event end")], "dispatcher": {1: "file", "path": str(out)}}]}})
    for headers, body in (((), "Grüße".encode()), ([("x-mock-coding", "gzip")], b"\xff\x00"), ([("x-mock-status", "404")], b"")):
        proxy.exchange("POST", "/v1/echo", headers, body)
    plain, lua = proxy.wait_events(3, tmp_path / "plain.jsonl"), proxy.wait_events(3, out)

    def said(event):
        return {key: value for key, value in event.items() if value is not None}

    assert [said(event) for event in lua] == [said(event) for event in plain]


def test_locals_of_the_file_are_per_pipeline_and_last(start_proxy, tmp_path):
    proxy = start_proxy(file="""
        local count = 0
        local function number(event) count = count + 1; return { n = count } end
        return { listen = "127.0.0.1:@PORT@", admin = "127.0.0.1:@ADMIN@", routes = { { prefix = "/", upstream = "@UPSTREAM@" } },
          observability = { enabled = true, pipelines = {
            { name = "a", transforms = { number }, dispatcher = { "file", path = "a.jsonl" } },
            { name = "b", transforms = { number, number }, dispatcher = { "file", path = "b.jsonl" } } } } }""")
    for _ in range(3):
        proxy.exchange("GET", "/v1/models")
    assert [event["n"] for event in proxy.wait_events(3, proxy.folder / "a.jsonl")] == [1, 2, 3]
    assert [event["n"] for event in proxy.wait_events(3, proxy.folder / "b.jsonl")] == [2, 4, 6]


def test_inline_dispatcher(start_proxy, tmp_path, out):
    proxy = start_proxy({"observability": {"pipelines": [{"name": "x", "dispatcher": Lua("""function(batch)
        local file, json = require "llmproxy.file", require "llmproxy.json"
        local handle = assert(file.append("%s"))
        handle:write(json.encode { count = #batch.events, attempt = batch.attempt, is_array = batch:json():sub(1, 1) == "[" } .. "\\n")
        handle:close()
      end""" % out)}]}})
    proxy.exchange("GET", "/v1/models")
    assert proxy.wait_events(1, out) == [{"count": 1, "attempt": 1, "is_array": True}]
    assert counts(proxy) == {"delivered": 1}


def test_dispatcher_that_raises_is_retried(start_proxy, tmp_path, out):
    proxy = start_proxy({"observability": {"pipelines": [{"name": "x", "retry": {"min_delay": 0.05, "max_delay": 0.1}, "dispatcher": Lua("""function(batch)
        if batch.attempt < 3 then error("not yet") end
        local handle = assert(require("llmproxy.file").append("%s"))
        handle:write(batch:json_lines())
        handle:close()
      end""" % out)}]}})
    proxy.exchange("GET", "/v1/models")
    proxy.wait_events(1, out)
    assert counts(proxy) == {"delivered": 1} and "not yet" in proxy.stderr


def test_plugins_of_ones_own_with_settings_and_lib(start_proxy, tmp_path, out):
    for folder, name, text in (
            ("transforms", "label", """local shout = require "shout"
                return { kind = "transform", api = 1, summary = "Labels.", settings = { text = { type = "string", required = true, doc = "the label" } },
                  new = function(settings) return function(event) event.label = shout(settings.text); return event end end }"""),
            ("lib", "shout", "return function(text) return text:upper() end")):
        (tmp_path / "plugins" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "plugins" / folder / f"{name}.lua").write_text(text)
    proxy = start_proxy({**chain(tmp_path, {1: "label", "text": "hello"}), "plugin_path": [str(tmp_path / "plugins")]})
    proxy.exchange("GET", "/v1/models")
    assert proxy.wait_events(1, out)[0]["label"] == "HELLO"


def test_runaway_transform_does_not_stop_the_proxy_or_other_pipelines(start_proxy, tmp_path, out):
    proxy = start_proxy({"shutdown_timeout": 3, "observability": {"pipelines": [
        {"name": "mad", "watchdog": 0.5, "transforms": [Lua("function(event) while true do end end")], "dispatcher": {1: "file", "path": str(tmp_path / "mad.jsonl")}},
        {"name": "good", "dispatcher": {1: "file", "path": str(out)}}]}})
    for _ in range(3):
        assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.wait_events(3, out)
    wait_until(lambda: "mad" in proxy.stderr, "said in the log")
    wait_until(lambda: proxy.metrics().outcomes("mad")["dropped"] >= 1, "counted")
    assert not (tmp_path / "mad.jsonl").exists() or not proxy.events(tmp_path / "mad.jsonl")


def test_memory_hog_does_not_stop_the_proxy_or_other_pipelines(start_proxy, tmp_path, out):
    proxy = start_proxy({"shutdown_timeout": 3, "observability": {"pipelines": [
        {"name": "hog", "memory_limit": "16MiB", "dispatcher": {1: "file", "path": str(tmp_path / "hog.jsonl")},
         "transforms": [Lua("""function(event) if event.query == "bad" then local t = {} for i = 1, 1e9 do t[i] = i .. "x" end end return event end""")]},
        {"name": "good", "dispatcher": {1: "file", "path": str(out)}}]}})
    for query in ("good", "bad", "good"):
        assert proxy.exchange("GET", f"/v1/models?{query}").status == 200
    proxy.wait_events(3, out)
    wait_until(lambda: counts(proxy, "hog") == {"delivered": 2, "dropped": 1}, lambda: f"the hog's other events are delivered: {counts(proxy, 'hog')}")


def test_each_failure_is_told_once(start_proxy, tmp_path):
    """Runaway code, want of memory and errors of any kind: one line for one event, which says what and why."""
    proxy = start_proxy(chain(tmp_path, """function(event)
        if event.query == "memory" then return ("x"):rep(2 ^ 25) end
        if event.query == "loop" then while true do end end
        error({}) end""", memory_limit="16MiB", watchdog=0.2))
    for query, words in (("memory", "not enough memory: more than the pipeline's memory_limit of 16 MiB"), ("loop", "stopped: ran for more than 0.2 s"),
                         ("table", "raised a table instead of a message")):
        before = len(proxy.stderr.splitlines())
        time.sleep(1.1)
        proxy.exchange("GET", f"/v1/models?{query}")
        wait_until(lambda: words in proxy.stderr, words)
        wait_until(proxy.balanced, "counters add up")
        (line,) = proxy.stderr.splitlines()[before:]
        assert words in line and "event dropped: a transform failed" in line and "suppressed" not in line
    assert "keep too much" not in proxy.stderr


def test_plugin_that_keeps_too_much_is_told_of(start_proxy, tmp_path):
    proxy = start_proxy(chain(tmp_path, """function(event)
        kept = kept or {}
        for i = 1, 100 do kept[#kept + 1] = ("x"):rep(100000) .. #kept end
        return event end""", memory_limit="16MiB"))
    for _ in range(5):
        proxy.exchange("GET", "/v1/models")
    line = wait_until(lambda: [line for line in proxy.stderr.splitlines() if "keep too much memory" in line], "it is told of")
    wait_until(lambda: counts(proxy).get("dropped", 0) >= 3, "the events are counted as dropped")
    assert len([line for line in proxy.stderr.splitlines() if "keep too much memory" in line]) == 1
    assert "memory_limit=16777216" in line[0] and int(line[0].split("bytes_kept=")[1].split()[0]) > 8 << 20 and " error " in line[0]


def test_sandbox_at_run_time(start_proxy, tmp_path, out):
    names = "io os ffi debug jit loadstring getfenv setfenv newproxy collectgarbage dofile loadfile"
    proxy = start_proxy(chain(tmp_path, """function(event)
        local found = {}
        for name in ("%s"):gmatch("%%S+") do if _G[name] ~= nil then found[#found + 1] = name end end
        return { found = table.concat(found, " "), dump = string.dump == nil, loadlib = package == nil or package.loadlib == nil,
                 bytecode = not pcall(load or error, "\\27LJ") or load("\\27LJ") == nil, ffi = pcall(require, "ffi") } end""" % names))
    proxy.exchange("GET", "/v1/models")
    assert proxy.wait_events(1, out) == [{"found": "", "dump": True, "loadlib": True, "bytecode": True, "ffi": False}]


def test_env_and_read_file_raise_after_loading(start_proxy, tmp_path, out):
    proxy = start_proxy(file="""
        local env, read_file = env, read_file
        return { listen = "127.0.0.1:@PORT@", admin = "127.0.0.1:@ADMIN@", routes = { { prefix = "/", upstream = "@UPSTREAM@" } },
          observability = { enabled = true, pipelines = { { name = "x", dispatcher = { "file", path = "%s" },
            transforms = { function(event) return { env = pcall(env, "HOME"), read_file = pcall(read_file, "/etc/passwd") } end } } } } }""" % out)
    proxy.exchange("GET", "/v1/models")
    assert proxy.wait_events(1, out) == [{"env": False, "read_file": False}]


def test_two_pipelines_get_the_same_event(start_proxy, tmp_path):
    proxy = start_proxy({"observability": {"pipelines": [{"name": name, "dispatcher": {1: "file", "path": str(tmp_path / name)}} for name in "abc"]}})
    proxy.exchange("POST", "/v1/echo", (), b"hello")
    a, b, c = (proxy.wait_events(1, tmp_path / name) for name in "abc")
    assert a == b == c


def test_order_is_kept_with_concurrency_1(start_proxy, tmp_path, out):
    proxy = start_proxy({**chain(tmp_path, concurrency=1, batch={"max_events": 3}), "workers": 1})
    with proxy.wire() as wire:
        for number in range(200):
            wire.exchange("GET", f"/v1/models?{number}")
    proxy.wait_events(200, out)
    assert [event["query"] for event in proxy.events(out)] == [str(number) for number in range(200)]
