"""The rows of an SQLite store as the values that the contract speaks of."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from job_scheduler.instants import EPOCH
from job_scheduler.run import RunState
from job_scheduler.stores import rows
from job_scheduler.stores.base import Claim, RunRecord
from job_scheduler.stores.payload import decode

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from job_scheduler.schedule import Schedule

_MICROSECOND: Final = timedelta(microseconds=1)


def micros(instant: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (instant - EPOCH) // _MICROSECOND


def micros_of(seconds: float | None) -> int | None:
    """The same from seconds since 1970."""
    return None if seconds is None else round(seconds * 1_000_000)


def instant(value: int) -> datetime:
    """The instant of so many microseconds since 1970."""
    return EPOCH + timedelta(microseconds=value)


def instant_or_none(value: int | None) -> datetime | None:
    """The same, where a column may be empty."""
    return None if value is None else instant(value)


class Planned(NamedTuple):
    """A schedule and where it stands, as its row tells."""

    number: int
    schedule: Schedule
    next_at: int | None
    paused: int
    failures: int
    gaps: str | None


_PLANNED: Final = """
    SELECT id, schedule_id, job_name, task_data, trigger, timezone, policies, generation,
        next_at, paused, failures, gaps
    FROM schedules WHERE """


def planned_of(db: sqlite3.Connection, schedule_id: str) -> Planned | None:
    """The schedule of this id."""
    return _planned(db.execute(_PLANNED + "schedule_id = ?", (schedule_id,)).fetchone())


def planned_by_number(db: sqlite3.Connection, number: int | None) -> Planned | None:
    """The schedule that a run belongs to; None if it has none, or it is gone."""
    if number is None:
        return None
    return _planned(db.execute(_PLANNED + "id = ?", (number,)).fetchone())


def _planned(row: Any) -> Planned | None:
    if row is None:
        return None
    return Planned(row[0], rows.schedule_of(rows.Definition(*row[1:8])), *row[8:])


class Row(NamedTuple):
    """A run as far as its claims, ends and replacements need it."""

    rowid: int
    job_id: str
    job_name: str
    status: str
    execution_time: int
    task_data: str | None
    priority: int
    schedule_id: str | None
    schedule_number: int | None
    beside: int
    admitted: int
    options: str | None
    max_retries: int
    worker_id: str | None
    token: int
    attempt: int
    retry_count: int
    crashes: int
    to_stop: int
    started_at: int | None
    attempts: str | None
    keep_until: int | None

    @property
    def is_orphan(self) -> bool:
        """Whether its schedule was removed."""
        return self.schedule_id is not None and self.schedule_number is None


COLUMNS: Final = ", ".join(Row._fields)
"""In the order of :class:`Row`."""


class Taken(NamedTuple):
    """A run as far as the claim of it tells."""

    rowid: int
    job_id: str
    job_name: str
    task_data: str | None
    schedule_number: int | None
    options: str | None
    max_retries: int
    execution_time: int
    token: int
    attempt: int
    retry_count: int
    crashes: int


def claim_of(row: Taken, worker: str, schedule: Schedule | None) -> Claim:
    """A row that is claimed; raises ``ValueError`` or ``TypeError`` if it cannot be read."""
    args, kwargs = ((), {}) if row.task_data == "{}" else decode(row.task_data)
    retry, timeout, place = rows.options_of(row.options, row.max_retries)
    return Claim(
        row.job_id,
        row.job_name,
        args,
        kwargs,
        schedule,
        retry,
        timeout,
        instant(row.execution_time),
        worker,
        row.token,
        row.attempt,
        row.retry_count,
        row.crashes,
        place,
    )


_RECORD: Final = """
    SELECT job_id, job_name, schedule_id, status, attempt, execution_time, started_at, ended_at,
        ending, result, task_data, created_at, priority, retry_count, max_retries, crashes,
        worker_id, lease_until, last_heartbeat, attempts, options
    FROM scheduled_jobs """


def records(db: sqlite3.Connection, which: str, values: Sequence[Any]) -> list[RunRecord]:
    """The runs that the rest of the statement selects."""
    return [_record(row) for row in db.execute(_RECORD + which, values)]


def _record(row: Any) -> RunRecord:
    state = RunState(row[3])
    ending = rows.ending_of(row[8], state)
    args, kwargs = _readable(row[10])
    return RunRecord(
        row[0],
        row[1],
        row[2],
        state,
        row[4],
        instant(row[5]),
        instant_or_none(row[6]),
        instant_or_none(row[7]),
        ending.error,
        ending.exitcode,
        ending.peak_memory,
        ending.cpu_time,
        ending.stderr,
        row[9],
        args,
        kwargs,
        instant_or_none(row[11]),
        priority=row[12],
        retries=row[13],
        max_retries=row[14],
        crashes=row[15],
        worker=row[16],
        lease_until=instant_or_none(row[17]),
        heartbeat=instant_or_none(row[18]),
        attempts=rows.attempts_of(row[19]),
        timeout=rows.timeout_of(row[20]),
    )


def _readable(task_data: str | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a row; none if it was made by hand and cannot be read."""
    try:
        return decode(task_data)
    except (ValueError, TypeError, RecursionError):
        return (), {}


def with_attempt(before: str | None, attempt: str) -> str:
    """A history with one attempt more."""
    history = [*json.loads(before or "[]"), json.loads(attempt)]
    return json.dumps(history[-rows.MOST_ATTEMPTS :], ensure_ascii=False, separators=(",", ":"))
