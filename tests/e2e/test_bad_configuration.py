"""A bad configuration stops the start with exit status 2 and says where, what was expected and what was probably meant."""

import pytest

from support.proxy import run

ROUTE = '{ prefix = "/", upstream = "http://127.0.0.1:9" }'


@pytest.fixture
def refuse(tmp_path):
    """refuse(text, *words): `check` and `serve` refuse this file with 2, and stderr has the words."""

    def refuse(text, *words):
        file = tmp_path / "bad.lua"
        file.write_text(text)
        errors = set()
        for command in ("check", "serve"):
            result = run(command, "-c", file, cwd=tmp_path)
            assert result.returncode == 2, (command, result.returncode, result.stdout, result.stderr)
            assert "bad.lua" in result.stderr
            for word in words:
                assert word in result.stderr, f"{word!r} is not in: {result.stderr}"
            assert "stack traceback" not in result.stderr
            errors.add(result.stderr)
        return errors.pop()

    return refuse


@pytest.mark.parametrize("text, words", [
    ("return { lissten = '127.0.0.1:1' }", ["lissten", "listen"]),
    ("return { routes = { { prefx = '/', upstream = 'http://x' } } }", ["routes[1].prefx", "prefix"]),
    ("return { observability = { bufer_size = 3 } }", ["observability.bufer_size", "buffer_size"]),
    ("return { workers = 'many' }", ["workers", "number"]),
    ("return { workers = -1 }", ["workers"]),
    ("return { workers = 1.5 }", ["workers"]),
    ("return { listen = 'nonsense' }", ["listen"]),
    ("return { listen = '127.0.0.1:99999' }", ["listen"]),
    ("return { listen = {} }", ["listen"]),
    ("return { admin = true }", ["admin"]),
    ("return { shutdown_timeout = 'soon' }", ["shutdown_timeout"]),
    ("return { timeouts = { connect = '-3s' } }", ["timeouts.connect"]),
    ("return { timeouts = { conect = 3 } }", ["timeouts.conect", "connect"]),
    ("return { limits = { max_head_bytes = '64 kilos' } }", ["limits.max_head_bytes"]),
    ("return { limits = { max_headers = 0 } }", ["limits.max_headers"]),
    ("return { routes = 'x' }", ["routes"]),
    ("return { routes = { { upstream = 'http://x' } } }", ["routes[1].prefix", "got nothing"]),
    ("return { routes = { { prefix = '/' } } }", ["routes[1].upstream", "got nothing"]),
    ("return { routes = { { prefix = 'v1', upstream = 'http://x' } } }", ["routes[1].prefix", "/"]),
    ("return { routes = { { prefix = '/', upstream = 'ftp://x' } } }", ["routes[1].upstream", "http"]),
    ("return { routes = { { prefix = '/', upstream = 'http://user:geheim@x' } } }", ["routes[1].upstream"]),
    ("return { routes = { { prefix = '/', upstream = 'http://x?y' } } }", ["routes[1].upstream"]),
    (f"return {{ routes = {{ {ROUTE}, {ROUTE} }} }}", ["routes[2].prefix"]),
    ("return { routes = { { prefix = '/a', name = 'x', upstream = 'http://x' }, { prefix = '/b', name = 'x', upstream = 'http://x' } } }", ["routes[2].name"]),
    ("return { routes = { { prefix = '/', upstream = 'http://x', headers = { ['bad name'] = 'x' } } } }", ["routes[1].headers"]),
    ("return { routes = { { prefix = '/', upstream = 'http://x', headers = { x = 'a\\r\\nb: c' } } } }", ["routes[1].headers"]),
    ("return { routes = { { prefix = '/', upstream = 'http://x', headers = { x = true } } } }", ["routes[1].headers"]),
    ("return { observability = { enabled = 'yes please' } }", ["observability.enabled"]),
    ("return { observability = { buffer_size = 0 } }", ["observability.buffer_size"]),
    ("return { observability = { buffer_size = 1000001 } }", ["observability.buffer_size"]),
    ("return { observability = { max_request_body_bytes = '40MiB', max_response_body_bytes = '40MiB' } }", ["48"]),
    ("return { observability = { bus = { 'memroy' } } }", ["memroy", "memory"]),
    ("return { observability = { bus = { 'disk' } } }", ["observability.bus.path", "expected a path"]),
    ("return { observability = { pipelines = { { dispatcher = 'stdout' } } } }", ["pipelines[1].name"]),
    ("return { observability = { pipelines = { { name = 'x' } } } }", ["pipelines[1].dispatcher"]),
    ("return { observability = { pipelines = { { name = 'x', dispatcher = 'stdot' } } } }", ["stdot", "stdout"]),
    ("return { observability = { pipelines = { { name = 'x', dispatcher = 'file' } } } }", ["pipelines[1].dispatcher.path", "got nothing"]),
    ("return { observability = { pipelines = { { name = 'x', dispatcher = { 'file', path = 'x', pathh = 1 } } } } }", ["pipelines[1].dispatcher.pathh", "path"]),
    ("return { observability = { pipelines = { { name = 'x', dispatcher = { 'webhook', url = 'nowhere' } } } } }", ["pipelines[1].dispatcher.url"]),
    ("return { observability = { pipelines = { { name = 'x', transforms = { 'redcat' }, dispatcher = 'stdout' } } } }", ["transforms[1]", "redcat", "redact"]),
    ("return { observability = { pipelines = { { name = 'x', transforms = { 7 }, dispatcher = 'stdout' } } } }", ["transforms[1]"]),
    ("return { observability = { pipelines = { { name = 'x', transforms = { { 'drop', statuses = { 'x' } } }, dispatcher = 'stdout' } } } }", ["transforms[1].statuses"]),
    ("return { observability = { pipelines = { { name = 'x', dispatcher = 'stdout' }, { name = 'x', dispatcher = 'stdout' } } } }", ["pipelines[2].name"]),
    ("return { observability = { pipelines = { { name = 'x', dispatcher = 'stdout', batch = { max_event = 3 } } } } }", ["pipelines[1].batch.max_event", "max_events"]),
    ("return { log = { level = 'loud' } }", ["log.level", "debug"]),
    ("return 7", ["table"]),
    ("return", ["table"]),
    ("return { listen = }", ["bad.lua:1"]),
    ("\n\nerror('on purpose')", ["on purpose"]),
    ("\n\nlocal x = nil\nreturn x.y", ["bad.lua:4"]),
    ("return { listen = os.getenv('X') }", ["bad.lua:1", "'os'", "use env(name, default) in the configuration"]),
    ("return { listen = require('llmproxy.htp') }", ["did you mean 'llmproxy.http'"]),
    ("return { listen = io.open('x') }", ["io"]),
    ("return require 'nothing.like.that'", ["nothing.like.that"]),
    ("return { listen = read_file('/no/such/file') }", ["/no/such/file"]),
    ("\x1bLJ\x02", ["bad.lua: expected Lua source, got bytecode"]),
    ("return {\n observability = { pipelines = {\n { name = 'x', dispatcher = { 'webhook',\n url = env('NOT_SET_1'), headers = { a = env('NOT_SET_2', 'b') } } } } } }",
     ["bad.lua:4: observability.pipelines[1].dispatcher.url: expected a URL that begins with http:// or https://, got nothing (not set in the environment: NOT_SET_1)"]),
])
def test_refused(refuse, text, words):
    refuse(text, *words)


def test_all_errors_are_reported(refuse):
    error = refuse("return { lissten = 1, workers = 'x', routes = { { prefx = '/' } }, log = { level = 'loud' } }")
    for word in ("lissten", "workers", "prefx", "routes[1].prefix", "routes[1].upstream", "log.level"):
        assert word in error


def test_a_file_that_never_ends(refuse):
    refuse("while true do end")


def test_a_file_that_never_ends_in_pcall(refuse):
    refuse("while true do pcall(error) end")


def test_a_file_that_eats_memory(refuse):
    refuse("local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end")


def test_secrets_are_in_no_error(refuse):
    error = refuse("return { routes = { { prefix = '/', upstream = 'http://x', headers = { Authorization = 'geheim\\r\\n' } } }, "
                   "observability = { fingerprint_key = {}, pipelines = { { name = 'x', dispatcher = { 'webhook', url = 'http://x', secret = 'geheim' } } } } }")
    assert "geheim" not in error


def test_missing_file_and_folder_instead_of_a_file(tmp_path):
    for path in (tmp_path / "nothing.lua", tmp_path):
        result = run("serve", "-c", path)
        assert result.returncode == 2 and str(path) in result.stderr
        assert len(result.stderr.strip().splitlines()) <= 2


def broken_plugin(tmp_path, text, kind="transforms"):
    folder = tmp_path / "plugins" / kind
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.lua").write_text(text)
    use = "transforms = { 'mine' }, dispatcher = 'stdout'" if kind == "transforms" else "dispatcher = 'mine'"
    file = tmp_path / "llm-proxy.lua"
    file.write_text(f"return {{ plugin_path = {{ 'plugins' }}, observability = {{ enabled = true, pipelines = {{ {{ name = 'x', {use} }} }} }} }}")
    return run("check", "-c", file)


def test_plugin_folder_that_cannot_be_read_says_why(tmp_path):
    """A link to itself cannot be read by root either."""
    (tmp_path / "loop").symlink_to("loop")
    result = run("plugins", env={"LLM_PROXY_PLUGINS": f"{tmp_path}/loop:{tmp_path}/nothing"})
    assert result.returncode == 2
    assert f"'{tmp_path}/loop' cannot be read: Too many levels of symbolic links" in result.stderr
    assert f"'{tmp_path}/nothing' is none" in result.stderr


@pytest.mark.parametrize("text, words", [
    ("return {", "mine.lua:1"),
    ("\x1bLJ\x02", "mine.lua: expected Lua source, got bytecode"),
    ("require 'llmproxy.htp'", "did you mean 'llmproxy.http'"),
    ("local x = os.time()", "llmproxy.time in plugins"),
    ("\n\nerror('on purpose')", "mine.lua:3"),
    ("return 3", "mine"),
    ("return { kind = 'dispatcher', api = 1, settings = {}, new = function() return { deliver = function() end } end }", "transform"),
    ("return { kind = 'transform', api = 2, settings = {}, new = function() return function() end end }", "api"),
    ("return { kind = 'transform', api = 1, settings = {} }", "new"),
    ("return { kind = 'transform', api = 1, settings = { x = { type = 'strnig' } }, new = function() return function() end end }", "strnig"),
    ("return { kind = 'transform', api = 1, settings = {}, new = function() error('no luck') end }", "no luck"),
    ("return { kind = 'transform', api = 1, settings = {}, new = function() return 7 end }", "mine"),
])
def test_broken_transforms(tmp_path, text, words):
    result = broken_plugin(tmp_path, text)
    assert result.returncode == 2 and "mine" in result.stderr and words in result.stderr, result.stderr


def test_plugin_that_never_ends_is_named_with_its_line(tmp_path):
    for text, line in (("\n\nwhile true do end", 3), ("\nwhile true do pcall(error) end", 2)):
        result = broken_plugin(tmp_path, text)
        assert result.returncode == 2 and f"mine.lua:{line}: stopped: ran for more than 5 s" in result.stderr, result.stderr


def test_plugin_that_takes_too_much_memory_is_named(tmp_path):
    result = broken_plugin(tmp_path, "local t = ('x'):rep(2^29)")
    assert result.returncode == 2 and "mine.lua: not enough memory: more than the limit of loading of 256 MiB" in result.stderr, result.stderr


def test_broken_dispatcher(tmp_path):
    result = broken_plugin(tmp_path, "return { kind = 'dispatcher', api = 1, settings = {}, new = function() return {} end }", "dispatchers")
    assert result.returncode == 2 and "deliver" in result.stderr


def test_unreadable_plugin_is_an_error_not_a_fall_back(tmp_path):
    """A folder where the file should be cannot be read, also by root."""
    (tmp_path / "plugins/transforms/redact.lua").mkdir(parents=True)
    file = tmp_path / "llm-proxy.lua"
    file.write_text("return { plugin_path = { 'plugins' }, observability = { enabled = true, pipelines = { { name = 'x', transforms = { 'redact' }, dispatcher = 'stdout' } } } }")
    result = run("check", "-c", file)
    assert result.returncode == 2 and "redact" in result.stderr
