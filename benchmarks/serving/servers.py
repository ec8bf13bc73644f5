"""Starts the measured servers, one at a time, each in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HERE = Path(__file__).parent
_PATIENCE = 60.0
"""Seconds for a server to begin or to end, and for runs that were accepted to end."""

_LOOK = 0.05
"""Seconds after which it is asked again how many have."""

_OURS = ("JOB_SCHEDULER_", "DATABASE_URL", "MAX_CONCURRENT_JOBS", "DEBUG", "PYTHONPATH")


class ServerError(Exception):
    """A server did not do what it should."""


class Server(NamedTuple):
    """One that answers."""

    port: int
    process: subprocess.Popen[bytes]

    def cpu(self) -> float:
        """Seconds of a processor that it has used, in all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    def completed(self) -> int:
        """How many runs were completed since it was started."""
        return int(sum_of(self.get("/metrics"), "job_scheduler_runs_total"))

    def wait_for_runs(self, count: int) -> None:
        """Wait until so many were."""
        deadline = time.monotonic() + _PATIENCE
        while self.completed() < count:
            if time.monotonic() > deadline:
                raise ServerError(f"{self.completed()} of {count} runs have ended, and no more do")
            time.sleep(_LOOK)


def sum_of(metrics: str, name: str) -> float:
    """All values of a figure in an exposition for Prometheus."""
    values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE)
    return sum(map(float, values))


@contextlib.contextmanager
def service(database_url: str, checkout: Path | None = None) -> Iterator[Server]:
    """``python -m job_scheduler.service``, of this package or of that in another checkout."""
    environment = {
        "DATABASE_URL": database_url,
        "JOB_SCHEDULER_PORT": "0",
        "JOB_SCHEDULER_JOBS": str(_HERE / "job_types"),
    }
    if checkout is not None:
        environment["PYTHONPATH"] = str(checkout.resolve())
    with _serving(["-m", "job_scheduler.service"], environment) as server:
        yield server


@contextlib.contextmanager
def trivial() -> Iterator[Server]:
    """An application that does nothing."""
    with _serving([str(_HERE / "trivial.py")], {}) as server:
        yield server


@contextlib.contextmanager
def _serving(arguments: list[str], environment: dict[str, str]) -> Iterator[Server]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    with tempfile.TemporaryDirectory(prefix="bench-service-") as folder:
        log = Path(folder, "log")
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env=kept | environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt by keyboard is the controller's alone
            )
        try:
            yield Server(_port(process, log), process)
            _end(process, log)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until it answers, and tell where."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text(errors="replace"))
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if found:
                Server(int(found[1]), process).get("/healthz")
                return int(found[1])
        time.sleep(0.05)
    raise ServerError(f"a server does not start:\n{_last_lines(log)}")


def _end(process: subprocess.Popen[bytes], log: Path) -> None:
    process.send_signal(signal.SIGTERM)
    status = process.wait(_PATIENCE)
    if status not in (0, -signal.SIGTERM):
        raise ServerError(f"a server has ended with status {status}:\n{_last_lines(log)}")


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
