"""A store in an SQLite file: what is accepted is on the disk, and processes may share it.

All that speaks to the file is a step on one thread (``writer``), which any thread may wait
for; the methods here are the same for an event loop. The steps on schedules are in
``plans``, those on runs in ``runs``, the tables in ``schema.sql``.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from job_scheduler import instants
from job_scheduler.errors import InvalidOptionError
from job_scheduler.stores import rows
from job_scheduler.stores.base import ALL_SCHEDULES, NEWEST_RUNS
from job_scheduler.stores.payload import encode
from job_scheduler.stores.sqlite import lists, plans
from job_scheduler.stores.sqlite import runs as run_steps
from job_scheduler.stores.sqlite.rows import instant_or_none, micros, records
from job_scheduler.stores.sqlite.runs import Encoded, Lease
from job_scheduler.stores.sqlite.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from datetime import datetime

    from job_scheduler.run import RunState
    from job_scheduler.schedule import ConflictResolution, Missed, Schedule
    from job_scheduler.stores.base import (
        Advance,
        Claim,
        Counts,
        Due,
        Finish,
        Finished,
        Hold,
        NewRun,
        Outcome,
        Renewal,
        Rescued,
        Retention,
        RunQuery,
        RunRecord,
        ScheduleQuery,
        ScheduleRecord,
        Worker,
    )

T = TypeVar("T")

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

_STEP: Final = 1_000_000
"""Microseconds; less is a correction of the clock that nobody notices."""


class SqliteStore:
    """Keeps schedules and runs in a file; see the contract in ``stores.base``.

    Args:
        path: the file; it is made, for its owner alone, if there is none.
        clock: tells the time in place of the system's clocks, also for leases.
    """

    durable = True
    batch = 500

    def __init__(
        self, path: str | os.PathLike[str], *, clock: Callable[[], datetime] | None = None
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.now: Callable[[], datetime] = instants.now if clock is None else clock
        self._has_own_clock = clock is not None
        self._offset: int | None = None
        """By how much the clock on the wall is before the other one, at the most so far."""
        self._writer = Writer(self.path, self._opened, run_steps.to_stop)

    def call(
        self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True, tells: bool = False
    ) -> Future[T]:
        """Have a step done in the file; for threads, which may wait for the future.

        Args:
            work: called on the store's thread, within a transaction; perhaps twice, if that was
                undone.
            writes: whether it changes anything.
            tells: whether something may become due by it.
        """
        return self._writer.call(work, writes=writes, tells=tells)

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, tells: bool = False) -> T:
        return await self._wait(self.call(work, tells=tells))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._wait(self.call(work, writes=False))

    async def _wait(self, future: Future[T]) -> T:
        return await asyncio.wrap_future(future)

    async def open(self) -> None:
        await self._read(lambda _: None)

    async def close(self) -> None:
        await self._wait(self._writer.close())

    async def listen(self, wake: Callable[[], None], renew: Callable[[], None]) -> None:
        self._writer.listen(wake, renew)

    # Clocks

    def _now(self) -> int:
        return micros(self.now())

    def _steady(self) -> int:
        """The time by a clock that nobody sets, and that all processes of this machine share."""
        return self._now() if self._has_own_clock else _since_boot()

    def _lease(self, worker: Worker) -> Lease:
        now = self._now()
        if worker.lease is None:
            return Lease(now, None, None)
        length = round(worker.lease * 1_000_000)
        return Lease(now, now + length, self._steady() + length)

    def _opened(self, db: sqlite3.Connection) -> None:
        """End all leases of before the machine was started: that clock has begun anew."""
        if self._has_own_clock:
            return
        boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "unknown"
        if _meta(db, "boot_id") == boot_id:
            return
        db.execute("BEGIN IMMEDIATE")
        if _meta(db, "boot_id") != boot_id:
            db.execute(
                """UPDATE scheduled_jobs SET lease_ends = -1
                WHERE status = 'running' AND lease_ends IS NOT NULL"""
            )
            _set_meta(db, "boot_id", boot_id)
            _set_meta(db, "offset", self._now() - self._steady())
        db.execute("COMMIT")

    def _follow_clock(self, db: sqlite3.Connection) -> None:
        """Note that the clock on the wall was set forward, so that setting it back is noticed."""
        if self._has_own_clock:
            return
        offset = self._now() - self._steady()
        if self._offset is None or offset > self._offset + _STEP:
            self._offset = offset
            before = _meta(db, "offset")
            if before is None or offset > before + _STEP:
                _set_meta(db, "offset", offset)

    async def set_back(self, now: datetime, by: timedelta) -> bool:
        return await self._write(lambda db: self._set_back(db, by // timedelta(microseconds=1)))

    def _set_back(self, db: sqlite3.Connection, by: int) -> bool:
        """Do so unless another process has: the offset that is noted tells."""
        if not self._has_own_clock:
            offset = self._now() - self._steady()
            before = _meta(db, "offset")
            self._offset = offset
            if before is not None and before - offset < by // 2:
                return False
            _set_meta(db, "offset", offset)
        db.execute(
            """UPDATE scheduled_jobs SET execution_time = execution_time - ?
            WHERE status = 'pending'""",
            (by,),
        )
        return True

    # Schedules

    async def add(
        self, schedule: Schedule, next_at: datetime | None, *, paused: bool = False
    ) -> int | None:
        definition, label = rows.definition_of(schedule), rows.folded(schedule.label)
        return await self._write(
            lambda db: plans.add(db, definition, label, next_at, paused), tells=True
        )

    async def change(
        self, schedule: Schedule, next_at: datetime | None, seen: ScheduleRecord | None = None
    ) -> bool:
        definition, label = rows.definition_of(schedule), rows.folded(schedule.label)
        return await self._write(
            lambda db: plans.change(db, definition, label, next_at, seen), tells=True
        )

    async def remove(self, schedule_id: str) -> list[str] | None:
        now = self._now()
        return await self._write(lambda db: plans.remove(db, schedule_id, now))

    async def pause(self, schedule_id: str) -> bool:
        return await self._write(lambda db: plans.pause(db, schedule_id))

    async def resume(self, schedule_id: str, next_at: datetime | None, gap: Missed | None) -> bool:
        return await self._write(lambda db: plans.resume(db, schedule_id, next_at, gap), tells=True)

    async def schedule(self, schedule_id: str) -> ScheduleRecord | None:
        found = await self._read(
            lambda db: plans.schedule_records(db, "WHERE schedule_id = ?", (schedule_id,))
        )
        return found[0] if found else None

    async def schedules(self, query: ScheduleQuery = ALL_SCHEDULES) -> list[ScheduleRecord]:
        which, values = lists.listed_schedules(query)
        return await self._read(lambda db: plans.schedule_records(db, which, values))

    async def due(self, now: datetime, limit: int) -> list[Due]:
        return await self._read(lambda db: plans.due(db, now, limit))

    async def advance(self, decisions: Sequence[Advance], now: datetime) -> None:
        if decisions:
            created_at = self._now()
            await self._write(lambda db: plans.advance(db, decisions, created_at), tells=True)

    async def next_instant(self, worker: Worker) -> datetime | None:
        return instant_or_none(await self._read(lambda db: _next_instant(db, worker)))

    # Runs

    async def enqueue(
        self, runs: Sequence[NewRun], on_conflict: ConflictResolution, connection: Any = None
    ) -> dict[str, RunState]:
        if not runs:
            return {}
        encoded = [
            Encoded(run, encode(run.args, run.kwargs), rows.options_text(run)) for run in runs
        ]
        now = self._now()
        if connection is not None:
            await self.open()
            return _enqueue_within(connection, self.path, encoded, on_conflict, now)
        return await self._write(
            lambda db: run_steps.enqueue(db, encoded, on_conflict, now), tells=True
        )

    async def claim(self, now: datetime, limit: int, worker: Worker) -> list[Claim]:
        return await self._write(lambda db: self._claim(db, now, limit, worker))

    def _claim(
        self, db: sqlite3.Connection, now: datetime, limit: int, worker: Worker
    ) -> list[Claim]:
        self._follow_clock(db)
        return run_steps.claim(db, now, limit, worker, self._lease(worker))

    async def finish(self, ends: Sequence[Finish]) -> list[Finished | None]:
        if not ends:
            return []
        now = self._now()
        return await self._write(
            lambda db: run_steps.finish(db, ends, now), tells=_lets_others_go(ends)
        )

    async def exchange(
        self, ends: Sequence[Finish], now: datetime, limit: int, worker: Worker
    ) -> tuple[list[Finished | None], list[Claim]]:
        ended_at = self._now()
        return await self._write(
            lambda db: (
                run_steps.finish(db, ends, ended_at),
                self._claim(db, now, limit, worker),
            ),
            tells=_lets_others_go(ends),
        )

    async def renew(self, holds: Sequence[Hold], worker: Worker) -> Renewal:
        return await self._write(lambda db: run_steps.renew(db, holds, worker, self._lease(worker)))

    async def rescue(self, most_crashes: int) -> list[Rescued]:
        return await self._write(
            lambda db: run_steps.rescue(db, most_crashes, self._now(), self._steady()),
            tells=True,
        )

    async def cancel(self, run_id: str) -> bool:
        now = self._now()
        return await self._write(lambda db: run_steps.cancel(db, run_id, now), tells=True)

    async def ask_to_stop(self, run_id: str) -> bool:
        asked = await self._write(lambda db: run_steps.ask_to_stop(db, run_id))
        if asked:
            self._writer.tell_to_renew()
        return asked

    async def forget(self, retention: Retention) -> int:
        now = self._now()
        return await self._write(lambda db: lists.forget(db, retention, now))

    async def run(self, run_id: str) -> RunRecord | None:
        found = await self._read(lambda db: records(db, "WHERE job_id = ?", (run_id,)))
        return found[0] if found else None

    async def runs(self, query: RunQuery = NEWEST_RUNS) -> list[RunRecord]:
        which, values = lists.listed_runs(query)
        return await self._read(lambda db: records(db, which, values))

    async def outcomes(self, schedule_ids: Sequence[str], most: int) -> dict[str, list[Outcome]]:
        return await self._read(lambda db: lists.outcomes(db, schedule_ids, most))

    async def counts(self, now: datetime) -> Counts:
        return await self._read(lambda db: lists.counts(db, now))

    async def waiting_for_others(self, worker: Worker) -> dict[str, int]:
        if worker.jobs is None:
            return {}
        now = self.now()
        return await self._read(lambda db: run_steps.due_of_others(db, now, worker))


def _since_boot() -> int:
    """Microseconds since the machine was started, also those for which it slept."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000
    return time.monotonic_ns() // 1_000


def _meta(db: sqlite3.Connection, name: str) -> Any:
    found = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if found is None else found[0]


def _set_meta(db: sqlite3.Connection, name: str, value: Any) -> None:
    db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))


def _next_instant(db: sqlite3.Connection, worker: Worker) -> int | None:
    (planned,) = db.execute(
        """SELECT min(next_at) FROM schedules INDEXED BY schedules_due
        WHERE NOT paused AND next_at IS NOT NULL"""
    ).fetchone()
    waiting = run_steps.next_due(db, worker)
    return min((each for each in (planned, waiting) if each is not None), default=None)


def _lets_others_go(ends: Sequence[Finish]) -> bool:
    """Whether something may become due by these ends."""
    return any(end.again is not None or end.claim.schedule is not None for end in ends)


def _enqueue_within(
    connection: Any,
    path: str,
    runs: Sequence[Encoded],
    on_conflict: ConflictResolution,
    now: int,
) -> dict[str, RunState]:
    """Keep runs in a transaction of the caller's."""
    if not isinstance(connection, sqlite3.Connection):
        raise InvalidOptionError(
            f"connection is {connection!r}; an SQLite store takes a sqlite3.Connection"
        )
    files = [file for _, name, file in connection.execute("PRAGMA database_list") if name == "main"]
    if not files[0] or not os.path.samefile(files[0], path):
        raise InvalidOptionError(f"connection is one to {files[0] or 'memory'}, not to {path}")
    if not connection.in_transaction:
        if connection.isolation_level is None:
            raise InvalidOptionError("connection is in no transaction; execute 'BEGIN' first")
        connection.execute("BEGIN IMMEDIATE")
    connection.execute("SAVEPOINT runs")
    factory, connection.row_factory = connection.row_factory, None
    try:
        return run_steps.enqueue(connection, runs, on_conflict, now)
    except BaseException:
        connection.execute("ROLLBACK TO runs")
        raise
    finally:
        connection.row_factory = factory
        connection.execute("RELEASE runs")
