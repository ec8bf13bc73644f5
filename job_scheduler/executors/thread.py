"""Runs jobs that define a plain ``run`` in threads of this program."""

from __future__ import annotations

import itertools
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from job_scheduler.errors import InvalidOptionError
from job_scheduler.executors.local import call, describe
from job_scheduler.launcher import ending, wire
from job_scheduler.run import Run

if TYPE_CHECKING:
    from job_scheduler.target import Target

_MOST_THREADS = 32


class ThreadExecutor:
    """A pool of threads.

    A thread cannot be stopped: a timeout is refused, and only a run that has not started can
    be cancelled. The interpreter's exit waits for running jobs.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="job_scheduler")
        self._futures: dict[Run, Future[None]] = {}
        self._cancelling = threading.RLock()
        prefix = os.urandom(6).hex()
        self._ids = map(f"{prefix}-t{{}}".format, itertools.count(1))

    def submit(
        self, name: str, target: Target, arguments: dict[str, Any], timeout: float | None
    ) -> Run:
        """Accept a run; it starts when a thread is free."""
        if timeout is not None:
            raise InvalidOptionError(
                f"job {name!r} runs in a thread, which cannot be stopped after {timeout:g} s: "
                f"rename its run() to process() to give it a process, which can"
            )
        run = Run(next(self._ids), name, self)
        future = self._pool.submit(self._run, run, target, arguments)
        self._futures[run] = future
        if run.state.ended:  # perhaps before it was in the books, and could not take itself out
            self._futures.pop(run, None)
        return run

    def _run(self, run: Run, target: Target, arguments: dict[str, Any]) -> None:
        run._started(None, time.time())
        try:
            facts = call(lambda: target.job_class().run(**arguments))  # type: ignore[attr-defined]
        except KeyboardInterrupt as error:  # the job's own: a user's reaches the main thread only
            facts = ending.Facts(failure=describe(error))
        ending.settle(run, facts)
        self._futures.pop(run, None)

    def pending(self) -> list[Run]:
        """The runs that have not ended."""
        return [run for run in tuple(self._futures) if not run.state.ended]

    def cancel(self, run: Run) -> bool:
        """Cancel the run if it has not started."""
        with self._cancelling:  # who comes second finds the run ended
            future = self._futures.get(run)
            if future is None or not future.cancel():
                return False
            # A future can be cancelled twice, by a signal handler just here; the books decide.
            if self._futures.pop(run, None) is not None:
                ending.settle(run, ending.Facts(reason=wire.CANCELLED))
            return True

    def signal(self, run: Run, number: int) -> None:
        """There is no process to signal."""

    def process(self, run: Run) -> None:
        """A thread has no process of its own."""

    def close(self) -> None:
        """Take no more runs."""
        self._pool.shutdown(wait=False)
