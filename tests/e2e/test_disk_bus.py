"""The bus on disk from outside: destinations that are away, disks that are full or fail, folders that are used, damaged or foreign, and counters that add up through all of it."""

import contextlib
import os
import shutil
import signal
import subprocess

import pytest

from support.disk_faults import DiskFaults
from support.lua import Lua
from support.ports import free_port
from support.proxy import get, run
from support.sink import Sink
from support.waiting import wait_until

RETRY = {"min_delay": 0.05, "max_delay": 0.1}


def disk(**more):
    return {1: "disk", "path": "spool", **more}


def to_file(name):
    return {"name": name, "dispatcher": {1: "file", "path": f"{name}.jsonl"}}


def to_url(name, url, **more):
    return {"name": name, "dispatcher": {1: "webhook", "url": url}, "batch": {"max_wait": 0.05}, "retry": RETRY, **more}


def nowhere():
    return f"http://127.0.0.1:{free_port()}/"


def send(proxy, count, size=0):
    with proxy.wire() as wire:
        for _ in range(count):
            assert wire.exchange("GET", "/bytes", [("x-mock-size", str(size))]).complete


def outcome(proxy, pipeline, name):
    return proxy.metrics().value("llm_proxy_events_dropped_total", pipeline=pipeline, reason=name)


def waiting(proxy, pipeline="events"):
    return proxy.metrics().value("llm_proxy_events_waiting", pipeline=pipeline)


def delivered(proxy, pipeline="events"):
    return proxy.metrics().value("llm_proxy_events_total", pipeline=pipeline, result="delivered")


def send_until(proxy, condition, size=0):
    """Sends on until it is so: what waits in memory to be written is not dropped, so it takes more than the disk can hold."""
    wait_until(lambda: (send(proxy, 20, size), condition())[1], lambda: proxy.metrics().text, every=0.05)


# What survives ------------------------------------------------------------------------------------------------------------------------------------------------

def test_events_wait_for_a_destination_through_restarts(start_proxy):
    with Sink() as sink:
        away = {"observability": {"bus": disk(), "pipelines": [to_url("events", nowhere())]}}
        proxy = start_proxy(away)
        send(proxy, 20)
        wait_until(lambda: waiting(proxy) == 20, "all wait")
        assert proxy.stop() == 0
        proxy.start()
        assert proxy.metrics().value("llm_proxy_events_received_total", pipeline="events") == 20, "what waits at a start is received"
        send(proxy, 5)
        wait_until(lambda: waiting(proxy) == 25, "these as well")
        proxy.reload({"observability": {"bus": disk(), "pipelines": [to_url("events", sink.url)]}})
        wait_until(lambda: delivered(proxy) == 25, lambda: f"all delivered: {proxy.metrics().outcomes('events')}")
        assert len({event["id"] for event in sink.events()}) == 25
        assert [event["time"] for event in sorted(sink.events(), key=lambda event: event["time"])][0]


def test_a_stop_does_not_wait_for_a_destination_that_is_away(start_proxy):
    proxy = start_proxy({"shutdown_timeout": 300, "observability": {"bus": disk(), "pipelines": [to_url("events", nowhere(), retry={"min_delay": 60, "max_delay": 60})]}})
    send(proxy, 3)
    wait_until(lambda: waiting(proxy) == 3, "they wait")
    assert proxy.stop() == 0  # waits at most 60 s


def test_a_new_pipeline_begins_with_what_comes_or_with_the_oldest(start_proxy):
    proxy = start_proxy({"observability": {"bus": disk(), "pipelines": [to_url("events", nowhere())]}})
    send(proxy, 4)
    wait_until(lambda: waiting(proxy) == 4, "they are stored")
    pipelines = [to_url("events", nowhere()), to_file("fresh"), {**to_file("all"), "from": "oldest"}]
    proxy.reload({"observability": {"bus": disk(), "pipelines": pipelines}})
    wait_until(lambda: delivered(proxy, "all") == 4, "the old ones")
    send(proxy, 3)
    wait_until(lambda: delivered(proxy, "all") == 7 and delivered(proxy, "fresh") == 3, "the new ones")
    assert len(proxy.events(proxy.folder / "fresh.jsonl")) == 3


def test_what_was_delivered_does_not_come_again_after_a_stop(start_proxy):
    proxy = start_proxy({"observability": {"bus": disk()}})
    send(proxy, 10)
    proxy.wait_events(10)
    assert proxy.stop() == 0
    proxy.start()
    send(proxy, 1)
    proxy.wait_events(11)


def test_the_folder_is_for_its_owner_alone_and_holds_what_was_captured(start_proxy):
    proxy = start_proxy({"observability": {"bus": disk()}})
    send(proxy, 1, size=1000)
    proxy.event()
    spool = proxy.folder / "spool"
    for path in [spool, *spool.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    proxy.stop()
    assert any(b"/bytes" in path.read_bytes() for path in spool.glob("*.log"))


# One dead destination -------------------------------------------------------------------------------------------------------------------------------------------

def test_one_dead_destination_never_takes_the_others_space(start_proxy):
    pipelines = [to_file("events"), to_url("dead", nowhere())]
    proxy = start_proxy({"observability": {"bus": disk(max_bytes="1MiB"), "pipelines": pipelines}})
    for _ in range(30):
        send(proxy, 10, size=10_000)  # three times what fits
        wait_until(lambda: waiting(proxy) == 0, "the live one is delivered to")
    assert delivered(proxy) == 300
    wait_until(lambda: outcome(proxy, "dead", "lagged") > 100, lambda: f"moved on: {proxy.metrics().text}")
    metrics = proxy.metrics()
    assert metrics.value("llm_proxy_events_total", pipeline="events", result="dropped") == 0
    assert metrics.value("llm_proxy_events_waiting", pipeline="dead") > 0
    assert not metrics.unbalanced()
    assert "lagged" in proxy.stderr or "moved on" in proxy.stderr
    wait_until(lambda: sum(path.stat().st_blocks * 512 for path in (proxy.folder / "spool").glob("*.log")) <= 1 << 20, "within max_bytes")


def test_a_full_log_drops_the_newest_and_says_so(start_proxy):
    proxy = start_proxy({"observability": {"bus": disk(max_bytes="1MiB"), "pipelines": [to_url("events", nowhere())]}})
    send_until(proxy, lambda: outcome(proxy, "events", "disk_full") > 50, size=10_000)
    assert "max_bytes" in proxy.stderr
    assert proxy.admin("/readyz")[0] == 200, "requests are served all the same"
    wait_until(lambda: not proxy.metrics().unbalanced(), "the counters add up")
    kept = waiting(proxy)
    proxy.reload({"observability": {"bus": disk(max_bytes="1MiB"), "pipelines": [to_file("events")]}})
    wait_until(lambda: waiting(proxy) == 0, "what was kept is delivered")
    assert delivered(proxy) == kept == len(proxy.events())
    assert [event["time"] for event in proxy.events()] == sorted(event["time"] for event in proxy.events())
    send(proxy, 1)  # there is room again
    wait_until(lambda: delivered(proxy) == kept + 1, "one more")


def test_a_full_log_drops_the_oldest_when_told_to(start_proxy):
    proxy = start_proxy({"observability": {"bus": disk(max_bytes="1MiB", overflow="drop_oldest"), "pipelines": [to_url("events", nowhere())]}})
    send_until(proxy, lambda: outcome(proxy, "events", "disk_full") > 50, size=10_000)
    newest = proxy.exchange("GET", "/bytes").get("x-request-id")
    wait_until(lambda: not proxy.metrics().unbalanced(), "the counters add up")
    proxy.reload({"observability": {"bus": disk(max_bytes="1MiB", overflow="drop_oldest"), "pipelines": [to_file("events")]}})
    wait_until(lambda: waiting(proxy) == 0, "what was kept is delivered")
    assert proxy.events()[-1]["request_id"] == newest


# Faults -----------------------------------------------------------------------------------------------------------------------------------------------------------

@pytest.fixture
def faulty(start_proxy, tmp_path):
    faults = DiskFaults(tmp_path / "proxy" / "spool", tmp_path / "faults")
    return start_proxy({"observability": {"bus": disk()}}, env=faults.environment), faults


def test_no_space_is_counted_and_over_when_there_is_some(faulty):
    proxy, faults = faulty
    send(proxy, 5)
    proxy.wait_events(5)
    with faults.full():
        send_until(proxy, lambda: outcome(proxy, "events", "disk_full") > 0)
        assert proxy.admin("/readyz")[0] == 200
    wait_until(lambda: (send(proxy, 1), delivered(proxy) > 5)[1], "there is room again", every=0.2)
    wait_until(lambda: waiting(proxy) == 0 and not proxy.metrics().unbalanced(), "the counters add up")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 16 MiB, and a function that fills the rest of it."""
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here; ENOSPC is injected in other tests")

    def fill():
        with contextlib.suppress(OSError), open(folder / "fill", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    yield folder, fill
    subprocess.run(["umount", "-l", folder], check=True)


def test_what_is_delivered_makes_room_on_a_disk_that_others_have_filled(start_proxy, small_disk):
    spool, fill = small_disk
    proxy = start_proxy({"observability": {"bus": disk(path=str(spool))}})
    send(proxy, 1)
    proxy.event()
    fill()
    for _ in range(10):
        send(proxy, 10, size=100_000)  # ten times a third of what the log had taken before
        wait_until(lambda: waiting(proxy) == 0, lambda: proxy.metrics().text)
    before = outcome(proxy, "events", "disk_full")
    assert delivered(proxy) + before == 101 and before < 50
    wait_until(lambda: (send(proxy, 1), delivered(proxy) + before > 102)[1], "there is room")
    assert proxy.stop() == 0
    proxy.start()
    send(proxy, 1)
    wait_until(lambda: delivered(proxy) == 1, "and after a start")


def test_a_real_disk_that_is_full(start_proxy, small_disk):
    """Something else fills it, and empties it again."""
    spool, fill = small_disk
    proxy = start_proxy({"observability": {"bus": disk(path=str(spool)), "pipelines": [to_url("events", nowhere())]}})
    send(proxy, 5)
    wait_until(lambda: waiting(proxy) == 5, "they are stored")
    fill()
    send_until(proxy, lambda: outcome(proxy, "events", "disk_full") > 0, size=100_000)
    assert proxy.admin("/readyz")[0] == 200
    (spool / "fill").unlink()
    wait_until(lambda: (send(proxy, 1), not proxy.metrics().unbalanced())[1], "the counters add up")
    proxy.reload({"observability": {"bus": disk(path=str(spool)), "pipelines": [to_file("events")]}})
    wait_until(lambda: waiting(proxy) == 0, lambda: proxy.metrics().text)
    assert len({event["id"] for event in proxy.events()}) == delivered(proxy)
    assert proxy.stop() == 0


def test_a_failed_sync_loses_nothing(faulty):
    proxy, faults = faulty
    send(proxy, 5)
    proxy.wait_events(5)
    sent = 5
    while proxy.metrics().value("llm_proxy_bus_sync_failures_total") < 3:
        faults.fail_syncs(1)
        send(proxy, 5)
        sent += 5
        wait_until(lambda: faults.syncs_left() == 0, "a sync failed")
        wait_until(lambda: waiting(proxy) == 0, "all are delivered")
    assert len({event["id"] for event in proxy.events()}) == sent
    assert proxy.admin("/readyz")[0] == 200
    proxy.stop()
    verified = run("spool", "verify", proxy.folder / "spool")
    assert verified.returncode == 0, verified.stdout


def test_a_disk_that_goes_on_failing_is_given_up_and_requests_go_on(faulty):
    proxy, faults = faulty
    faults.fail_syncs(100)
    send(proxy, 5)
    wait_until(lambda: proxy.admin("/readyz")[0] == 503, "not ready")
    assert "bus" in proxy.admin("/readyz")[2] or "disk" in proxy.admin("/readyz")[2]
    send(proxy, 5)
    wait_until(lambda: outcome(proxy, "events", "disk_failed") == 10, lambda: proxy.metrics().text)
    assert not proxy.metrics().unbalanced()


def test_a_slow_disk_slows_no_request(faulty):
    proxy, faults = faulty
    with faults.slow_syncs(2000):
        send(proxy, 1)
        wait_until(lambda: waiting(proxy) == 1, "it waits to be durable")
        send(proxy, 20)
        assert not proxy.events(), "answered before any of it was durable"
    wait_until(lambda: delivered(proxy) == 21, "in the end")


def test_a_disk_that_hangs_does_not_hold_up_the_end(start_proxy, tmp_path):
    """Also while the cursor of a pipeline is being written, which whoever ends the pipeline has to wait for."""
    faults = DiskFaults(tmp_path / "proxy" / "spool", tmp_path / "faults")
    with Sink() as sink:
        sink.hold.clear()
        proxy = start_proxy({"shutdown_timeout": "2s", "observability": {"bus": disk(), "pipelines": [to_url("events", sink.url)]}}, env=faults.environment)
        send(proxy, 1)
        wait_until(lambda: len(sink.requests) == 1, "it is stored, and under way")
        with faults.slow_syncs(3_600_000):
            sink.hold.set()
            wait_until(lambda: delivered(proxy) == 1, "the cursor is due")
            send(proxy, 5)
            proxy.signal(signal.SIGTERM)
            assert proxy.wait_exit() == 1
        assert "the disk, does not end" in proxy.stderr


# The folder -------------------------------------------------------------------------------------------------------------------------------------------------------

def test_a_folder_is_for_one_process(start_proxy, tmp_path):
    proxy = start_proxy({"observability": {"bus": disk()}})
    second = tmp_path / "second.lua"
    second.write_text(f"return {{ listen = '127.0.0.1:{free_port()}', admin = false, observability = {{ enabled = true, bus = {{ 'disk', path = '{proxy.folder}/spool' }} }} }}")
    result = run("serve", "-c", second)
    assert result.returncode == 1
    assert str(proxy.process.pid) in result.stderr and "observability.bus" in result.stderr and "spool" in result.stderr
    send(proxy, 1)
    proxy.event()


def test_the_environment_names_a_folder(start_proxy, tmp_path):
    spool = tmp_path / "elsewhere"
    proxy = start_proxy(env={"OBSERVABILITY_BUS": f"disk:{spool}"})
    send(proxy, 1)
    proxy.event()
    assert list(spool.glob("*.log"))


@pytest.mark.parametrize("how, words", [
    ("a file", ["spool"]), ("a link", ["spool", "link"]), ("not ours", ["spool"]), ("another version", ["version", "spool"]),
])
def test_a_folder_that_cannot_be_used_stops_the_start(start_proxy, tmp_path, how, words):
    spool = tmp_path / "spool"
    if how == "a file":
        spool.write_text("x")
    elif how == "a link":
        (tmp_path / "real").mkdir()
        spool.symlink_to(tmp_path / "real")
    elif how == "not ours":
        spool.mkdir(mode=0)
    else:
        first = start_proxy({"observability": {"bus": disk(path=str(spool))}})
        send(first, 1)
        first.event()
        first.stop()
        make_version(next(spool.glob("*.log")), 2)
    if how == "not ours" and os.geteuid() == 0:
        pytest.skip("root may open any folder")
    file = tmp_path / "c.lua"
    file.write_text(f"return {{ listen = '127.0.0.1:{free_port()}', admin = false, observability = {{ enabled = true, bus = {{ 'disk', path = '{spool}' }} }} }}")
    result = run("serve", "-c", file)
    assert result.returncode == 1, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("llm-proxy: ")]
    assert len(lines) == 1 and all(word in lines[0] for word in words), result.stderr


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def make_version(segment, version):
    data = bytearray(segment.read_bytes())
    data[8:12] = version.to_bytes(4, "little")
    data[60:64] = crc32c(data[:60]).to_bytes(4, "little")
    segment.write_bytes(data)


def test_a_damaged_event_is_skipped_counted_and_kept_aside(start_proxy):
    proxy = start_proxy({"observability": {"bus": disk(), "pipelines": [to_url("events", nowhere())]}})
    send(proxy, 10)
    wait_until(lambda: waiting(proxy) == 10, "they wait")
    proxy.stop()
    segment = next((proxy.folder / "spool").glob("*.log"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    result = run("spool", "verify", proxy.folder / "spool")
    assert result.returncode == 1 and "offset" in result.stdout
    proxy.configure({"observability": {"bus": disk(), "pipelines": [to_file("events")]}})
    proxy.start()
    wait_until(lambda: delivered(proxy) == 9 and outcome(proxy, "events", "damaged") == 1, lambda: proxy.metrics().text)
    assert list((proxy.folder / "spool").glob("*.corrupt"))
    assert "damage" in proxy.stderr
    assert not proxy.metrics().unbalanced()


def test_a_torn_end_is_cut_and_said(start_proxy):
    proxy = start_proxy({"observability": {"bus": disk(), "pipelines": [to_url("events", nowhere())]}})
    send(proxy, 5)
    wait_until(lambda: waiting(proxy) == 5, "they wait")
    proxy.stop()
    segment = next((proxy.folder / "spool").glob("*.log"))
    os.truncate(segment, segment.stat().st_size - 3)
    proxy.configure({"observability": {"bus": disk(), "pipelines": [to_file("events")]}})
    proxy.start()
    send(proxy, 1)
    wait_until(lambda: delivered(proxy) == 5, lambda: proxy.metrics().text)
    assert len(proxy.events()) == 5


def test_a_folder_can_be_copied_while_nobody_uses_it(start_proxy, tmp_path):
    proxy = start_proxy({"observability": {"bus": disk(), "pipelines": [to_url("events", nowhere())]}})
    send(proxy, 3)
    wait_until(lambda: waiting(proxy) == 3, "they wait")
    proxy.stop()
    shutil.copytree(proxy.folder / "spool", tmp_path / "copy")
    other = start_proxy({"observability": {"bus": disk(path=str(tmp_path / "copy"))}})
    other.wait_events(3)


def test_sighup_refuses_another_bus_by_name(start_proxy):
    proxy = start_proxy({"observability": {"bus": disk()}})
    proxy.reload({"observability": {"bus": {1: "memory"}}})
    wait_until(lambda: "observability.bus" in proxy.stderr, "refused")
    send(proxy, 1)
    proxy.event()


def test_a_transform_that_raises_does_not_stop_the_others(start_proxy):
    """On disk the cursor goes on behind a dead letter."""
    transform = Lua('function(event) if event.query == "bad" then error("bad one") end return event end')
    proxy = start_proxy({"observability": {"bus": disk(), "pipelines": [{**to_file("events"), "transforms": [transform]}]}})
    for query in ("", "?bad", "", "?bad", ""):
        proxy.exchange("GET", f"/bytes{query}")
    wait_until(lambda: delivered(proxy) == 3 and proxy.metrics().outcomes("events")["dead_lettered"] == 2, lambda: proxy.metrics().text)
    proxy.stop()
    proxy.start()
    assert waiting(proxy) == 0 and get(proxy.admin_port, "/readyz")[0] == 200
