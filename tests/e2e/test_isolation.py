"""What goes wrong in a plugin stays in its pipeline: the proxy serves on, another pipeline loses nothing and waits for nothing, and the event at fault is told apart."""

import time

import pytest

from support.lua import Lua
from support.waiting import wait_until

# What a plugin can do wrong with an event of path /bomb.
BOMBS = {
    "loop": "while true do end",
    "caught loop": "while true do pcall(function() while true do end end) end",
    "pattern": "(('a'):rep(100000)):find('.-.-.-.-b')",
    "backtracking": "(('a'):rep(30000)):match('(.*)(.*)(.*)(.*)b')",
    "replacement": "(('('):rep(1000000)):gsub('%b()', '')",
    "concatenation": "local text = 'x' while true do text = text .. text end",
    "replacement of nothing": "(('x'):rep(100000)):gsub('', ('%0'):rep(1000000))",
    "handler": "xpcall(function() while true do end end, function() while true do end end)",
    "handler that runs away": "xpcall(function() error('x') end, function() while true do end end)",
    "tables in each other": "local list = {} for i = 1, 60 do list = { list, list } end assert(require('llmproxy.json').encode(list))",
    "large text": "local list, text = {}, ('x'):rep(1000000) for i = 1, 100000 do list[i] = text end assert(require('llmproxy.json').encode(list))",
    "repetition": "return ('x'):rep(1e9)",
    "table": "local list = {} while true do list[#list + 1] = {} end",
    "keys": "local map = {} for i = 1, 1e9 do map[('k'):rep(100) .. i] = true end",
    "recursion": "local function again(n) return 1 + again(n + 1) end return again(1)",
    "coroutines": "local function again() return coroutine.wrap(again)() end return again()",
    "sort": "local list = {} for i = 1, 1000 do list[i] = i end table.sort(list, function() while true do end end)",
    "tostring": "return tostring(setmetatable({}, { __tostring = function() while true do end end }))",
    "table as error": "error({ code = 7 })",
    "nil as error": "error()",
    "error that raises": "error(setmetatable({}, { __tostring = function() error('again') end }))",
    "error that runs away": "error(setmetatable({}, { __tostring = function() while true do end end }))",
    "yield": "coroutine.yield(1)",
    "coroutine left behind": "local thread = coroutine.create(function() coroutine.yield(('x'):rep(1000000)) end) coroutine.resume(thread) error('left')",
    "no function": "return os.execute('true')",
}


def guarded(code, kind):
    """A function of an event, or of a batch, that does it."""
    if kind == "transform":
        return Lua(f"function(event) if event.path == '/bomb' then {code} end return event end")
    return Lua(f"function(batch) for _, event in ipairs(batch.events) do if event.path == '/bomb' then {code} end end end")


def outcomes(proxy, name):
    return {key: value for key, value in proxy.metrics().outcomes(name).items() if value}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("kind", ["transform", "dispatcher"])
def test_a_bomb_hurts_nobody_else(start_proxy, tmp_path, bomb, kind):
    code = guarded(f"return (function() {BOMBS[bomb]} end)()", kind)
    if kind == "transform":
        victim = {"transforms": [code], "dispatcher": {1: "file", "path": str(tmp_path / "victim.jsonl")}}
    else:
        victim = {"dispatcher": code}
    quick = {"watchdog": "1s", "memory_limit": "16MiB", "concurrency": 1, "batch": {"max_events": 4, "max_wait": 0.05}, "retry": {"min_delay": 0.01, "max_delay": 0.05, "max_age": "1s"}}
    proxy = start_proxy({"observability": {"dead_letters": "dlq", "pipelines": [
        {"name": "victim", **victim, **quick}, {"name": "innocent", "dispatcher": {1: "file", "path": str(tmp_path / "innocent.jsonl")}}]}})
    for path in ("/v1/models", "/bomb", "/v1/models"):
        proxy.exchange("GET", path)
    proxy.wait_events(3, tmp_path / "innocent.jsonl")
    # A dispatcher that raises is tried again until the event is too old; what runs away is told apart at once. Those that raise nothing are fine.
    wait_until(lambda: proxy.metrics().value("llm_proxy_events_waiting", pipeline="victim") == 0, lambda: proxy.stderr)
    result = outcomes(proxy, "victim")
    assert result.get("delivered", 0) >= (2 if kind == "transform" else 0) and result.get("delivered", 0) + result.get("dead_lettered", 0) == 3, (result, proxy.stderr)
    assert result.get("dead_lettered", 0) >= 1, (result, proxy.stderr)
    for _ in range(3):
        proxy.exchange("GET", "/v1/models")
    proxy.wait_events(6, tmp_path / "innocent.jsonl")
    wait_until(lambda: outcomes(proxy, "victim").get("delivered", 0) >= result.get("delivered", 0) + 3, lambda: f"the victim goes on: {outcomes(proxy, 'victim')}\n{proxy.stderr}")
    assert proxy.balanced()


def cpu_seconds(process):
    fields = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize("kind", ["transform", "dispatcher"])
def test_a_plugin_that_keeps_all_memory_does_not_keep_the_machine_busy(start_proxy, tmp_path, kind):
    """Whatever is tried fails for want of memory: it is tried less and less often, not thousands of times a second."""
    keeping = guarded("while true do kept[#kept + 1] = ('x'):rep(100) .. #kept end", kind)
    hoard = Lua(f"(function() local kept = {{}} return {keeping} end)()")
    victim = {"transforms": [hoard], "dispatcher": {1: "file", "path": str(tmp_path / "victim.jsonl")}} if kind == "transform" else {"dispatcher": hoard}
    proxy = start_proxy({"shutdown_timeout": 1, "observability": {"pipelines": [
        {"name": "victim", **victim, "memory_limit": "8MiB", "watchdog": 5}, {"name": "innocent", "dispatcher": {1: "file", "path": str(tmp_path / "innocent.jsonl")}}]}})
    for number in range(20):
        proxy.exchange("GET", "/bomb")
    proxy.wait_events(20, tmp_path / "innocent.jsonl")
    time.sleep(2)
    before = cpu_seconds(proxy.process)
    time.sleep(2)
    assert cpu_seconds(proxy.process) - before < 1, proxy.stderr
    proxy.exchange("GET", "/v1/models")
    proxy.wait_events(21, tmp_path / "innocent.jsonl")
    # In the end it gets a new state, which has the memory to go on: also with what came before the bombs were over.
    wait_until(lambda: proxy.metrics().value("llm_proxy_lua_states_replaced_total", pipeline="victim", reason="memory") >= 1, lambda: proxy.stderr)
    assert "the pipeline's Lua state is replaced" in proxy.stderr
    for _ in range(5):
        proxy.exchange("GET", "/v1/models")
    wait_until(lambda: proxy.metrics().value("llm_proxy_events_total", pipeline="victim", result="delivered") >= 5, lambda: f"it delivers again: {outcomes(proxy, 'victim')} {proxy.stderr}")


def plugin(folder, name, body):
    (folder / "transforms").mkdir(parents=True, exist_ok=True)
    (folder / "transforms" / f"{name}.lua").write_text(f'return {{ kind = "transform", api = 1, summary = "Tries.", new = function() return function(event) {body} return event end end }}')


@pytest.mark.parametrize("code, words", [
    ("made_here = 1", "the global made_here cannot be set: plugins share it; use a local variable"),
    ("_G.made_here = 1", "the global made_here cannot be set"),
    ("string.format = nil", "string.format cannot be set"),
    ("table.concat = nil", "table.concat cannot be set"),
    ("getmetatable('').__index = {}", "attempt to index a boolean value"),
    ("getmetatable(_G).__newindex = nil", "attempt to index a boolean value"),
    ("setmetatable(_G, nil)", "cannot change a protected metatable"),
    ("require 'ffi'", "module 'ffi' not found"),
    ("require 'io'", "module 'io' not found"),
    ("require '../../etc/passwd'", "require"),
    ("load('\\27LJ\\2')()", "attempt to call a nil value"),
    ("package.loadlib('x', 'y')", "attempt to index global 'package' (a nil value)"),
])
def test_plugins_share_what_they_cannot_change(start_proxy, tmp_path, code, words):
    plugin(tmp_path / "plugins", "tries", code)
    plugin(tmp_path / "plugins", "other", "event.fine = made_here == nil and string.format('%d', 7) .. table.concat({ ('x'):rep(2) })")
    proxy = start_proxy({"plugin_path": [str(tmp_path / "plugins")], "observability": {"pipelines": [
        {"name": "x", "transforms": ["other", Lua("function(event) if event.path == '/bomb' then return event end return nil end"), "tries"], "dispatcher": "stdout"},
        {"name": "y", "transforms": ["other"], "dispatcher": {1: "file", "path": str(tmp_path / "y.jsonl")}}]}})
    proxy.exchange("GET", "/bomb")
    wait_until(lambda: proxy.metrics().value("llm_proxy_events_dropped_total", pipeline="x", reason="transform_error") == 1, lambda: proxy.stderr)
    assert words in proxy.stderr
    assert proxy.wait_events(1, tmp_path / "y.jsonl")[0]["fine"] == "7xx"


def test_ffi_is_for_those_that_are_trusted(start_proxy, tmp_path):
    folder = tmp_path / "plugins"
    plugin(folder, "near", "local ffi = require 'ffi' ffi.cdef 'int getpid(void);' event.process = ffi.C.getpid()")
    (folder / "lib").mkdir()
    (folder / "lib/helper.lua").write_text("return pcall(require, 'ffi')")
    plugin(folder, "far", "event.far = require 'helper'")
    pipelines = [{"name": "x", "transforms": ["near", "far"], "dispatcher": {1: "file", "path": str(tmp_path / "x.jsonl")}}]
    proxy = start_proxy({"plugin_path": [str(folder)], "trusted_plugins": ["near"], "observability": {"pipelines": pipelines}})
    proxy.exchange("GET", "/v1/models")
    event = proxy.wait_events(1, tmp_path / "x.jsonl")[0]
    assert event["process"] == proxy.process.pid and event["far"] is False


def test_trust_in_nobody_is_a_mistake(start_proxy, tmp_path):
    plugin(tmp_path / "plugins", "near", "")
    proxy = start_proxy({"plugin_path": [str(tmp_path / "plugins")], "trusted_plugins": ["neer"]}, wait=False)
    assert proxy.wait_exit() == 2 and "trusted_plugins[1]: no plugin 'neer', did you mean 'near'?" in proxy.stderr
