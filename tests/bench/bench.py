#!/usr/bin/env python3
"""CPU per request and per streamed piece, and latency: llm-proxy beside nginx proxy_pass, in one run.

Each contestant is pinned to one core; load and upstreams have another. All are started once, then measured in turns, in several rounds; the medians
are compared, so that what disturbs the machine disturbs everybody. CPU is user + system time of the contestant's processes, from /proc/PID/stat.

    requests   64 connections, POST of 1,200 bytes, reply of 512, as fast as they come; the upstream is an nginx that answers from memory
    pieces     100 connections, each stream 50 server-sent events 5 ms apart; the upstream is stream_server.c, which counts what it wrote
    latency    the requests again over 4 connections, so that neither core is busy all the time: how long one takes, as the client sees it

With the bus on disk the events are synced: --folder says on which disk.

Run by run.sh.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
REQUEST_CONNECTIONS = 64
STREAM_CONNECTIONS = 100
LATENCY_CONNECTIONS = 4
PIECES = 50
INTERVAL_MS = 5
REPLY_BYTES = 512
BUFFER_EVENTS = 20000
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")

NGINX_HEAD = """
worker_processes 1;
daemon off;
error_log stderr error;
pid {folder}/nginx.pid;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    default_type application/json;
"""

NGINX_UPSTREAM = NGINX_HEAD + """
    server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ return 200 '{reply}'; }} }}
}}
"""

NGINX_PROXY = NGINX_HEAD + """
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream plain {{ server 127.0.0.1:{plain}; keepalive 256; keepalive_requests 1000000000; }}
    upstream stream {{ server 127.0.0.1:{stream}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location /plain/ {{ proxy_pass http://plain; }}
        location /stream/ {{ proxy_pass http://stream; proxy_buffering off; }}
    }}
}}
"""

LLM_PROXY = """
return {{
  listen = "127.0.0.1:{port}", admin = "127.0.0.1:{admin}", workers = 1,
  routes = {{
    {{ name = "plain", prefix = "/plain/", upstream = "http://127.0.0.1:{plain}" }},
    {{ name = "stream", prefix = "/stream/", upstream = "http://127.0.0.1:{stream}" }},
  }},
  observability = {{
    enabled = {enabled}, buffer_size = {buffer_events}, bus = {{ {bus} }},
    pipelines = {{ {{ name = "events", transforms = {{ {transforms} }}, dispatcher = {{ "file", path = "events.jsonl" }} }} }},
  }},
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process, log):
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    sys.exit(f"bench: nothing listens on port {port}\n{log.read_text()}")


def family(pid):
    """A process and all that came from it."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    members = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in members} - members
        if not more:
            return members
        members |= more


def cpu_seconds(pid):
    ticks = 0
    for member in family(pid):
        fields = pathlib.Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * TICK_SECONDS


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


class Bench:
    """What runs, and where its files are."""

    def __init__(self, folder, cores):
        self.folder = folder
        self.proxy_core, self.load_core = cores
        self.processes = []

    def start(self, name, core, command, port):
        log = self.folder / f"{name}.log"
        with open(log, "w", encoding="utf-8") as output:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *map(str, command)],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
        self.processes.append(process)
        wait_for_port(port, process, log)
        return process

    def start_nginx(self, name, core, configuration, **values):
        folder = self.folder / name
        folder.mkdir()
        port = free_port()
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(configuration.format(folder=folder, port=port, user=user, **values))
        process = self.start(name, core, ["nginx", "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"], port)
        return process, port

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def load(self, port, path, connections, seconds):
        """Requests that were answered, and the median and the 99th percentile of how long they took, in microseconds."""
        output = subprocess.run(
            ["taskset", "-c", str(self.load_core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(HERE / "post.lua"),
             f"http://127.0.0.1:{port}{path}"],
            check=True, capture_output=True, text=True).stdout
        requests, errors = map(int, re.search(r"^result (\d+) (\d+)$", output, re.M).groups())
        if errors or not requests:
            sys.exit(f"bench: {requests} answers, {errors} errors\n{output}")
        return requests, *map(int, re.search(r"^latency (\d+) (\d+)$", output, re.M).groups())


class Contestant:
    """A proxy under test, and what was measured of it."""

    def __init__(self, name, process, port, admin=None, events=None):
        self.name, self.process, self.port, self.admin, self.events = name, process, port, admin, events
        self.request_us, self.request_rate, self.piece_us, self.piece_rate, self.latency_us = [], [], [], [], []

    def settle(self):
        """Until no event waits; then the file can go."""
        while self.events and re.search(r'^llm_proxy_events_waiting\{pipeline="events"\} [1-9]', fetch(self.admin + "/metrics"), re.M):
            time.sleep(0.02)
        if self.events and self.events.exists():
            os.truncate(self.events, 0)

    def outcomes(self):
        """Events delivered, and offered."""
        metrics = fetch(self.admin + "/metrics")
        delivered = re.search(r'^llm_proxy_events_total\{pipeline="events",result="delivered"\} (\d+)', metrics, re.M)
        received = re.search(r'^llm_proxy_events_received_total\{pipeline="events"\} (\d+)', metrics, re.M)
        return int(delivered[1]), int(received[1])


def measure(contestant, run):
    """CPU seconds, wall seconds and the result of run()."""
    cpu, begin = cpu_seconds(contestant.process.pid), time.monotonic()
    result = run()
    wall = time.monotonic() - begin
    contestant.settle()
    return cpu_seconds(contestant.process.pid) - cpu, wall, result


def measure_requests(bench, contestant, seconds):
    cpu, wall, (requests, _, _) = measure(contestant, lambda: bench.load(contestant.port, "/plain/v1/chat/completions", REQUEST_CONNECTIONS, seconds))
    contestant.request_us.append(cpu / requests * 1e6)
    contestant.request_rate.append(requests / wall)


def measure_pieces(bench, contestant, seconds, count_url):
    def run():
        before = int(fetch(count_url))
        bench.load(contestant.port, "/stream/v1/chat/completions", STREAM_CONNECTIONS, seconds)
        return int(fetch(count_url)) - before
    cpu, wall, pieces = measure(contestant, run)
    contestant.piece_us.append(cpu / pieces * 1e6)
    contestant.piece_rate.append(pieces / wall)


def measure_latency(bench, contestant, seconds):
    _, median, tail = bench.load(contestant.port, "/plain/v1/chat/completions", LATENCY_CONNECTIONS, seconds)
    contestant.settle()
    contestant.latency_us.append((median, tail))


def start_llm_proxy(bench, binary, name, title, enabled, transforms, bus, upstreams):
    folder = bench.folder / name
    folder.mkdir()
    port, admin = free_port(), free_port()
    (folder / "config.lua").write_text(LLM_PROXY.format(
        port=port, admin=admin, enabled=enabled, transforms=transforms, bus=bus, buffer_events=BUFFER_EVENTS, **upstreams))
    process = bench.start(name, bench.proxy_core, [binary, "serve", "-c", folder / "config.lua"], port)
    events = folder / "events.jsonl" if enabled == "true" else None
    return Contestant(title, process, port, f"http://127.0.0.1:{admin}", events)


def start_all(bench, binary):
    """The contestants, nginx first, and where the pieces are counted."""
    reply = '{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"%s"}}]}'
    _, plain = bench.start_nginx("upstream", bench.load_core, NGINX_UPSTREAM, reply=reply % ("x" * (REPLY_BYTES - len(reply) + 2)))
    stream = free_port()
    bench.start("stream_server", bench.load_core, [bench.folder / "stream_server", stream, PIECES, INTERVAL_MS], stream)
    upstreams = {"plain": plain, "stream": stream}
    contestants = [Contestant("nginx proxy_pass", *bench.start_nginx("nginx", bench.proxy_core, NGINX_PROXY, **upstreams))]
    if binary:
        contestants += [
            start_llm_proxy(bench, binary, "off", "llm-proxy, capture off", "false", "", '"memory"', upstreams),
            start_llm_proxy(bench, binary, "file", "llm-proxy, events to a file", "true", "", '"memory"', upstreams),
            start_llm_proxy(bench, binary, "llm", "llm-proxy, transform llm and file", "true", '"llm"', '"memory"', upstreams),
            start_llm_proxy(bench, binary, "disk", "llm-proxy, bus on disk and file", "true", "", '"disk", path = "spool"', upstreams),
            start_llm_proxy(bench, binary, "audit", "llm-proxy, the same with audit", "true", "", '"disk", path = "spool", audit = true', upstreams),
        ]
    return contestants, f"http://127.0.0.1:{stream}/count"


def report(contestants, rounds, seconds):
    nginx = contestants[0]
    print(f"Medians of {rounds} rounds of {seconds} s each. CPU is user + system time of all threads, on one core.\n")
    print(f"{'':36}{'requests/s':>11}{'us/request':>12}{'x nginx':>9}   {'pieces/s':>9}{'us/piece':>10}{'x nginx':>9}   {'p50 ms':>8}{'p99 ms':>8}")
    for contestant in contestants:
        request, piece = statistics.median(contestant.request_us), statistics.median(contestant.piece_us)
        print(f"{contestant.name:36}{statistics.median(contestant.request_rate):11.0f}{request:12.2f}"
              f"{request / statistics.median(nginx.request_us):9.2f}   {statistics.median(contestant.piece_rate):9.0f}{piece:10.2f}"
              f"{piece / statistics.median(nginx.piece_us):9.2f}   "
              f"{statistics.median(median for median, _ in contestant.latency_us) / 1000:8.2f}"
              f"{statistics.median(tail for _, tail in contestant.latency_us) / 1000:8.2f}")
    print()
    for contestant in contestants:
        if contestant.events:
            delivered, received = contestant.outcomes()
            lost = f" ({100 * (received - delivered) / received:.1f} % dropped: more than one shared core can write)" if delivered < received else ""
            print(f"{contestant.name}: {delivered} of {received} events delivered{lost}")


def main():
    parser = argparse.ArgumentParser(description="CPU per request and per streamed piece, and latency, llm-proxy beside nginx.")
    parser.add_argument("--binary", help="llm-proxy; without it nginx alone is measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--folder", help="for the files of all (the system's for temporary files)")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("bench: needs two cores: one for the proxies, one for load and upstreams")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="llm-proxy-bench-", dir=arguments.folder))
    bench = Bench(folder, cores[:2])
    try:
        subprocess.run(["cc", "-std=c17", "-D_GNU_SOURCE", "-O2", "-o", folder / "stream_server", HERE / "stream_server.c"], check=True)
        contestants, count_url = start_all(bench, arguments.binary and os.path.abspath(arguments.binary))
        for contestant in contestants:
            bench.load(contestant.port, "/plain/v1/chat/completions", REQUEST_CONNECTIONS, 1)
            contestant.settle()
        for number in range(arguments.rounds):
            shift = number % len(contestants)
            for contestant in contestants[shift:] + contestants[:shift]:
                measure_requests(bench, contestant, arguments.seconds)
                measure_pieces(bench, contestant, arguments.seconds, count_url)
                measure_latency(bench, contestant, arguments.seconds)
        report(contestants, arguments.rounds, arguments.seconds)
    finally:
        bench.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
