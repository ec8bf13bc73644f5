"""Starts the measured programs, one at a time, and leaves nothing of them behind.

Some peers have helpers that outlive, or are no children of, the process that started them. So the
controller has the system hand it every orphan below it: then its descendants are exactly the
processes of the measurement, to be counted while it runs and ended when it is over.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launching import memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = 120  # seconds that one measurement may take
_LEAVING = 1.0  # seconds that helpers have to leave by themselves, and then when asked
_UNWANTED = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


class MeasurementError(Exception):
    """A measurement did not come to an end, or a job of it did not succeed."""


def adopt_orphans() -> None:
    """Become the parent of every orphan among the descendants."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot adopt orphans")


def leave_by_exception_on_signals() -> None:
    """Let ``finally`` do its work also when asked to end by a signal."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def run_python(module: str, *arguments: str, what: str) -> dict[str, Any]:
    """The figures that ``main`` of a module writes, in a fresh interpreter and folder.

    It is started without a main file: multiprocessing would import that again in each child,
    which is not what is compared here.
    """
    code = f"from {module} import main; main()"
    with _workplace() as folder:
        filled = [argument.replace("{folder}", folder) for argument in arguments]
        command = [sys.executable, "-c", code, *filled]
        process = subprocess.Popen(
            command,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt by keyboard is the controller's alone
        )
        try:
            status = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"{what}: not done after {_PATIENCE} s") from error
        finally:
            _end(process)
        if status != 0:
            raise MeasurementError(f"{what}: the measured program ended with status {status}")
        figures: dict[str, Any] = json.loads(Path(folder, "figures.json").read_text())
        return figures


@contextlib.contextmanager
def run_command(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A program that is talked to through its standard input and output."""
    with _workplace() as folder:
        process = subprocess.Popen(
            command,
            env=_environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            with process:
                yield process
        finally:
            _end(process)


@contextlib.contextmanager
def _workplace() -> Iterator[str]:
    """A folder for all files of one measurement; processes are gone before it goes."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        yield folder


def _environment(folder: str) -> Mapping[str, str]:
    environment = {k: v for k, v in os.environ.items() if k not in _UNWANTED}
    path = [str(Path(__file__).parents[1]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    environment["TMPDIR"] = folder
    return environment


def _end(process: subprocess.Popen[Any]) -> None:
    """End the program if it still runs, and then whatever it has left."""
    if process.poll() is None:
        process.kill()
        process.wait()
    # Asked first, since resource trackers, which outlive this signal, remove what lies in /dev/shm
    # once the last worker that they serve is gone.
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            _signal_all(number)
        if _all_gone(_LEAVING):
            return
    raise MeasurementError(f"processes that do not end: {memory.tree(os.getpid())[1:]}")


def _signal_all(number: int) -> None:
    for pid in memory.tree(os.getpid())[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _all_gone(patience: float) -> bool:
    """Wait for all descendants to end; whether they did."""
    end = time.monotonic() + patience
    while True:
        _reap()
        if not memory.tree(os.getpid())[1:]:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.005)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
