"""What the zygote does about the modules of the jobs, once they are imported."""

from __future__ import annotations

import gc
import os

from job_scheduler.job import Job
from job_scheduler.launcher.work import flush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import partial
    from types import FunctionType
    from typing import Any
else:
    from _functools import partial

    FunctionType = type(lambda: None)

_LONGEST_TEXT = 16 * 1024
"""Characters of a traceback that are reported."""

_PACKAGE = os.path.dirname(os.path.dirname(__file__))


def maker_of(job_class: type) -> Callable[[], Any]:
    """The class, or for one without a constructor of its own what makes the same object sooner.

    ``Job`` has one in Python, which does nothing for a job that is made without arguments, and
    which each child would copy pages to run. Only what runs no code of the user's is replaced,
    so that it can be made in a rehearsal too.
    """
    constructor: tuple[Any, Any] = (job_class.__new__, job_class.__init__)  # type: ignore[misc]
    if constructor == (Job.__new__, Job.__init__) and not hasattr(job_class, "__del__"):
        make = partial(object.__new__, job_class)
        try:
            make()
        except TypeError:  # its layout is that of another built-in type
            return job_class
        return make
    return job_class


def touch(make: Callable[[], Any]) -> None:
    """Use what a job of this class will use, as far as that runs no code of the user's.

    In a spare its pages are copied now, and not when the job starts.
    """
    if isinstance(make, partial):
        make()
        process = vars(make.args[0]).get("process")
        if isinstance(process, FunctionType):
            _ = process.__globals__, process.__code__.co_consts, process.__code__.co_names


def freeze_imports() -> None:
    """Have what was imported leave its output now, and be no business of a child's collector."""
    flush()
    gc.collect()
    gc.freeze()


def explain(error: BaseException) -> str:
    """The traceback of what failed, with only those frames that are not of this package."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_PACKAGE)]
    lines = traceback.format_list(theirs) + traceback.format_exception_only(error)
    return "".join(lines).rstrip()[-_LONGEST_TEXT:]
