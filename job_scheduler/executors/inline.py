"""Runs jobs in place, in the calling thread, for users' own tests."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from job_scheduler.executors.local import call
from job_scheduler.launcher import ending, wire
from job_scheduler.launcher.base import encode_arguments
from job_scheduler.run import Run

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from job_scheduler.run import RunId
    from job_scheduler.target import Target


class InlineExecutor:
    """Runs each job to its end before ``submit`` returns.

    Arguments of jobs that belong in a process are sent through the same encoding, so what
    cannot be sent fails here as it would there. Timeouts and limits are not enforced.
    """

    def __init__(self) -> None:
        self._ids = map("eager-{}".format, itertools.count(1))

    def submit(
        self,
        name: str,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
        run_id: RunId | None = None,
    ) -> Run:
        """Run the job; what it raises is on the run, as anywhere."""
        if target.place == "process":
            kwargs = wire.decode(encode_arguments(name, kwargs))
        run = Run(str(run_id or next(self._ids)), name, self)
        run._started(os.getpid() if target.place == "process" else None, time.time())
        ending.settle(run, call(lambda: self._call(target, args, kwargs)))
        return run

    def _call(self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = target.call(args, kwargs)
        return _run_to_end(result) if inspect.iscoroutine(result) else result

    def pending(self) -> list[Run]:
        """None: a run has ended when it is handed out."""
        return []

    def cancel(self, run: Run) -> bool:
        """There is nothing left to cancel."""
        return False

    def signal(self, run: Run, number: int) -> None:
        """There is no process to signal."""

    def process(self, run: Run) -> None:
        """There is no process."""

    def close(self) -> None:
        """There is nothing to close."""


def _run_to_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run the coroutine on a loop of its own, also where this thread is running one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
