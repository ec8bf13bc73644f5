"""Running one job's code in the process at hand, however that was started.

Also puts what came of it into a form that can be sent.
"""

from __future__ import annotations

import sys

from job_scheduler.launcher import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LONGEST_TEXT = 64 * 1024
_OURS = "job_scheduler."

_MOST_BASES = 20
"""Base classes of an error that are reported; exceptions have two to five."""


def call_process(job_class: Any, arguments: dict[str, Any]) -> Any:
    """Run the job in this process: a fresh object, ``process``, and its coroutine if it is one."""
    return await_result(job_class().process(**arguments))


def await_result(result: Any) -> Any:
    """What the job returned; if that is a coroutine, what this returns."""
    if type(result).__name__ != "coroutine":
        return result
    import asyncio

    return asyncio.run(result)


def describe_failure(
    error: BaseException, memory_limit: int | None
) -> tuple[str, str, str, tuple[str, ...]]:
    """The error's name, its message, its traceback below our own frames, its bases' names."""
    import traceback

    text = "".join(traceback.format_exception(type(error), error, _user_frames(error)))
    if isinstance(error, MemoryError) and memory_limit is not None:
        message = f"the job needed more than {memory_limit:,} bytes"
        return "MemoryLimitExceeded", message, text, ("MemoryError",)
    name, message = type(error).__qualname__[:200], _message_of(error)[:_LONGEST_TEXT]
    bases = tuple(each.__qualname__[:200] for each in type(error).__mro__[1:_MOST_BASES])
    return name, message, text[-_LONGEST_TEXT:], bases


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as also_broken:
        return f"<its message cannot be shown: {type(also_broken).__name__}>"


def _user_frames(error: BaseException) -> Any:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        frames = frames.tb_next
    return frames


def encode_result(name: str, result: Any) -> bytes:
    """The return value as bytes; one that cannot be sent is dropped, with a line that says so."""
    try:
        return wire.encode(result)
    except Exception as error:
        print(
            f"job {name!r}: its return value, a {type(result).__qualname__}, cannot be sent to "
            f"the program that started it, and is dropped: {error}",
            file=sys.stderr,
        )
        return wire.encode(None)


def limit_memory(limit: int) -> None:
    """Let this process have no more private memory than ``limit`` bytes."""
    import resource

    limit = min(limit, sys.maxsize)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def lift_memory_limit() -> None:
    """Undo :func:`limit_memory`, so that there is room to report."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def limit_descriptors(limits: tuple[int, int]) -> None:
    """Set how many descriptors this process may have: the soft and the hard limit."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def flush() -> None:
    """Flush stdout and stderr, each if it can be."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            continue  # closed or replaced by the job: there is nothing left to flush into
