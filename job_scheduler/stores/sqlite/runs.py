"""Runs in an SQLite file: the steps on them, each within a transaction of its caller.

The claim looks at each priority in turn, and stays on one index, whatever else is in the table:
``runs_due`` has only what may be claimed, now or later. Whoever writes has the file for himself,
so no step needs a lock of its own.
"""

from __future__ import annotations

import json
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from job_scheduler.run import Ending, RunError, RunState
from job_scheduler.schedule import ConflictResolution
from job_scheduler.stores import rows
from job_scheduler.stores.base import LEASE_LOST, Again, Claim, Finished, Hold, Renewal, Rescued
from job_scheduler.stores.sqlite.plans import (
    had_started,
    has_ended,
    has_started,
    insert,
    plan_from_end,
)
from job_scheduler.stores.sqlite.rows import (
    COLUMNS,
    Planned,
    Row,
    Taken,
    claim_of,
    instant,
    micros,
    micros_of,
    planned_by_number,
    planned_of,
    with_attempt,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from job_scheduler.stores.base import Finish, NewRun, Worker

_MOST_RESCUED: Final = 500

_ENDED: Final = Finished(again=False, failures=0)


class Lease(NamedTuple):
    """What a claim or a renewal writes."""

    heartbeat: int
    until: int | None
    """To be read."""
    ends: int | None
    """By the clock that nobody sets."""


class Encoded(NamedTuple):
    """A new run, with the texts for its row."""

    run: NewRun
    task_data: str
    options: str | None


def of_id(db: sqlite3.Connection, run_id: str) -> Row | None:
    """The run of an id."""
    found = db.execute(f"SELECT {COLUMNS} FROM scheduled_jobs WHERE job_id = ?", (run_id,))
    row = found.fetchone()
    return None if row is None else Row(*row)


# New runs


def enqueue(
    db: sqlite3.Connection, runs: Sequence[Encoded], on_conflict: ConflictResolution, now: int
) -> dict[str, RunState]:
    """Keep runs; see the contract."""
    ids = json.dumps([each.run.id for each in runs])
    there = {
        row[1]: Row(*row)
        for row in db.execute(
            f"""SELECT {COLUMNS} FROM scheduled_jobs
            WHERE job_id IN (SELECT value FROM json_each(?))""",
            (ids,),
        )
    }
    states = {
        each.run.id: RunState(there[each.run.id].status) for each in runs if each.run.id in there
    }
    taken = {
        run_id: state for run_id, state in states.items() if not _is_free(there[run_id], state, now)
    }
    if taken and on_conflict is ConflictResolution.RAISE:
        return taken
    for each in runs:
        if each.run.id in taken and on_conflict is ConflictResolution.IGNORE:
            continue
        before = there.get(each.run.id)
        if before is not None:
            _take_away(db, before, now)
        _insert(db, each, now, 0 if before is None else before.token)
    return taken


def _is_free(row: Row, state: RunState, now: int) -> bool:
    return state.ended and row.keep_until is not None and row.keep_until <= now


def _insert(db: sqlite3.Connection, new: Encoded, now: int, token: int) -> None:
    run = new.run
    insert(
        db,
        run.id,
        run.job,
        micros(run.at),
        new.task_data,
        now,
        run.priority,
        rows.max_retries_of(run.retry),
        None if run.schedule_id is None else planned_of(db, run.schedule_id),
        beside=run.beside,
        keep_until=None if run.keep_until is None else micros(run.keep_until),
        options=new.options,
        token=token,  # goes on, so that no claim of what was there holds the new one
    )


def _take_away(db: sqlite3.Connection, row: Row, now: int) -> None:
    """Make room for another run of the same id."""
    db.execute("DELETE FROM scheduled_jobs WHERE rowid = ?", (row.rowid,))
    _leave_schedule(db, row, RunState.CANCELLED, now)


def _leave_schedule(db: sqlite3.Connection, row: Row, state: RunState, now: int) -> int:
    """Have the schedule of a run go on without it; tells how many have failed in a row."""
    planned = planned_by_number(db, row.schedule_number)
    if planned is None:
        return 0
    if planned.schedule.counts_from_end and not row.beside:
        plan_from_end(db, planned, planned.schedule.first_after(instant(now)))
    return _ended_of(db, planned, row, state)


def _ended_of(db: sqlite3.Connection, planned: Planned, row: Row, state: RunState) -> int:
    return has_ended(db, planned, state, beside=bool(row.beside), admitted=bool(row.admitted))


# Claims

_PRIORITY: Final = """
    SELECT min(priority) FROM scheduled_jobs INDEXED BY runs_due
    WHERE status = 'pending' AND NOT held AND priority > ?"""

DUE: Final = """
    SELECT rowid FROM scheduled_jobs INDEXED BY runs_due
    WHERE status = 'pending' AND NOT held AND priority = ? AND execution_time <= ?
    ORDER BY execution_time LIMIT ?"""

_KNOWN: Final = "job_name IN (SELECT value FROM json_each(?))"

DUE_OF_KNOWN: Final = DUE.replace("ORDER BY", f"AND {_KNOWN} ORDER BY")

_CLAIM: Final = f"""
    UPDATE scheduled_jobs SET status = 'running', worker_id = ?, started_at = ?,
        last_heartbeat = ?, lease_until = ?, lease_ends = ?,
        token = token + 1, attempt = attempt + 1
    WHERE rowid IN (%s) RETURNING {", ".join(Taken._fields)}"""

_CLAIM_ANY: Final = _CLAIM % DUE
_CLAIM_KNOWN: Final = _CLAIM % DUE_OF_KNOWN

_LOWEST: Final = -(2**63)


def priorities(db: sqlite3.Connection) -> Iterator[int]:
    """The priorities of what waits, each found by one step in the index."""
    (priority,) = db.execute(_PRIORITY.replace("> ?", ">= ?"), (_LOWEST,)).fetchone()
    while priority is not None:
        yield priority
        (priority,) = db.execute(_PRIORITY, (priority,)).fetchone()


def known_text(worker: Worker) -> str | None:
    """The jobs that a worker knows, for a statement; None: all."""
    return None if worker.jobs is None else json.dumps(sorted(worker.jobs))


def claim(
    db: sqlite3.Connection, now: datetime, limit: int, worker: Worker, lease: Lease
) -> list[Claim]:
    """Take due runs."""
    claims: list[Claim] = []
    at, known = micros(now), known_text(worker)
    statement = _CLAIM_ANY if known is None else _CLAIM_KNOWN
    written = (worker.id, at, *lease)
    for priority in priorities(db):
        which = (priority, at) if known is None else (priority, at, known)
        found = db.execute(statement, (*written, *which, limit - len(claims))).fetchall()
        for row in sorted(found, key=_BY_AGE):
            claims += _read_claim(db, Taken(*row), worker, at, lease.heartbeat)
        if len(claims) >= limit:
            break
    return claims


_BY_AGE: Final = itemgetter(Taken._fields.index("execution_time"), Taken._fields.index("rowid"))


def _read_claim(
    db: sqlite3.Connection, row: Taken, worker: Worker, at: int, now: int
) -> list[Claim]:
    """The claim of a row; none, and a failed run, if it was made by hand and cannot be read."""
    planned = planned_by_number(db, row.schedule_number)
    if planned is not None:
        has_started(db, planned.number, row.job_id, at)
    try:
        return [claim_of(row, worker.id, None if planned is None else planned.schedule)]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        said = RunError(type(error).__name__, f"its row cannot be read: {error}")
        whole = of_id(db, row.job_id)
        assert whole is not None
        _end(db, whole, Ending(RunState.FAILED, said), now)
        _leave_schedule(db, whole, RunState.FAILED, now)
        return []


def next_due(db: sqlite3.Connection, worker: Worker) -> int | None:
    """When the next run that this worker may claim is due."""
    found = []
    known = known_text(worker)
    for priority in priorities(db):
        statement, values = DUE, (priority, 2**62, 1)
        if known is not None:
            statement, values = DUE_OF_KNOWN, (priority, 2**62, known, 1)  # type: ignore[assignment]
        statement = statement.replace("SELECT rowid", "SELECT execution_time", 1)
        found += db.execute(statement, values).fetchall()
    return min(at for (at,) in found) if found else None


def due_of_others(db: sqlite3.Connection, now: datetime, worker: Worker) -> dict[str, int]:
    """How many runs are due of each job that this worker does not know."""
    counts: dict[str, int] = {}
    for priority in priorities(db):
        found = db.execute(
            f"""SELECT job_name, count(*) FROM scheduled_jobs INDEXED BY runs_due
            WHERE status = 'pending' AND NOT held AND priority = ? AND execution_time <= ?
                AND NOT {_KNOWN} GROUP BY job_name""",
            (priority, micros(now), known_text(worker)),
        )
        for name, count in found:
            counts[name] = counts.get(name, 0) + count
    return counts


# Ends

_HELD: Final = "job_id = ? AND token = ? AND worker_id = ? AND status = 'running'"

_END: Final = """
    UPDATE scheduled_jobs SET status = ?, started_at = ?, ended_at = ?, ending = ?,
        error_message = ?, result = ?, lease_until = NULL, lease_ends = NULL"""

_END_HELD: Final = f"{_END} WHERE {_HELD}"
_END_ROW: Final = f"{_END}, schedule_number = NULL WHERE rowid = ?"

_PUT_BACK: Final = """
    UPDATE scheduled_jobs SET status = 'pending', execution_time = ?, held = ?, worker_id = NULL,
        lease_until = NULL, lease_ends = NULL, last_heartbeat = NULL, started_at = ?, attempt = ?,
        retry_count = ?, crashes = ?, ending = ?, error_message = ?, attempts = ?
    WHERE rowid = ?"""


def finish(db: sqlite3.Connection, ends: Sequence[Finish], now: int) -> list[Finished | None]:
    """End claimed runs, or put them back."""
    plain = [
        end for end in ends if end.again is None and end.claim.schedule is None and not end.is_crash
    ]
    if len(plain) > 1 and _finish_all(db, [_end_values(end, now) for end in plain]):
        if len(plain) == len(ends):
            return [_ENDED] * len(ends)
        ended: Iterator[Finished | None] = repeat(_ENDED)
    else:
        ended = (_finish_plain(db, end, now) for end in plain)
    plains = {id(end) for end in plain}
    return [next(ended) if id(end) in plains else _finish(db, end, now) for end in ends]


def _finish_all(db: sqlite3.Connection, values: list[tuple[Any, ...]]) -> bool:
    """End runs that nothing depends on, all or none: if each is still held, as nearly always."""
    db.execute("SAVEPOINT ends")
    all_held = db.executemany(_END_HELD, values).rowcount == len(values)
    if not all_held:
        db.execute("ROLLBACK TO ends")
    db.execute("RELEASE ends")
    return all_held


def _finish_plain(db: sqlite3.Connection, end: Finish, now: int) -> Finished | None:
    """End one that nothing depends on."""
    return _ENDED if db.execute(_END_HELD, _end_values(end, now)).rowcount else None


def _end_values(end: Finish, now: int) -> tuple[Any, ...]:
    ending, claim = end.ending, end.claim
    return (
        ending.state.value,
        micros_of(end.started_at),
        now if ending.ended_at is None else micros_of(ending.ended_at),
        rows.ending_text(ending),
        rows.message_of(ending.error),
        end.result,
        claim.run_id,
        claim.token,
        claim.worker,
    )


def _finish(db: sqlite3.Connection, end: Finish, now: int) -> Finished | None:
    ending, claim, again = end.ending, end.claim, end.again
    found = db.execute(
        f"SELECT {COLUMNS} FROM scheduled_jobs WHERE {_HELD}",
        (claim.run_id, claim.token, claim.worker),
    ).fetchone()
    if found is None:
        return None
    row = Row(*found)._replace(started_at=micros_of(end.started_at))
    planned = planned_by_number(db, row.schedule_number)
    is_back = again is not None and not row.is_orphan
    failures = 0 if planned is None else planned.failures
    if planned is not None:
        had_started(db, planned.number, row.job_id, row.started_at)
    if again is not None and is_back:
        _put_back(db, row, planned, again, ending)
    else:
        _end(db, row, ending, now, end.result)
        if end.is_crash:
            _count_crashes(db, row, row.crashes + 1)
        if planned is not None:
            failures = _ended_of(db, planned, row, ending.state)
    if planned is not None and end.next_at is not None and not row.beside:
        plan_from_end(db, planned, end.next_at)
    return Finished(is_back, failures)


def _end(
    db: sqlite3.Connection, row: Row, ending: Ending, now: int, result: str | None = None
) -> None:
    """End a run for good; its schedule is still to be told."""
    ended_at = now if ending.ended_at is None else micros_of(ending.ended_at)
    texts = (rows.ending_text(ending), rows.message_of(ending.error), result)
    db.execute(_END_ROW, (str(ending.state), row.started_at, ended_at, *texts, row.rowid))


def _count_crashes(db: sqlite3.Connection, row: Row, crashes: int) -> None:
    db.execute("UPDATE scheduled_jobs SET crashes = ? WHERE rowid = ?", (crashes, row.rowid))


def _put_back(
    db: sqlite3.Connection, row: Row, planned: Planned | None, again: Again, ending: Ending
) -> None:
    """Have a run that goes on be started again."""
    at, reason = again
    text = db.execute(
        "SELECT ending, error_message FROM scheduled_jobs WHERE rowid = ?", (row.rowid,)
    ).fetchone()
    attempts = row.attempts
    if reason != "release":
        text = (rows.ending_text(ending), rows.message_of(ending.error))
        seconds = None if row.started_at is None else row.started_at / 1_000_000
        attempts = with_attempt(
            attempts, rows.attempt_text(_last_claim(row), reason, ending, seconds)
        )
    db.execute(
        _PUT_BACK,
        (
            micros(at),
            planned is not None and bool(planned.paused) and not row.beside,
            row.started_at,
            row.attempt - (reason == "release"),
            row.retry_count + (reason == "failure"),
            row.crashes + (reason == "crash"),
            *text,
            attempts,
            row.rowid,
        ),
    )


def _last_claim(row: Row) -> Claim:
    """The claim that a run is put back from, as far as its history needs it."""
    at, worker = instant(row.execution_time), row.worker_id or ""
    return Claim(
        row.job_id, row.job_name, (), {}, None, None, None, at, worker, row.token, row.attempt
    )


def cancel(db: sqlite3.Connection, run_id: str, now: int) -> bool:
    """Cancel a run that waits."""
    row = of_id(db, run_id)
    if row is None or row.status != RunState.PENDING:
        return False
    db.execute(
        """UPDATE scheduled_jobs
        SET status = 'cancelled', ended_at = ?, held = 0, schedule_number = NULL
        WHERE rowid = ?""",
        (now, row.rowid),
    )
    _leave_schedule(db, row, RunState.CANCELLED, now)
    return True


def ask_to_stop(db: sqlite3.Connection, run_id: str) -> bool:
    """Note that a run that goes on is to be cancelled."""
    changed = db.execute(
        "UPDATE scheduled_jobs SET to_stop = 1 WHERE job_id = ? AND status = 'running'", (run_id,)
    )
    return changed.rowcount == 1


def to_stop(db: sqlite3.Connection) -> frozenset[str]:
    """The runs that are to be cancelled by their workers."""
    found = db.execute(
        """SELECT job_id FROM scheduled_jobs INDEXED BY runs_to_stop
        WHERE status = 'running' AND to_stop"""
    )
    return frozenset(run_id for (run_id,) in found)


# Leases


def renew(db: sqlite3.Connection, holds: Sequence[Hold], worker: Worker, lease: Lease) -> Renewal:
    """Have leases begin anew."""
    renewal = Renewal([], [])
    for hold in holds:
        found = db.execute(
            f"""UPDATE scheduled_jobs SET last_heartbeat = ?, lease_until = ?, lease_ends = ?
            WHERE {_HELD} RETURNING to_stop""",
            (*lease, hold.run_id, hold.token, worker.id),
        ).fetchall()
        if not found:
            renewal.lost.append(hold)
        elif found[0][0]:
            renewal.to_stop.append(hold)
    return renewal


def rescue(db: sqlite3.Connection, most_crashes: int, now: int, lease_now: int) -> list[Rescued]:
    """Put back runs whose lease has ended."""
    found = db.execute(
        f"""SELECT {COLUMNS} FROM scheduled_jobs INDEXED BY runs_going
        WHERE status = 'running' AND lease_ends < ? ORDER BY lease_ends LIMIT ?""",
        (lease_now, _MOST_RESCUED),
    ).fetchall()
    return [_rescue(db, Row(*row), most_crashes, now) for row in found]


def _rescue(db: sqlite3.Connection, row: Row, most_crashes: int, now: int) -> Rescued:
    said = f"worker {row.worker_id} was not heard of any more"
    ending = Ending(RunState.FAILED, RunError(LEASE_LOST, said), ended_at=now / 1_000_000)
    crashes = row.crashes + 1
    if not (row.to_stop or crashes >= most_crashes or row.is_orphan):
        planned = planned_by_number(db, row.schedule_number)
        again = Again(instant(now), "crash")
        _put_back(db, row, planned, again, ending)
        return Rescued(row.job_id, row.job_name, RunState.PENDING, crashes)
    state = RunState.CANCELLED if row.to_stop else RunState.FAILED
    _end(db, row, ending._replace(state=state), now)
    _count_crashes(db, row, crashes)
    _leave_schedule(db, row, state, now)
    return Rescued(row.job_id, row.job_name, state, crashes)
