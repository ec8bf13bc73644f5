"""``CronService``: what the API and the pages do, in terms of the engine and its store.

A job of the API is a schedule. The engine knows nothing of its name and description; they are kept
in ``Schedule.about``. All truth is in the store, so any number of servers may share one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from job_scheduler import instants
from job_scheduler.errors import InvalidOptionError, UnknownIdError
from job_scheduler.planning import check_id, check_timeout, policies_of
from job_scheduler.retry import retry_policy
from job_scheduler.schedule import ConflictResolution, Schedule
from job_scheduler.service.changes import Changes
from job_scheduler.service.models import JobIn, RunIn
from job_scheduler.service.problems import ConflictError, KeyReusedError
from job_scheduler.service.views import job_out, outcome_out, run_detail, run_out
from job_scheduler.stores.base import ALL_SCHEDULES, NewRun, RunQuery, RunRecord, ScheduleQuery
from job_scheduler.stores.payload import encode
from job_scheduler.triggers import Cron

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job_scheduler.scheduler import Scheduler
    from job_scheduler.service.job_types.registry import JobTypes
    from job_scheduler.service.models import JobOut, JobPatch, OutcomeOut, RunDetail, RunOut
    from job_scheduler.stores.base import Counts, ScheduleRecord
    from job_scheduler.triggers import Trigger

Item = TypeVar("Item")

_KEPT: Final = timedelta(days=1)
"""How long a run is remembered by its ``Idempotency-Key``, at least."""

_LONGEST_ID: Final = 500
"""Characters of a run's id that is made of an ``Idempotency-Key``."""

_LONGEST_PARAMETERS: Final = 64 * 1024
"""Bytes of JSON."""

_ABOUT: Final = ("name", "job_type", "description")

_POLICIES: Final = (
    "overlap",
    "catch_up",
    "misfire_grace_time",
    "jitter",
    "start",
    "end",
    "pause_on_failures",
    "priority",
    "timeout",
    "max_retries",
)


class Page(NamedTuple, Generic[Item]):
    """Some of a list, and where the next page begins; None at its end."""

    items: list[Item]
    next: str | None


class CronService:
    """Jobs and runs, as the API knows them.

    Args:
        scheduler: started and shut down by the caller.
        types: what can be run.
    """

    def __init__(self, scheduler: Scheduler, types: JobTypes) -> None:
        self.scheduler = scheduler
        self.types = types
        self.changes = Changes()
        self._engine = scheduler.engine
        self.store = scheduler.store

    # Jobs

    async def jobs(self, query: ScheduleQuery = ALL_SCHEDULES) -> Page[JobOut]:
        """Jobs, ordered by their numbers."""
        records = await self.store.schedules(_one_more(query))
        return _page([job_out(record) for record in records], query.limit, lambda job: str(job.id))

    async def job(self, number: int) -> JobOut:
        """One job; raises ``UnknownIdError``."""
        return job_out(await self._record(number))

    async def _record(self, number: int) -> ScheduleRecord:
        found = await self.store.schedules(ScheduleQuery(numbers=(number,)))
        if not found:
            raise UnknownIdError(f"there is no job {number}")
        return found[0]

    async def create(self, wanted: JobIn, key: str | None = None) -> tuple[JobOut, bool]:
        """Keep a new job; with a key that was seen, give the one that was made then.

        Tells also whether it is new. Raises ``KeyReusedError`` if that was another request.
        """
        now = instants.now().isoformat()
        schedule_id = secrets.token_hex(10) if key is None else f"request:{key}"
        about = {"created_at": now, "updated_at": now}
        schedule = self._schedule(wanted, schedule_id, about)
        request = None
        if key is not None:
            request = fingerprint(wanted.model_dump(mode="json"))
            schedule = replace(schedule, about={**schedule.about, "request": request})
        while not await self._engine.add_known(schedule, paused=not wanted.is_active):
            found = await self.store.schedule(schedule_id)
            if found is None:
                continue  # it was deleted just now
            if found.schedule.about.get("request") != request:
                raise KeyReusedError(
                    f"the Idempotency-Key {key!r} was given before, for another job"
                )
            return job_out(found), False
        record = await self.store.schedule(schedule_id)
        if record is None:
            raise UnknownIdError("the job was deleted as soon as it was made")
        self.changes.note()
        return job_out(record), True

    async def replace(self, number: int, wanted: JobIn) -> JobOut:
        """Put another definition in place of a job's."""
        record = await self._record(number)
        now = instants.now().isoformat()
        about = {"created_at": now, **record.schedule.about, "updated_at": now}
        schedule = self._schedule(wanted, record.schedule.id, about)
        if not await self._engine.redefine(schedule):
            raise UnknownIdError(f"there is no job {number}")
        await self._set_active(record, wanted.is_active)
        return await self.job(number)

    async def change(self, number: int, patch: JobPatch) -> JobOut:
        """Change some of a job's fields; what others change at the same time is not undone."""
        given = {name: getattr(patch, name) for name in patch.model_fields_set}
        while True:
            record = await self._record(number)
            if given.keys() <= {"is_active"}:
                break
            trigger = record.schedule.trigger
            if not isinstance(trigger, Cron) and "cron_expression" not in given:
                raise ConflictError(
                    f"job {number} was scheduled by a program, {trigger.describe()}: "
                    f"it can be paused, deleted, or given a cron_expression"
                )
            schedule = self._changed(record.schedule, given)
            if await self._engine.redefine(schedule, record.schedule):
                break
        await self._set_active(record, given.get("is_active", not record.paused))
        return await self.job(number)

    def _changed(self, schedule: Schedule, given: dict[str, Any]) -> Schedule:
        """The schedule with these fields; what the API does not show of it stays as it is."""
        about = {**schedule.about, "updated_at": instants.now().isoformat()}
        about |= {name: given[name] for name in _ABOUT if name in given}
        if about.get("description") is None:
            about.pop("description", None)
        changes: dict[str, Any] = {"about": about}
        if given.keys() & {"cron_expression", "timezone"}:
            changes |= {"counts_from_end": False, "relative": False}
            changes["trigger"] = _changed_cron(schedule.trigger, given)
        if given.keys() & {"job_type", "parameters", *_POLICIES}:
            changes |= self._changed_work(schedule, given)
        return replace(schedule, **changes)

    def _changed_work(self, schedule: Schedule, given: dict[str, Any]) -> dict[str, Any]:
        job = self.types.find(given.get("job_type", schedule.job))
        target = self.types.target(job)
        changes: dict[str, Any] = {"job": job, "kwargs": given.get("parameters", schedule.kwargs)}
        if job != schedule.job:
            changes |= {"args": (), "place": None}
        check_parameters(changes["kwargs"])
        target.check(job, changes["kwargs"], changes.get("args", schedule.args))
        timeout = given.get("timeout", schedule.timeout)
        policies: dict[str, Any] = {name: given[name] for name in _POLICIES if name in given}
        read = policies_of({**policies, "timeout": timeout}, target)
        names = {"retry" if name == "max_retries" else name for name in policies}
        return changes | {name: read[name] for name in names}

    async def _set_active(self, record: ScheduleRecord, active: bool) -> None:
        if active is not record.paused:
            return self.changes.note()
        work = self._engine.resume if active else self._engine.pause
        if not await work(record.schedule.id):
            raise UnknownIdError(f"there is no job {record.number}")
        self.changes.note()
        return None

    async def delete(self, number: int) -> None:
        """Forget a job; what goes on goes on, and its runs can be read as long as they are kept."""
        record = await self._record(number)
        if await self._engine.remove(record.schedule.id) is None:
            raise UnknownIdError(f"there is no job {number}")
        self.changes.note()

    def _schedule(self, wanted: JobIn, schedule_id: str, about: dict[str, Any]) -> Schedule:
        job = self.types.find(wanted.job_type)
        check_parameters(wanted.parameters)
        target = self.types.target(job)
        target.check(job, wanted.parameters)
        about |= {"name": wanted.name, "job_type": wanted.job_type}
        about.pop("description", None)
        if wanted.description is not None:
            about["description"] = wanted.description
        policies = {name: getattr(wanted, name) for name in _POLICIES}
        return Schedule(
            id=schedule_id,
            job=job,
            trigger=Cron(wanted.cron_expression, wanted.timezone),
            kwargs=wanted.parameters,
            generation=time.time_ns() // 1000,
            about=about,
            **policies_of(policies, target),
        )

    async def outcomes(self, numbers: Sequence[int], most: int = 20) -> dict[int, list[OutcomeOut]]:
        """How the last runs of jobs have ended, the newest first."""
        records = await self.store.schedules(ScheduleQuery(numbers=tuple(numbers)))
        by_id = {record.schedule.id: record.number for record in records}
        found = await self.store.outcomes(list(by_id), most)
        return {
            number: [outcome_out(each) for each in found.get(schedule_id, ())]
            for schedule_id, number in by_id.items()
        }

    # Runs

    async def run_job(self, number: int, key: str | None = None) -> RunOut:
        """Run a job once more, at once, beside its schedule."""
        record = await self._record(number)
        schedule = record.schedule
        run_id = _run_id(schedule.id, key)
        run = NewRun.beside_its_schedule(schedule, run_id, self.store.now())
        return run_out(await self._enqueue(run, key), record)

    async def start(self, job_type: str, wanted: RunIn, key: str | None = None) -> RunOut:
        """Run something once, without a job."""
        job = self.types.find(job_type)
        check_parameters(wanted.parameters)
        target = self.types.target(job)
        target.check(job, wanted.parameters)
        check_timeout(target.timeout if wanted.timeout is None else wanted.timeout, target)
        run = NewRun(
            id=_run_id(job, key),
            job=job,
            at=self.store.now() + timedelta(seconds=wanted.delay),
            kwargs=wanted.parameters,
            priority=wanted.priority,
            retry=retry_policy(wanted.max_retries, "max_retries"),
            timeout=wanted.timeout,
        )
        made = await self._enqueue(run, key)
        if dict(made.kwargs) != run.kwargs:
            raise KeyReusedError(
                f"the Idempotency-Key {key!r} was given before, with other parameters"
            )
        return run_out(made, None)

    async def retry(self, run_id: str, key: str | None = None) -> RunOut:
        """Run once more what a run that has ended has run."""
        record = await self._run(run_id)
        if not record.state.ended:
            raise ConflictError(
                f"run {run_id} is {record.state}; only what has ended is tried again"
            )
        job = await self._job_of(record)
        retry = retry_policy(record.max_retries or None, "max_retries")
        run = NewRun(
            id=_run_id(run_id, key),
            job=self.types.find(record.job),
            at=self.store.now(),
            args=record.args,
            kwargs=dict(record.kwargs),
            schedule_id=None if job is None else record.schedule_id,
            priority=record.priority,
            retry=retry if job is None else job.schedule.retry,
            timeout=record.timeout,
            beside=True,
        )
        return run_out(await self._enqueue(run, key), job)

    async def _enqueue(self, run: NewRun, key: str | None) -> RunRecord:
        """Keep a run; gives that which was made before with the same key, if there is one."""
        now = self.store.now()
        if key is not None:
            run = run._replace(keep_until=now + _KEPT)
        if not await self._engine.enqueue_known([run], ConflictResolution.IGNORE):
            self.changes.note()
            return RunRecord.accepted(run, now)
        record = await self.store.run(run.id)
        if record is None:
            raise UnknownIdError(f"the run {run.id} was deleted as soon as it was looked for")
        return record

    async def runs(self, query: RunQuery) -> Page[RunOut]:
        """Runs, the newest first; raises ``UnknownIdError`` for a cursor that has gone."""
        if query.before is not None and await self.store.run(query.before) is None:
            raise UnknownIdError("the cursor is that of no run that is still there: begin anew")
        records = await self.store.runs(_one_more(query))
        jobs = await self._jobs_of(records)
        found = [run_out(each, jobs.get(each.schedule_id or "")) for each in records]
        return _page(found, query.limit, lambda run: run.id)

    async def runs_of(self, number: int, query: RunQuery) -> Page[RunOut]:
        """The runs of one job."""
        record = await self._record(number)
        return await self.runs(query._replace(schedule_id=record.schedule.id))

    async def run(self, run_id: str) -> RunDetail:
        """One run with all that is known of it; raises ``UnknownIdError``."""
        record = await self._run(run_id)
        return run_detail(record, await self._job_of(record))

    async def cancel(self, run_id: str) -> RunDetail:
        """Have a run not start, or stop; raises ``ConflictError`` if it has ended."""
        record = await self._run(run_id)
        if not await self._engine.cancel(run_id):
            raise ConflictError(f"run {run_id} is {record.state}; it cannot be cancelled any more")
        self.changes.note()
        return await self.run(run_id)

    async def _run(self, run_id: str) -> RunRecord:
        try:
            check_id(run_id)
        except InvalidOptionError:
            record = None
        else:
            record = await self.store.run(run_id)
        if record is None:
            raise UnknownIdError(f"there is no run {run_id!r}, or it was deleted after its time")
        return record

    async def _job_of(self, record: RunRecord) -> ScheduleRecord | None:
        return (await self._jobs_of([record])).get(record.schedule_id or "")

    async def _jobs_of(self, records: Sequence[RunRecord]) -> dict[str, ScheduleRecord]:
        ids = {each.schedule_id for each in records if each.schedule_id is not None}
        if not ids:
            return {}
        found = await self.store.schedules(ScheduleQuery(ids=tuple(ids)))
        return {each.schedule.id: each for each in found}

    # What there is

    async def counts(self) -> Counts:
        """How much waits and goes on, on all servers."""
        return await self.store.counts(self.store.now())


def _changed_cron(trigger: Trigger, given: dict[str, Any]) -> Cron:
    if not isinstance(trigger, Cron):
        return Cron(given["cron_expression"], given.get("timezone", "UTC"))
    expression = given.get("cron_expression", trigger.expression)
    return Cron(expression, given.get("timezone", trigger.timezone))


def check_parameters(parameters: dict[str, Any]) -> None:
    """Raise ``ArgumentsError`` or ``InvalidOptionError`` unless a store can keep them."""
    size = len(encode((), parameters).encode())
    if size > _LONGEST_PARAMETERS:
        raise InvalidOptionError(
            f"the parameters have {size:,} bytes as JSON; at most {_LONGEST_PARAMETERS:,} are taken"
        )


def fingerprint(request: Any) -> str:
    """The same for the same request."""
    text = json.dumps(request, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _run_id(of: str, key: str | None) -> str:
    if key is None:
        return secrets.token_hex(10)
    run_id = f"{of}:{key}"
    # That of a retry of a retry of a retry would grow until no path could hold it.
    return run_id if len(run_id) <= _LONGEST_ID else fingerprint([of, key])


def _one_more(query: Any) -> Any:
    return query if query.limit is None else query._replace(limit=query.limit + 1)


def _page(items: list[Any], limit: int | None, cursor: Any) -> Page[Any]:
    if limit is None or len(items) <= limit:
        return Page(items, None)
    return Page(items[:limit], cursor(items[limit - 1]))
