"""Calling a job in this program: the same facts as of a process, as far as they apply."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from job_scheduler.launcher.ending import Facts
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
    """The stored form of an exception, without the frames of this package's executors."""
    frames = error.__traceback__
    while frames is not None and "job_scheduler" in frames.tb_frame.f_globals.get("__name__", ""):
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    return RunError(type(error).__qualname__, str(error), text)
