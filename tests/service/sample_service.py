"""A service that keeps its jobs and runs in lists, for the tests of the pages."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from job_scheduler.errors import ShutdownError, UnknownIdError, UnknownJobError
from job_scheduler.triggers import Cron

Item = TypeVar("Item")


@dataclass(frozen=True)
class SampleJob:
    id: int
    name: str
    job_type: str
    cron_expression: str | None
    schedule: str
    timezone: str = "UTC"
    description: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    is_active: bool = True
    max_retries: int | None = None
    created_at: datetime | None = None
    last_run_at: datetime | None = None
    next_run_at: datetime | None = None
    last_state: str | None = None
    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    missed: int = 0


@dataclass(frozen=True)
class SampleRun:
    id: str
    job_id: int | None
    job_name: str | None
    job_type: str
    state: str = "pending"
    attempt: int = 1
    parameters: dict[str, Any] = field(default_factory=dict)
    due_at: datetime | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: str | None = None
    error: str | None = None
    traceback: str | None = None
    output: str | None = None
    result: Any = None
    worker: str | None = "host:4711"
    peak_memory: int | None = None
    cpu_time: float | None = None
    max_retries: int | None = None

    @property
    def duration(self) -> float | None:
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True)
class SampleOutcome:
    run_id: str
    state: str
    at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True)
class SampleTotals:
    jobs: int
    running: int
    limit: int
    waiting: int
    next_run_at: datetime | None


@dataclass(frozen=True)
class SampleType:
    name: str
    description: str | None
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class SamplePage(Generic[Item]):
    items: Sequence[Item]
    next: str | None = None


TYPES = (
    SampleType(
        "data_processing",
        "Reads a dataset and keeps a summary of it.",
        {"type": "object", "properties": {"dataset": {"type": "string", "default": None}}},
    ),
    SampleType(
        "email_notification",
        "Sends a mail.",
        {
            "type": "object",
            "properties": {
                "recipient": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                "subject": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            },
        },
    ),
)


class SampleService:
    """All that the pages ask for; a job that is run ends when the test says so."""

    def __init__(self) -> None:
        self.all_jobs: dict[int, SampleJob] = {}
        self.all_runs: list[SampleRun] = []  # oldest first
        self._job_numbers = itertools.count(1)
        self._run_numbers = itertools.count(1)
        self._waiters: set[asyncio.Future[None]] = set()

    async def totals(self) -> SampleTotals:
        planned = [job.next_run_at for job in self.all_jobs.values() if job.next_run_at]
        return SampleTotals(
            jobs=len(self.all_jobs),
            running=sum(run.state == "running" for run in self.all_runs),
            limit=5,
            waiting=sum(run.state == "pending" for run in self.all_runs),
            next_run_at=min(planned, default=None),
        )

    async def job_types(self) -> Sequence[SampleType]:
        return TYPES

    async def jobs(self, asked: Any) -> SamplePage[SampleJob]:
        after = int(asked.cursor or 0)
        found = [
            job
            for job in self.all_jobs.values()
            if job.id > after
            and (asked.text is None or asked.text.lower() in job.name.lower())
            and (asked.paused is None or asked.paused is not job.is_active)
        ]
        page = found[: asked.limit]
        return SamplePage(page, str(page[-1].id) if len(found) > asked.limit else None)

    async def job(self, number: int) -> SampleJob:
        try:
            return self.all_jobs[number]
        except KeyError:
            raise UnknownIdError(f"there is no job {number}") from None

    async def create(self, job: Mapping[str, Any]) -> SampleJob:
        types = [each.name for each in TYPES]
        if job["job_type"] not in types:
            raise UnknownJobError(f"no job is registered as {job['job_type']!r}")
        return self.add(**job)

    def add(self, name: str, cron_expression: str = "0 9 * * *", **options: Any) -> SampleJob:
        timezone = options.get("timezone", "UTC")
        cron = Cron(cron_expression, timezone=timezone)
        now = datetime.now(UTC)
        job = SampleJob(
            id=next(self._job_numbers),
            name=name,
            cron_expression=cron_expression,
            schedule=cron.describe(),
            created_at=now,
            next_run_at=cron.next_after(now),
            **({"job_type": "data_processing"} | options),
        )
        self.all_jobs[job.id] = job
        self.tell()
        return job

    async def change(self, number: int, patch: Mapping[str, Any]) -> SampleJob:
        job = replace(await self.job(number), **patch)
        cron = Cron(job.cron_expression or "* * * * *", timezone=job.timezone)
        planned = cron.next_after(datetime.now(UTC)) if job.is_active else None
        self.all_jobs[number] = replace(job, next_run_at=planned)
        self.tell()
        return self.all_jobs[number]

    async def delete(self, number: int) -> None:
        await self.job(number)
        del self.all_jobs[number]
        self.tell()

    async def run_job(self, number: int) -> SampleRun:
        return self.begin(await self.job(number))

    def begin(self, job: SampleJob, **options: Any) -> SampleRun:
        """A run of the job that goes on until it is ended."""
        now = datetime.now(UTC)
        given: dict[str, Any] = {"due_at": now, "created_at": now, "started_at": now}
        run = SampleRun(
            id=f"run-{next(self._run_numbers)}",
            job_id=job.id,
            job_name=job.name,
            job_type=job.job_type,
            state="running",
            parameters=job.parameters,
            **(given | options),
        )
        self.all_runs.append(run)
        self._count(job.id, last_run_at=run.started_at, running=1)
        self.tell()
        return run

    def end(self, run: SampleRun, state: str = "completed", **facts: Any) -> SampleRun:
        ended = replace(run, **({"state": state, "ended_at": datetime.now(UTC)} | facts))
        self.all_runs[self.all_runs.index(run)] = ended
        self._count(run.job_id, last_state=state, running=-1, **{state: 1})
        self.tell()
        return ended

    def _count(self, number: int | None, **changes: Any) -> None:
        job = self.all_jobs.get(number or 0)
        if job is None:
            return
        for name, change in changes.items():
            value = getattr(job, name) + change if isinstance(change, int) else change
            job = replace(job, **{name: value})
        self.all_jobs[job.id] = job

    async def outcomes(self, numbers: Sequence[int], most: int) -> dict[int, list[SampleOutcome]]:
        found: dict[int, list[SampleOutcome]] = {number: [] for number in numbers}
        for run in reversed(self.all_runs):
            of_job = found.get(run.job_id or 0)
            if of_job is not None and len(of_job) < most and run.created_at:
                of_job.append(
                    SampleOutcome(run.id, run.state, run.created_at, run.started_at, run.ended_at)
                )
        return found

    async def runs(self, asked: Any) -> SamplePage[SampleRun]:
        before = int(asked.cursor) if asked.cursor else len(self.all_runs)
        found = [
            (number, run)
            for number, run in enumerate(self.all_runs[:before])
            if asked.job in (None, run.job_id) and asked.state in (None, run.state)
        ][::-1]
        page = found[: asked.limit]
        more = str(page[-1][0]) if len(found) > asked.limit else None
        return SamplePage([run for _, run in page], more)

    async def run(self, run_id: str) -> SampleRun:
        for run in self.all_runs:
            if run.id == run_id:
                return run
        raise UnknownIdError(f"there is no run {run_id!r}")

    async def cancel(self, run_id: str) -> SampleRun:
        return self.end(await self.run(run_id), "cancelled")

    async def retry(self, run_id: str) -> SampleRun:
        run = await self.run(run_id)
        return self.begin(await self.job(run.job_id or 0), attempt=run.attempt + 1)

    async def changed(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def tell(self) -> None:
        """Wake all who wait for a change."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(ShutdownError("the service ends"))


def history(service: SampleService, job: SampleJob, states: str, every: timedelta) -> None:
    """Past runs of a job, the last just ended: ``c`` completed, ``f`` failed, ``x`` cancelled."""
    words = {"c": "completed", "f": "failed", "x": "cancelled"}
    now = datetime.now(UTC)
    for number, letter in enumerate(states):
        at = now - every * (len(states) - number) + every / 3
        run = service.begin(job, due_at=at, created_at=at, started_at=at)
        failed = letter == "f"
        service.end(
            run,
            words[letter],
            ended_at=at + timedelta(seconds=0.2 + number * 1.7),
            error="ValueError: the dataset has no rows" if failed else None,
            traceback=TRACEBACK if failed else None,
            output=OUTPUT,
            exit_code=1 if failed else 0,
        )


TRACEBACK = (
    "Traceback (most recent call last):\n"
    + "".join(
        f'  File "/srv/app/jobs/data_processing.py", line {line}, in step_{line}\n'
        f"    return self.step_{line + 7}(rows, options)  # {'and so on ' * 6}\n"
        for line in range(20, 160, 7)
    )
    + "ValueError: the dataset has no rows"
)
OUTPUT = "".join(f"2026-11-21 17:02:{n % 60:02} INFO read chunk {n} of 400\n" for n in range(60))
