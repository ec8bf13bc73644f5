"""The zygote's children: who they are, when they are to be stopped, and that they are reaped."""

from __future__ import annotations

import os
import time

from job_scheduler.launcher.stderr import Tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import signal as _signal
    from collections.abc import Callable
    from typing import Any

    from job_scheduler.launcher.queue import JobClass, Waiting
else:
    import _signal


class Child:
    """A process: one that has a job, or a spare that waits for one."""

    __slots__ = (
        "deadline",
        "of",
        "orders",
        "pid",
        "reason",
        "run_id",
        "stderr",
        "stderr_open",
        "tail",
    )

    def __init__(self, pid: int, stderr: int, orders: _socket.socket | None) -> None:
        self.pid = pid
        self.orders = orders
        """Where a spare waits for its job; None once it has one."""
        self.run_id = ""
        self.of: JobClass | None = None
        self.deadline = 0.0
        """When to go on, for those that are timed: to TERM while ``reason`` is empty, to KILL
        after."""
        self.reason = ""
        """Why it is being stopped; empty while it is not."""
        self.stderr = stderr
        self.stderr_open = True
        self.tail: Tail | None = None

    def dismiss(self) -> None:
        """It is no spare any more: it has a job, or has to leave."""
        if self.orders is not None:
            self.orders.close()
            self.orders = None


class Children:
    """All living children, and those that were not reaped yet."""

    def __init__(self, grace: float, bury: Callable[[Child, int | None, Any], None]) -> None:
        self._grace = grace
        self._bury = bury
        """Called with a child, its wait status and its resource usage, None if nobody saw them."""
        self._by_pid: dict[int, Child] = {}
        self._stopping = 0  # how many are being stopped
        self.timed: dict[int, Child] = {}
        """By pid: those with a deadline."""
        self.by_run: dict[str, Child] = {}
        """Those that have a job."""
        self.by_stderr: dict[int, Child] = {}
        self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        """A pipe that becomes readable when a child has ended, while ends are noticed."""

    def notice_ends(self) -> None:
        """Have the end of a child wake the zygote; those before are to be reaped unasked."""
        _signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, _ignore)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGCHLD,))

    def ignore_ends(self) -> None:
        """Set SIGCHLD to its default, so that the children forked now need not do so."""
        # Blocked first: one that arrives while its handler goes would be complained about.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGCHLD,))
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)

    def add(self, child: Child) -> None:
        self._by_pid[child.pid] = self.by_stderr[child.stderr] = child

    def employ(self, child: Child, waiting: Waiting) -> None:
        """The child has a job from now on."""
        child.run_id, child.of = waiting.assignment.run_id, waiting.of
        self.by_run[child.run_id] = child
        if waiting.timeout is not None:
            self._set_deadline(child, waiting.timeout)

    def signal(self, run_id: str, number: int) -> None:
        """Send a signal to the process of a run alone, if it has one."""
        child = self.by_run.get(run_id)
        if child is not None:
            _signal_one(child.pid, number)

    def stop(self, child: Child, reason: str) -> None:
        """TERM now; KILL when the grace is over, or when the process itself has ended."""
        if child.reason:
            return
        child.reason = reason
        self._stopping += 1
        self._set_deadline(child, self._grace)
        _signal_group(child.pid, _signal.SIGTERM)

    def _set_deadline(self, child: Child, seconds: float) -> None:
        child.deadline = time.monotonic() + seconds
        self.timed[child.pid] = child

    def next_deadline(self) -> float | None:
        """When :meth:`enforce_deadlines` has to be called, in seconds of the monotonic clock."""
        return min(child.deadline for child in self.timed.values()) if self.timed else None

    def enforce_deadlines(self, reason: str) -> None:
        """Stop those that are late for this reason; kill those that were told to stop."""
        now = time.monotonic()
        for child in [late for late in self.timed.values() if late.deadline <= now]:
            del self.timed[child.pid]
            if child.reason:
                _signal_group(child.pid, _signal.SIGKILL)
            else:
                self.stop(child, reason)

    def reap(self) -> None:
        """Take the ended ones.

        The group of a job that was stopped is killed while its leader is still a zombie, so
        that the group's id cannot have been given to anyone else.
        """
        while self._by_pid:
            any_or_one = -1
            if self._stopping:
                try:
                    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                except ChildProcessError:
                    return
                if ended is None:
                    return
                any_or_one = ended.si_pid
                stopped = self._by_pid.get(any_or_one)
                if stopped is not None and stopped.reason:
                    _signal_group(any_or_one, _signal.SIGKILL)
            try:
                pid, status, usage = os.wait4(any_or_one, os.WNOHANG)
            except ChildProcessError:
                return  # see bury_missing()
            if not pid:
                return
            gone = self._by_pid.get(pid)
            if gone is not None:
                self._bury(gone, status, usage)
                self._remove(gone)

    def bury_missing(self) -> None:
        """Bury those that something else has reaped, with no status and no usage."""
        for child in tuple(self._by_pid.values()):
            try:
                os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                self._bury(child, None, None)
                self._remove(child)

    def _remove(self, gone: Child) -> None:
        os.close(gone.stderr)
        del self._by_pid[gone.pid], self.by_stderr[gone.stderr]
        self.by_run.pop(gone.run_id, None)
        self.timed.pop(gone.pid, None)
        if gone.reason:
            self._stopping -= 1


def _ignore(*_: object) -> None:
    """Make SIGCHLD interrupt poll by way of the wake-up descriptor, and do nothing else."""


def _signal_group(pid: int, number: int) -> None:
    """Signal the process group of an unreaped child, or the child if it has none yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        _signal_one(pid, number)
    except PermissionError:
        return  # as below


def _signal_one(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (PermissionError, ProcessLookupError):
        # The job has become another user, which only root may signal; or an imported module
        # has reaped it.
        return
