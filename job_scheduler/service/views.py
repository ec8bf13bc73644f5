"""What a store holds, as the API shows it."""

from __future__ import annotations

import functools
import json
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.service.models import AttemptOut, JobOut, OutcomeOut, RunDetail, RunOut
from job_scheduler.triggers import Cron

if TYPE_CHECKING:
    from datetime import timedelta

    from job_scheduler.run import RunError
    from job_scheduler.stores.base import AttemptRecord, Outcome, RunRecord, ScheduleRecord
    from job_scheduler.triggers import Trigger


_LONGEST_ERROR: Final = 2_000
"""Characters of an error as lists show it; the whole is in the traceback."""


def job_out(record: ScheduleRecord) -> JobOut:
    """A job; what is known of it is right, so it is not checked again."""
    schedule, about = record.schedule, record.schedule.about
    trigger = schedule.trigger
    cron = trigger if isinstance(trigger, Cron) else None
    return JobOut(
        id=record.number,
        name=name_of(record),
        description=about.get("description"),
        job_type=about.get("job_type", schedule.job),
        cron_expression=None if cron is None else cron.expression,
        schedule=in_words(trigger),
        timezone=None if cron is None else cron.timezone,
        parameters=schedule.kwargs,
        is_active=not record.paused,
        max_retries=None if schedule.retry is None else schedule.retry.max_retries,
        timeout=schedule.timeout,
        priority=schedule.priority,
        overlap=schedule.overlap,
        catch_up=schedule.catch_up,
        misfire_grace_time=_seconds(schedule.misfire_grace_time),
        jitter=_seconds(schedule.jitter),
        start=schedule.start,
        end=schedule.end,
        pause_on_failures=schedule.pause_on_failures,
        created_at=_instant(about.get("created_at")),
        updated_at=_instant(about.get("updated_at")),
        last_run_at=record.last_run_at,
        next_run_at=None if record.paused else record.next_at,
        last_state=None if record.last_run is None else record.last_run.state,
        running=record.running,
        completed=record.completed,
        failed=record.failed,
        cancelled=record.cancelled,
        missed=record.missed,
    )


def name_of(record: ScheduleRecord) -> str:
    """What a job is called: what a program has scheduled has only its id."""
    name: str = record.schedule.about.get("name", record.schedule.id)
    return name


@functools.lru_cache(maxsize=10_000)
def in_words(trigger: Trigger) -> str:
    """When it fires."""
    return trigger.describe()


def run_out(record: RunRecord, job: ScheduleRecord | None) -> RunOut:
    """A run, as lists show it."""
    return RunOut(**_of_run(record, job))


def run_detail(record: RunRecord, job: ScheduleRecord | None) -> RunDetail:
    """A run with all that is known of it."""
    error = record.error
    return RunDetail(
        **_of_run(record, job),
        traceback=_traceback(error),
        output=record.stderr,
        result=None if record.result is None else json.loads(record.result),
        attempts=[_attempt_out(each) for each in record.attempts],
        worker=record.worker,
        peak_memory=record.peak_memory,
        cpu_time=record.cpu_time,
        max_retries=record.max_retries,
        retries=record.retries,
        crashes=record.crashes,
    )


def _of_run(record: RunRecord, job: ScheduleRecord | None) -> dict[str, Any]:
    code = record.exitcode
    duration = None
    if record.started_at is not None and record.ended_at is not None:
        duration = max(0.0, (record.ended_at - record.started_at).total_seconds())
    return {
        "id": record.id,
        "job_id": None if job is None else job.number,
        "job_name": None if job is None else name_of(job),
        "job_type": record.job,
        "state": record.state,
        "attempt": record.attempt,
        "parameters": dict(record.kwargs),
        "due_at": record.at,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "duration": duration,
        "exit_code": code if code is None or code >= 0 else None,
        "signal": None if code is None or code >= 0 else _signal_name(-code),
        "error": None if record.error is None else str(record.error)[:_LONGEST_ERROR],
    }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _attempt_out(record: AttemptRecord) -> AttemptOut:
    return AttemptOut(
        number=record.number,
        reason=record.reason,
        started_at=record.started_at,
        ended_at=record.ended_at,
        exit_code=record.exitcode,
        error=None if record.error is None else str(record.error),
        traceback=_traceback(record.error),
    )


def _traceback(error: RunError | None) -> str | None:
    return None if error is None or not error.traceback else error.traceback


def outcome_out(outcome: Outcome) -> OutcomeOut:
    """How a run has ended."""
    return OutcomeOut(
        run_id=outcome.run_id,
        state=outcome.state,
        due_at=outcome.at,
        started_at=outcome.started_at,
        ended_at=outcome.ended_at,
    )


def _seconds(value: timedelta | None) -> float | None:
    return None if value is None else value.total_seconds()


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
