"""The commands that look into stored events and send them again: spool, dlq, replay. On live folders, dead ones, and none."""

import json
import os
import pty
import signal
import subprocess
import time

import pytest

from support.lua import Lua, to_lua
from support.ports import free_port
from support.proxy import BINARY, environment, run
from support.sink import Sink
from support.waiting import wait_until

FAILS = Lua('function(event) if event.query == "bad" then error("a bad one") end return event end')


def disk():
    return {1: "disk", "path": "spool"}


def to_url(url, **more):
    return {"name": "events", "dispatcher": {1: "webhook", "url": url}, "batch": {"max_wait": 0.05, "max_events": 5}, "retry": {"min_delay": 0.05, "max_delay": 0.1}, **more}


def to_file(**more):
    return {"name": "events", "dispatcher": {1: "file", "path": "events.jsonl"}, **more}


def configuration(folder, name="tool.lua", **observability):
    """A configuration file for a tool, in the proxy's folder."""
    path = folder / name
    path.write_text("return " + to_lua({"observability": {"enabled": True, **observability}}))
    return path


def events_of(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def send(proxy, *targets):
    with proxy.wire() as wire:
        for target in targets:
            assert wire.exchange("GET", target).complete


@pytest.fixture
def stored(start_proxy):
    """A proxy with ten events on disk that are delivered to a file."""
    proxy = start_proxy({"observability": {"bus": disk(), "pipelines": [to_file()]}})
    send(proxy, *[f"/bytes?{number}" for number in range(10)])
    proxy.wait_events(10)
    return proxy


# spool --------------------------------------------------------------------------------------------------------------------------------------------------------

def test_spool_of_a_live_proxy(stored):
    listed = run("spool", "ls", "-c", stored.config_file)
    assert listed.returncode == 0 and "10 events" in listed.stdout and "pipeline events" in listed.stdout
    listed = json.loads(run("spool", "ls", stored.folder / "spool", "--json").stdout)
    assert sum(segment["records"] for segment in listed["segments"]) == 10
    assert listed["cursors"][0]["pipeline"] == "events"
    shown = events_of(run("spool", "show", "-c", stored.config_file))
    assert shown == sorted(stored.events(), key=lambda event: [other["id"] for other in shown].index(event["id"]))
    verified = run("spool", "verify", "--path", stored.folder / "spool")
    assert verified.returncode == 0 and "10 events, 0 segments with a fault" in verified.stdout
    send(stored, "/bytes?more")
    stored.wait_events(11)


def test_spool_shows_chosen_events(stored):
    stored.stop()
    spool, known = stored.folder / "spool", stored.events()
    assert [event["id"] for event in events_of(run("spool", "show", spool, known[3]["id"]))] == [known[3]["id"]]
    assert len(events_of(run("spool", "show", spool, "1", "10"))) == 2
    unclear = run("spool", "show", spool, "--since", "yesterday")
    assert unclear.returncode == 1 and not unclear.stdout and "--since: expected a time" in unclear.stderr
    missing = run("spool", "show", spool, "11")
    assert missing.returncode == 1 and not missing.stdout and "no event '11'" in missing.stderr
    assert not run("spool", "show", spool, "--since", "2999-01-01T00:00:00Z").stdout
    assert len(events_of(run("spool", "show", spool, "--since", "1h"))) == 10


@pytest.mark.parametrize("arguments, status, word", [
    (["spool", "ls", "/nowhere"], 1, "/nowhere"), (["spool", "show", "--path", "/nowhere"], 1, "/nowhere"), (["spool", "look"], 2, "look"), (["spool", "ls"], 2, "no bus on disk"),
    (["dlq"], 2, "ls, show, replay or purge"), (["dlq", "ls"], 2, "dead_letters"),
    (["dlq", "ls", "--path", "/nowhere"], 1, "/nowhere"), (["dlq", "look"], 2, "look"), (["dlq", "purge", "17", "--path", "/tmp"], 1, "pipeline '17'"), (["replay"], 2, "--from"), (["replay", "--from", "/nowhere"], 1, "/nowhere"),
    (["replay", "--from", "/tmp", "--pipeline", "other"], 2, "'other'"), (["replay", "--form", "x"], 2, "--from"),
    (["spool", "ls", "--since", "1h"], 2, "spool ls: takes no --since"), (["spool", "verify", "/tmp", "more"], 2, "unexpected argument 'more'"),
    (["spool", "ls", "--path", "/tmp", "more"], 2, "unexpected argument 'more'"), (["spool", "verify", "unknown"], 1, "unknown"), (["spool", "ls", "/dev/null"], 1, "is no folder"),
    (["dlq", "ls", "--dry-run"], 2, "dlq ls: takes no --dry-run"), (["dlq", "replay", "--json"], 2, "dlq replay: takes no --json"),
])
def test_one_clear_line_for_what_cannot_be(arguments, status, word):
    result = run(*arguments)
    assert result.returncode == status, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("llm-proxy: ")]
    assert len(lines) == 1 and word in lines[0], result.stderr


@pytest.mark.parametrize("arguments", [["spool", "ls"], ["spool", "show"], ["spool", "verify"], ["replay", "--from"]])
def test_what_is_no_bus_does_not_pass_for_an_empty_one(tmp_path, arguments):
    """A folder beside the right one, as it is mistyped: nothing would be found damaged in it."""
    result = run(*arguments, tmp_path)
    assert result.returncode == 1 and "is not the folder of a bus on disk" in result.stderr and "0 segments" not in result.stdout


# dlq ----------------------------------------------------------------------------------------------------------------------------------------------------------

@pytest.fixture
def failed(start_proxy):
    """A proxy with three dead letters and two events that were delivered."""
    proxy = start_proxy({"observability": {"bus": disk(), "pipelines": [to_file(transforms=[FAILS])]}})
    send(proxy, "/bytes?bad", "/bytes", "/bytes?bad", "/bytes", "/bytes?bad")
    wait_until(lambda: proxy.metrics().outcomes("events")["dead_lettered"] == 3, lambda: proxy.metrics().text)
    proxy.wait_events(2)
    return proxy


def letters(proxy):
    result = run("dlq", "ls", "events", "-c", proxy.config_file, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["letters"]


def test_dlq_of_a_live_proxy(failed):
    listed = run("dlq", "ls", "-c", failed.config_file)
    assert "events  3 dead letters" in listed.stdout
    found = letters(failed)
    assert [letter["reason"] for letter in found] == ["transform_error"] * 3
    assert all("a bad one" in letter["error"] and letter["where"] for letter in found)
    line = run("dlq", "ls", "events", "-c", failed.config_file).stdout.splitlines()[0]
    assert "a bad one" in line and line.count(found[0]["where"]) == 1, line
    shown = events_of(run("dlq", "show", "events", "-c", failed.config_file))
    assert [letter["event"]["query"] for letter in shown] == ["bad"] * 3
    one = events_of(run("dlq", "show", "events", found[1]["event_id"], "-c", failed.config_file))
    assert [letter["sequence"] for letter in one] == [found[1]["sequence"]]


def test_dlq_replays_through_the_pipeline_as_it_is_now(failed):
    """Also beside the proxy that goes on writing: what was fixed is delivered and leaves, what is not stays."""
    with Sink() as sink:
        broken = configuration(failed.folder, bus=disk(), pipelines=[to_url(sink.url, transforms=[FAILS])])
        again = run("dlq", "replay", "-c", broken)
        assert again.returncode == 1 and "0 delivered" in again.stdout and "3 failed" in again.stdout and "a bad one" in again.stderr
        assert "dropped" not in again.stderr, "a letter that fails again stays"
        assert len(letters(failed)) == 3

        mended = configuration(failed.folder, bus=disk(), pipelines=[to_url(sink.url)])
        tried = run("dlq", "replay", "events", "--dry-run", "-c", mended)
        assert tried.returncode == 0 and "tried 3" in tried.stdout
        assert len(letters(failed)) == 3 and not sink.requests

        number = str(letters(failed)[0]["sequence"])
        assert "replayed 1" in run("dlq", "replay", "events", number, "-c", mended).stdout
        assert len(letters(failed)) == 2
        send(failed, "/bytes?bad")
        wait_until(lambda: len(letters(failed)) == 3, "the proxy goes on writing")
        result = run("dlq", "replay", "--pipeline", "events", "-c", mended)
        assert result.returncode == 0 and "replayed 3" in result.stdout, result.stderr
        assert not letters(failed)
        assert len({event["id"] for event in sink.events()}) == 4 and {event["query"] for event in sink.events()} == {"bad"}


def test_dlq_purges(failed):
    first, second, third = (letter["sequence"] for letter in letters(failed))
    wrong = run("dlq", "purge", "events", str(second), "77", "-c", failed.config_file)
    assert wrong.returncode == 1 and "'77'" in wrong.stderr and len(letters(failed)) == 3, "all or nothing"
    dry = run("dlq", "purge", "events", "--dry-run", "-c", failed.config_file)
    assert dry.returncode == 2 and "dlq purge: takes no --dry-run" in dry.stderr and len(letters(failed)) == 3, "an option that is not known must not be ignored"
    assert run("dlq", "purge", "events", str(second), "-c", failed.config_file).returncode == 0
    assert [letter["sequence"] for letter in letters(failed)] == [first, third]
    failed.stop()
    assert "purged 2" in run("dlq", "purge", "events", "--path", failed.folder / "spool/dlq").stdout
    assert not letters(failed)
    failed.start()
    assert failed.metrics().value("llm_proxy_dead_letters", pipeline="events") == 0


def test_dlq_names_the_pipelines_when_there_are_several(start_proxy):
    pipelines = [{**to_file(transforms=[FAILS]), "name": name, "dispatcher": {1: "file", "path": f"{name}.jsonl"}} for name in ("one", "two/…".replace("/", "-"))]
    proxy = start_proxy({"observability": {"bus": disk(), "pipelines": pipelines}})
    send(proxy, "/bytes?bad")
    wait_until(lambda: all(proxy.metrics().outcomes(pipeline["name"])["dead_lettered"] == 1 for pipeline in pipelines), "both have one")
    result = run("dlq", "replay", "-c", proxy.config_file)
    assert result.returncode == 1 and "'one'" in result.stderr and "'two-…'" in result.stderr
    assert len(events_of(run("dlq", "show", "-c", proxy.config_file))) == 2


# replay -------------------------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("source", ["spool", "events.jsonl", "-"])
def test_replay_delivers_the_same_events_again(stored, source):
    with Sink() as sink:
        tool = configuration(stored.folder, pipelines=[to_url(sink.url)])
        if source == "-":
            with open(stored.events_file) as lines:
                result = subprocess.run([BINARY, "replay", "--from", "-", "-c", tool], stdin=lines, env=environment(), capture_output=True, text=True, timeout=60)
        else:
            result = run("replay", "--from", stored.folder / source, "-c", tool)
        assert result.returncode == 0, result.stderr
        assert "replayed 10 events through pipeline events: 10 delivered" in result.stdout

        def key(event):
            return event["id"]

        assert sorted(sink.events(), key=key) == sorted(stored.events(), key=key)
    assert not list(stored.folder.glob("*.replay-*"))


def test_replay_of_decoded_and_binary_bodies(start_proxy):
    """What was decoded once is not decoded again, and bytes stay bytes."""
    proxy = start_proxy()
    proxy.exchange("GET", "/bytes", [("x-mock-coding", "gzip"), ("x-mock-size", "500")])
    proxy.exchange("POST", "/echo", body=bytes(range(256)))
    before = proxy.wait_events(2)
    with Sink() as sink:
        tool = configuration(proxy.folder, pipelines=[to_url(sink.url)])
        assert run("replay", "--from", proxy.events_file, "-c", tool).returncode == 0
        assert sorted(sink.events(), key=lambda event: event["time"]) == before


def test_replay_runs_transforms_and_tells_what_fails(stored):
    with Sink() as sink:
        some = Lua('function(event) if event.query == "3" then error("not three") end if event.query ~= "4" then event.seen = true return event end end')
        tool = configuration(stored.folder, pipelines=[to_url(sink.url, transforms=[some])])
        dry = run("replay", "--from", stored.events_file, "--dry-run", "-c", tool)
        assert "tried 10 events" in dry.stdout and not sink.requests
        result = run("replay", "--from", stored.events_file, "-c", tool)
        assert result.returncode == 1
        assert "8 delivered, 1 filtered, 1 failed" in result.stdout and "not three" in result.stderr
        assert len(sink.events()) == 8 and all(event["seen"] for event in sink.events())
        assert run("replay", "--from", stored.events_file, "--since", "2999-01-01T00:00:00Z", "-c", tool).stdout.startswith("replayed 0 events")


def test_replay_tells_lines_that_are_no_events(stored):
    lines = stored.events_file.read_text().splitlines()
    source = stored.folder / "mixed.jsonl"
    source.write_text("\n".join([lines[0], "", "junk", '{"id": 5}', lines[1][:-10], lines[1]]))  # the last line has no end
    with Sink() as sink:
        result = run("replay", "--from", source, "-c", configuration(stored.folder, pipelines=[to_url(sink.url)]))
        assert result.returncode == 1 and "2 delivered" in result.stdout and "3 could not be read" in result.stdout
        for number in (3, 4, 5):
            assert f"line {number}: " in result.stderr
        assert len(sink.events()) == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
@pytest.mark.parametrize("source", ["spool", "events.jsonl"])
def test_replay_goes_on_where_it_was_stopped(stored, source, how):
    with Sink() as sink:
        sink.answers = [200] + [503] * 10_000
        tool = configuration(stored.folder, pipelines=[to_url(sink.url, concurrency=1)])
        process = subprocess.Popen([BINARY, "replay", "--from", stored.folder / source, "-c", tool], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        state = stored.folder / f"{source}.replay-events"
        wait_until(lambda: len(sink.requests) > 2, "the first batch is delivered")
        if how == signal.SIGKILL:
            time.sleep(1.5)  # what it has finished is written each second
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
        assert process.returncode == (1 if how == signal.SIGINT else -how)
        assert how == signal.SIGKILL or ("run it again" in err and "5 delivered" in out)
        assert state.exists()
        del sink.answers[:]
        result = run("replay", "--from", stored.folder / source, "-c", tool)
        assert result.returncode == 0 and "gone on" in result.stderr and "replayed 5 events" in result.stdout, result.stderr + result.stdout
        assert not state.exists()
        first, last = sink.batches()[0], sink.batches()[-1]
        assert len(last) == 5 and len({event["id"] for event in first + last}) == 10
        assert "replayed 10 events" in run("replay", "--from", stored.folder / source, "--restart", "-c", tool).stdout


def test_replay_goes_on_in_the_same_file_only(stored):
    """A file that was rotated after a replay of it was stopped: what is in the new one is not left out."""
    with Sink() as sink:
        tool = configuration(stored.folder, pipelines=[to_url(sink.url)])
        source = stored.folder / "copy.jsonl"
        source.write_bytes(stored.events_file.read_bytes())
        (stored.folder / "copy.jsonl.replay-events").write_text(f"llm-proxy replay 1\nposition {source.stat().st_size // 2}\ninode {stored.events_file.stat().st_ino}\n")
        result = run("replay", "--from", source, "-c", tool)
        assert "replayed 10 events" in result.stdout and "is not the one it was" in result.stderr, result.stdout + result.stderr
        assert result.returncode == 0 and len(sink.events()) == 10


def test_replay_shows_its_progress_on_a_terminal(stored):
    with Sink() as sink:
        sink.hold.clear()
        tool = configuration(stored.folder, pipelines=[to_url(sink.url)])
        master, terminal = pty.openpty()
        process = subprocess.Popen([BINARY, "replay", "--from", stored.events_file, "-c", tool], env=environment(), stdout=subprocess.PIPE, stderr=terminal, text=True)
        os.close(terminal)
        seen = b""
        while b"of 10" not in seen:
            seen += os.read(master, 4096)
        sink.hold.set()
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0 and "10 delivered" in out
        os.close(master)


def test_replay_says_why_it_waits(stored):
    """A file that a running proxy writes to: nothing is lost, and the reason is told."""
    tool = configuration(stored.folder, pipelines=[to_file()])
    process = subprocess.Popen([BINARY, "replay", "--from", stored.folder / "spool", "-c", tool], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    assert "another process" in line, line
    stored.stop()
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 0 and "10 delivered" in out
    assert len(stored.events()) == 20


def test_a_destination_that_is_away_can_be_interrupted(stored):
    tool = configuration(stored.folder, pipelines=[to_url(f"http://127.0.0.1:{free_port()}/")])
    process = subprocess.Popen([BINARY, "replay", "--from", stored.folder / "spool", "-c", tool], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "could not be delivered" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1 and "0 delivered" in out and "run it again" in err
