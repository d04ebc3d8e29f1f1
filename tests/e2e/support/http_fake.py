"""A destination that plays a real service: a subclass judges each request as strictly as the service would, and may be told to fail."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Refused(Exception):
    """What the service would answer: a status, and its own body."""

    def __init__(self, status, body=b"", headers=None):
        super().__init__(status, body)
        self.status, self.body, self.headers = status, body if isinstance(body, bytes) else body.encode(), headers or {}


class Server(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 128

    def handle_error(self, *_):
        pass


class LoopbackServer:
    """A context manager: an HTTP server on loopback, each connection with a thread of its own."""

    def __init__(self, handler, port=0):
        self.server = Server(("127.0.0.1", port), handler)

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class HttpFake(LoopbackServer):
    """Subclasses have answer(request) -> (status, body) or raise Refused. faults: answers to give instead to the requests to come, each a status or (status, headers, body)."""

    def __init__(self, port=0):
        self.requests, self.faults, self.lock = [], [], threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_request(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                with fake.lock:
                    fake.requests.append(request)
                    status, headers, body = fake.respond(request)
                self.send_response_only(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = handle_request

            def log_message(self, *_):
                pass

        super().__init__(Handler, port)

    def respond(self, request):
        if self.faults:
            fault = self.faults.pop(0)
            status, headers, body = fault if isinstance(fault, tuple) else (fault, {}, b"")
            return status, headers, body if isinstance(body, bytes) else body.encode()
        try:
            status, body = self.answer(request)
            return status, {}, body if isinstance(body, bytes) else body.encode()
        except Refused as refused:
            return refused.status, refused.headers, refused.body


class Request:
    def __init__(self, method, target, headers, raw):
        self.method, self.target, self.headers, self.raw = method, target, headers, raw
        self.path, _, self.query = target.partition("?")

    def body(self):
        """Without its Content-Encoding; a broken one is refused."""
        coding = self.headers.get("content-encoding")
        if coding is None:
            return self.raw
        if coding != "gzip":
            raise Refused(415, f"content-encoding {coding}")
        try:
            return gzip.decompress(self.raw)
        except Exception as error:
            raise Refused(400, f"not in gzip format: {error}") from None
