"""What a question selects in an SQLite file, and which ended runs are deleted."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.run import RunState
from job_scheduler.stores import rows
from job_scheduler.stores.base import Counts, Outcome, RunQuery
from job_scheduler.stores.sqlite.rows import instant, instant_or_none, micros

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from datetime import datetime

    from job_scheduler.stores.base import Retention, ScheduleQuery

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


_OF_SCHEDULE: Final = """
    SELECT rowid FROM (
        SELECT rowid FROM scheduled_jobs INDEXED BY runs_listed
        WHERE schedule_id = ? AND status = '{state}'{more} ORDER BY rowid DESC LIMIT ?)"""

_PENDING: Final = """
    WHERE rowid IN (
        SELECT rowid FROM scheduled_jobs INDEXED BY runs_due WHERE status = 'pending' AND NOT held
        UNION ALL
        SELECT rowid FROM scheduled_jobs INDEXED BY runs_held WHERE status = 'pending' AND held)"""

_FAILED: Final = """
    INDEXED BY runs_not_completed WHERE status IN ('failed', 'cancelled') AND status = '{state}'"""

_OF_STATE: Final = {
    RunState.PENDING: _PENDING,
    RunState.RUNNING: "INDEXED BY runs_going WHERE status = 'running'",
    RunState.FAILED: _FAILED.format(state="failed"),
    RunState.CANCELLED: _FAILED.format(state="cancelled"),
}

_NEWEST: Final = "ORDER BY rowid DESC LIMIT ?"


def listed_runs(query: RunQuery) -> tuple[str, list[Any]]:
    """What selects runs, the newest first.

    Of each question one index is named, since nothing tells SQLite which of two is the shorter way.
    """
    more, values = "", []
    if query.before is not None:
        more += " AND rowid < (SELECT rowid FROM scheduled_jobs WHERE job_id = ?)"
        values.append(query.before)
    if query.job is not None:
        more += " AND job_name = ?"
        values.append(query.job)
    if query.schedule_id is not None:
        return _of_schedule(query, query.schedule_id, more, values)
    if query.state in _OF_STATE:
        which = _OF_STATE[query.state]
    else:
        which = "WHERE true" if query.job is None else "INDEXED BY runs_of_job WHERE true"
        more += "" if query.state is None else f" AND +status = '{query.state.value}'"
    return f"{which}{more} {_NEWEST}", [*values, query.limit]


def _of_schedule(
    query: RunQuery, schedule_id: str, more: str, values: list[Any]
) -> tuple[str, list[Any]]:
    states = list(RunState) if query.state is None else [query.state]
    parts = [_OF_SCHEDULE.format(state=state.value, more=more) for state in states]
    which = f"WHERE rowid IN ({' UNION ALL '.join(parts)}) {_NEWEST}"
    return which, [*[schedule_id, *values, query.limit] * len(states), query.limit]


_OUTCOMES: Final = (
    "SELECT job_id, status, execution_time, started_at, ended_at FROM scheduled_jobs "
)


def outcomes(
    db: sqlite3.Connection, schedule_ids: Sequence[str], most: int
) -> dict[str, list[Outcome]]:
    """What became of the last runs of schedules."""
    found = {}
    for schedule_id in schedule_ids:
        which, values = listed_runs(RunQuery(schedule_id, limit=most))
        found[schedule_id] = [_outcome(row) for row in db.execute(_OUTCOMES + which, values)]
    return found


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
    (schedules,) = db.execute("SELECT count(*) FROM schedules").fetchone()
    (next_at,) = db.execute(
        """SELECT min(next_at) FROM schedules INDEXED BY schedules_due
        WHERE NOT paused AND next_at IS NOT NULL"""
    ).fetchone()
    return Counts(due, instant_or_none(oldest), running, schedules, instant_or_none(next_at))
