"""Runs plain functions, and jobs that define a plain ``run``, in threads of this program."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from job_scheduler.errors import InvalidOptionError, LaunchError, ShutdownError
from job_scheduler.executors.local import call, failed
from job_scheduler.launcher import ending
from job_scheduler.launcher.base import Settings, wait_at_exit
from job_scheduler.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from job_scheduler.run import RunId
    from job_scheduler.target import Target

_Order = tuple[Run, "Callable[[], Any]"]


class ThreadExecutor:
    """A pool of threads, which grows as it is needed, to 32 unless the settings say otherwise.

    While all are busy, runs wait. A thread cannot be stopped: a timeout is refused, and only a run
    that has not started can be cancelled.
    """

    def __init__(self, settings: Settings) -> None:
        self._most_threads = settings.max_threads
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._threads = 0
        self._idents: set[int] = set()
        self._lock = threading.Lock()
        self._cancelling = threading.RLock()  # a signal handler may cancel while we do
        self._closed = False
        # Who takes a run out of the waiting ones, settles it: a thread, or who cancels it.
        self._waiting: dict[Run, bool] = {}
        self._running: dict[Run, bool] = {}
        prefix = os.urandom(6).hex()
        self._ids = map(f"{prefix}-t{{}}".format, itertools.count(1))
        wait_at_exit(self, settings)

    def submit(
        self,
        name: str,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
        run_id: RunId | None = None,
    ) -> Run:
        """Accept a run; it starts when a thread is free."""
        if timeout is not None:
            raise InvalidOptionError(
                f"job {name!r} runs in a thread, which cannot be stopped after {timeout:g} s: "
                f"rename its run() to process() to give it a process, which can"
            )
        if self._closed:
            raise ShutdownError(f"job {name!r} was not accepted: the scheduler was shut down")
        run = Run(str(run_id or next(self._ids)), name, self)
        self._waiting[run] = True
        self._orders.put((run, functools.partial(target.call, args, kwargs)))
        try:
            self._grow_if_all_are_busy()
        except RuntimeError as error:
            if not self._threads and self._waiting.pop(run, False):
                raise LaunchError(f"job {name!r} was not accepted: {error}") from error
        return run

    def _grow_if_all_are_busy(self) -> None:
        """Start a thread, if a run waits and no thread is free; raises if the system has none.

        Whoever submits a run looks after it has put it down, and a thread after it has taken one
        up. So one of them sees that another thread is needed.
        """
        if not self._waiting or not len(self._running) >= self._threads < self._most_threads:
            return
        with self._lock:
            if self._threads < self._most_threads:
                name = f"job_scheduler-{self._threads}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
                self._threads += 1

    @property
    def is_current(self) -> bool:
        """Whether the caller is a job in one of these threads."""
        return threading.get_ident() in self._idents

    def _work(self) -> None:
        self._idents.add(threading.get_ident())
        while (order := self._orders.get()) is not None:
            run = order[0]
            self._running[run] = True
            is_mine = self._waiting.pop(run, False)
            with contextlib.suppress(RuntimeError):  # this thread will take the next, too
                self._grow_if_all_are_busy()
            if is_mine:
                self._run(*order)
            self._running.pop(run, None)
            del order, run  # not to keep the arguments while waiting
        self._orders.put(None)  # for the next thread

    def _run(self, run: Run, job: Callable[[], Any]) -> None:
        run._started(None, time.time())
        try:
            came_of_it = call(lambda: _no_coroutine(job()))
        except KeyboardInterrupt as error:  # the job's own: a user's reaches the main thread only
            came_of_it = failed(error)
        ending.settle(run, came_of_it)

    def pending(self) -> list[Run]:
        """The runs that have not ended."""
        return [run for run in (*self._running, *self._waiting) if not run.state.ended]

    def cancel(self, run: Run) -> bool:
        """Cancel the run if it has not started."""
        with self._cancelling:  # who comes second finds the run ended
            if not self._waiting.pop(run, False):
                return False
            ending.settle(run, ending.cancelled())
            return True

    def signal(self, run: Run, number: int) -> None:
        """There is no process to signal."""

    def process(self, run: Run) -> None:
        """A thread has no process of its own."""

    def close(self) -> None:
        """Take no more runs; the threads leave when nothing is left."""
        if not self._closed:
            self._closed = True
            self._orders.put(None)


def _no_coroutine(result: Any) -> Any:
    """Refuse what a function returns that should have been awaited: nothing has run yet."""
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("it returned a coroutine, which nobody awaits: make the function async")
    return result
