"""The command line: help, version, check, plugins; bad usage is 2 and one clear line."""

import json

import pytest

from support.proxy import run

STOCK = {"llm": "transform", "redact": "transform", "drop": "transform", "stdout": "dispatcher", "file": "dispatcher", "webhook": "dispatcher"}


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["check", "--help"], ["plugins", "--help"], ["version", "--help"]])
def test_help(arguments):
    result = run(*arguments)
    assert result.returncode == 0 and result.stderr == ""
    assert "llm-proxy" in result.stdout and "-c" in result.stdout or arguments[0] in ("plugins", "version")


def test_help_and_version_in_other_words():
    assert run("help").stdout == run("--help").stdout != ""
    assert run("help", "check").stdout == run("check", "--help").stdout != ""
    assert run("--version").stdout == run("version").stdout != ""
    assert run("help", "chek").returncode == 2 and "'check'" in run("help", "chek").stderr


def test_version_names_the_libraries():
    result = run("version")
    assert result.returncode == 0 and result.stdout.startswith("llm-proxy ")
    for library in ("libevent", "LuaJIT", "OpenSSL", "curl", "zlib", "brotli", "zstd", "PCRE2"):
        assert library.lower() in result.stdout.lower()


@pytest.mark.parametrize("arguments, word", [(["srve"], "serve"), (["serve", "--no-such-flag"], "--no-such-flag"), (["serve", "-c"], "-c"),
                                             (["serve", "-c", ""], "-c got an empty name"), (["serve", "--config="], "--config got an empty name"), (["help", "check", "surplus"], "surplus"),
                                             (["check", "surplus"], "surplus"), (["plugins", "show"], "NAME"), (["plugins", "show", "reduct"], "redact"),
                                             (["tail"], "tail"), (["dispatch"], "dispatch"), (["replay"], "replay")])
def test_bad_usage(arguments, word):
    result = run(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert word in result.stderr and len(result.stderr.strip().splitlines()) <= 2


def test_check_tells_the_effective_settings_and_where_they_come_from(tmp_path):
    file = tmp_path / "llm-proxy.lua"
    file.write_text("""return { listen = "127.0.0.1:1234", routes = { { prefix = "/", upstream = "http://127.0.0.1:9", headers = { Authorization = "geheim" } } },
      observability = { enabled = true, fingerprint_key = "geheim2", pipelines = { { name = "x", transforms = { "llm", { "drop", statuses = { 404 } }, function(e) return e end },
        dispatcher = { "webhook", url = "http://127.0.0.1:9", secret = "whsec_Z2VoZWltZ2VoZWltZ2VoZWlt" } } } } }""")
    result = run("check", "-c", file, env={"OBSERVABILITY_BUFFER_SIZE": "77"})
    assert result.returncode == 0, result.stderr
    text = result.stdout
    for word in ("127.0.0.1:1234", "77", "default", "file", "env"):
        assert word in text, word
    as_json = run("check", "--json", "-c", file)
    assert as_json.returncode == 0
    json.loads(as_json.stdout)
    for secret in ("geheim", "Z2VoZWlt"):
        assert secret not in text + as_json.stdout + result.stderr


def test_check_shows_an_address_without_what_may_be_secret_in_it(tmp_path):
    file = tmp_path / "llm-proxy.lua"
    file.write_text("""return { routes = { { prefix = "/v1/", upstream = "http://127.0.0.1:9" } }, observability = { pipelines = { { name = "x",
      dispatcher = { "webhook", url = "http://me:geheim@127.0.0.1:9/in?token=geheim" } } } } }""")
    as_text, as_json = run("check", "-c", file), run("check", "--json", "-c", file)
    settings = json.loads(as_json.stdout)["settings"]
    assert settings["observability.pipelines[1].dispatcher.url"]["value"] == "http://[secret]@127.0.0.1:9/in?[secret]"
    assert "geheim" not in as_text.stdout + as_json.stdout
    assert settings["routes[1].name"] == {"value": "/v1/", "source": "default"}


def test_plugins_show_tells_bounds(tmp_path):
    folder = tmp_path / "mine" / "transforms"
    folder.mkdir(parents=True)
    (folder / "bound.lua").write_text("""return { kind = "transform", api = 1, new = function() return function(event) return event end end, settings = {
      count = { type = "integer", min = 1, max = 9 }, size = { type = "size", min = "1KiB" }, wait = { type = "duration", max = "1m" }, free = { type = "integer" } } }""")
    text = run("plugins", "show", "bound", env={"LLM_PROXY_PLUGINS": str(tmp_path / "mine")}).stdout
    for line in ("count (integer from 1 to 9)", "size (size of at least 1024 bytes)", "wait (duration of at most 60 s)", "free (integer)"):
        assert line in text, text


def test_check_does_no_io(tmp_path):
    file = tmp_path / "llm-proxy.lua"
    file.write_text("""return { listen = "unix:proxy.sock", observability = { enabled = true, pipelines = { { name = "x", dispatcher = { "file", path = "events.jsonl" } } } } }""")
    assert run("check", "-c", file).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llm-proxy.lua"]


def test_check_without_a_file():
    assert run("check").returncode == 0


def test_plugins_list():
    result = run("plugins", "list")
    assert result.returncode == 0
    assert run("plugins").stdout == result.stdout
    for name, kind in STOCK.items():
        assert any(name in line and kind in line for line in result.stdout.splitlines()), name


@pytest.mark.parametrize("name, setting", [("file", "path"), ("webhook", "url"), ("redact", "headers"), ("drop", "statuses"), ("llm", "response")])
def test_plugins_show(name, setting):
    result = run("plugins", "show", name)
    assert result.returncode == 0 and setting in result.stdout and name in result.stdout


def test_plugins_list_goes_on_behind_one_that_never_ends(tmp_path):
    folder = tmp_path / "mine" / "transforms"
    folder.mkdir(parents=True)
    (folder / "a.lua").write_text("while true do end")
    result = run("plugins", env={"LLM_PROXY_PLUGINS": str(tmp_path / "mine")})
    assert result.returncode == 2 and f"{folder}/a.lua:1: stopped" in result.stderr
    for name in STOCK:
        assert name in result.stdout


def test_own_plugins_are_found_before_stock_ones(tmp_path):
    folder = tmp_path / "mine" / "dispatchers"
    folder.mkdir(parents=True)
    (folder / "file.lua").write_text("""return { kind = "dispatcher", api = 1, summary = "A file of my own.", settings = {}, new = function() return { deliver = function() end } end }""")
    result = run("plugins", "show", "file", env={"LLM_PROXY_PLUGINS": str(tmp_path / "mine")})
    assert result.returncode == 0 and "A file of my own." in result.stdout and str(tmp_path) in result.stdout
