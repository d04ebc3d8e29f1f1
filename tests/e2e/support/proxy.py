"""The real binary, started for a test and held against what is always promised: it ends with 0 at SIGTERM, no sanitizer complains, and its
counters add up."""

import http.client
import json
import os
import re
import signal
import subprocess
from pathlib import Path

from support.lua import to_lua
from support.ports import free_port
from support.waiting import wait_until
from support.wire import Wire

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("LLM_PROXY_BINARY", ROOT / "build/dev/bin/llm-proxy")).resolve()
SANITIZED = any(mark in BINARY.read_bytes() for mark in (b"__asan_init", b"__tsan_init")) if BINARY.exists() else False
COMPLAINTS = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:|Assertion .* failed|PANIC")
SAMPLE = re.compile(r'^([a-z_:]+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def environment(changes=None):
    """What the program sees of the environment: little, and nothing that a developer's machine adds."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")}
    return {**kept, **(changes or {})}


def run(*arguments, env=None, cwd=None, timeout=30, binary=None):
    """Runs the program to its end; the result has returncode, stdout and stderr as text."""
    result = subprocess.run([binary or BINARY, *map(str, arguments)], env=environment(env), cwd=cwd, timeout=timeout, capture_output=True,
                            text=True, stdin=subprocess.DEVNULL)
    assert not COMPLAINTS.search(result.stderr), result.stderr
    return result


def get(port, path, headers=None, host="127.0.0.1", method="GET"):
    """A small request to the admin listener: status, headers, text."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


class Metrics:
    """A scrape of /metrics."""

    def __init__(self, text):
        self.text, self.samples = text, {}
        for line in text.splitlines():
            if line.startswith("#") or not line:
                continue
            match = SAMPLE.match(line)
            assert match, f"not a sample: {line!r}"
            labels = frozenset(LABEL.findall(match[2] or ""))
            assert (match[1], labels) not in self.samples, f"twice: {line}"
            self.samples[match[1], labels] = float(match[3])

    def value(self, name, **labels):
        """The sum of the series that have these labels; 0 without any."""
        wanted = set(labels.items())
        return sum(value for (sample, have), value in self.samples.items() if sample == name and wanted <= have)

    def pipelines(self):
        return {dict(labels)["pipeline"] for (name, labels) in self.samples if name == "llm_proxy_events_received_total"}

    def outcomes(self, pipeline):
        counts = {result: self.value("llm_proxy_events_total", pipeline=pipeline, result=result)
                  for result in ("delivered", "filtered", "dropped", "dead_lettered")}
        counts["waiting"] = self.value("llm_proxy_events_waiting", pipeline=pipeline)
        return counts

    def unbalanced(self):
        """The pipelines whose counters do not add up."""
        lost = {}
        for pipeline in self.pipelines():
            received, outcomes = self.value("llm_proxy_events_received_total", pipeline=pipeline), self.outcomes(pipeline)
            if received != sum(outcomes.values()):
                lost[pipeline] = {"received": received, **outcomes}
        return lost


class Proxy:
    """One running llm-proxy. Made by the fixture start_proxy."""

    def __init__(self, folder, changes=None, env=None, arguments=(), file=None, upstream=None, events=True, command=("serve",), wait=True, binary=None):
        self.folder = folder
        self.port, self.admin_port = free_port(), free_port()
        self.events_file = folder / "events.jsonl" if events else None
        self.config_file = folder / "llm-proxy.lua"
        self.upstream = upstream
        if file is not False:
            self.configure(changes, file)
            arguments = ("-c", self.config_file, *arguments)
        else:
            env = {"LISTEN_ADDR": f"127.0.0.1:{self.port}", "ADMIN_ADDR": f"127.0.0.1:{self.admin_port}", **(env or {})}
        self.stdout_file, self.stderr_file = folder / "stdout", folder / "stderr"
        self.arguments = [str(binary or BINARY), *command, *map(str, arguments)]
        self.environment = environment(env)
        self.start(wait)

    def configure(self, changes=None, file=None):
        """Writes the configuration: defaults for tests with changes, or a whole text in which @PORT@, @ADMIN@ and @UPSTREAM@ are filled in."""
        changes = dict(changes or {})
        if file is None:
            observability = {"enabled": True, "buffer_size": 10_000, **changes.pop("observability", {})}
            if self.events_file:
                observability.setdefault("pipelines", [{"name": "events", "dispatcher": {1: "file", "path": str(self.events_file)}}])
            table = {"listen": f"127.0.0.1:{self.port}", "admin": f"127.0.0.1:{self.admin_port}", "workers": 2, "shutdown_timeout": 10,
                     "routes": [{"name": "mock", "prefix": "/", "upstream": self.upstream.url if self.upstream else "http://127.0.0.1:9"}],
                     "observability": observability}
            table.update(changes)
            if table["admin"] is False:
                self.admin_port = None
            file = "return " + to_lua(table) + "\n"
        for mark, value in (("@PORT@", self.port), ("@ADMIN@", self.admin_port), ("@UPSTREAM@", self.upstream and self.upstream.url)):
            file = file.replace(mark, str(value))
        self.config_file.write_text(file)

    def start(self, wait=True):
        """Starts the process (again, after a kill)."""
        self.finished = False
        with open(self.stdout_file, "ab") as out, open(self.stderr_file, "ab") as err:
            self.process = subprocess.Popen(self.arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.folder, env=self.environment)
        if wait:
            wait_until(self.is_ready, lambda: f"the proxy is ready; stderr:\n{self.stderr}")

    def is_ready(self):
        assert self.process.poll() is None, f"ended with {self.process.returncode} at the start:\n{self.stderr}"
        try:
            if self.admin_port:
                return get(self.admin_port, "/readyz")[0] == 200
            self.wire().socket.close()
            return True
        except OSError:
            return False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def stderr(self):
        return self.stderr_file.read_text(errors="backslashreplace")

    @property
    def stdout(self):
        return self.stdout_file.read_text()

    def wire(self, **options):
        return Wire(("127.0.0.1", self.port), **options)

    def exchange(self, method, target, headers=(), body=b"", **options):
        """One request on a connection of its own."""
        with self.wire() as wire:
            return wire.exchange(method, target, headers, body, **options)

    def admin(self, path, headers=None, method="GET"):
        return get(self.admin_port, path, headers, method=method)

    def metrics(self):
        status, _, text = self.admin("/metrics")
        assert status == 200
        return Metrics(text)

    # Events

    def events(self, file=None):
        """The events in the file so far; a line that is still being written is not one."""
        path = Path(file or self.events_file)
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]

    def wait_events(self, count, file=None):
        """Exactly count events, in the order in which their requests came: waits for them, and fails if there are more."""
        events = wait_until(lambda: len(found := self.events(file)) >= count and found, lambda: f"{count} events, have {len(self.events(file))}; stderr:\n{self.stderr}")
        assert len(events) == count, [(event.get("method"), event.get("path")) for event in events]
        return sorted(events, key=lambda event: event.get("time", ""))

    def event(self):
        """The one event."""
        return self.wait_events(1)[0]

    # The process

    def memory_kib(self):
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1])

    def signal(self, number):
        self.process.send_signal(number)

    def reload(self, changes=None, file=None):
        """Writes a new configuration and sends SIGHUP. Does not wait."""
        self.configure(changes, file)
        self.signal(signal.SIGHUP)

    def wait_exit(self, seconds=60):
        self.finished = True
        return self.process.wait(seconds)

    def stop(self):
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait_exit()

    def kill(self):
        self.process.kill()
        self.wait_exit()

    def balanced(self):
        metrics = self.metrics()
        return metrics.value("llm_proxy_inflight_requests") == 0 and not metrics.unbalanced()

    def finish(self):
        """What every test ends with."""
        try:
            if not self.finished and self.process.poll() is None:
                if self.admin_port:
                    wait_until(self.balanced, lambda: f"counters add up: {self.metrics().unbalanced()}, in flight: "
                               f"{self.metrics().value('llm_proxy_inflight_requests')}", seconds=15)
                status = self.stop()
                assert status == 0, f"ended with {status} at SIGTERM"
            elif not self.finished:
                raise AssertionError(f"the proxy ended by itself with {self.process.returncode}")
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            print("--- stderr of the proxy:", self.stderr[-8000:], sep="\n")
        assert not COMPLAINTS.search(self.stderr), self.stderr
