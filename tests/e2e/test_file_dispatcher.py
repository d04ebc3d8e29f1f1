"""The file of events: whole lines only, whatever tore the last one; one writer; private."""

import gzip
import json
import os
import signal
import stat
import threading

from support.waiting import wait_until


def test_file_is_private(proxy):
    proxy.exchange("GET", "/v1/models")
    proxy.event()
    assert stat.S_IMODE(os.stat(proxy.events_file).st_mode) == 0o600


def test_kill_in_full_flight_leaves_whole_lines_and_a_torn_one_is_cut_off(start_proxy):
    proxy = start_proxy()
    stop = threading.Event()

    def load():
        while not stop.is_set():
            try:
                with proxy.wire() as wire:
                    while not stop.is_set() and wire.exchange("POST", "/v1/echo", (), b"x" * 5000):
                        pass
            except (OSError, AssertionError):
                pass

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        wait_until(lambda: len(proxy.events()) > 20, "some events")
        proxy.kill()
        lines = proxy.events_file.read_bytes()
        with open(proxy.events_file, "ab") as file:  # torn by the kill, or by us to be sure
            if lines.endswith(b"\n"):
                file.write(b'{"id":"torn","request_body":"half a li')
        proxy.start()
        wait_until(lambda: len(proxy.events_file.read_bytes()) > len(lines) + 1000, "more events")
    stop.set()
    for thread in threads:
        thread.join()
    wait_until(proxy.balanced, "counters add up")
    text = proxy.events_file.read_bytes()
    assert text.endswith(b"\n")
    ids = [json.loads(line)["id"] for line in text.splitlines()]
    assert len(ids) == len(set(ids)) and "torn" not in ids
    assert "torn" in proxy.stderr or "cut" in proxy.stderr


def test_second_writer_is_refused_and_waits(start_proxy, tmp_path):
    file = tmp_path / "shared.jsonl"
    use = {"observability": {"pipelines": [{"name": "x", "retry": {"min_delay": 0.1, "max_delay": 0.2}, "dispatcher": {1: "file", "path": str(file)}}]}}
    first, second = start_proxy(use), start_proxy(use)
    first.exchange("GET", "/v1/first")
    first.wait_events(1, file)
    second.exchange("GET", "/v1/second")
    wait_until(lambda: str(file) in second.stderr, "said in the log")
    assert len(second.events(file)) == 1
    assert first.stop() == 0
    second.wait_events(2, file)


def test_missing_folder_is_said_and_retried(start_proxy, tmp_path):
    file = tmp_path / "later" / "events.jsonl"
    proxy = start_proxy({"observability": {"pipelines": [{"name": "x", "retry": {"min_delay": 0.1, "max_delay": 0.2}, "dispatcher": {1: "file", "path": str(file)}}]}})
    proxy.exchange("GET", "/v1/models")
    wait_until(lambda: "later" in proxy.stderr or file.exists(), "said in the log")
    if not file.parent.exists():
        file.parent.mkdir()
    proxy.wait_events(1, file)


def test_symlinks_are_not_followed(start_proxy, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link.jsonl"
    target.write_text("precious")
    link.symlink_to(target)
    proxy = start_proxy({"shutdown_timeout": 1, "observability": {"pipelines": [{"name": "x", "dispatcher": {1: "file", "path": str(link)}}]}})
    proxy.exchange("GET", "/v1/models")
    wait_until(lambda: "link.jsonl" in proxy.stderr, "said in the log")
    assert target.read_text() == "precious"


def test_large_events_are_one_line(start_proxy):
    proxy = start_proxy({"observability": {"max_request_body_bytes": "8MiB"}})
    proxy.exchange("POST", "/v1/embeddings", (), b"\n" * 1_000_000 + b"\x01" * 1_000_000)
    assert len(proxy.event()["request_body"]) == 2_000_000


def test_rotation_keeps_every_event_once_across_compressed_files(start_proxy, tmp_path):
    file = tmp_path / "rotated.jsonl"
    settings = {1: "file", "path": str(file), "max_bytes": 20000, "compress": "gzip"}
    proxy = start_proxy({"observability": {"pipelines": [{"name": "x", "batch": {"max_events": 5}, "dispatcher": settings}]}})

    def rotated():
        return sorted(path for path in tmp_path.iterdir() if path.name.startswith("rotated.jsonl-"))

    for index in range(60):
        proxy.exchange("POST", f"/v1/echo?{index}", body=b"x" * 2000)
        if index == 30:
            proxy.signal(signal.SIGHUP)  # files are opened anew, as after another tool's rotation
    assert proxy.stop() == 0
    proxy.start()  # what the end interrupted is compressed now
    proxy.exchange("GET", "/v1/echo?60")
    wait_until(lambda: any(event["query"] == "60" for event in proxy.events(file)), "the last event")
    wait_until(lambda: rotated() and all(path.suffix == ".gz" for path in rotated()), "all are compressed")
    assert proxy.stop() == 0
    texts = [gzip.decompress(path.read_bytes()) for path in rotated()] + [file.read_bytes()]
    assert len(texts) > 3 and all(text.endswith(b"\n") and len(text) < 30000 for text in texts)
    assert sorted(int(json.loads(line)["query"]) for text in texts for line in text.splitlines()) == list(range(61))
