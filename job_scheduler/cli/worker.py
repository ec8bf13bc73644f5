"""``job-scheduler worker``: runs what is due in a store, until it is told to end."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from job_scheduler.durations import seconds_to_wait
from job_scheduler.errors import SchedulerError
from job_scheduler.finding import find_jobs
from job_scheduler.signals import call_when_told_to_end

if TYPE_CHECKING:
    import argparse

    from job_scheduler.scheduler import Scheduler

DEFAULT_CONCURRENCY = 10
_FOLDER = "jobs"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--store",
        metavar="URL",
        default=os.environ.get("DATABASE_URL"),
        help="sqlite:///jobs.db or postgresql://user@host/database; default: $DATABASE_URL",
    )
    parser.add_argument(
        "--jobs",
        metavar="WHERE",
        action="append",
        help="a folder of job classes, or a module with job classes and functions; may be given "
        "several times; default: jobs",
    )
    parser.add_argument(
        "--concurrency",
        metavar="N",
        type=int,
        default=DEFAULT_CONCURRENCY,
        help="how many jobs go on at one time; default: %(default)s",
    )
    parser.add_argument(
        "--one-shot", action="store_true", help="end once nothing is due and nothing goes on"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="how long jobs may go on after SIGTERM or Ctrl-C before they are handed back; "
        "default: %(default)s",
    )


def work(options: argparse.Namespace) -> int:
    """Run what is due in a store, until SIGTERM or Ctrl-C."""
    if options.store is None:
        raise SchedulerError("say which store: --store sqlite:///jobs.db, or set DATABASE_URL")
    seconds_to_wait(options.timeout, negative=False)  # not to find out only at the end
    jobs = find_jobs(options.jobs or [_FOLDER])
    named = ", ".join(sorted(jobs)) or "none"
    print(f"jobs: {named}", flush=True)
    asyncio.run(_work(options, jobs))
    return 0


async def _work(options: argparse.Namespace, jobs: dict[str, Any]) -> None:
    from job_scheduler.scheduler import Scheduler

    scheduler = Scheduler(store=options.store, jobs=jobs, max_concurrent_jobs=options.concurrency)
    told = asyncio.Event()
    signals = _Signals(told)
    await scheduler.start()
    print("working; Ctrl-C ends it, and a second one hands back at once what goes on", flush=True)
    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(told.wait())]
    if options.one_shot:
        waiting.append(asyncio.ensure_future(scheduler.wait_until_idle()))
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await _end(scheduler, signals, options.timeout)
    for task in waiting:
        if task.done():
            task.result()  # the store may have been away
        task.cancel()


class _Signals:
    """The first SIGTERM or SIGINT sets an event, each further one another."""

    def __init__(self, told: asyncio.Event) -> None:
        self._told = told
        self.in_a_hurry = asyncio.Event()
        call_when_told_to_end(self._note)

    def _note(self) -> None:
        (self.in_a_hurry if self._told.is_set() else self._told).set()


async def _end(scheduler: Scheduler, signals: _Signals, timeout: float) -> None:
    """Wait for what goes on; a second signal hands it back."""
    gently = asyncio.ensure_future(scheduler.shutdown(timeout))
    hurried = asyncio.ensure_future(signals.in_a_hurry.wait())
    await asyncio.wait([gently, hurried], return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not gently.done():
        gently.cancel()
        await asyncio.wait([gently])
        await scheduler.shutdown(0)
    else:
        await gently
