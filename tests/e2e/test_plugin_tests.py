"""`llm-proxy test`: what passes, what fails and how that is told, and that no test stops another one."""

import json
import re
import subprocess

import pytest

from support.proxy import BINARY, environment, run

SLOW = """return {
  kind = "transform", api = 1, summary = "Keeps slow exchanges.",
  settings = { longer_than = { type = "duration", default = "5s", doc = "what counts as slow" } },
  new = function(settings)
    return function(event)
      if event.duration_ms >= settings.longer_than * 1000 then return event end
    end
  end,
}
"""


class Specs:
    """A plugin folder with specs in it."""

    def __init__(self, folder):
        self.folder = folder / "my-plugins"
        for name in ("transforms", "tests"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "transforms/slow.lua").write_text(SLOW)

    def write(self, text, name="one_spec.lua"):
        (self.folder / "tests" / name).write_text(text)

    def run(self, *arguments, **options):
        result = run("test", *(arguments or [self.folder]), **options)
        lines = result.stdout.splitlines()
        self.results = {match[3]: match[1] == "ok" for match in re.finditer(r"^(ok|not ok) (\d+) - (.*)$", result.stdout, re.M)}
        numbers = [int(number) for number in re.findall(r"^(?:ok|not ok) (\d+) - ", result.stdout, re.M)]
        if lines:
            assert lines[0] == "TAP version 14"
            assert numbers == list(range(1, len(numbers) + 1)) and f"1..{len(numbers)}" in lines
            assert lines[-1] == f"{sum(self.results.values())} passed, {len(numbers) - sum(self.results.values())} failed"
        return result


@pytest.fixture
def specs(tmp_path):
    return Specs(tmp_path)


def failure(result, name):
    """What is told about a test that failed."""
    match = re.search(rf"^not ok \d+ - {re.escape(name)}\n  ---\n(.*?)^  \.\.\.$", result.stdout, re.M | re.S)
    assert match, result.stdout
    return re.sub(r"^    ?", "", match[1], flags=re.M)


def test_what_passes(specs):
    specs.write("""
      local slow
      before_each(function() slow = plugin("transform", "slow", { longer_than = "1s" }) end)
      describe("slow", function()
        it("drops what was quick", function() expect(slow(event { duration_ms = 999 })):to_be_nil() end)
        it("keeps what was not", function()
          local kept = event { duration_ms = 1000 }
          expect(slow(kept)):to_be(kept)
        end)
      end)
    """)
    result = specs.run()
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert specs.results == {"slow: drops what was quick": True, "slow: keeps what was not": True}
    assert specs.run("--filter", "quick", specs.folder).returncode == 0 and list(specs.results) == ["slow: drops what was quick"]


def test_how_failures_are_told(specs):
    specs.write("""
it("tables", function() expect({ a = { b = 1, c = "x\\ny\\nz" }, d = "hello world" }):to_equal { a = { b = 2, c = "x\\nw\\nz" }, d = "hello wurld", e = 1 } end)
it("numbers", function() expect(1):to_be_above(2) end)
it("nots", function() expect("text"):not_to_contain "ex" end)
it("raises", function() expect(function() error "other" end):to_raise "this" end)
local function inner() return nil + 1 end
it("errors", function() local value = inner() return value end)
it("tables as errors", function() error { code = 7 } end)
it("nil as error", function() error() end)
it("settings", function() plugin("transform", "slow", { longer_then = 1 }) end)
it("unknown plugins", function() plugin("transform", "slaw") end)
""")
    result = specs.run()
    assert result.returncode == 1
    place = specs.folder / "tests/one_spec.lua"
    told = failure(result, "tables")
    for line in ("value.a.b:\n  expected 2\n  got      1\n", "value.a.c: differs from line to line (- expected, + got):\n  x\n- w\n+ y\n  z\n", "value.d: differs at byte 8",
                 "value.e:\n  expected 1\n  got      nothing\n", f"at: {place}:2\n"):
        assert line in told, told
    assert "expected a number above 2, got 1" in failure(result, "numbers")
    assert 'expected not something that contains "ex", got "text"' in failure(result, "nots")
    assert 'expected an error with "this", got "' in failure(result, "raises")
    told = failure(result, "errors")
    assert f"{place}:6: attempt to perform arithmetic on a nil value" in told and f"{place}:6 in function 'inner'\n{place}:7 in function" in told
    assert "llmproxy" not in told and "[C]" not in told
    assert "raised { code = 7 }" in failure(result, "tables as errors")
    assert "raised nil" in failure(result, "nil as error")
    assert f"{place}:10: longer_then: unknown key, did you mean 'longer_than'?" in failure(result, "settings")
    assert "no transform 'slaw', did you mean 'slow'?" in failure(result, "unknown plugins")


def test_no_test_stops_another_one(specs):
    specs.write("""
      it("runs away", function() while true do end end)
      it("needs all memory", function() local list = {} while true do list[#list + 1] = ("x"):rep(1000000) .. #list end end)
      it("recurses", function() local function again() return 1 + again() end again() end)
      it("goes on", function() expect(1):to_be(1) end)
    """)
    specs.write("it(", "two_spec.lua")
    specs.write("error('not loaded')", "three_spec.lua")
    specs.write("it('is fine', function() end)", "zzz_spec.lua")
    result = specs.run()
    assert result.returncode == 1
    assert [name for name, fine in specs.results.items() if fine] == ["goes on", "is fine"]
    assert f"{specs.folder}/tests/one_spec.lua:2: stopped: ran for more than 5 s without a break" in failure(result, "runs away")
    assert "not enough memory" in failure(result, "needs all memory") and "stack overflow" in failure(result, "recurses")
    assert "two_spec.lua:1:" in failure(result, f"{specs.folder}/tests/two_spec.lua")
    assert "three_spec.lua:1: not loaded" in failure(result, f"{specs.folder}/tests/three_spec.lua")


def test_time_stands_still_until_somebody_sleeps(specs):
    specs.write("""
      local time = require "llmproxy.time"
      it("sleeps", function()
        expect(time.rfc3339(time.now())):to_equal "2026-01-02T03:04:05.000000Z"
        local before = time.monotonic()
        time.sleep(86400)
        expect(time.monotonic() - before):to_be(86400)
        clock.advance(60)
        clock.set "2030-01-01T00:00:00Z"
        expect(time.format(time.now(), "%Y")):to_equal "2030"
      end)
      it("is as before in the next test", function() expect(time.format(time.now(), "%F")):to_equal "2026-01-02" end)
      it("says what is wrong as ever", function()
        expect(function() time.sleep(-1) end):to_raise "llmproxy.time.sleep: seconds: expected 0 or more"
      end)
    """)
    assert specs.run().returncode == 0, specs.results


def test_destinations_are_played(specs):
    specs.write("""
      local play, http = http.fake, require "llmproxy.http"
      local hook = { "webhook", url = "https://collector.example/x?y=1" }
      it("answers by the script, and keeps what it got", function()
        local collector = play("https://collector.example", { 503, { status = 429, headers = { ["Retry-After"] = "30" } }, 200 })
        local result = run_pipeline { transforms = { { "slow", longer_than = "10ms" } }, dispatcher = hook, events = { event(), event { duration_ms = 1 }, event() } }
        expect({ result.outcomes[1].result, result.outcomes[2].result, result.outcomes[3].result }):to_equal { "delivered", "filtered", "delivered" }
        expect({ result.tries, #collector.requests }):to_equal { 3, 3 }
        expect(result.seconds):to_be_above(30)
        local request = collector.requests[1]
        expect({ request.method, request.path, request.query, #request.json() }):to_equal { "POST", "/x", "y=1", 2 }
        expect(request.headers["content-type"]):to_equal "application/json"
      end)
      it("rejects, splits, pauses", function()
        play("https://collector.example", function(request) return request.body:find("poison", 1, true) and 413 or 200 end)
        local result = run_pipeline { dispatcher = hook, events = { event(), event { path = "/poison" }, event() } }
        expect({ result.outcomes[1].result, result.outcomes[2].reason, result.outcomes[3].result }):to_equal { "delivered", "rejected", "delivered" }
        expect(result.outcomes[2].where):to_equal "webhook"
      end)
      it("can be slow or gone", function()
        play("http://slow.example", { delay = 11, status = 200 })
        play("http://gone.example", { error = "Connection refused" })
        local response, message = http.get { url = "http://slow.example/" }
        expect({ response, message }):to_equal { nil, "http://slow.example: timed out" }
        response, message = http.get { url = "http://gone.example/" }
        expect({ response, message }):to_equal { nil, "http://gone.example: Connection refused" }
      end)
      it("can be streams", function()
        play("http://stream.example", { status = 200, headers = { ["X-One"] = "1" }, body = "data: 1\\n\\n" })
        local answer = http.stream { url = "http://stream.example/" }
        expect({ answer.status, answer.headers["x-one"], (answer:read()), (answer:read()) }):to_equal { 200, "1", "data: 1\\n\\n" }
        answer:close()
      end)
      it("expectations in a script count", function()
        play("https://collector.example", function(request) expect(request.method):to_equal "PUT" return 200 end)
        run_pipeline { dispatcher = hook, retry = { max_age = 1 }, events = { event() } }
      end)
      it("arguments are checked", function() http.get { url = "http://gone.example/", timeout = "1" } end)
      it("nobody plays it", function() http.get { url = "http://nobody.example/secret?key=1" } end)
    """)
    result = specs.run()
    assert [name for name, fine in specs.results.items() if not fine] == ["expectations in a script count", "arguments are checked", "nobody plays it"], result.stdout
    assert 'expected "PUT", got "POST"' in failure(result, "expectations in a script count")
    assert "llmproxy.http.get: timeout: expected a number, got a string" in failure(result, "arguments are checked")
    assert 'GET http://nobody.example/secret?key=1 was sent, and nobody plays that destination: http.fake("http://nobody.example")' in failure(result, "nobody plays it")


def test_recorded_events_and_vectors(specs, start_proxy):
    proxy = start_proxy()
    proxy.exchange("GET", "/v1/models", [("X-Team", "red")])
    proxy.wait_events(1)
    for name, milliseconds, expected in (("kept", 90000, None), ("dropped", 1, "null")):
        case = specs.folder / "tests/cases" / name
        case.mkdir(parents=True)
        event = re.sub(r'"duration_ms":[\d.]+', f'"duration_ms":{milliseconds}', proxy.events_file.read_text())
        (case / "event.json").write_text(event)
        (case / "expected.json").write_text(expected or event)
    specs.write(f"""
      it("reads what was recorded", function()
        local list = events "{proxy.events_file}"
        expect(#list):to_be(1)
        expect(list[1].request_headers["x-team"]):to_equal "red"
      end)
      vectors("cases", {{ {{ "slow", longer_than = "60s" }} }})
    """)
    result = specs.run()
    assert result.returncode == 0 and len(specs.results) == 3, result.stdout


def test_wrong_usage(specs, tmp_path):
    assert (specs.run("test-nothing").returncode, "No such file" in specs.run("nothing").stderr) == (2, True)
    result = run("test")
    assert result.returncode == 2 and "expected the files or folders of specs" in result.stderr
    (tmp_path / "empty").mkdir()
    result = specs.run(tmp_path / "empty")
    assert result.returncode == 2 and "no specs in it (files named *_spec.lua)" in result.stderr
    specs.write("it('x', function() end)")
    assert specs.run("--filter", "y", specs.folder).returncode == 2


@pytest.mark.parametrize("kind, folder", [("transform", "transforms"), ("dispatcher", "dispatchers"), ("bus", "buses")])
def test_a_new_plugin_works(tmp_path, kind, folder):
    plugins = tmp_path / "a/b/my-plugins"
    result = run("plugins", "new", kind, "my-own", "--dir", plugins)
    assert result.returncode == 0, result.stderr
    assert (plugins / folder / "my-own.lua").exists() and f"llm-proxy test {plugins}/tests/my-own_spec.lua" in result.stdout
    assert "NAME" not in (plugins / folder / "my-own.lua").read_text() + (plugins / "tests/my-own_spec.lua").read_text()
    result = run("test", plugins)
    assert result.returncode == 0 and re.search(r"^[23] passed, 0 failed$", result.stdout, re.M), result.stdout
    result = run("plugins", "show", "my-own", env={"LLM_PROXY_PLUGINS": str(plugins)})
    assert result.returncode == 0 and f"{kind} my-own" in result.stdout
    before = (plugins / folder / "my-own.lua").read_text()
    (plugins / "tests/my-own_spec.lua").unlink()
    result = run("plugins", "new", kind, "my-own", "--dir", plugins)
    assert result.returncode == 1 and "is there already, and nothing is written over it" in result.stderr
    assert (plugins / folder / "my-own.lua").read_text() == before and not (plugins / "tests/my-own_spec.lua").exists()


def test_new_plugins_of_wrong_names(tmp_path):
    for arguments, words in ((["sink", "x"], "expected transform"), (["transform", "../x"], "expected a name of small letters"), (["transform", "-x"], ""),
                             (["transform"], "expected 'list', 'show NAME', 'reference' or 'new KIND NAME'")):
        result = run("plugins", "new", *arguments, cwd=tmp_path)
        assert result.returncode == 2 and words in result.stderr
    assert not list(tmp_path.iterdir())


def transformed(specs, events, *arguments):
    """What run-transform prints of these lines."""
    return subprocess.run([BINARY, "run-transform", *arguments], input=events, env=environment({"LLM_PROXY_PLUGINS": str(specs.folder)}), capture_output=True, text=True, timeout=60)


def test_events_through_one_transform(specs, start_proxy):
    proxy = start_proxy()
    for number in range(3):
        proxy.exchange("GET", f"/v1/models?{number}")
    proxy.wait_events(3)
    lines = proxy.events_file.read_text()
    result = transformed(specs, lines, "slow", "{ longer_than = 0 }")
    assert (result.returncode, result.stderr) == (0, "")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [json.loads(line) for line in lines.splitlines()]
    assert transformed(specs, lines, "slow", '{ longer_than = "1h" }').stdout == ""
    (specs.folder / "transforms/many.lua").write_text("""return { kind = "transform", api = 1, summary = "Many.", new = function()
      return function(event)
        if event.query == "0" then return { { part = 1 }, { part = 2 } } end
        if event.query == "1" then error("not this one") end
        while true do end
      end
    end }""")
    result = transformed(specs, lines + "nonsense\n\n" + lines.splitlines()[0], "many")
    assert result.returncode == 1 and result.stdout == '{"part":1}\n{"part":2}\n' * 2
    place = specs.folder / "transforms/many.lua"
    identifiers = [event["id"] for event in proxy.wait_events(3)]
    assert f"line 2 ({identifiers[1]}): {place}:4: not this one" in result.stderr
    assert f"line 3 ({identifiers[2]}): {place}:5: stopped: ran for more than 1 s without a break" in result.stderr
    assert "line 4: invalid JSON at byte 1" in result.stderr


def test_run_transform_that_cannot_be_made(specs):
    for arguments, words in ((["slaw"], "no transform 'slaw', did you mean 'slow'?"), (["slow", "{ longer_then = 1 }"], "longer_then: unknown key, did you mean 'longer_than'?"),
                             (["slow", "{ longer_than = "], "settings:1:"), (["slow", "7"], "expected the file to return a table"), ([], "expected the name of a transform"),
                             (["webhook"], "no transform 'webhook', it is a dispatcher")):
        result = transformed(specs, "", *arguments)
        assert result.returncode == 2 and words in result.stderr, result.stderr
