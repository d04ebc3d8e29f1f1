"""The environment variables, their defaults, and that flag goes before environment before file before default."""

import json
import subprocess

import pytest

from support.ports import free_port
from support.proxy import BINARY, environment, run
from support.waiting import wait_until

ENABLED = {"OBSERVABILITY_ENABLED": "true"}


def lines(proxy):
    return [json.loads(line) for line in proxy.stdout.splitlines()]


@pytest.mark.parametrize("value", ["true", "1", "yes", "on", "TRUE", "Yes", "oN"])
def test_enabled_alone_writes_events_to_stdout_through_llm(start_proxy, upstream, value):
    proxy = start_proxy(file=False, env={"OBSERVABILITY_ENABLED": value, "UPSTREAM_URL": upstream.url}, command=(), events=False)
    proxy.exchange("POST", "/v1/chat/completions", (), b'{"model":"m","messages":[]}')
    wait_until(lambda: proxy.stdout.endswith("\n"), "a line on stdout")
    (event,) = lines(proxy)
    assert event["route"] and event["upstream"] == upstream.url
    assert event["llm"]["usage"]["total_tokens"] == 18


@pytest.mark.parametrize("env", [{}, {"OBSERVABILITY_ENABLED": "false"}, {"OBSERVABILITY_ENABLED": "0"}, {"OBSERVABILITY_ENABLED": "No"}, {"OBSERVABILITY_ENABLED": "OFF"}])
def test_disabled_builds_no_events(start_proxy, upstream, env):
    proxy = start_proxy(file=False, env={"UPSTREAM_URL": upstream.url, **env}, command=(), events=False)
    for _ in range(5):
        assert proxy.exchange("GET", "/v1/models").status == 200
    metrics = wait_until(lambda: (found := proxy.metrics()).value("llm_proxy_requests_total") == 5 and found, "five requests are counted")
    assert proxy.stop() == 0
    assert proxy.stdout == "" and metrics.value("llm_proxy_events_received_total") == 0


def test_file_variable_writes_there_instead_of_stdout(start_proxy, upstream, tmp_path):
    file = tmp_path / "there.jsonl"
    proxy = start_proxy(file=False, env={**ENABLED, "UPSTREAM_URL": upstream.url, "OBSERVABILITY_FILE": str(file)}, events=False)
    proxy.exchange("GET", "/v1/models")
    assert proxy.wait_events(1, file)[0]["path"] == "/v1/models"
    assert proxy.stdout == ""


def test_file_variable_beside_the_pipelines_of_the_file(start_proxy, tmp_path):
    file = tmp_path / "beside.jsonl"
    proxy = start_proxy(env={"OBSERVABILITY_FILE": str(file)})
    proxy.exchange("GET", "/v1/models")
    assert proxy.event()["id"] == proxy.wait_events(1, file)[0]["id"]


def test_body_limits(start_proxy, upstream, tmp_path):
    file = tmp_path / "events.jsonl"
    proxy = start_proxy(file=False, events=False, env={**ENABLED, "UPSTREAM_URL": upstream.url, "OBSERVABILITY_FILE": str(file),
                                                       "OBSERVABILITY_MAX_REQUEST_BODY_BYTES": "5", "OBSERVABILITY_MAX_RESPONSE_BODY_BYTES": "7"})
    proxy.exchange("POST", "/v1/echo", (), b"0123456789")
    event = proxy.wait_events(1, file)[0]
    assert (event["request_body"], len(event["response_body"])) == ("01234", 7)


@pytest.mark.parametrize("name, value", [
    ("OBSERVABILITY_ENABLED", "maybe"), ("OBSERVABILITY_BUFFER_SIZE", "0"), ("OBSERVABILITY_BUFFER_SIZE", "1000001"),
    ("OBSERVABILITY_BUFFER_SIZE", "ten"), ("OBSERVABILITY_BUFFER_SIZE", "1.5"), ("OBSERVABILITY_BUFFER_SIZE", "10x"), ("OBSERVABILITY_BUFFER_SIZE", "-1"),
    ("OBSERVABILITY_MAX_REQUEST_BODY_BYTES", "-1"), ("OBSERVABILITY_MAX_REQUEST_BODY_BYTES", "much"), ("OBSERVABILITY_MAX_RESPONSE_BODY_BYTES", "99999999999999999999"),
    ("OBSERVABILITY_BUS", "carrier-pigeon"), ("OBSERVABILITY_BUS", "redis://localhost"), ("OBSERVABILITY_BUS", "disk:"),
    ("LISTEN_ADDR", "nonsense"), ("LISTEN_ADDR", "127.0.0.1:70000"), ("ADMIN_ADDR", "x:y"), ("ADMIN_ADDR", "0.0.0.0:0"), ("UPSTREAM_URL", "api.openai.com"),
    ("UPSTREAM_URL", "ftp://x"), ("LLM_PROXY_CONFIG", "/no/such/file.lua"), ("LOG_LEVEL", "loud"), ("LOG_FORMAT", "xml"),
])
def test_bad_values_exit_with_2_and_name_the_variable(name, value):
    result = run("serve", env={**ENABLED, "LISTEN_ADDR": "127.0.0.1:0", "ADMIN_ADDR": "127.0.0.1:0", name: value})
    assert result.returncode == 2, result.stderr
    assert (name if name != "LLM_PROXY_CONFIG" else value) in result.stderr


def effective(*arguments, env=None):
    result = run("check", "--json", *arguments, env=env)
    assert result.returncode == 0, result.stderr
    return json.dumps(json.loads(result.stdout))


def test_environment_goes_before_the_file(tmp_path, start_proxy):
    file = tmp_path / "llm-proxy.lua"
    file.write_text("return { listen = '127.0.0.1:1111', observability = { enabled = false, buffer_size = 7777 } }")
    text = effective("-c", file, env={"LISTEN_ADDR": "127.0.0.1:2222", "OBSERVABILITY_BUFFER_SIZE": "8888"})
    assert "127.0.0.1:2222" in text and "8888" in text and "1111" not in text and "7777" not in text


def test_configuration_file_by_variable_and_flag(tmp_path):
    for name, port in (("one.lua", 1111), ("two.lua", 2222)):
        (tmp_path / name).write_text(f"return {{ listen = '127.0.0.1:{port}' }}")
    assert "1111" in effective(env={"LLM_PROXY_CONFIG": str(tmp_path / "one.lua")})
    assert "2222" in effective("-c", tmp_path / "two.lua", env={"LLM_PROXY_CONFIG": str(tmp_path / "one.lua")})


def test_env_and_read_file_in_the_configuration(start_proxy, upstream, tmp_path):
    (tmp_path / "key").write_text("from a file\n")
    proxy = start_proxy(env={"TEAM": "red"}, file="""
        return { listen = "127.0.0.1:@PORT@", admin = "127.0.0.1:@ADMIN@",
          routes = { { prefix = "/", upstream = "@UPSTREAM@", headers = { ["X-Team"] = env("TEAM"), ["X-Other"] = env("NOT_SET", "default"),
                       ["X-File"] = read_file("%s"):match("^(.-)%%s*$") } } } }""" % (tmp_path / "key"), events=False)
    proxy.exchange("GET", "/v1/models")
    request = upstream.requests[0]
    assert (request.get("x-team"), request.get("x-other"), request.get("x-file")) == ("red", "default", "from a file")


def test_relative_paths_are_relative_to_the_file(start_proxy, tmp_path):
    proxy = start_proxy({"observability": {"pipelines": [{"name": "x", "dispatcher": {1: "file", "path": "beside.jsonl"}}]}})
    proxy.exchange("GET", "/v1/models")
    proxy.wait_events(1, proxy.config_file.parent / "beside.jsonl")


def test_admin_can_be_switched_off(start_proxy, upstream, tmp_path):
    result = run("check", "--json", env={"ADMIN_ADDR": "false"})
    assert json.loads(result.stdout)["settings"]["admin"] == {"value": False, "source": "env ADMIN_ADDR"}
    file = tmp_path / "llm-proxy.lua"
    file.write_text(f"return {{ listen = '127.0.0.1:{free_port()}' }}")
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([BINARY, "-c", file], env=environment({"ADMIN_ADDR": "false"}), stderr=log)
    try:
        wait_until(lambda: " listening address=" in (tmp_path / "log").read_text(), "it listens")
    finally:
        process.terminate()
        assert process.wait(10) == 0
    assert "admin is listening" not in (tmp_path / "log").read_text()


def test_source_of_the_file_that_the_environment_names(tmp_path):
    settings = json.loads(run("check", "--json", env={**ENABLED, "OBSERVABILITY_FILE": str(tmp_path / "x.jsonl")}).stdout)["settings"]
    assert settings["observability.pipelines[1].dispatcher.path"] == {"value": str(tmp_path / "x.jsonl"), "source": "env OBSERVABILITY_FILE"}


def test_unknown_variables_that_look_like_ours_are_told_of(start_proxy, upstream, tmp_path):
    env = {"OBSERVABILITY_BUFER_SIZE": "7", "LLM_PROXY_TEAM": "red", "LLM_PROXY_OTHER_NAME": "x", "OBSERVABILITY_ENABLED": "false"}
    proxy = start_proxy(env=env, events=False, file="""local team = env("LLM_PROXY_TEAM")
        return { listen = "127.0.0.1:@PORT@", admin = "127.0.0.1:@ADMIN@", routes = { { prefix = "/", upstream = "@UPSTREAM@" } } }""")
    (other, bufer) = [line for line in proxy.stderr.splitlines() if "unknown environment variable" in line]
    assert "OBSERVABILITY_BUFER_SIZE, did you mean 'OBSERVABILITY_BUFFER_SIZE'?" in bufer and " warn " in bufer
    assert "LLM_PROXY_OTHER_NAME" in other
    checked = run("check", "-c", proxy.config_file, env=env)
    assert checked.returncode == 0 and "warning: unknown environment variable OBSERVABILITY_BUFER_SIZE, did you mean" in checked.stderr
    assert "LLM_PROXY_TEAM" not in checked.stderr


def test_lines_about_the_start(start_proxy, upstream):
    proxy = start_proxy(file="""return { listen = "127.0.0.1:@PORT@", admin = "127.0.0.1:@ADMIN@", limits = {}, routes = { { prefix = "/v1/", upstream = "@UPSTREAM@" },
      { prefix = "/", name = "rest", upstream = "@UPSTREAM@" } }, observability = { enabled = true, pipelines = { { name = "plain", dispatcher = "stdout" } } } }""", events=False)
    assert "route name=/v1/ prefix=/v1/ " in proxy.stderr and "route name=rest prefix=/ " in proxy.stderr
    assert "pipeline name=plain transforms=none dispatcher=stdout" in proxy.stderr


@pytest.mark.parametrize("limits, level", [("{}", "info"), ("{ max_connections = 10000 }", "warn")])
def test_lowered_connections_are_a_warning_only_when_they_were_asked_for(start_proxy, tmp_path, limits, level):
    text = f"""return {{ listen = "127.0.0.1:@PORT@", admin = "127.0.0.1:@ADMIN@", limits = {limits}, routes = {{ {{ prefix = "/", upstream = "@UPSTREAM@" }} }} }}"""
    few_files = tmp_path / "few_files"
    few_files.write_text(f'#!/bin/sh\nulimit -n 512\nexec {BINARY} "$@"\n')
    few_files.chmod(0o755)
    proxy = start_proxy(file=text, events=False, binary=few_files)
    (line,) = [line for line in proxy.stderr.splitlines() if "max_connections is lowered" in line]
    assert f" {level} " in line


def test_json_log(start_proxy, upstream):
    proxy = start_proxy(file=False, env={"UPSTREAM_URL": upstream.url, "LOG_FORMAT": "json", "LOG_LEVEL": "debug"}, events=False)
    proxy.exchange("GET", "/v1/models")
    assert proxy.stop() == 0
    entries = [json.loads(line) for line in proxy.stderr.splitlines()]
    assert entries and all({"time", "level", "message"} <= set(entry) for entry in entries)


def test_log_level(start_proxy, upstream):
    proxy = start_proxy(file=False, env={"UPSTREAM_URL": upstream.url, "LOG_LEVEL": "error"}, events=False)
    proxy.exchange("GET", "/v1/models")
    assert proxy.stop() == 0 and proxy.stderr == ""


def test_admin_token_is_required_beyond_loopback():
    result = run("serve", env={"LISTEN_ADDR": "127.0.0.1:0", "ADMIN_ADDR": "0.0.0.0:0"})
    assert result.returncode == 2 and "ADMIN_TOKEN" in result.stderr
