"""A real nginx with one https server, in the foreground and in a folder of its own."""

import subprocess

from support.ports import free_port
from support.waiting import wait_until
from support.wire import Wire

TEMPORARY = "".join(f"{kind}_temp_path {kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


class Nginx:
    """A context manager. settings: lines of the server block."""

    def __init__(self, folder, certificate, key, settings):
        self.port = free_port()
        folder.mkdir()
        self._folder = folder
        (folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid nginx.pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off;\n{TEMPORARY}"
            f"server {{ listen 127.0.0.1:{self.port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};\n{settings}\n}} }}\n")

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self):
        self._stderr = open(self._folder / "stderr", "wb")
        self._process = subprocess.Popen(["/usr/sbin/nginx", "-p", self._folder, "-c", "nginx.conf", "-e", "stderr"], stderr=self._stderr, stdin=subprocess.DEVNULL)
        wait_until(self._is_ready, lambda: (self._folder / "stderr").read_text())
        return self

    def _is_ready(self):
        try:
            Wire(("127.0.0.1", self.port)).socket.close()
            return True
        except OSError:
            return False

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._stderr.close()
