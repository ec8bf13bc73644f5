"""One execution of a job: its states, its error, and the handle that ``run()`` gives back.

::

    pending <─> running ──> completed
       │           ├──────> failed
       └───────────┴──────> cancelled

A run that never started can also fail (its process could not be made). One that is tried again
goes back to pending, with its attempt counted.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from job_scheduler.durations import seconds_to_wait

if TYPE_CHECKING:
    import multiprocessing
    from collections.abc import Callable
    from datetime import timedelta


class RunId(NamedTuple):
    """Which attempt at which run it is that an executor is given."""

    run: str
    attempt: int = 1
    token: int = 1
    """Another one for each claim of the run."""
    is_kept: bool = False
    """Whether a store on disk has it, so that others may go on with it."""

    def __str__(self) -> str:
        """The id of the handle: one that it takes the place of may still be ending here."""
        return self.run if self.token <= 1 else f"{self.run}/{self.token}"


class RunState(StrEnum):
    """Where a run stands; equal to its own name as a string."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether a run in this state can no longer change."""
        return self is not RunState.PENDING and self is not RunState.RUNNING


TRANSITIONS: Final = {
    RunState.PENDING: frozenset({RunState.RUNNING, RunState.FAILED, RunState.CANCELLED}),
    RunState.RUNNING: frozenset(
        {RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED, RunState.PENDING}
    ),
}


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run did not complete."""

    type: str
    """The name of the exception, or one of ours: ``JobKilled``, ``JobExited``, ``JobTimeout``,
    ``MemoryLimitExceeded``, ``JobLost``."""
    message: str
    traceback: str = ""
    bases: tuple[str, ...] = ()
    """The names of the exception's base classes, nearest first."""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class Ending(NamedTuple):
    """Everything that is known about a run once it has ended."""

    state: RunState
    error: RunError | None = None
    exitcode: int | None = None
    ended_at: float | None = None
    peak_memory: int | None = None
    cpu_time: float | None = None
    stderr: str = ""
    load_result: Callable[[], Any] | None = None
    goes_on: bool = False
    """Whether it has failed, and is tried again by what executes it."""


_of_this_thread: Final = threading.local()


def forbid_waiting(why: str) -> None:
    """Have this thread wait for no run: what it waits for could not go on."""
    _of_this_thread.why = why


class Owner(Protocol):
    """Whatever executes a run, as far as the run has to ask it."""

    def cancel(self, run: Run) -> bool: ...

    def signal(self, run: Run, number: int) -> None: ...

    def process(self, run: Run) -> multiprocessing.Process | None: ...


class Run:
    """A handle on one execution of a job: to ask, to wait for, to cancel.

    Always true. Safe to use from any thread of the program that made it; the values change by
    themselves as the job goes on. A handle that was carried into a forked child still tells
    what was known at the fork, but waiting and cancelling there is a ``RuntimeError``.
    """

    __slots__ = (
        "__weakref__",
        "_cancel_requested",
        "_created_at",
        "_ending",
        "_owner",
        "_owner_pid",
        "_pid",
        "_process",
        "_result",
        "_started_at",
        "_state",
        "_waiters",
        "id",
        "name",
    )

    def __init__(self, run_id: str, name: str, owner: Owner) -> None:
        self.id: Final = run_id
        self.name: Final = name
        self._owner = owner
        self._owner_pid = os.getpid()
        self._state = RunState.PENDING
        self._created_at = time.time()
        self._started_at: float | None = None
        self._pid: int | None = None
        self._ending: Ending | None = None
        self._result: list[Any] | None = None
        self._process: multiprocessing.Process | None = None
        self._cancel_requested = False
        # Who waits appends itself and looks at the state again; who changes the state does so
        # before it reads this list. So neither needs a lock, and a run nobody waits for has none.
        self._waiters: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        pid = f", pid {self._pid}" if self._pid else ""
        return f"<Run {self.id} of {self.name!r}: {self._state}{pid}>"

    @property
    def state(self) -> RunState:
        """``pending``, ``running``, ``completed``, ``failed`` or ``cancelled``."""
        return self._state

    @property
    def pid(self) -> int | None:
        """The process that runs or ran the job; None until it has started."""
        return self._pid

    @property
    def exitcode(self) -> int | None:
        """The exit code of the job's process, the negative signal number if one killed it.

        None until it has ended, and for jobs without a process of their own.
        """
        return self._ending.exitcode if self._ending else None

    @property
    def result(self) -> Any:
        """What the job returned; None until it has completed.

        Raises whatever unpickling the value raises in this program.
        """
        if self._result is None and self._ending and self._ending.load_result:
            self._result = [self._ending.load_result()]
        return self._result[0] if self._result else None

    @property
    def error(self) -> RunError | None:
        """Why the run failed or was cancelled; None while it has not."""
        return self._ending.error if self._ending else None

    @property
    def created_at(self) -> datetime:
        """When the run was accepted (UTC)."""
        return datetime.fromtimestamp(self._created_at, UTC)

    @property
    def started_at(self) -> datetime | None:
        """When the job's first line was about to run (UTC)."""
        return _instant(self._started_at)

    @property
    def ended_at(self) -> datetime | None:
        """When the run ended (UTC)."""
        return _instant(self._ending.ended_at if self._ending else None)

    @property
    def peak_memory(self) -> int | None:
        """The largest resident size of the job's process in bytes, shared pages included."""
        return self._ending.peak_memory if self._ending else None

    @property
    def cpu_time(self) -> float | None:
        """Seconds of processor time that the job's process used."""
        return self._ending.cpu_time if self._ending else None

    @property
    def stderr(self) -> str:
        """The last 64 kB that the job wrote to its standard error; known once it has ended."""
        return self._ending.stderr if self._ending else ""

    @property
    def process(self) -> multiprocessing.Process | None:
        """The job's process with the face of the standard library; waits until it exists.

        None for jobs that have no process of their own. A run that was cancelled before it
        started has one whose ``pid`` is None.
        """
        if self._process is None:
            self._process = self._owner.process(self)
        return self._process

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Wait until the run has ended; False if ``timeout`` passed first.

        Args:
            timeout: seconds or a ``timedelta``; zero or less only looks.
        """
        seconds = None if timeout is None else seconds_to_wait(timeout)
        return self._wait_until(lambda: self._state.ended, seconds)

    def cancel(self) -> bool:
        """Ask for the run to be stopped; False if it had already ended.

        A waiting run never starts. A running process gets SIGTERM, and after the scheduler's
        grace period SIGKILL, with all of its process group. A coroutine is cancelled. A thread
        cannot be stopped: its run goes on, and this is False. What happened is in ``state``
        after :meth:`wait`; a job may still complete before the signal reaches it. Raises
        ``LaunchError`` if the launching process takes no requests.
        """
        self._check_owner("cancel")
        if self._state.ended:
            return False
        return self._owner.cancel(self)

    def _check_owner(self, verb: str) -> None:
        if os.getpid() != self._owner_pid:
            raise RuntimeError(
                f"cannot {verb} run {self.id} here: it was started by process "
                f"{self._owner_pid}, and this is its forked child {os.getpid()}"
            )

    def _wait_until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        if condition():
            return True
        self._check_owner("wait for")
        self._check_may_wait(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        changed = threading.Event()
        self._waiters.append(changed.set)
        try:
            while not condition():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                changed.wait(left)
                changed.clear()
            return True
        finally:
            self._waiters.remove(changed.set)

    def _check_may_wait(self, timeout: float | None) -> None:
        why = getattr(_of_this_thread, "why", None)
        if why is not None and (timeout is None or timeout > 0):
            raise RuntimeError(f"cannot wait for run {self.id} here: {why}")

    def _when_changed(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` now and at each later change of state."""
        self._waiters.append(callback)
        callback()

    def _started(self, pid: int | None, at: float) -> None:
        self._pid = pid
        self._started_at = at
        self._move(RunState.RUNNING)

    def _put_back(self) -> None:
        """It has failed and will be tried again."""
        self._move(RunState.PENDING)

    def _ended(self, ending: Ending) -> None:
        self._ending = ending
        self._move(ending.state)

    def _move(self, state: RunState) -> None:
        if state not in TRANSITIONS.get(self._state, ()):
            raise AssertionError(f"run {self.id} cannot go from {self._state} to {state}")
        self._state = state
        for changed in tuple(self._waiters):
            changed()


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
