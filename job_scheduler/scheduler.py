"""``Scheduler``, the face for asyncio programs: what it accepts is kept in a store."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, overload

from job_scheduler.dispatch import Dispatcher
from job_scheduler.durations import parse_duration, seconds_to_wait
from job_scheduler.engine import Engine
from job_scheduler.errors import (
    ArgumentsError,
    DuplicateIdError,
    InvalidOptionError,
    UnknownIdError,
)
from job_scheduler.executors.coroutine import CoroutineExecutor
from job_scheduler.instants import to_utc
from job_scheduler.known import KnownJobs
from job_scheduler.launcher.base import Settings
from job_scheduler.leases import LeaseSettings
from job_scheduler.options import check_options
from job_scheduler.planning import (
    check_fleet,
    check_id,
    check_new_id,
    check_priority,
    check_timeout,
    conflict_resolution_of,
    keywords,
    policies_of,
    positional,
    within_bounds,
)
from job_scheduler.retry import retry_policy
from job_scheduler.schedule import ConflictResolution, Schedule
from job_scheduler.stores import open_store
from job_scheduler.stores.base import NewRun, RunQuery
from job_scheduler.target import seconds_or_none
from job_scheduler.triggers import Cron, Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime, timedelta
    from typing import Self, TypeVar

    from job_scheduler.executors.base import Executor
    from job_scheduler.job import Job
    from job_scheduler.retry import RetryPolicy
    from job_scheduler.run import RunState
    from job_scheduler.stores.base import RunRecord, ScheduleRecord, Store
    from job_scheduler.target import Place, Target
    from job_scheduler.triggers import Trigger

    AnyJob = TypeVar("AnyJob", bound=Callable[..., Any])
    Duration = float | str | timedelta


_MOST_LISTED: Final = 1_000_000

_BETWEEN_LOOKS: Final = 0.02
"""Seconds."""


class JobPriority(IntEnum):
    """Names for priorities: of what is due, lower numbers start first."""

    CRITICAL = 1
    HIGH = 3
    NORMAL = 5
    LOW = 7
    BACKGROUND = 9


class Scheduler:
    """Runs functions and jobs at their time, on this or another machine, and loses none.

    ::

        async with Scheduler(db_pool=pool, jobs=[send_email]) as scheduler:
            await scheduler.schedule(send_email, args=("user@example.com", "Welcome!"))

    What was accepted is in the store: it survives crashes and deploys, and any number of workers
    share it. A run whose worker dies is started again, so a job may run more than once; only one
    attempt ends it. Coroutine functions run on the loop that called :meth:`start`, plain functions
    in threads, job classes as they say. Signal handlers, the root logger and the loop of the
    program stay as they are.

    Args:
        db_pool: a pool of asyncpg, which stays the caller's; one connection is enough.
        store: instead of a pool, ``"postgresql://..."``, ``"sqlite:///jobs.db"``, or a store.
        jobs: what this worker can run: functions and job classes, or a dictionary of names. What
            it does not know it leaves to others. Scheduling a function makes it known as well.
        max_concurrent_jobs: how many go on here at one time.
        lease: how long a run that is not heard of stays this worker's; durations are seconds,
            strings like ``"30s"``, or ``timedelta``.
        heartbeat: how often that is renewed; default: three times in a lease.
        most_crashes: a run whose worker or process has died so often fails for good.
        keep: how long ended runs are kept; None: for ever.
        keep_most: how many ended runs are kept; None: all.
        listen: whether to wait for word from PostgreSQL; False behind a transaction pooler, where
            the table is looked at every ``poll`` instead.
        poll: how often to look in any case, at most.
        options: ``max_processes``, ``max_threads``, ``grace``, ``spares``, ``initializer``,
            ``capture_stdout`` and ``start_method``, as for :class:`~job_scheduler.JobScheduler`.

    Raises ``InvalidOptionError`` (a ``ValueError``) and ``InvalidJobError`` (a ``TypeError``).
    """

    def __init__(
        self,
        db_pool: Any = None,
        *,
        store: str | Store | None = None,
        jobs: Mapping[str, Any] | Iterable[Any] = (),
        max_concurrent_jobs: int = 10,
        lease: Duration = 30.0,
        heartbeat: Duration | None = None,
        most_crashes: int = 3,
        keep: Duration | None = "7d",
        keep_most: int | None = 1_000_000,
        listen: bool = True,
        poll: Duration = 5.0,
        **options: Any,
    ) -> None:
        most = max_concurrent_jobs
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidOptionError(
                f"max_concurrent_jobs is {most!r}; it must be a whole number from 1"
            )
        check_options(options)
        self._known = KnownJobs(jobs)
        self._options: dict[str, Any] = {
            "max_processes": most,
            "max_threads": most,
            "wait_at_exit": False,
        }
        if sys.platform == "linux" and options.get("start_method") != "spawn":
            self._options["on_parent_exit"] = "terminate"  # another worker starts them anew
        self._options |= options
        self._dispatcher: Dispatcher | None = None
        self._store = open_store(db_pool, store, listen=listen)
        self._owns_store = self._store is not store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine = Engine(
            self._store,
            self._executor,
            max_concurrent_jobs=most,
            known=self._known,
            leases=LeaseSettings.of(lease, heartbeat, most_crashes, keep, keep_most),
            longest_sleep=parse_duration(poll, "poll").total_seconds(),
        )
        prefix = os.urandom(10).hex()
        self._ids = map(f"{prefix}-{{}}".format, itertools.count(1))

    # Life

    async def start(self) -> None:
        """Begin to run what is due, on the running loop; harmless twice.

        Makes the tables where there are none. Raises ``StoreError`` if the store is away.
        """
        await self._engine.start()
        self._loop = asyncio.get_running_loop()  # nothing runs before the loop's next turn

    async def shutdown(self, timeout: float | timedelta | None = 30.0) -> None:
        """Take nothing more, wait for what goes on, and hand the rest back after ``timeout``.

        What is handed back is stopped here, as far as that is possible, and started again by
        another worker, or after the next start, without the attempt being counted. Harmless twice;
        :meth:`start` works again. A coroutine job that awaits it waits for itself, until
        ``timeout``: let it call ``asyncio.create_task`` instead.

        Args:
            timeout: seconds or a ``timedelta``; zero hands back at once, None waits for all.
        """
        seconds = None if timeout is None else seconds_to_wait(timeout, negative=False)
        await self._engine.shutdown(seconds)
        if self._dispatcher is not None:
            self._dispatcher.close()
            self._dispatcher = None
        if self._owns_store:
            await self._engine.close()

    async def wait_until_idle(self) -> None:
        """Wait until nothing goes on here, and nothing is due that this worker knows."""
        while True:
            next_at = await self._engine.next_instant()
            is_due = next_at is not None and next_at <= self._store.now()
            if not is_due and not self._engine.busy:
                return
            await asyncio.sleep(_BETWEEN_LOOKS)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()

    @property
    def store(self) -> Store:
        """Where everything is kept, for what is built upon this scheduler."""
        return self._store

    @property
    def engine(self) -> Engine:
        """What does it all, for what is built upon this scheduler."""
        return self._engine

    @property
    def healthy(self) -> bool:
        """Whether the loop turns: it has done so in the last 30 seconds."""
        return self._engine.healthy

    @property
    def last_tick_age(self) -> float | None:
        """Seconds since the loop's last turn; None before the first."""
        return self._engine.last_turn_age

    @property
    def unknown_jobs(self) -> dict[str, int]:
        """How many runs are due of jobs that this worker does not know and leaves to others."""
        return self._engine.unknown

    def _executor(self, place: Place) -> Executor:
        if place == "coroutine":
            assert self._loop is not None
            return CoroutineExecutor(self._loop, Settings(wait_at_exit=False))
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(self._options)
        return self._dispatcher.executor(place)

    # What is known

    @overload
    def job(self, job: AnyJob, /) -> AnyJob: ...

    @overload
    def job(self, /, *, name: str | None = None) -> Callable[[AnyJob], AnyJob]: ...

    def job(self, job: Any = None, /, *, name: str | None = None) -> Any:
        """Register a function or a job class, as a decorator: ``@scheduler.job``.

        Args:
            job: what to register.
            name: what the store calls it; default: its module and its name.
        """
        if job is None:
            return lambda job: self.job(job) if name is None else self._register(job, name)
        return self._register(job, None)

    def _register(self, job: Any, name: str | None) -> Any:
        self._known.register(job, name)
        return job

    # Scheduling

    async def schedule(
        self,
        func: Callable[..., Any] | type[Job] | str,
        *,
        execution_time: datetime | None = None,
        every: Duration | None = None,
        cron: str | None = None,
        timezone: str | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        job_id: str | None = None,
        priority: int = JobPriority.NORMAL,
        max_retries: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        executor: Place | None = None,
        conflict_resolution: ConflictResolution | str = ConflictResolution.RAISE,
        connection: Any = None,
        **policies: Any,
    ) -> str:
        """Run a function or a job once, at a fixed rate, or as cron says; returns its id.

        When it returns, the store has it: nothing but a cancellation keeps it from being run. One
        that is scheduled with ``every`` or ``cron`` is known by its id over restarts: saying the
        same again changes nothing.

        Args:
            func: a function, a job class, or the name of a registered one.
            execution_time: when it runs, or runs first; a naive ``datetime`` is taken as local
                time. Default: now. What is past runs at once.
            every: the distance of its runs.
            cron: an expression; see :class:`~job_scheduler.Cron`.
            timezone: of the cron expression; default: UTC.
            args: what to call it with: JSON, so that any worker can read it. Tuples arrive as
                lists.
            kwargs: and by keyword.
            job_id: what it is called; default: a new id, or its name with ``every`` and ``cron``.
            priority: of what is due, lower numbers start first.
            max_retries: how often it is tried again when it fails; default: as the job says.
            retry: the same with delays; a :class:`~job_scheduler.RetryPolicy`.
            timeout: how long after its start it is stopped; not for functions in threads.
            executor: ``"process"``, ``"thread"``, ``"coroutine"`` or ``"celery"``, where the job
                has a choice.
            conflict_resolution: if the id is taken: ``RAISE``, ``IGNORE`` (the one that is there
                stays) or ``REPLACE`` (an attempt at it that goes on can no longer end it).
            connection: one of asyncpg, in whose transaction it is written: it is there once that is
                committed, and only then.
            policies: with ``every`` and ``cron``, as for ``JobScheduler.add_job``.

        Raises ``DuplicateIdError`` (a ``ValueError``), which names the id and its state,
        ``ArgumentsError`` (a ``TypeError``) with the path to what is not JSON, ``InvalidJobError``
        (a ``TypeError``), ``UnknownJobError``, ``InvalidOptionError`` (both ``ValueError``), and
        ``StoreError`` if the store is away; then nothing was accepted.
        """
        check_new_id(job_id)
        name = self._known.name_of(func)
        target = self._known.target(name, executor)
        check_fleet(target)
        given = positional(job_id or name, args), keywords(job_id or name, kwargs)
        target.check(name, given[1], given[0])
        on_conflict = conflict_resolution_of(conflict_resolution)
        if retry is not None and max_retries is not None:
            raise InvalidOptionError("give one of retry and max_retries, not both")
        if max_retries is not None:
            retry = retry_policy(max_retries, "max_retries")
        check_priority(priority)
        await self._engine.ready()
        common: dict[str, Any] = {
            "job": name,
            "args": given[0],
            "kwargs": given[1],
            "place": executor,
        }
        if every is None and cron is None:
            if policies or timezone is not None:
                wrong = next(iter(policies), "timezone")
                raise InvalidOptionError(
                    f"{wrong!r} is only for what runs again: give every or cron"
                )
            run = NewRun(
                id=next(self._ids) if job_id is None else job_id,
                at=self._at(execution_time),
                priority=int(priority),
                retry=retry_policy(retry, "retry"),
                timeout=_timeout(timeout, target),
                **common,
            )
            await self._enqueue([run], on_conflict, connection)
            return run.id
        if connection is not None:
            raise InvalidOptionError("connection is only for what runs once")
        options = {**policies, "priority": int(priority), "retry": retry, "timeout": timeout}
        schedule = Schedule(
            id=name if job_id is None else job_id,
            trigger=_trigger(every, cron, timezone),
            generation=time.time_ns() // 1000,
            **common,
            **policies_of(options, target),
        )
        first = None if execution_time is None else to_utc(execution_time, "execution_time")
        await self._engine.declare(schedule, within_bounds(schedule, first), on_conflict)
        return schedule.id

    async def schedule_many(
        self,
        func: Callable[..., Any] | type[Job] | str,
        arguments: Iterable[Mapping[str, Any] | Sequence[Any]],
        *,
        execution_time: datetime | None = None,
        priority: int = JobPriority.NORMAL,
        max_retries: int | None = None,
        timeout: Duration | None = None,
        executor: Place | None = None,
        connection: Any = None,
    ) -> list[str]:
        """Run one function or job many times, once for each set of arguments; returns the ids.

        All of them are accepted, or none.

        Args:
            func: as for :meth:`schedule`, and so are the others.
            arguments: dictionaries for keywords, lists or tuples for ``args``.
            execution_time: when all of them run.
            priority: of all of them, and so on.
            max_retries: how often each is tried again when it fails.
            timeout: of each.
            executor: where they run.
            connection: in whose transaction they are written.
        """
        name = self._known.name_of(func)
        target = self._known.target(name, executor)
        check_fleet(target)
        check_priority(priority)
        await self._engine.ready()  # by the clock of the store
        common: dict[str, Any] = {
            "job": name,
            "at": self._at(execution_time),
            "priority": int(priority),
            "retry": retry_policy(max_retries, "max_retries"),
            "timeout": _timeout(timeout, target),
            "place": executor,
        }
        runs = []
        if not isinstance(arguments, Iterable) or isinstance(arguments, (str, bytes)):
            raise ArgumentsError(f"arguments is {arguments!r}; give a list of dicts or lists")
        for number, each in enumerate(arguments):
            args, kwargs = _arguments(each, number)
            target.check(name, kwargs, args)
            runs.append(NewRun(id=next(self._ids), args=args, kwargs=kwargs, **common))
        if runs:
            await self._enqueue(runs, ConflictResolution.RAISE, connection)
        return [run.id for run in runs]

    def _at(self, execution_time: datetime | None) -> datetime:
        if execution_time is None:
            return self._store.now()
        return to_utc(execution_time, "execution_time")

    async def _enqueue(
        self, runs: list[NewRun], on_conflict: ConflictResolution, connection: Any
    ) -> None:
        taken = await self._engine.enqueue_known(runs, on_conflict, connection)
        if taken and on_conflict is ConflictResolution.RAISE:
            job_id, state = next(iter(taken.items()))
            raise DuplicateIdError(
                f"job {job_id!r} is there already, and {state}: give another id, or say "
                f"conflict_resolution=ConflictResolution.REPLACE or IGNORE"
            )

    # What is there

    async def cancel_job(self, job_id: str) -> bool:
        """Cancel what has this id; False if it is not known, or has ended.

        What waits never runs. Of what goes on the coroutine is cancelled, or the process stopped;
        if that is on another machine, with its next heartbeat, or sooner. A function in a thread
        cannot be stopped. What runs again is taken off the plan.
        """
        check_id(job_id)
        await self._engine.ready()
        if await self._engine.cancel(job_id):
            return True
        return await self._engine.remove(job_id) is not None

    async def get_job(self, job_id: str) -> RunRecord | ScheduleRecord | None:
        """What is known of an id: a ``RunRecord``, or a ``ScheduleRecord`` of what runs again."""
        check_id(job_id)
        await self._engine.ready()
        return await self._store.run(job_id) or await self._store.schedule(job_id)

    async def list_jobs(
        self, state: RunState | str | None = None, limit: int = 100
    ) -> list[RunRecord]:
        """The runs that were added last, the newest first.

        Args:
            state: only those that are ``"pending"``, ``"running"``, ``"completed"``, ``"failed"``
                or ``"cancelled"``.
            limit: how many at most.
        """
        await self._engine.ready()
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _MOST_LISTED:
            raise InvalidOptionError(
                f"limit is {limit!r}; it must be a whole number from 1 to {_MOST_LISTED:,}"
            )
        return await self._store.runs(RunQuery(state=_state_of(state), limit=limit))

    async def list_schedules(self) -> list[ScheduleRecord]:
        """All that runs again, in the order in which it was added."""
        await self._engine.ready()
        return await self._store.schedules()

    async def pause_job(self, job_id: str) -> None:
        """Start no more runs of what runs again, on no machine, until it is resumed.

        Raises ``UnknownIdError`` (a ``ValueError`` and a ``KeyError``), as do the next two.
        """
        check_id(job_id)
        await self._engine.ready()
        if not await self._engine.pause(job_id):
            raise _unknown(job_id)

    async def resume_job(self, job_id: str) -> None:
        """Go on with what was paused, from now on."""
        check_id(job_id)
        await self._engine.ready()
        if not await self._engine.resume(job_id):
            raise _unknown(job_id)

    async def run_job_now(self, job_id: str) -> str:
        """Run what runs again once more, at once, beside its schedule; returns the run's id."""
        check_id(job_id)
        await self._engine.ready()
        record = await self._store.schedule(job_id)
        if record is None:
            raise _unknown(job_id)
        run = NewRun.beside_its_schedule(record.schedule, next(self._ids), self._store.now())
        await self._enqueue([run], ConflictResolution.RAISE, None)
        return run.id


def _trigger(every: Any, cron: str | None, timezone: str | None) -> Trigger:
    if every is not None and cron is not None:
        raise InvalidOptionError("give one of every and cron, not both")
    if cron is not None:
        return Cron(cron, "UTC" if timezone is None else timezone)
    if timezone is not None:
        raise InvalidOptionError("timezone is given, but it belongs to cron")
    return Interval(parse_duration(every, "every"))


def _timeout(given: Any, target: Target) -> float | None:
    timeout = seconds_or_none(given, "timeout")
    check_timeout(target.timeout if timeout is None else timeout, target)
    return timeout


def _arguments(given: Any, number: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(given, dict):
        return (), given
    if isinstance(given, (list, tuple)):
        return tuple(given), {}
    raise ArgumentsError(
        f"arguments[{number}] is {given!r}; give a dict of keywords, or a list of what to call it "
        f"with"
    )


def _state_of(state: Any) -> RunState | None:
    from job_scheduler.run import RunState

    try:
        return None if state is None else RunState(state)
    except ValueError:
        known = ", ".join(repr(str(each)) for each in RunState)
        raise InvalidOptionError(f"state is {state!r}; it must be one of {known}") from None


def _unknown(job_id: str) -> UnknownIdError:
    return UnknownIdError(f"nothing is scheduled with every or cron as {job_id!r}")
