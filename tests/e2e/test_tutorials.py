"""The tutorials, done as a reader does them: from top to bottom in one folder, every file written where its first line says, every command run, and what the page says it prints is printed."""

import os
import re
import shlex
import signal
import subprocess

import pytest

from support.ports import free_port
from support.proxy import BINARY, COMPLAINTS, ROOT, environment
from support.waiting import wait_until

PAGES = ["docs/plugins.md", "docs/testing-plugins.md", "docs/redaction.md", "docs/reference/settings.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"(?:--|#) (\S+\.\w+)$", re.MULTILINE)
COMMENT = re.compile(r"\s+# .*$")


class Reader:
    """Somebody with a folder, llm-proxy on the PATH and a page to read."""

    def __init__(self, folder):
        self.folder, self.output = folder, ""
        (folder / "bin").mkdir()
        (folder / "bin/llm-proxy").symlink_to(BINARY)
        self.environment = environment({"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "LISTEN_ADDR": f"127.0.0.1:{free_port()}",
                                        "ADMIN_ADDR": f"127.0.0.1:{free_port()}"})

    def write(self, text):
        """A file, if its first line names one, relative to the folder."""
        named = NAMED.match(text)
        if named:
            path = self.folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def run(self, command):
        result = subprocess.run(["bash", "-ec", command], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        self.output = result.stdout + result.stderr
        assert result.returncode == 0, f"{command}\n{self.output}"
        assert not COMPLAINTS.search(self.output), self.output

    def serve(self, command):
        """Until it listens, then to its orderly end."""
        log = self.folder / "serve.log"
        with open(log, "wb") as file:
            process = subprocess.Popen(["bash", "-c", "exec " + command], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            wait_until(lambda: process.poll() is not None or "listening address" in log.read_text(), lambda: f"{command} listens: {log.read_text()}")
            assert process.poll() is None, log.read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()
        assert not COMPLAINTS.search(log.read_text()), log.read_text()

    def follow(self, commands):
        for command in commands.replace("\\\n", " ").splitlines():
            command = COMMENT.sub("", command).strip()
            words = shlex.split(command)
            program = [word for word in words if not re.match(r"[A-Z_]+=", word)][:2]
            if program[:1] == ["llm-proxy"] and (len(program) == 1 or program[1].startswith("-") or program[1] == "serve"):
                self.serve(re.sub(r"^((?:[A-Z_]+=\S+ )*)", r"env \1", command))
            elif command:
                self.run(command)


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_gets_through(page, tmp_path):
    reader = Reader(tmp_path)
    commands = 0
    for language, text in BLOCK.findall((ROOT / page).read_text()):
        if language == "sh":
            reader.follow(text)
            commands += 1
        elif language == "text":
            assert text.strip() in reader.output, f"the page says\n{text}\nbut there was\n{reader.output}"
        else:
            reader.write(text)
    assert commands, "the page has commands"
