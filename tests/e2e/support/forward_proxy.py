"""A small forward proxy: takes CONNECT and relays bytes, or misbehaves as it is told."""

import base64
import socket
import threading


def relay(source, sink):
    """Bytes one way to their end, and the end as well."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class ForwardProxy:
    """A context manager. credentials: "user:password" it asks for; answer: what it sends instead of opening a tunnel (b"": it only closes, None: a tunnel),
    keeping the connection when hang is true; names: host names it knows by the addresses they lead to."""

    def __init__(self, credentials=None, answer=None, hang=False, names=None):
        self.credentials, self.answer, self.hang, self.names = credentials, answer, hang, names or {}
        self.heads = []       # of the requests, as text
        self.connections = 0
        self.tunnels = 0      # opened
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = []

    @property
    def port(self):
        return self._listener.getsockname()[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self):
        return [head.split(" ")[1] for head in self.heads]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        for end in [self._listener, *self._sockets]:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(65536)
                if not data:
                    return
                head += data
            self.heads.append(head.decode("latin-1"))
            self._answer(client)
        except OSError:
            pass

    def _is_authorized(self):
        expected = base64.b64encode((self.credentials or "").encode()).decode()
        return not self.credentials or f"\r\nProxy-Authorization: Basic {expected}\r\n" in self.heads[-1]

    def _answer(self, client):
        if self.answer is not None:
            client.sendall(self.answer)
            if not self.hang:
                client.shutdown(socket.SHUT_WR)
        elif not self._is_authorized():
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 5\r\n\r\nsorry")
            client.shutdown(socket.SHUT_WR)
        else:
            host, _, port = self.targets[-1].rpartition(":")
            upstream = socket.create_connection((self.names.get(host, host.strip("[]")), int(port)))
            self._sockets.append(upstream)
            self.tunnels += 1
            client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 forward\r\n\r\n")
            threading.Thread(target=relay, args=(upstream, client), daemon=True).start()
            relay(client, upstream)
