"""Rows of PostgreSQL as values of the contract, and back; and the statements, by their names.

JSON travels as text and is cast by the server, so that no codec of the caller's pool meddles.
"""

from __future__ import annotations

import functools
import importlib.resources
import logging
import re
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.log import tell
from job_scheduler.run import RunError, RunState
from job_scheduler.stores import rows
from job_scheduler.stores.base import Claim, Outcome, RunRecord, ScheduleRecord
from job_scheduler.stores.payload import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from job_scheduler.run import Ending
    from job_scheduler.schedule import Schedule
    from job_scheduler.stores.base import Finish, NewRun

Column = list[Any] | None
"""The values of a column, one for each row; None if all are NULL."""

MIGRATIONS: Final = ("migration_1",)


@functools.cache
def statements() -> Mapping[str, str]:
    """All statements, by the names that stand over them."""
    file = importlib.resources.files("job_scheduler.stores.postgres").joinpath("statements.sql")
    pieces = re.split(r"^-- name: (\w+)\n", file.read_text("utf-8"), flags=re.MULTILINE)
    return {
        name: re.sub(r"^ *--.*\n", "", text, flags=re.MULTILINE).strip()
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True)
    }


def statement(template: str, **parts: str) -> str:
    """A statement with others put into it, by name; an empty name stands for nothing."""
    found = statements()
    return found[template].format(**{key: found.get(name, "") for key, name in parts.items()})


def column(values: Sequence[Any]) -> Column:
    """A column that costs nothing if there is nothing in it."""
    return None if all(value is None for value in values) else list(values)


def run_columns(runs: Sequence[NewRun]) -> list[Column]:
    """The columns of new runs that do not depend on their schedule."""
    return [
        [run.id for run in runs],
        [run.job for run in runs],
        [run.at for run in runs],
        [encode(run.args, run.kwargs) for run in runs],
        [run.priority for run in runs],
        [rows.max_retries_of(run.retry) for run in runs],
        column([rows.options_text(run) for run in runs]),
        column([run.keep_until for run in runs]),
    ]


def instant_columns(planned: Sequence[tuple[Schedule, datetime]]) -> list[Column]:
    """The same of the runs of instants."""
    return [
        [schedule.run_id(instant) for schedule, instant in planned],
        [schedule.job for schedule, _ in planned],
        [schedule.runs_at(instant) for schedule, instant in planned],
        [encode(schedule.args, schedule.kwargs) for schedule, _ in planned],
        [schedule.priority for schedule, _ in planned],
        [rows.max_retries_of(schedule.retry) for schedule, _ in planned],
        column([rows.options_text(schedule) for schedule, _ in planned]),
        None,
    ]


def ending_columns(ends: Sequence[Finish]) -> list[Column]:
    """How runs have ended."""
    return [
        [end.claim.run_id for end in ends],
        [end.claim.token for end in ends],
        [end.ending.state.value for end in ends],
        column([end.started_at for end in ends]),
        column([end.ending.ended_at for end in ends]),
        column([rows.message_of(end.ending.error) for end in ends]),
        column([rows.ending_text(end.ending) for end in ends]),
        column([end.result for end in ends]),
    ]


def again_columns(ends: Sequence[Finish]) -> list[Column]:
    """Who has claimed them, and which of them are started again, and when."""
    return [
        [end.claim.worker for end in ends],
        column([None if end.again is None else end.again.at for end in ends]),
        column([_reason(end) for end in ends]),
        column([_attempt_text(end) for end in ends]),
    ]


def _reason(end: Finish) -> str | None:
    if end.again is not None:
        return end.again.reason
    return "crash" if end.is_crash else None


def _attempt_text(end: Finish) -> str | None:
    if end.again is None or end.again.reason == "release":
        return None
    return rows.attempt_text(end.claim, end.again.reason, end.ending, end.started_at)


def without_words(end: Finish) -> Finish:
    """The same end without what a job has said, which the server has refused."""
    error = end.ending.error
    if error is not None:
        error = RunError(rows.clean(error.type), "the database has refused its message")
    return end._replace(ending=end.ending._replace(error=error, stderr=""), result=None)


def schedule_of_row(row: Any) -> Schedule:
    """The schedule of a row that begins with the columns of its definition."""
    return rows.schedule_of(rows.Definition(*row[:7]))


def readable_schedules(found: Iterable[Any]) -> Iterable[tuple[Any, Schedule]]:
    """Rows with their schedules; one that somebody has written wrongly is told of and left out."""
    for row in found:
        try:
            yield row, schedule_of_row(row)
        except Exception:
            tell(logging.ERROR, "schedule %r cannot be read", row["schedule_id"], exc_info=True)


def aware(instant: datetime) -> datetime:
    """An instant of a row; ``infinity`` of PostgreSQL comes without a timezone."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant


def claim_of(row: Any, worker: str) -> Claim:
    """The claim of a row; raises whatever is wrong with what somebody has written there."""
    args, kwargs = decode(row["task_data"])
    max_retries = row["max_retries"] or 0
    retry, timeout, place = rows.options_of(row["options"], max_retries)
    definition = row["texts"]
    schedule = None
    if definition is not None:
        schedule = rows.schedule_of(rows.Definition._make([*definition[:6], int(definition[6])]))
    return Claim(
        row["job_id"],
        row["job_name"],
        args,
        kwargs,
        schedule,
        retry,
        timeout,
        aware(row["execution_time"]),
        worker,
        row["token"],
        row["attempt"],
        row["retry_count"] or 0,
        row["crashes"],
        place,
    )


def bare_claim(row: Any, worker: str) -> Claim:
    """The claim of a row that cannot be read, to end it."""
    return Claim(
        row["job_id"],
        row["job_name"],
        (),
        {},
        None,
        None,
        None,
        aware(row["execution_time"]),
        worker,
        row["token"],
        row["attempt"],
    )


def run_record(row: Any) -> RunRecord:
    """What is known of a run."""
    state = RunState(row["status"])
    ending = rows.ending_of(row["ending"], state)
    try:
        args, kwargs = decode(row["task_data"])
    except Exception:  # written by hand; it ends as failed once it is claimed
        args, kwargs = (), {}
    return RunRecord(
        row["job_id"],
        row["job_name"],
        row["schedule_id"],
        state,
        row["attempt"],
        aware(row["execution_time"]),
        row["started_at"],
        row["ended_at"],
        _error_of(ending, row["error_message"]),
        ending.exitcode,
        ending.peak_memory,
        ending.cpu_time,
        ending.stderr,
        row["result"],
        args,
        kwargs,
        row["created_at"],
        row["priority"],
        row["retry_count"],
        row["max_retries"],
        row["crashes"],
        row["worker_id"],
        row["lease_until"],
        row["last_heartbeat"],
        rows.attempts_of(row["attempts"]),
        rows.timeout_of(row["options"]),
    )


def _error_of(ending: Ending, message: str | None) -> RunError | None:
    """The error; of rows that were not ours there is but a text."""
    if ending.error is not None or message is None:
        return ending.error
    return RunError("Error", message)


def schedule_record(row: Any, schedule: Schedule, last_run: RunRecord | None) -> ScheduleRecord:
    """What is known of a schedule."""
    return ScheduleRecord(
        schedule,
        row["next_at"],
        row["paused"],
        row["active"],
        row["running"],
        row["failures"],
        row["completed"],
        row["failed"],
        row["cancelled"],
        row["missed"],
        rows.gaps_of(row["gaps"]),
        last_run,
        row["number"],
        row["last_run_at"],
    )


def outcome(row: Any) -> Outcome:
    """What became of a run, in short."""
    return Outcome(
        row["job_id"],
        RunState(row["status"]),
        aware(row["execution_time"]),
        row["started_at"],
        row["ended_at"],
    )
