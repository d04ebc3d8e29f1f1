"""A small queue that speaks HTTP, as examples/plugins/buses/http_queue.lua uses it: groups, leases, redelivery. It can be away, slow, or refuse."""

import collections
import itertools
import json
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Group:
    """What one group of consumers has to do: messages by number that wait, those that are leased, those that are done."""

    def __init__(self, waiting):
        self.waiting, self.leased, self.done = collections.deque(waiting), {}, []
        self.attempts = collections.Counter()

    def take(self, most, seconds, leases):
        taken = []
        while self.waiting and len(taken) < most:
            number, lease = self.waiting.popleft(), f"lease-{next(leases)}"
            self.leased[lease] = (number, time.monotonic() + seconds)
            self.attempts[number] += 1
            taken.append((lease, number))
        return taken

    def expire(self):
        now = time.monotonic()
        for lease in [lease for lease, (_, end) in self.leased.items() if end <= now]:
            self.give_back(lease)

    def give_back(self, lease):
        number, _ = self.leased.pop(lease, (None, None))
        if number is not None:
            self.waiting.appendleft(number)

    def acknowledge(self, lease):
        number, _ = self.leased.pop(lease, (None, None))
        if number is not None:
            self.done.append(number)


class Queue:
    def __init__(self):
        self.messages, self.groups = [], {}


class HttpQueue:
    """A context manager. Between stop() and start() nobody listens, and what it holds stays; forget() loses all.
    refuse: a status for every request, or None. judge(method, path): a status for this one, or None. delay: seconds before each answer."""

    def __init__(self):
        self.changed, self.queues, self.leases = threading.Condition(), collections.defaultdict(Queue), itertools.count(1)
        self.refuse, self.judge, self.delay = None, lambda method, path: None, 0
        self.requests = collections.Counter()
        self.port, self.server, self.sockets = 0, None, set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def events(self):
        """The queue that is used when nothing else is said."""
        return self.queues["events"]

    def group(self, name):
        return self.events.groups.get(name) or Group(())

    def forget(self):
        with self.changed:
            self.queues.clear()

    def publish(self, *events):
        """As if somebody else did: any JSON values."""
        with self.changed:
            self.add("events", events)

    def add(self, name, events):
        queue = self.queues[name]
        for event in events:
            for group in queue.groups.values():
                group.waiting.append(len(queue.messages))
            queue.messages.append(event)
        self.changed.notify_all()

    # Requests; the lock is held

    def answer(self, method, path, query, body):
        parts = [urllib.parse.unquote(part) for part in path.split("/")[1:]]
        assert parts[0] == "queues", path
        queue = self.queues[parts[1]]
        if method == "POST" and parts[2:] == ["messages"]:
            self.add(parts[1], [json.loads(line) for line in body.splitlines()])
            return 204, None
        assert parts[2] == "groups", path
        if method == "PUT":
            queue.groups.setdefault(parts[3], Group(range(len(queue.messages)) if query["from"] == "oldest" else ()))
            return 204, None
        group = queue.groups.get(parts[3])
        if group is None:
            return 404, None
        if parts[4:] == ["messages"]:
            return 200, self.fetch(queue, group, int(query["max"]), float(query["wait"]), float(query["lease"]))
        if parts[4:] == ["ack"]:
            for lease in json.loads(body):
                group.acknowledge(lease)
            return 204, None
        if parts[4:] == ["release"]:
            for lease in reversed(json.loads(body)):
                group.give_back(lease)
            self.changed.notify_all()
            return 204, None
        return 200, {"waiting": len(group.waiting)}

    def fetch(self, queue, group, most, wait, seconds):
        end, server = time.monotonic() + wait, self.server
        while True:
            group.expire()
            if group.waiting or time.monotonic() >= end or self.server is not server:
                break
            self.changed.wait(min(0.05, wait))
        taken = group.take(most, seconds, self.leases) if server and self.server is server else []
        return [{"lease": lease, "id": f"m{number}", "attempts": group.attempts[number], "event": queue.messages[number]} for lease, number in taken]

    # The server

    def start(self):
        queue = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path, _, query = self.path.partition("?")
                time.sleep(queue.delay)
                with queue.changed:
                    queue.requests[self.command, path.rsplit("/", 1)[-1]] += 1
                    status, value = queue.refuse or queue.judge(self.command, path), None
                    if not status:
                        status, value = queue.answer(self.command, path, dict(urllib.parse.parse_qsl(query)), body)
                out = b"" if value is None else json.dumps(value).encode()
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", str(len(out)))
                self.end_headers()
                self.wfile.write(out)

            do_GET = do_POST = do_PUT = serve

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads, block_on_close, request_queue_size, allow_reuse_address = True, False, 128, True

            def get_request(self):
                pair = super().get_request()
                queue.sockets.add(pair[0])
                return pair

            def shutdown_request(self, request):
                queue.sockets.discard(request)
                super().shutdown_request(request)

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()

    def stop(self):
        """As killed: connections break, and what was being fetched stays leased or is fetched by nobody."""
        server, self.server = self.server, None
        server.shutdown()
        server.server_close()
        for connection in list(self.sockets):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.server:
            self.stop()
