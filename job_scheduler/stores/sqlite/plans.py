"""Schedules in an SQLite file: the steps on them, each within a transaction of its caller.

What of a schedule may go on is decided here: its runs are *admitted*, as many as it allows, when
they come and when another one ends. One that is not, or whose schedule pauses, is *held*. Since a
transaction that writes has the file for itself, two processes never admit one too many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from job_scheduler.run import RunState
from job_scheduler.stores import rows
from job_scheduler.stores.base import Due, ScheduleRecord
from job_scheduler.stores.sqlite.rows import (
    Planned,
    instant,
    instant_or_none,
    micros,
    planned_of,
    records,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from datetime import datetime

    from job_scheduler.schedule import Missed, Schedule
    from job_scheduler.stores.base import Advance

_INSERT: Final = """
    INSERT INTO schedules (
        schedule_id, job_name, task_data, trigger, timezone, policies, generation, label, next_at,
        paused
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

_CHANGE: Final = """
    UPDATE schedules SET job_name = ?, task_data = ?, trigger = ?, timezone = ?, policies = ?,
        generation = ?, label = ?, next_at = ?
    WHERE schedule_id = ?"""


def add(
    db: sqlite3.Connection,
    definition: rows.Definition,
    label: str,
    next_at: datetime | None,
    paused: bool,
) -> int | None:
    """Keep a new schedule; tells its number, which none has that is not kept."""
    there = "SELECT id FROM schedules WHERE schedule_id = ?"
    if db.execute(there, (definition.schedule_id,)).fetchone() is not None:
        return None
    return db.execute(_INSERT, (*definition, label, _micros(next_at), paused)).lastrowid


def change(
    db: sqlite3.Connection,
    definition: rows.Definition,
    label: str,
    next_at: datetime | None,
    seen: ScheduleRecord | None,
) -> bool:
    """Put another definition in place of one, unless it is elsewhere than it was seen."""
    schedule_id, *rest = definition
    statement, values = _CHANGE, (*rest, label, _micros(next_at), schedule_id)
    if seen is not None:
        statement += " AND generation = ? AND next_at IS ?"
        values += (seen.schedule.generation, _micros(seen.next_at))
    if not db.execute(statement, values).rowcount:
        return False
    planned = planned_of(db, schedule_id)
    assert planned is not None
    admit(db, planned)
    return True


def remove(db: sqlite3.Connection, schedule_id: str, now: int) -> list[str] | None:
    """Forget a schedule and cancel what waits of it."""
    found = db.execute(
        "DELETE FROM schedules WHERE schedule_id = ? RETURNING id", (schedule_id,)
    ).fetchall()
    if not found:
        return None
    waiting = db.execute(
        """UPDATE scheduled_jobs SET status = 'cancelled', ended_at = ?, held = 0
        WHERE schedule_number = ? AND status = 'pending' RETURNING rowid, job_id""",
        (now, found[0][0]),
    ).fetchall()
    db.execute(
        "UPDATE scheduled_jobs SET schedule_number = NULL WHERE schedule_number = ?", found[0]
    )
    return [job_id for _, job_id in sorted(waiting)]


def pause(db: sqlite3.Connection, schedule_id: str) -> bool:
    """Take a schedule off the plan, and hold what waits of it."""
    found = db.execute(
        "UPDATE schedules SET paused = 1 WHERE schedule_id = ? RETURNING id", (schedule_id,)
    ).fetchall()
    for number in found:
        db.execute(
            """UPDATE scheduled_jobs SET held = 1
            WHERE schedule_number = ? AND beside = 0 AND status = 'pending'""",
            number,
        )
    return bool(found)


def resume(
    db: sqlite3.Connection, schedule_id: str, next_at: datetime | None, gap: Missed | None
) -> bool:
    """Put a schedule back on the plan, and let go what may."""
    planned = planned_of(db, schedule_id)
    if planned is None:
        return False
    db.execute(
        "UPDATE schedules SET paused = 0, failures = 0, next_at = ? WHERE id = ?",
        (_micros(next_at), planned.number),
    )
    if gap is not None:
        _note(db, planned, (gap,))
    db.execute(
        """UPDATE scheduled_jobs SET held = 0
        WHERE schedule_number = ? AND beside = 0 AND admitted = 1 AND status = 'pending'""",
        (planned.number,),
    )
    admit(db, planned._replace(paused=0))
    return True


def _note(db: sqlite3.Connection, planned: Planned, gaps: tuple[Missed, ...]) -> None:
    kept = (*rows.gaps_of(planned.gaps), *gaps)[-rows.MOST_GAPS :]
    missed = sum(gap.number or 0 for gap in gaps)
    db.execute(
        "UPDATE schedules SET gaps = ?, missed = missed + ? WHERE id = ?",
        (rows.gaps_text(kept), missed, planned.number),
    )


# Admission


def admit(db: sqlite3.Connection, planned: Planned) -> None:
    """Let go what is held, the oldest first, as far as that may be."""
    if planned.paused:
        return
    room = _room(db, planned)
    if room <= 0:
        return
    db.execute(
        """UPDATE scheduled_jobs SET admitted = 1, held = 0 WHERE rowid IN (
            SELECT rowid FROM scheduled_jobs
            WHERE schedule_number = ? AND beside = 0 AND admitted = 0 ORDER BY rowid LIMIT ?)""",
        (planned.number, room),
    )


def _room(db: sqlite3.Connection, planned: Planned) -> int:
    """How many runs more of a schedule may go on."""
    (admitted,) = db.execute(
        """SELECT count(*) FROM scheduled_jobs
        WHERE schedule_number = ? AND beside = 0 AND admitted = 1""",
        (planned.number,),
    ).fetchone()
    return planned.schedule.most_running - int(admitted)


def admission(db: sqlite3.Connection, planned: Planned | None, beside: bool) -> tuple[bool, bool]:
    """Of a run that comes: whether it is admitted, and whether it is held."""
    if planned is None or beside:
        return True, False
    admitted = _room(db, planned) > 0
    return admitted, bool(planned.paused) or not admitted


def has_started(db: sqlite3.Connection, number: int, run_id: str, at: int) -> None:
    """Note which of a schedule's runs was started last."""
    db.execute(
        "UPDATE schedules SET last_run = ?, last_run_at = ? WHERE id = ?", (run_id, at, number)
    )


def had_started(db: sqlite3.Connection, number: int, run_id: str, at: int | None) -> None:
    """Note when it has really started, which is known once it has ended."""
    if at is not None:
        db.execute(
            "UPDATE schedules SET last_run_at = ? WHERE id = ? AND last_run = ?",
            (at, number, run_id),
        )


def has_ended(
    db: sqlite3.Connection, planned: Planned, state: RunState, *, beside: bool, admitted: bool
) -> int:
    """Count a run that is no longer one of its schedule's, and let another go on.

    Tells how many have failed in a row.
    """
    change = {
        RunState.COMPLETED: "completed = completed + 1, failures = 0",
        RunState.FAILED: "failed = failed + 1, failures = failures + 1",
    }.get(state, "cancelled = cancelled + 1")
    [(failures,)] = db.execute(
        f"UPDATE schedules SET {change} WHERE id = ? RETURNING failures", (planned.number,)
    ).fetchall()
    if admitted and not beside:
        admit(db, planned)
    return int(failures)


def plan_from_end(db: sqlite3.Connection, planned: Planned, next_at: datetime | None) -> None:
    """Give its next instant to a schedule that counts from the end of its runs."""
    db.execute(
        "UPDATE schedules SET next_at = ? WHERE id = ? AND next_at IS NULL",
        (_micros(next_at), planned.number),
    )


# Instants

_DUE: Final = """
    SELECT schedule_id, job_name, task_data, trigger, timezone, policies, generation, next_at,
        (SELECT count(*) FROM scheduled_jobs
         WHERE schedule_number = schedules.id AND beside = 0)
    FROM schedules INDEXED BY schedules_due
    WHERE NOT paused AND next_at IS NOT NULL AND next_at <= ? ORDER BY next_at LIMIT ?"""

_NEW_RUN: Final = """
    INSERT INTO scheduled_jobs (
        job_id, job_name, execution_time, task_data, created_at, priority, max_retries,
        schedule_id, schedule_number, beside, admitted, held, keep_until, kept, options, token
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job_id) DO NOTHING"""


def due(db: sqlite3.Connection, now: datetime, limit: int) -> list[Due]:
    """Schedules whose next instant has come."""
    return [
        Due(rows.schedule_of(rows.Definition(*row[:7])), instant(row[7]), row[8])
        for row in db.execute(_DUE, (micros(now), limit))
    ]


def advance(db: sqlite3.Connection, decisions: Sequence[Advance], created_at: int) -> None:
    """Do what was decided, where it still fits."""
    for (schedule, due_at, _), (runs, missed, next_at) in decisions:
        planned = planned_of(db, schedule.id)
        if planned is None or planned.paused or planned.next_at != micros(due_at):
            continue
        if planned.schedule != schedule:
            continue
        db.execute(
            "UPDATE schedules SET next_at = ?, last_at = ? WHERE id = ?",
            (_micros(next_at), planned.next_at, planned.number),
        )
        if missed:
            _note(db, planned, missed)
        for each in runs:
            _insert_run(db, planned, schedule, each, created_at)


def _insert_run(
    db: sqlite3.Connection, planned: Planned, schedule: Schedule, of: datetime, created_at: int
) -> None:
    insert(
        db,
        schedule.run_id(of),
        schedule.job,
        micros(schedule.runs_at(of)),
        rows.definition_of(schedule).task_data,
        created_at,
        schedule.priority,
        rows.max_retries_of(schedule.retry),
        planned,
        options=rows.options_text(schedule),
    )


def insert(
    db: sqlite3.Connection,
    run_id: str,
    job: str,
    at: int,
    task_data: str,
    created_at: int,
    priority: int,
    max_retries: int,
    planned: Planned | None,
    *,
    beside: bool = False,
    keep_until: int | None = None,
    options: str | None = None,
    token: int = 0,
) -> None:
    """Keep a run, unless there is one with its id."""
    admitted, held = admission(db, planned, beside)
    schedule = (None, None) if planned is None else (planned.schedule.id, planned.number)
    keep = (keep_until, keep_until is not None)
    first = (run_id, job, at, task_data, created_at, priority, max_retries)
    db.execute(_NEW_RUN, (*first, *schedule, beside, admitted, held, *keep, options, token))


# Reading

_RECORDS: Final = """
    SELECT schedule_id, job_name, task_data, trigger, timezone, policies, generation, next_at,
        paused, failures, completed, failed, cancelled, missed, gaps, last_run, id, last_run_at,
        (SELECT count(*) FROM scheduled_jobs
         WHERE schedule_number = schedules.id AND beside = 0),
        (SELECT count(*) FROM scheduled_jobs
         WHERE schedule_number = schedules.id AND beside = 0 AND status = 'running')
    FROM schedules """


def schedule_records(
    db: sqlite3.Connection, which: str, values: Sequence[Any]
) -> list[ScheduleRecord]:
    """The schedules that the rest of the statement selects."""
    return [_schedule_record(db, row) for row in db.execute(_RECORDS + which, values).fetchall()]


def _schedule_record(db: sqlite3.Connection, row: Any) -> ScheduleRecord:
    last_run = records(db, "WHERE job_id = ?", (row[15],)) if row[15] is not None else []
    return ScheduleRecord(
        rows.schedule_of(rows.Definition(*row[:7])),
        instant_or_none(row[7]),
        bool(row[8]),
        row[18],
        row[19],
        failures=row[9],
        completed=row[10],
        failed=row[11],
        cancelled=row[12],
        missed=row[13],
        gaps=rows.gaps_of(row[14]),
        last_run=last_run[0] if last_run else None,
        number=row[16],
        last_run_at=instant_or_none(row[17]),
    )


def _micros(value: datetime | None) -> int | None:
    return None if value is None else micros(value)
