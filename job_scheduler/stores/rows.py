"""What the stores on disk write into their rows: definitions, options and endings as JSON texts."""

from __future__ import annotations

import functools
import json
from dataclasses import MISSING, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from job_scheduler.errors import InvalidOptionError
from job_scheduler.retry import RetryPolicy
from job_scheduler.run import Ending, RunError, RunState
from job_scheduler.schedule import Missed, Schedule
from job_scheduler.stores.base import AttemptRecord
from job_scheduler.stores.payload import decode, encode, encode_with
from job_scheduler.triggers import Cron, Interval, Once

if TYPE_CHECKING:
    from job_scheduler.stores.base import Claim, NewRun, Reason
    from job_scheduler.target import Place
    from job_scheduler.triggers import Trigger

MOST_ATTEMPTS: Final = 20
"""Attempts that are remembered of one run."""

MOST_GAPS: Final = 20
"""Gaps that are remembered of one schedule."""

_IN_COLUMNS: Final = ("id", "job", "trigger", "args", "kwargs", "generation")

_DEFAULTS: Final = {
    field.name: field.default
    for field in fields(Schedule)
    if field.default is not MISSING and field.name not in _IN_COLUMNS
}


class Definition(NamedTuple):
    """A schedule as the columns of its row."""

    schedule_id: str
    job_name: str
    task_data: str
    trigger: str
    timezone: str | None
    policies: str
    generation: int


def folded(text: str) -> str:
    """The text as it is kept to be looked for: upper and lower case are one."""
    return clean(text.casefold())


def definition_of(schedule: Schedule) -> Definition:
    """The row of a schedule; raises ``ArgumentsError`` for what is not JSON in it."""
    trigger, timezone = _trigger_text(schedule.trigger)
    policies = {
        name: _plain(getattr(schedule, name))
        for name, default in _DEFAULTS.items()
        if getattr(schedule, name) != default
    }
    return Definition(
        schedule.id,
        schedule.job,
        encode(schedule.args, schedule.kwargs),
        trigger,
        timezone,
        encode_with(policies, "about", schedule.about) if schedule.about else _json(policies),
        schedule.generation,
    )


@functools.lru_cache(maxsize=10_000)
def schedule_of(definition: Definition) -> Schedule:
    """The schedule of a row; the same object for the same row."""
    args, kwargs = decode(definition.task_data)
    policies = {
        name: _read_policy(name, value) for name, value in json.loads(definition.policies).items()
    }
    return Schedule(
        id=definition.schedule_id,
        job=definition.job_name,
        trigger=_trigger_of(definition.trigger, definition.timezone),
        args=args,
        kwargs=kwargs,
        generation=definition.generation,
        **policies,
    )


def _trigger_text(trigger: Trigger) -> tuple[str, str | None]:
    if isinstance(trigger, Cron):
        return _json({"cron": trigger.expression}), trigger.timezone
    if isinstance(trigger, Once):
        return _json({"once": trigger.instant.isoformat()}), None
    if isinstance(trigger, Interval):
        every: dict[str, Any] = {"every": trigger.period.total_seconds()}
        if trigger.start is not None:
            every["start"] = trigger.start.isoformat()
        return _json(every), None
    raise InvalidOptionError(
        f"the trigger is {trigger!r}, but a store on disk keeps only Once, Interval and Cron"
    )


def _trigger_of(text: str, timezone: str | None) -> Trigger:
    content = json.loads(text)
    if "cron" in content:
        return Cron(content["cron"], timezone or "UTC")
    if "once" in content:
        return Once(datetime.fromisoformat(content["once"]))
    start = content.get("start")
    period = timedelta(seconds=content["every"])
    return Interval(period, None if start is None else datetime.fromisoformat(start))


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return value.isoformat()
    return _retry_content(value) if isinstance(value, RetryPolicy) else value


def _read_policy(name: str, value: Any) -> Any:
    if name in ("misfire_grace_time", "jitter"):
        return timedelta(seconds=value)
    if name in ("start", "end"):
        return datetime.fromisoformat(value)
    return _retry_of(value) if name == "retry" else value


def _retry_content(policy: RetryPolicy) -> dict[str, Any]:
    return {
        "max_retries": policy.max_retries,
        "delay": policy.delay.total_seconds(),
        "factor": policy.factor,
        "max_delay": policy.max_delay.total_seconds(),
        "jitter": policy.jitter,
        "retry_on": None if policy.retry_on is None else sorted(policy.retry_on),
        "give_up_on": sorted(policy.give_up_on),
    }


def _retry_of(content: dict[str, Any]) -> RetryPolicy:
    return RetryPolicy(**content)


class Options(NamedTuple):
    """What only some runs have."""

    retry: RetryPolicy | None = None
    timeout: float | None = None
    place: Place | None = None


NO_OPTIONS: Final = Options()


def options_text(of: NewRun | Schedule) -> str | None:
    """The options of a run, or of the runs of a schedule; None if it has none."""
    content: dict[str, Any] = {}
    if of.retry is not None:
        content["retry"] = _retry_content(of.retry)
    if of.timeout is not None:
        content["timeout"] = of.timeout
    if of.place is not None:
        content["place"] = of.place
    return _json(content) if content else None


def options_of(text: str | None, max_retries: int) -> Options:
    """The options of a row; one that was made by hand may have nothing but ``max_retries``."""
    if text is None and not max_retries:
        return NO_OPTIONS
    return _options_of(text, max_retries)


@functools.lru_cache(maxsize=1_000)
def _options_of(text: str | None, max_retries: int) -> Options:
    content = {} if text is None else json.loads(text)
    retry = content.get("retry")
    policy = _retry_of(retry) if retry is not None else None
    if policy is None and max_retries:
        policy = RetryPolicy(max_retries)
    return Options(policy, content.get("timeout"), content.get("place"))


def timeout_of(text: str | None) -> float | None:
    """The timeout among the options of a row."""
    return None if text is None else _options_of(text, 0).timeout


def max_retries_of(retry: RetryPolicy | None) -> int:
    """What stands in the column of that name."""
    return 0 if retry is None else retry.max_retries


def ending_text(ending: Ending) -> str | None:
    """All that is known of an ending, beside its state and its time; None if that is nothing."""
    content: dict[str, Any] = {}
    if ending.error is not None:
        content["error"] = _error_content(ending.error)
    for name in ("exitcode", "peak_memory", "cpu_time"):
        value = getattr(ending, name)
        if value is not None:
            content[name] = value
    if ending.stderr:
        content["stderr"] = clean(ending.stderr)
    return _json(content) if content else None


def ending_of(text: str | None, state: RunState) -> Ending:
    """An ending from what :func:`ending_text` has made."""
    content = {} if text is None else json.loads(text)
    error = content.pop("error", None)
    return Ending(state, None if error is None else _error_of(error), **content)


def message_of(error: RunError | None) -> str | None:
    """An error in one text, as databases take it."""
    return None if error is None else clean(str(error))


def _error_content(error: RunError) -> list[Any]:
    return [error.type, clean(error.message), clean(error.traceback), list(error.bases)]


def _error_of(content: list[Any]) -> RunError:
    kind, message, traceback, bases = content
    return RunError(kind, message, traceback, tuple(bases))


def attempt_text(claim: Claim, reason: Reason, ending: Ending, started_at: float | None) -> str:
    """An attempt that was not the last, for the history of its run."""
    error = ending.error
    content = {
        "number": claim.attempt,
        "reason": reason,
        "worker": claim.worker,
        "started_at": started_at,
        "ended_at": ending.ended_at,
        "error": None if error is None else _error_content(error),
        "exitcode": ending.exitcode,
    }
    return _json(content)


def attempts_of(text: str | None) -> tuple[AttemptRecord, ...]:
    """The history of a run."""
    return tuple(_attempt_of(each) for each in json.loads(text)) if text else ()


def _attempt_of(content: dict[str, Any]) -> AttemptRecord:
    error = content.get("error")
    return AttemptRecord(
        content["number"],
        content["reason"],
        content.get("worker"),
        _instant(content.get("started_at")),
        _instant(content.get("ended_at")),
        None if error is None else _error_of(error),
        content.get("exitcode"),
    )


def gaps_text(gaps: tuple[Missed, ...]) -> str:
    """Gaps for the row of their schedule."""
    return _json([(gap.first.isoformat(), gap.last.isoformat(), *gap[2:]) for gap in gaps])


def gaps_of(text: str | None) -> tuple[Missed, ...]:
    """Gaps from the row of their schedule."""
    return tuple(
        Missed(datetime.fromisoformat(first), datetime.fromisoformat(last), number, reason)
        for first, last, number, reason in json.loads(text or "[]")
    )


def clean(text: str) -> str:
    """The text without what PostgreSQL cannot hold: NULs and half characters."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
