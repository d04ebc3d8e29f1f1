"""SIGHUP replaces the pipelines whose definition changed, and no others: these keep what their plugins remember."""

import pytest

from support.lua import Lua
from support.sink import Sink
from support.waiting import wait_until

COUNTING = """local step = require "step"
return {
  kind = "transform", api = 1, summary = "Numbers the events.",
  settings = { by = { type = "integer", default = 1, doc = "step" } },
  new = function(settings)
    local count = 0
    return function(event)
      count = count + settings.by * step
      event.count = count
      return event
    end
  end,
}
"""


class Counted:
    """A proxy with two pipelines, whose transform numbers the events as long as its state lives."""

    def __init__(self, start_proxy, folder, **options):
        self.plugins = folder / "plugins"
        for name in ("transforms", "lib"):
            (self.plugins / name).mkdir(parents=True)
        self.write("transforms/count.lua", COUNTING)
        self.write("lib/step.lua", "return 1")
        self.files = {name: folder / f"{name}.jsonl" for name in ("one", "two")}
        self.seen = 0
        self.options = options
        self.proxy = start_proxy(self.configuration())

    def write(self, path, text):
        (self.plugins / path).write_text(text)

    def configuration(self, **changes):
        """changes: keys of pipeline `two`."""
        def pipeline(name, more):
            return {"name": name, "transforms": ["count", *self.options.get("functions", [])], "dispatcher": {1: "file", "path": str(self.files[name])}, **more}
        return {"plugin_path": [str(self.plugins)], "observability": {"pipelines": [pipeline("one", {}), pipeline("two", changes)]}}

    def counts(self):
        """What an exchange's event is numbered by the two."""
        self.seen += 1
        self.proxy.exchange("GET", "/v1/models")
        return tuple(self.proxy.wait_events(self.seen, file)[-1]["count"] for file in self.files.values())

    def reload(self, changes=None, word="configuration reloaded"):
        before = self.proxy.stderr.count(word)
        self.proxy.reload(changes or self.configuration())
        wait_until(lambda: self.proxy.stderr.count(word) > before, lambda: f"the reload: {self.proxy.stderr}")


@pytest.fixture
def counted(start_proxy, tmp_path):
    return Counted(start_proxy, tmp_path)


@pytest.mark.parametrize("changes", [
    {"batch": {"max_events": 7}}, {"concurrency": 1}, {"retry": {"max_delay": 5}}, {"memory_limit": "64MiB"}, {"watchdog": 2}, {"buffer_size": 77}, {"from": "oldest"},
    {"transforms": [{1: "count", "by": 1}, {1: "drop", "paths": ["/never"]}]},
], ids=lambda changes: next(iter(changes)))
def test_only_the_changed_pipeline_begins_anew(counted, changes):
    assert [counted.counts() for _ in range(2)] == [(1, 1), (2, 2)]
    counted.reload(counted.configuration(**changes))
    assert counted.counts() == (3, 1)
    assert counted.proxy.stderr.count("pipeline replaced") == 1 and "pipeline=two" in counted.proxy.stderr
    counted.reload(counted.configuration(**changes))
    assert counted.counts() == (4, 2)
    counted.reload()
    assert counted.counts() == (5, 1)


def test_other_keys_touch_no_pipeline(counted):
    assert counted.counts() == (1, 1)
    counted.reload({**counted.configuration(), "shutdown_timeout": 3, "limits": {"max_headers": 50}, "log": {"level": "debug"}})
    assert counted.counts() == (2, 2)
    assert "pipeline replaced" not in counted.proxy.stderr


def test_a_setting_that_says_the_default_is_no_change(counted):
    assert counted.counts() == (1, 1)
    counted.reload(counted.configuration(transforms=[{1: "count", "by": 1}], concurrency=2))
    assert counted.counts() == (2, 2)


@pytest.mark.parametrize("path, text", [("transforms/count.lua", COUNTING.replace("Numbers", "Counts")), ("lib/step.lua", "return 1 -- again"), ("lib/deep/new.lua", "return {}")])
def test_text_of_plugins_and_libraries_counts(counted, path, text):
    assert counted.counts() == (1, 1)
    (counted.plugins / path).parent.mkdir(exist_ok=True)
    counted.write(path, text)
    counted.reload()
    assert counted.counts() == (1, 1)
    counted.reload()
    assert counted.counts() == (2, 2)


def test_a_plugin_that_nobody_uses_does_not_count(counted):
    assert counted.counts() == (1, 1)
    counted.write("transforms/other.lua", "return {")
    counted.reload()
    assert counted.counts() == (2, 2)


def test_where_there_is_a_function_the_whole_file_counts(start_proxy, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a")
    functions = [Lua(f"(function(secret) return function(event) event.secret = secret return event end end)(read_file('{secret}'))")]
    counted = Counted(start_proxy, tmp_path, functions=functions)
    assert counted.counts() == (1, 1)
    counted.reload()
    assert counted.counts() == (2, 2)
    secret.write_text("b")
    counted.reload()
    assert counted.counts() == (1, 1)
    assert counted.proxy.wait_events(3, counted.files["one"])[-1]["secret"] == "b"
    counted.reload({**counted.configuration(), "shutdown_timeout": 7})
    assert counted.counts() == (1, 1)


def test_a_broken_configuration_changes_nothing_and_says_why(counted):
    assert counted.counts() == (1, 1)
    for changes, words in (({"concurrency": 0}, "concurrency"), ({"transforms": ["count", "nowhere"]}, "no transform 'nowhere'"), ({"dispatcher": {1: "webhook"}}, "dispatcher.url")):
        counted.reload(counted.configuration(**changes), "configuration not reloaded")
        assert words in counted.proxy.stderr
    counted.write("transforms/count.lua", 'error("not today")')
    counted.reload(word="not today")
    assert counted.counts() == (2, 2)


def test_a_delivery_of_an_unchanged_pipeline_goes_on(start_proxy, tmp_path):
    """It is neither tried again nor stopped, and waits beyond shutdown_timeout, which is for what is replaced."""
    with Sink() as sink:
        sink.hold.clear()
        hook = {"name": "hook", "batch": {"max_wait": 0}, "dispatcher": {1: "webhook", "url": sink.url}}

        def configuration(size):
            return {"shutdown_timeout": 1, "observability": {"pipelines": [hook, {"name": "other", "buffer_size": size, "dispatcher": {1: "file", "path": str(tmp_path / "other.jsonl")}}]}}

        proxy = start_proxy(configuration(10))
        proxy.exchange("GET", "/v1/models")
        wait_until(lambda: sink.requests, "a try")
        for size in (20, 30, 40):
            proxy.reload(configuration(size))
            wait_until(lambda: proxy.stderr.count("configuration reloaded") == size // 10 - 1, "the reload")
        wait_until(lambda: proxy.stderr.count("pipeline replaced") == 3, "the other one is replaced each time")
        sink.hold.set()
        wait_until(lambda: proxy.metrics().value("llm_proxy_events_total", pipeline="hook", result="delivered") == 1, "the delivery")
        assert len(sink.requests) == 1
