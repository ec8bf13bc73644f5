"""Puts jobs and runs into a store, as a service that has run for a while has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from job_scheduler.run import Ending, RunState
from job_scheduler.schedule import ConflictResolution, Schedule
from job_scheduler.stores import open_store
from job_scheduler.stores.base import Claim, Finish, NewRun, Store, Worker
from job_scheduler.triggers import Cron

_AT_ONCE = 1_000
_WORKER = Worker("filling")


def fill(database_url: str, jobs: int, runs: int) -> None:
    """Jobs that are due in a year, and runs of theirs that are completed."""
    asyncio.run(_fill(database_url, jobs, runs))


async def _fill(database_url: str, jobs: int, runs: int) -> None:
    store = open_store(store=database_url, listen=False)
    await store.open()
    try:
        for first in range(0, jobs, _AT_ONCE):
            await _add(store, range(first, min(first + _AT_ONCE, jobs)))
        for first in range(0, runs, _AT_ONCE):
            await _run(store, range(first, min(first + _AT_ONCE, runs)), jobs)
    finally:
        await store.close()


async def _add(store: Store, numbers: Sequence[int]) -> None:
    next_at = datetime.now(UTC) + timedelta(days=365)
    now = datetime.now(UTC).isoformat()
    schedules = [
        Schedule(
            id=f"job-{number}",
            job="Nothing",
            trigger=Cron(f"{number % 60} {number // 60 % 24} * * 1-5", "Europe/Berlin"),
            kwargs={"recipient": f"user{number}@example.com", "subject": "Daily report"},
            generation=time.time_ns() // 1000,
            about={
                "name": f"Daily report {number}",
                "job_type": "nothing",
                "created_at": now,
                "updated_at": now,
            },
        )
        for number in numbers
    ]
    await asyncio.gather(*(store.add(schedule, next_at) for schedule in schedules))


async def _run(store: Store, numbers: Sequence[int], jobs: int) -> None:
    """Some runs: they come, are claimed, and end."""
    now = store.now()
    new = [
        NewRun(
            id=f"run-{number}",
            job="Nothing",
            at=now,
            kwargs={"recipient": f"user{number % jobs}@example.com", "subject": "Daily report"},
            schedule_id=f"job-{number % jobs}",
            beside=True,
        )
        for number in numbers
    ]
    await store.enqueue(new, ConflictResolution.RAISE)
    left = len(new)
    while left:
        claims = await store.claim(store.now(), store.batch, _WORKER)
        await store.finish([_finish(claim) for claim in claims])
        left -= len(claims)


def _finish(claim: Claim) -> Finish:
    ended_at = time.time()
    return Finish(claim, Ending(RunState.COMPLETED, ended_at=ended_at), ended_at - 0.001)
