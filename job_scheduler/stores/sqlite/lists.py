"""What a question selects in an SQLite file, and which ended runs are deleted."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.run import RunState
from job_scheduler.stores import rows
from job_scheduler.stores.base import Counts, Outcome
from job_scheduler.stores.sqlite.rows import instant, instant_or_none, micros

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from datetime import datetime

    from job_scheduler.stores.base import Retention, RunQuery, ScheduleQuery

_MOST_FORGOTTEN: Final = 1_000
"""Runs that are deleted in one step."""


def forget(db: sqlite3.Connection, retention: Retention, now: int) -> int:
    """Delete some ended runs, the oldest first."""
    db.execute(
        """UPDATE scheduled_jobs SET kept = 0 WHERE rowid IN (
            SELECT rowid FROM scheduled_jobs INDEXED BY runs_to_keep
            WHERE ended_at IS NOT NULL AND kept AND keep_until <= ? LIMIT ?)""",
        (now, _MOST_FORGOTTEN),
    )
    number = 0
    if retention.age is not None:
        number = _forget(
            db,
            "AND ended_at <= ?",
            (now - retention.age // timedelta(microseconds=1), _MOST_FORGOTTEN),
        )
    if retention.most is not None and number < _MOST_FORGOTTEN:
        (ended,) = db.execute(
            """SELECT count(*) FROM scheduled_jobs INDEXED BY runs_to_forget
            WHERE ended_at IS NOT NULL AND NOT kept"""
        ).fetchone()
        surplus = min(ended - retention.most, _MOST_FORGOTTEN - number)
        number += _forget(db, "", (surplus,)) if surplus > 0 else 0
    return number


def _forget(db: sqlite3.Connection, which: str, values: tuple[int, ...]) -> int:
    return db.execute(
        f"""DELETE FROM scheduled_jobs WHERE rowid IN (
            SELECT rowid FROM scheduled_jobs INDEXED BY runs_to_forget
            WHERE ended_at IS NOT NULL AND NOT kept {which} ORDER BY ended_at LIMIT ?)""",
        values,
    ).rowcount


def listed_schedules(query: ScheduleQuery) -> tuple[str, list[Any]]:
    """What selects schedules, in the order of their numbers."""
    conditions = ["id > ?"]
    values: list[Any] = [query.after]
    if query.numbers is not None:
        conditions.append("id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(query.numbers))
    if query.ids is not None:
        conditions.append("schedule_id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(query.ids))
    if query.job is not None:
        conditions.append("job_name = ?")
        values.append(query.job)
    if query.paused is not None:
        conditions.append("paused = ?")
        values.append(query.paused)
    if query.text is not None:
        conditions.append("instr(label, ?)")
        values.append(rows.folded(query.text))
    values.append(-1 if query.limit is None else query.limit)
    return f"WHERE {' AND '.join(conditions)} ORDER BY id LIMIT ?", values


def listed_runs(query: RunQuery) -> tuple[str, list[Any]]:
    """What selects runs, the newest first.

    An index has those of a schedule, of a job or in a state by the order in which they came. Of
    both a schedule and a job there is but one.
    """
    condition, values = "", []
    for column, value in (("schedule_id", query.schedule_id), ("job_name", query.job)):
        if value is not None:
            condition += f" AND {column} = ?"
            values.append(value)
    if query.before is not None:
        condition += " AND rowid < (SELECT rowid FROM scheduled_jobs WHERE job_id = ?)"
        values.append(query.before)
    if query.state is not None:
        condition += " AND status = ?"
        values.append(query.state.value)
    return f"WHERE true{condition} ORDER BY rowid DESC LIMIT ?", [*values, query.limit]


_OUTCOMES: Final = """
    SELECT job_id, status, execution_time, started_at, ended_at FROM scheduled_jobs
    WHERE schedule_id = ? ORDER BY rowid DESC LIMIT ?"""


def outcomes(
    db: sqlite3.Connection, schedule_ids: Sequence[str], most: int
) -> dict[str, list[Outcome]]:
    """What became of the last runs of schedules."""
    return {
        schedule_id: [_outcome(row) for row in db.execute(_OUTCOMES, (schedule_id, most))]
        for schedule_id in schedule_ids
    }


def _outcome(row: Any) -> Outcome:
    run_id, status, at, started_at, ended_at = row
    return Outcome(
        run_id,
        RunState(status),
        instant(at),
        instant_or_none(started_at),
        instant_or_none(ended_at),
    )


def counts(db: sqlite3.Connection, now: datetime) -> Counts:
    """How much there is to do."""
    due, oldest = db.execute(
        """SELECT count(*), min(execution_time) FROM scheduled_jobs INDEXED BY runs_due
        WHERE status = 'pending' AND NOT held AND execution_time <= ?""",
        (micros(now),),
    ).fetchone()
    (running,) = db.execute(
        "SELECT count(*) FROM scheduled_jobs INDEXED BY runs_going WHERE status = 'running'"
    ).fetchone()
    return Counts(due, instant_or_none(oldest), running)
