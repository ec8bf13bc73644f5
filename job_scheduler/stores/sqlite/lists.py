"""Ended and listed runs in an SQLite file: which are deleted, and which a question selects."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.run import RunState

if TYPE_CHECKING:
    import sqlite3

    from job_scheduler.stores.base import Retention

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


_PENDING: Final = """
    WHERE rowid IN (
        SELECT rowid FROM scheduled_jobs INDEXED BY runs_due WHERE status = 'pending' AND NOT held
        UNION ALL
        SELECT rowid FROM scheduled_jobs INDEXED BY runs_held WHERE status = 'pending' AND held)"""


def listed(schedule_id: str | None, state: RunState | None) -> tuple[str, tuple[Any, ...]]:
    """What selects the runs of a schedule, or in a state, the newest first."""
    if schedule_id is not None:
        if state is None:
            return "WHERE schedule_id = ? ORDER BY rowid DESC LIMIT ?", (schedule_id,)
        which = "WHERE schedule_id = ? AND +status = ? ORDER BY rowid DESC LIMIT ?"
        return which, (schedule_id, str(state))
    if state is None:
        return "ORDER BY rowid DESC LIMIT ?", ()
    if state is RunState.PENDING:
        return f"{_PENDING} ORDER BY rowid DESC LIMIT ?", ()
    if state is RunState.COMPLETED:
        return "WHERE +status = 'completed' ORDER BY rowid DESC LIMIT ?", ()
    if state is RunState.RUNNING:
        return "INDEXED BY runs_going WHERE status = 'running' ORDER BY rowid DESC LIMIT ?", ()
    which = "INDEXED BY runs_not_completed WHERE status IN ('failed', 'cancelled') AND status = ?"
    return f"{which} ORDER BY rowid DESC LIMIT ?", (state.value,)
