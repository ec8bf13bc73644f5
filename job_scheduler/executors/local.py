"""Calling a job in this program: the same facts as of a process, as far as they apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job_scheduler.launcher.ending import Facts
from job_scheduler.launcher.work import describe_failure
from job_scheduler.run import RunError

if TYPE_CHECKING:
    from collections.abc import Callable


def call(function: Callable[[], Any]) -> Facts:
    """Call a job's method and tell what came of it; lets only ``KeyboardInterrupt`` through."""
    try:
        result = function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Facts(failure=describe(error))
    return succeeded(result)


def succeeded(result: Any) -> Facts:
    """The facts of a job that returned this."""
    return Facts(exitcode=0, load_result=lambda: result)


def describe(error: BaseException) -> RunError:
    """The stored form of an exception."""
    return RunError(*describe_failure(error, memory_limit=None))
