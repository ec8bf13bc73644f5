"""What users give for a schedule, checked and turned into what the engine takes, and back."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.durations import parse_duration
from job_scheduler.errors import ArgumentsError, InvalidOptionError
from job_scheduler.executors.process import arguments_of
from job_scheduler.instants import now, to_utc
from job_scheduler.launcher.base import encode_arguments, reference
from job_scheduler.retry import retry_policy
from job_scheduler.run import RunState
from job_scheduler.schedule import ConflictResolution
from job_scheduler.stores.payload import encode
from job_scheduler.target import seconds_or_none
from job_scheduler.triggers import Cron, Interval, Once

if TYPE_CHECKING:
    from datetime import datetime

    from job_scheduler.schedule import Schedule
    from job_scheduler.stores.base import RunRecord, ScheduleRecord
    from job_scheduler.target import Target
    from job_scheduler.triggers import Trigger

_PARAMETERS: Final = ("interval", "cron", "at", "args", "kwargs", "timezone", "executor")

_MOST_PRIORITY: Final = 2**31
"""As much as PostgreSQL keeps."""

_POLICIES: Final = (
    "misfire_grace_time",
    "catch_up",
    "overlap",
    "jitter",
    "start",
    "end",
    "pause_on_failures",
    "priority",
    "timeout",
    "max_retries",
    "retry",
)


def trigger_of(
    job_id: str, *, interval: Any, cron: str | None, at: datetime | None, timezone: str | None
) -> Trigger:
    """The trigger that is meant; raises ``InvalidOptionError`` unless there is exactly one."""
    check_id(job_id)
    values = {"interval": interval, "cron": cron, "at": at}
    given = [name for name, value in values.items() if value is not None]
    if len(given) != 1:
        what = " and ".join(given) or "none"
        raise InvalidOptionError(f"job {job_id!r}: give one of interval, cron and at, not {what}")
    if timezone is not None and cron is None:
        raise InvalidOptionError(f"job {job_id!r}: timezone is given, but it belongs to cron")
    if cron is not None:
        return Cron(cron, "UTC" if timezone is None else timezone)
    return Interval(parse_duration(interval, "interval")) if at is None else Once(to_utc(at, "at"))


def describe(schedule: Schedule, first: datetime | None) -> str:
    """When a schedule runs, in words."""
    words = f"{schedule.job} {schedule.trigger.describe()}"
    if schedule.counts_from_end and first is not None:
        instant = first.isoformat(sep=" ", timespec="seconds")
        return f"{words} after the end of a run, first at {instant}"
    return words


def describe_run(record: RunRecord | None) -> dict[str, Any] | None:
    """A run as a user is told of it."""
    if record is None:
        return None
    return {
        "id": record.id,
        "state": str(record.state),
        "attempt": record.attempt,
        "due_at": record.at,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "error": None if record.error is None else str(record.error),
    }


def describe_schedule(record: ScheduleRecord, *, is_on: bool = True) -> dict[str, Any]:
    """A schedule as a user is told of it."""
    schedule, last = record.schedule, record.last_run
    goes_on = last is not None and last.state is RunState.RUNNING
    return {
        "id": schedule.id,
        "job": schedule.job,
        "trigger": schedule.trigger.describe(),
        "next_run_time": record.next_at if is_on and not record.paused else None,
        "paused": record.paused,
        "running": goes_on or record.running > 0,
        "last_run": describe_run(last),
        "completed": record.completed,
        "failed": record.failed,
        "cancelled": record.cancelled,
        "missed": record.missed,
    }


def positional(job_id: str, args: Any) -> tuple[Any, ...]:
    """What was given as ``args``; raises ``ArgumentsError``."""
    if args is None:
        return ()
    if isinstance(args, (list, tuple)):
        return tuple(args)
    raise ArgumentsError(f"job {job_id!r}: args is {args!r}; give a list, as in args=[{args!r}]")


def keywords(job_id: str, kwargs: Any) -> dict[str, Any]:
    """What was given as ``kwargs``; raises ``ArgumentsError``."""
    if kwargs is None:
        return {}
    if isinstance(kwargs, dict) and all(isinstance(key, str) for key in kwargs):
        return dict(kwargs)
    raise ArgumentsError(f"job {job_id!r}: kwargs is {kwargs!r}; give a dict with strings as keys")


def conflict_resolution_of(value: Any) -> ConflictResolution:
    """What was given, as its kind or as text; raises ``InvalidOptionError``."""
    try:
        return ConflictResolution(value)
    except ValueError:
        known = ", ".join(repr(str(each)) for each in ConflictResolution)
        raise InvalidOptionError(
            f"conflict_resolution is {value!r}; it must be one of {known}"
        ) from None


def check_priority(priority: Any) -> None:
    """Raise ``InvalidOptionError`` unless this is a priority."""
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise InvalidOptionError(
            f"priority is {priority!r}; it must be a whole number, and lower ones run first"
        )
    if abs(priority) >= _MOST_PRIORITY:
        raise InvalidOptionError(f"priority is {priority}; it must be less than {_MOST_PRIORITY}")


def policies_of(options: dict[str, Any], target: Target) -> dict[str, Any]:
    """Policies as a ``Schedule`` takes them; raises for unknown ones and for wrong values."""
    check_known(options)
    options = dict(options)
    if "max_retries" in options:
        if "retry" in options:
            raise InvalidOptionError("give one of retry and max_retries, not both")
        options["retry"] = retry_policy(options.pop("max_retries"), "max_retries")
    options["retry"] = retry_policy(options.get("retry"), "retry")
    check_priority(options.get("priority", 5))
    timeout = seconds_or_none(options.get("timeout"), "timeout")
    check_timeout(target.timeout if timeout is None else timeout, target)
    return {**options, "timeout": timeout}


def check_known(options: dict[str, Any]) -> None:
    """Raise ``InvalidOptionError`` for what is no policy."""
    for name in options:
        if name in _POLICIES:
            continue
        near = get_close_matches(name, (*_POLICIES, *_PARAMETERS), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_POLICIES)}"
        if name in _PARAMETERS:
            hint = "it belongs to add_job()"
        raise InvalidOptionError(f"{name!r} is no option of a schedule; {hint}")


def check_timeout(timeout: float | None, target: Target) -> None:
    """Raise ``InvalidOptionError`` for a timeout of what nothing can stop."""
    if timeout is not None and target.place == "thread":
        raise InvalidOptionError(
            f"timeout is {timeout:g} s, but {target.name} runs in a thread, which cannot be "
            f"stopped: make it async, or a Job with process()"
        )


def check_new_id(job_id: object) -> None:
    """Raise ``InvalidOptionError`` unless this is an id, or None."""
    if job_id is not None:
        check_id(job_id)


def check_id(given: object, what: str = "job_id") -> None:
    """Raise ``InvalidOptionError`` unless this is an id."""
    if not (isinstance(given, str) and given):
        raise InvalidOptionError(f"{what} is {given!r}; it must be a string that is not empty")
    if "\0" in given or (not given.isprintable() and _is_broken(given)):
        raise InvalidOptionError(f"{what} is {given!r}, which no store can keep")


def _is_broken(text: str) -> bool:
    """Whether there is half a character in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def check_sendable(
    name: str, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise if it is to run in a process, or in a fleet, and cannot be sent there.

    ``ArgumentsError`` for its arguments, ``JobImportError`` for a class that no other process
    can find.
    """
    check_fleet(target)
    if target.place == "celery":
        encode(args, kwargs)
    if target.place == "process":
        if target.method is not None:
            reference(target.job_class)
        encode_arguments(name, arguments_of(target, args, kwargs))


def check_fleet(target: Target) -> None:
    """Raise ``InvalidOptionError`` if it is to run on Celery's workers, and cannot."""
    if target.place == "celery":
        from job_scheduler.executors.celery.checking import check_task

        check_task(target.what)


def within_bounds(schedule: Schedule, first: datetime | None) -> datetime | None:
    """The first instant that was asked for, or the start, if that is later.

    Raises ``InvalidOptionError`` for an instant after the end. A schedule that has ended before
    its first run for another reason is good: a program may still have it after its time.
    """
    if first is None:
        return None
    if schedule.start is not None and first < schedule.start:
        first = schedule.start
    is_given = isinstance(schedule.trigger, Once) and not schedule.relative
    if is_given and schedule.end is not None and first > schedule.end:
        raise InvalidOptionError(f"end ({schedule.end}) is before the first run ({first})")
    return first


def has_ended(schedule: Schedule, first: datetime | None) -> bool:
    """Whether nothing is left to run before the end."""
    if schedule.end is None:
        return False
    return schedule.first_after(now()) is None if first is None else first > schedule.end
