"""What a task's record in the result backend says of its run."""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

from job_scheduler.executors.celery.flight import Worker
from job_scheduler.launcher import ending
from job_scheduler.run import Ending, RunError, RunState

News = dict[str, Any]
"""A record as Celery writes it: ``status``, ``result``, ``traceback``, ``date_done``."""

NO_NEWS: Final = frozenset({"PENDING", "RECEIVED"})
ENDED: Final = frozenset({"SUCCESS", "FAILURE", "REVOKED", "REJECTED", "IGNORED"})

_LOST: Final = "WorkerLostError"
_NEVER_STARTED: Final = "NotRegistered"
_TOO_LONG: Final = "TimeLimitExceeded"


def unreadable(why: str) -> News:
    """What stands for a record that cannot be read: nobody will learn what has come of its task."""
    said = f"its record in Redis cannot be read: {why}"
    return {"status": "FAILURE", "result": {"exc_type": "NoResult", "exc_message": [said]}}


def worker_of(news: News) -> Worker | None:
    """Where the task has started, if its record says so; its own states do not."""
    result = news.get("result")
    if news["status"] != "STARTED" or not isinstance(result, dict) or "hostname" not in result:
        return None
    return Worker(str(result["hostname"]), result.get("pid"))


def tells_of_lost_worker(news: News) -> bool:
    """Whether the process has died that the task ran in."""
    return news["status"] == "FAILURE" and _error_type(news) == _LOST


def has_run(news: News) -> bool:
    """Whether an ended task was ever started."""
    return news["status"] != "REVOKED" and _error_type(news) != _NEVER_STARTED


def ending_of(news: News, timeout: float | None) -> Ending:
    """How a run has ended whose task is in one of the states ``ENDED``."""
    at = _instant(news.get("date_done"))
    status = news["status"]
    if status == "SUCCESS":
        result = news.get("result")
        return Ending(RunState.COMPLETED, ended_at=at, load_result=lambda: result)
    if status == "REVOKED":
        return Ending(RunState.CANCELLED, RunError("JobCancelled", _revoked(news)), ended_at=at)
    if status == "FAILURE" and _error_type(news) == _LOST:
        return ending.lost(f"its worker was lost: {_message(news)}")
    if status == "FAILURE" and _error_type(news) == _TOO_LONG and timeout is not None:
        return ending.timed_out(timeout)
    return failed(news)


def failed(news: News) -> Ending:
    """The ending of an attempt that has raised; also of one that Celery tries again."""
    name = _error_type(news)
    error = RunError(name, _message(news), news.get("traceback") or "", _bases(news))
    return Ending(RunState.FAILED, error, ended_at=_instant(news.get("date_done")))


def _reason(news: News) -> dict[str, Any]:
    result = news.get("result")
    return result if isinstance(result, dict) else {}


def _error_type(news: News) -> str:
    return str(_reason(news).get("exc_type") or news["status"].capitalize()).rpartition(".")[2]


def _message(news: News) -> str:
    """As the exception says it, which has sent its arguments."""
    given = _reason(news).get("exc_message")
    if given is None:
        return str(news.get("result") or "")
    args = given if isinstance(given, (list, tuple)) else [given]
    kind = _exception(news)
    if kind is not None and kind.__module__ == "builtins":
        with contextlib.suppress(Exception):
            return str(kind(*args))
    return str(args[0]) if len(args) == 1 else ", ".join(map(str, args))


def _exception(news: News) -> type[BaseException] | None:
    """The class, if this program knows it; nothing is imported that a record names."""
    found: Any = sys.modules.get(str(_reason(news).get("exc_module")))
    for part in str(_reason(news).get("exc_type")).split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _bases(news: News) -> tuple[str, ...]:
    kind = _exception(news)
    if kind is None:
        return ()
    return tuple(base.__name__ for base in kind.__mro__[1:] if issubclass(base, BaseException))


def _revoked(news: News) -> str:
    by = _message(news) or "revoked"
    return "the run was cancelled" if by in ("revoked", "terminated") else f"it was revoked: {by}"


def _instant(text: str | None) -> float:
    """When it ended, in seconds since 1970: by the worker's clock, but not after now."""
    now = time.time()
    try:
        told = datetime.fromisoformat(text or "")
    except ValueError:
        return now
    if told.tzinfo is None:
        told = told.replace(tzinfo=UTC)
    return min(now, told.timestamp())
