"""Calling a job in this program, and what came of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from job_scheduler.launcher.work import describe_failure
from job_scheduler.run import Ending, RunError, RunState

if TYPE_CHECKING:
    from collections.abc import Callable


def call(function: Callable[[], Any]) -> Ending:
    """Call a job's method and tell what came of it; lets only ``KeyboardInterrupt`` through."""
    try:
        result = function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return failed(error)
    return completed(result)


def completed(result: Any) -> Ending:
    """The ending of a job that returned this."""
    return Ending(RunState.COMPLETED, ended_at=time.time(), load_result=lambda: result)


def failed(error: BaseException) -> Ending:
    """The ending of a job that raised this."""
    reason = RunError(*describe_failure(error, memory_limit=None))
    return Ending(RunState.FAILED, reason, ended_at=time.time())
