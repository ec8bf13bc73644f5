"""What stands behind ``JobScheduler`` with a store: the engine on a loop of its own.

Each call is a step on that loop, which the caller waits for: when it returns, the store has it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import logging
import os
import threading
import time
import weakref
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final, TypeVar

from job_scheduler.durations import parse_duration
from job_scheduler.engine import Engine
from job_scheduler.errors import (
    DuplicateIdError,
    InvalidOptionError,
    LaunchError,
    ShutdownError,
    StoreError,
    UnknownIdError,
)
from job_scheduler.known import KnownJobs
from job_scheduler.leases import LeaseSettings
from job_scheduler.log import tell
from job_scheduler.planning import (
    check_fleet,
    check_id,
    check_new_id,
    check_priority,
    check_timeout,
    conflict_resolution_of,
    describe_schedule,
    policies_of,
    within_bounds,
)
from job_scheduler.plans import Plans, Wanted
from job_scheduler.registry import lookup
from job_scheduler.retry import retry_policy
from job_scheduler.schedule import ConflictResolution, Schedule
from job_scheduler.stored_run import StoredRun
from job_scheduler.stores import open_store
from job_scheduler.stores.base import NewRun, RunRecord

if TYPE_CHECKING:
    import multiprocessing
    from collections.abc import Callable, Coroutine, Mapping
    from datetime import datetime, timedelta

    from job_scheduler.executors.base import Executor
    from job_scheduler.executors.loop_thread import LoopThread
    from job_scheduler.run import Run
    from job_scheduler.stores.base import Claim, RunRecord, ScheduleRecord, Store
    from job_scheduler.target import Place, Target

    Answer = TypeVar("Answer")

_BETWEEN_TRIES: Final = 1.0
"""Seconds until it is tried again to open a store that is away."""

_LOOK: Final = 0.1
"""Seconds after which it is looked whether the loop that is waited for is still there."""

_TIME_TO_END: Final = 30.0
"""Seconds that the end of the program waits for the engine to hand back what goes on."""


class StoreOptions:
    """What a ``JobScheduler`` was told of its store.

    Args:
        store: the address of a store, or one itself.
        workers: how many runs go on here at one time; 0: this program only accepts them.
        listen: whether to wait for word from PostgreSQL.
        keep_keys: how long a key is remembered.
        leases: ``lease``, ``heartbeat``, ``most_crashes``, ``keep`` and ``keep_most``.
    """

    def __init__(
        self,
        store: str | Store,
        workers: int | None = None,
        listen: bool = True,
        keep_keys: float | str | timedelta = "30d",
        **leases: Any,
    ) -> None:
        if workers is None:
            workers = max(32, 4 * (os.cpu_count() or 1))
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise InvalidOptionError(f"workers is {workers!r}; it must be a whole number from 0")
        if store == "memory://":
            raise InvalidOptionError(
                "a store in memory keeps nothing that this program does not: give no store, or "
                "'sqlite:///jobs.db'"
            )
        self.address = store
        self.workers = workers
        self.listen = listen
        self.keep_keys = parse_duration(keep_keys, "keep_keys")
        self.leases = LeaseSettings.of(**leases)
        self.open()  # an address that cannot be read is told at once

    def open(self) -> Store:
        """The store that is meant; nothing is opened yet."""
        return open_store(store=self.address, listen=self.listen)


class StoredPlans(Plans):
    """Schedules and runs of one ``JobScheduler``, in a store."""

    def __init__(
        self,
        options: StoreOptions,
        jobs: Callable[[], Mapping[str, Any]],
        executors: Callable[[Place], Executor],
        loop_thread: LoopThread,
        *,
        wait_at_exit: bool,
        only_accepts: bool,
    ) -> None:
        super().__init__()
        self._options = options
        self._only_accepts = only_accepts or options.workers == 0
        self._loop_thread = loop_thread
        self._wait_at_exit = wait_at_exit
        self._known = KnownJobs(live=jobs)
        self._store = options.open()
        self._engine = Engine(
            self._store,
            executors,
            max_concurrent_jobs=max(1, options.workers),
            known=self._known,
            leases=options.leases,
            observer=self,
        )
        self._lock = threading.RLock()
        self._closed = self._is_over = False
        self._ends: dict[str, list[threading.Event]] = {}
        self._ends_lock = threading.Lock()
        """Not the other one, which is held by whoever waits for the loop that takes this one."""
        prefix = os.urandom(10).hex()
        self._run_ids = map(f"{prefix}-{{}}".format, itertools.count(1))
        self._begun = asyncio.run_coroutine_threadsafe(self._begin(), loop_thread.loop)
        self._end_at_exit()

    async def _begin(self) -> None:
        """Start the engine, as soon as the store is there."""
        failed = False
        while not self._closed and not self._only_accepts:
            try:
                await self._engine.start()
            except StoreError as error:
                if not failed:
                    failed = True
                    said = "nothing is started for now, until the store is there: %s"
                    tell(logging.ERROR, said, error)
                await asyncio.sleep(_BETWEEN_TRIES)
            else:
                return

    def _end_at_exit(self) -> None:
        """Hand back what goes on when the program ends, if nobody has shut this down before."""
        pid, me = os.getpid(), weakref.ref(self)

        def end() -> None:
            plans = me()
            if plans is not None and os.getpid() == pid:
                plans.shutdown(None if plans._wait_at_exit else 0.0)

        atexit.register(end)
        weakref.finalize(self, atexit.unregister, end)

    def _do(
        self,
        coroutine: Coroutine[Any, Any, Answer],
        what: str = "this call",
        seconds: float | None = None,
    ) -> Answer:
        """Have something done on the loop, and wait for it, at most so long.

        Raises ``ShutdownError`` if the loop has ended, also meanwhile.
        """
        if self._loop_thread.is_current:
            coroutine.close()
            raise LaunchError(
                f"{what} would wait for the loop that it is called on: in a coroutine job write "
                f"'await asyncio.to_thread(scheduler.run, ...)'"
            )
        if not self._loop_thread.is_alive:
            coroutine.close()
            raise _has_ended(what)
        loop_thread = self._loop_thread
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop_thread.loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise _has_ended(what) from None
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                return future.result(_LOOK)
            except CancelledError:
                raise _has_ended(what) from None
            except TimeoutError:
                is_alive = loop_thread.is_alive
                if future.done():
                    return future.result()
                if not is_alive:
                    coroutine.close()  # it may not even have begun
                    raise _has_ended(what) from None
                if deadline is not None and time.monotonic() > deadline:
                    raise

    @property
    def healthy(self) -> bool:
        if self._closed or self._only_accepts or self._engine.last_turn_age is None:
            return True
        return self._loop_thread.is_alive and self._engine.healthy

    @property
    def has_plans(self) -> bool:
        """Others have them too: what is in the store does not need this program."""
        return False

    @property
    def busy(self) -> bool:
        return self._engine.busy

    # Schedules

    def _add(self, jobs: Mapping[str, Any], wanted: Wanted) -> str:
        schedule_id, given, first = wanted.schedule_id, wanted.given, wanted.first
        check_new_id(schedule_id)
        if isinstance(given, str):
            lookup(jobs, given)
        name = self._known.name_of(given)
        target = self._known.target(name, wanted.place)
        target.check(schedule_id or name, wanted.kwargs, wanted.args)
        check_fleet(target)
        policies = policies_of(wanted.policies, target)
        on_conflict = conflict_resolution_of(wanted.conflict_resolution)
        with self._lock:
            self._refuse_if_closed(f"{name!r} was not scheduled")
            schedule_id = self._free_id(name) if schedule_id is None else schedule_id
            schedule = wanted.schedule(schedule_id, name, time.time_ns() // 1000, policies)
            first = within_bounds(schedule, first)
            if schedule.id in self._given and on_conflict is ConflictResolution.RAISE:
                raise DuplicateIdError(
                    f"{schedule.id!r} is scheduled already in this program: give another id, "
                    f"remove that one first, or say conflict_resolution='replace'"
                )
            if on_conflict is ConflictResolution.RAISE:  # of an earlier start, or another worker
                on_conflict = ConflictResolution.REPLACE
            is_new = self._do(self._declare(schedule, first, on_conflict), "schedule()")
            self._given[schedule.id] = given
        self._tell_planned(schedule, first, is_new=is_new)
        return schedule.id

    async def _declare(
        self, schedule: Schedule, first: datetime | None, on_conflict: ConflictResolution
    ) -> bool:
        await self._engine.ready()
        return await self._engine.declare(schedule, first, on_conflict)

    def _refuse_if_closed(self, what: str) -> None:
        if self._closed:
            raise ShutdownError(f"{what}: the scheduler was shut down; make a new one")

    def stop(self, what: Any) -> None:
        with self._lock:
            found = [
                schedule_id
                for schedule_id, given in self._given.items()
                if what is None or given is what or (isinstance(what, str) and given == what)
            ]
            if not found and isinstance(what, str):
                found = [what]  # its id
            for schedule_id in found:
                self._given.pop(schedule_id, None)
                self._do(self._remove(schedule_id), "stop()")

    async def _remove(self, schedule_id: str) -> bool:
        await self._engine.ready()
        return await self._engine.remove(schedule_id) is not None

    def remove(self, schedule_id: str) -> None:
        check_id(schedule_id)
        self._check_found(schedule_id, self._do(self._remove(schedule_id), "remove_job()"))
        self._given.pop(schedule_id, None)
        tell(logging.INFO, "%r is not scheduled any more", schedule_id)

    def pause(self, schedule_id: str) -> None:
        check_id(schedule_id)
        self._check_found(schedule_id, self._do(self._pause(schedule_id), "pause_job()"))
        tell(logging.INFO, "%r is paused", schedule_id)

    def resume(self, schedule_id: str) -> None:
        check_id(schedule_id)
        self._check_found(schedule_id, self._do(self._resume(schedule_id), "resume_job()"))
        tell(logging.INFO, "%r goes on", schedule_id)

    async def _pause(self, schedule_id: str) -> bool:
        await self._engine.ready()
        return await self._engine.pause(schedule_id)

    async def _resume(self, schedule_id: str) -> bool:
        await self._engine.ready()
        return await self._engine.resume(schedule_id)

    async def _schedule(self, schedule_id: str) -> ScheduleRecord | None:
        await self._engine.ready()
        return await self._store.schedule(schedule_id)

    def _check_found(self, schedule_id: str, found: object) -> None:
        if not found:
            raise UnknownIdError(f"nothing is scheduled as {schedule_id!r}")

    def run_now(self, schedule_id: str) -> Run:
        check_id(schedule_id)
        record = self._do(self._schedule(schedule_id), "run_job_now()")
        if record is None:
            raise UnknownIdError(f"nothing is scheduled as {schedule_id!r}")
        run_id, now = next(self._run_ids), self._store.now()
        return self._enqueue(NewRun.beside_its_schedule(record.schedule, run_id, now))

    def info(self, schedule_id: str) -> dict[str, Any]:
        check_id(schedule_id)
        record = self._do(self._schedule(schedule_id), "get_job_info()")
        if record is None:
            raise UnknownIdError(f"nothing is scheduled as {schedule_id!r}")
        return describe_schedule(record)

    # Single runs

    def run_later(
        self,
        name: str,
        target: Target,
        kwargs: dict[str, Any],
        *,
        delay: Any = 0,
        timeout: float | None = None,
        priority: int = 5,
        max_retries: int | None = None,
        key: str | None = None,
    ) -> Run:
        waited = parse_duration(delay, "delay", zero=True)
        check_priority(priority)
        check_timeout(target.timeout if timeout is None else timeout, target)
        check_fleet(target)
        self._refuse_if_closed(f"job {name!r} was not accepted")
        if not self._engine.is_open:
            self._do(self._engine.ready(), "run()")
        now = self._store.now()
        is_usual = self._known.target(name).place == target.place
        return self._enqueue(
            NewRun(
                id=next(self._run_ids) if key is None else f"{name}:{key}",
                job=name,
                at=now + waited,
                kwargs=kwargs,
                priority=priority,
                retry=retry_policy(max_retries, "max_retries"),
                timeout=None if timeout == target.timeout else timeout,
                place=None if is_usual else target.place,
                keep_until=None if key is None else now + self._options.keep_keys,
            )
        )

    def _enqueue(self, run: NewRun) -> Run:
        return StoredRun(self._do(self._keep(run), "run()"), self)

    async def _keep(self, run: NewRun) -> RunRecord:
        await self._engine.ready()
        taken = await self._engine.enqueue_known([run], ConflictResolution.IGNORE)
        there = await self._store.run(run.id) if taken else None
        return there or RunRecord.accepted(run)

    # As the keeper of the runs it has handed out

    def look_up(self, run_id: str) -> RunRecord | None:
        """What the store holds of a run."""
        try:
            return self._do(self._look_up(run_id), "asking for a run")
        except ShutdownError:
            return self._look_up_alone(run_id)

    def _look_up_alone(self, run_id: str) -> RunRecord | None:
        """The same after the end, or in a forked child: by a connection for this question."""
        from job_scheduler.executors.loop_thread import LoopThread

        async def ask() -> RunRecord | None:
            store = self._options.open()
            try:
                await store.open()
                return await store.run(run_id)
            finally:
                await store.close()

        loop_thread = LoopThread()
        try:
            return asyncio.run_coroutine_threadsafe(ask(), loop_thread.loop).result()
        finally:
            loop_thread.stop_once(lambda: True)

    async def _look_up(self, run_id: str) -> RunRecord | None:
        await self._engine.ready()
        return await self._store.run(run_id)

    def get_run(self, run_id: str) -> Run:
        """A handle on a run, whoever has started it; raises ``UnknownIdError``."""
        check_id(run_id, "run_id")
        record = self.look_up(run_id)
        if record is None:
            raise UnknownIdError(f"there is no run {run_id!r}, or it was deleted after its time")
        return StoredRun(record, self)

    def cancel(self, run: Run) -> bool:
        return self._do(self._engine.cancel(run.id), "cancel()")

    def signal(self, run: Run, number: int) -> None:
        attempt = self._engine.attempt_of(run.id)
        if attempt is not None:
            attempt._owner.signal(attempt, number)

    def process(self, run: Run) -> multiprocessing.Process | None:
        attempt = self._engine.attempt_of(run.id)
        return None if attempt is None else attempt.process

    def attempt_of(self, run_id: str) -> Run | None:
        """What goes on here for a run of this id."""
        return self._engine.attempt_of(run_id)

    def wait_for_end(self, run_id: str, seconds: float) -> None:
        """Wait so long, or until the run has ended here."""
        ended = threading.Event()
        with self._ends_lock:
            self._ends.setdefault(run_id, []).append(ended)
        try:
            ended.wait(seconds)
        finally:
            with self._ends_lock:
                self._ends[run_id].remove(ended)
                if not self._ends[run_id]:
                    del self._ends[run_id]

    def started(self, claim: Claim, run: Run) -> None:
        """An attempt has started; the engine says so."""

    def ended(self, claim: Claim, run: Run, again: bool) -> None:
        """An attempt has ended; the engine says so."""
        if claim.run_id in self._ends:
            with self._ends_lock:
                for each in self._ends.get(claim.run_id, ()):
                    each.set()

    # The end

    def close(self) -> None:
        self._closed = True
        self._engine.stop_starting()

    def shutdown(self, timeout: float | None) -> None:
        """Start nothing more, wait for what goes on, and hand back the rest after ``timeout``."""
        self.close()
        if self._is_over:
            return
        with contextlib.suppress(ShutdownError, CancelledError):  # the loop has ended by itself
            most = None if timeout is None else timeout + _TIME_TO_END
            self._do(self._shut_down(timeout), "shutdown()", most)
        self._is_over = True

    async def _shut_down(self, timeout: float | None) -> None:
        await asyncio.wrap_future(self._begun)  # it may be amid its start
        await self._engine.shutdown(timeout)
        await self._engine.close()


def _has_ended(what: str) -> ShutdownError:
    return ShutdownError(
        f"{what} is not possible any more: the scheduler was shut down, or belongs to the process "
        f"that this one was forked from; make a new one"
    )
