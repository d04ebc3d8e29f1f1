"""An HTTP end point for webhooks: keeps what it gets and answers as told."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler

from support.http_fake import LoopbackServer


class Sink(LoopbackServer):
    """answers: statuses for the requests to come, then 200; a number with headers as (429, {"Retry-After": "1"}).
    judge: instead, a function from a request's body to such an answer."""

    def __init__(self, answers=(), judge=None, port=0):
        self.answers, self.requests, self.hold = list(answers), [], threading.Event()
        self.hold.set()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                size = int(self.headers["content-length"])
                body = self.rfile.read(size)
                if len(body) < size:
                    self.close_connection = True  # the sender is gone
                    return
                sink.requests.append((dict((name.lower(), value) for name, value in self.headers.items()), body))
                sink.hold.wait(60)
                status = judge(body) if judge else sink.answers.pop(0) if sink.answers else 200
                status, headers = status if isinstance(status, tuple) else (status, {})
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(Handler, port)

    @property
    def url(self):
        return super().url + "/hook"

    def __exit__(self, *_):
        self.hold.set()
        super().__exit__()

    def batches(self):
        """The batches so far, decoded."""
        return [json.loads(gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body) for headers, body in list(self.requests)]

    def events(self):
        return [event for batch in self.batches() for event in batch]
