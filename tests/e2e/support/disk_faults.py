"""Makes the disk fail for a running program: a full disk, syncs that fail or take long (tests/faults/disk_faults.c tells how)."""

import contextlib
import os
import pathlib

from .proxy import BINARY

LIBRARY = BINARY.parent.parent / "tests" / "libdisk_faults.so"


class DiskFaults:
    """Faults of the files below one folder. The program must be started with `environment` in its own."""

    def __init__(self, folder, control):
        self.control = pathlib.Path(control)
        self.control.mkdir(parents=True, exist_ok=True)
        options = ":".join(part for part in (os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0") if part)
        self.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "DISK_FAULTS_FOLDER": str(pathlib.Path(folder).resolve()),
            "DISK_FAULTS_CONTROL": str(self.control.resolve()),
            "ASAN_OPTIONS": options,
        }

    def _put(self, name, content):
        making = self.control / f"{name}.new"
        making.write_text(content)
        making.rename(self.control / name)

    @contextlib.contextmanager
    def full(self):
        """Nothing can be written meanwhile: ENOSPC."""
        self._put("full", "")
        try:
            yield
        finally:
            (self.control / "full").unlink()

    def fail_syncs(self, count):
        """So many calls of fdatasync and fsync fail from now on."""
        self._put("sync_fails", f"{count}\n")

    def syncs_left(self):
        """How many of these are still to come."""
        try:
            return int((self.control / "sync_fails").read_text() or 0)
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def slow_syncs(self, milliseconds):
        """Each call takes that much longer meanwhile."""
        self._put("sync_takes", f"{milliseconds}\n")
        try:
            yield
        finally:
            (self.control / "sync_takes").unlink()
