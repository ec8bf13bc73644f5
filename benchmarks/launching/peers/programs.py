"""A program per job: a fresh interpreter, and the least a system can start."""

from __future__ import annotations

import os
import sys

from launching.peers.base import EVERY_PARENT, Peer, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import Popen

_STAMP = """\
import time
now = time.monotonic_ns()
import os, sys
os.write(os.open(sys.argv[1], os.O_WRONLY), now.to_bytes(8, "little"))
"""
_IDLE = """\
import os, sys
held = os.open(sys.argv[2], os.O_RDONLY)
os.write(os.open(sys.argv[1], os.O_WRONLY), b"r")
os.read(held, 1)
"""
_PROGRAMS = {
    "stamp": _STAMP,
    "nothing": "pass",
    "idle": _IDLE,
    "idle_collected": f"import gc\ngc.collect()\n{_IDLE}",
}


class Subprocess(Peer):
    """The fastest interpreter there is: isolated, and without ``site``."""

    key = "subprocess"
    title = "Popen python -I -S -c"

    def start(self, folder: str) -> None:
        import subprocess

        self._popen = subprocess.Popen
        self._running: list[Popen[bytes]] = []

    def submit(self, job: str, **arguments: str) -> None:
        if len(self._running) >= self.limit:
            self._reap(self._running.pop(0))
        command = [sys.executable, "-I", "-S", "-c", _PROGRAMS[job], *arguments.values()]
        self._running.append(self._popen(command))

    def _reap(self, process: Popen[bytes]) -> None:
        expect(process.wait() == 0, process)

    def wait_all(self) -> None:
        while self._running:
            self._reap(self._running.pop(0))


class PosixSpawn(Peer):
    """A limit: what the system needs to start a small program that does nothing."""

    key = "posix-spawn"
    title = "posix_spawn /bin/true"
    group = "limit"
    parents = EVERY_PARENT
    has_first_line = False
    idle_jobs = 0

    def start(self, folder: str) -> None:
        self._running = 0

    def submit(self, job: str, **arguments: str) -> None:
        if self._running >= self.limit:
            self._reap_one()
        os.posix_spawn("/bin/true", ["true"], os.environ)
        self._running += 1

    def _reap_one(self) -> None:
        _, status = os.waitpid(-1, 0)
        self._running -= 1
        expect(status == 0, f"/bin/true ended with status {status}")

    def wait_all(self) -> None:
        while self._running:
            self._reap_one()
