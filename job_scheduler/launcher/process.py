"""The ``multiprocessing.Process`` face of a run: for code that knows processes, not runs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from job_scheduler.run import Run

_UNKNOWN_EXIT_CODE = 255
"""What multiprocessing's forkserver reports for a process whose exit code nobody saw."""


class JobProcess(multiprocessing.Process):
    """A job's process, started by the launcher as a fourth start method.

    Behaves as a started ``multiprocessing.Process``: ``pid``, ``name``, ``is_alive``, ``join``,
    ``exitcode``, ``terminate``, ``kill``, ``close``, and a ``sentinel`` that is made when it is
    first asked for. The process is not a child of this one; its exit code comes by report.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(name=run.name)
        run._wait_until(lambda: run.pid is not None or run.state.ended, None)
        self._popen: Any = _Popen(run)
        self._sentinel: int | None = None

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the process ends."""
        self._check_closed()  # type: ignore[attr-defined]
        if self._sentinel is None:
            self._sentinel = self._popen.open_sentinel()
        return self._sentinel


class _Popen:
    """What ``multiprocessing.Process`` asks of its start method."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._sentinel: int | None = None
        self._writing_ends: list[int] = []  # popping one decides who closes it

    @property
    def pid(self) -> int | None:
        return self._run.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self, _flag: int = 0) -> int | None:
        if not self._run.state.ended:
            return None
        code = self._run.exitcode
        return _UNKNOWN_EXIT_CODE if code is None else code

    def wait(self, timeout: float | None = None) -> int | None:
        self._run.wait(timeout)
        return self.poll()

    def terminate(self) -> None:
        self._run._owner.signal(self._run, signal.SIGTERM)

    def kill(self) -> None:
        # Windows has one way only to end a process.
        self._run._owner.signal(self._run, getattr(signal, "SIGKILL", signal.SIGTERM))

    def open_sentinel(self) -> int:
        self._sentinel, writing = os.pipe()
        self._writing_ends.append(writing)
        self._run._when_changed(self._close_writing_end_if_ended)
        return self._sentinel

    def _close_writing_end_if_ended(self) -> None:
        if self._run.state.ended:
            self._close_writing_end()

    def _close_writing_end(self) -> None:
        with contextlib.suppress(IndexError):
            os.close(self._writing_ends.pop())

    def close(self) -> None:
        self._close_writing_end()
        if self._sentinel is not None:
            os.close(self._sentinel)
            self._sentinel = None

    __del__ = close
