"""Runs coroutine functions, and jobs that define ``async def run``, on an event loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from typing import TYPE_CHECKING, Any

from job_scheduler.errors import ShutdownError
from job_scheduler.executors.local import completed, failed
from job_scheduler.launcher import ending
from job_scheduler.launcher.base import Settings, wait_at_exit
from job_scheduler.run import Ending, Run, RunError, RunState

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from job_scheduler.run import RunId
    from job_scheduler.target import Target


class CoroutineExecutor:
    """Tasks on a loop that somebody else runs. Timeouts and cancellation cancel the task."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings) -> None:
        self._loop = loop
        self._closed = False
        self._tasks: dict[Run, asyncio.Task[None] | None] = {}
        prefix = os.urandom(6).hex()
        self._ids = map(f"{prefix}-c{{}}".format, itertools.count(1))
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
        """Accept a run; it starts with the loop's next turn."""
        if self._closed:
            raise ShutdownError(f"job {name!r} was not accepted: the scheduler was shut down")
        run = Run(str(run_id or next(self._ids)), name, self)
        self._tasks[run] = None
        if asyncio._get_running_loop() is self._loop:
            self._start(run, target, args, kwargs, timeout)
        else:
            self._loop.call_soon_threadsafe(self._start, run, target, args, kwargs, timeout)
        return run

    def _start(self, run: Run, *call: Any) -> None:
        self._tasks[run] = self._loop.create_task(self._run(run, *call))

    async def _run(
        self,
        run: Run,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
    ) -> None:
        if run._cancel_requested:
            came_of_it = ending.cancelled()
        else:
            run._started(None, time.time())
            try:
                job = target.call(args, kwargs)
                result = await (job if timeout is None else _in_time(job, timeout))
            except BaseException as error:
                came_of_it = _ending_of(run, error)
            else:
                came_of_it = completed(result)
        self._tasks.pop(run, None)
        ending.settle(run, came_of_it)

    def pending(self) -> list[Run]:
        """The runs that have not ended."""
        return [run for run in tuple(self._tasks) if not run.state.ended]

    def cancel(self, run: Run) -> bool:
        """Cancel the run's task."""
        run._cancel_requested = True
        self._loop.call_soon_threadsafe(self._cancel, run)
        return True

    def _cancel(self, run: Run) -> None:
        task = self._tasks.get(run)
        if task is not None and run._started_at is not None:
            task.cancel()

    def signal(self, run: Run, number: int) -> None:
        """There is no process to signal."""

    def process(self, run: Run) -> None:
        """A coroutine has no process of its own."""

    def close(self) -> None:
        """Take no more runs."""
        self._closed = True


class _TimedOutError(Exception):
    """A job was cancelled since it took too long."""


async def _in_time(job: Awaitable[Any], timeout: float) -> Any:
    try:
        async with asyncio.timeout(timeout) as limit:
            return await job
    except TimeoutError as error:
        if limit.expired():
            raise _TimedOutError(timeout) from error
        raise


def _ending_of(run: Run, error: BaseException) -> Ending:
    """The ending of a job that this was raised from."""
    if isinstance(error, _TimedOutError):
        return ending.timed_out(*error.args)
    if isinstance(error, asyncio.CancelledError):
        if run._cancel_requested:
            return ending.cancelled()
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # by no fault of the job
            said = "its task was cancelled by others, or by the end of the event loop"
            return Ending(RunState.FAILED, RunError("JobLost", said), ended_at=time.time())
    return failed(error)
