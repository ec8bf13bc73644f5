"""The job that a function, or an object of a job class, becomes when it runs in a process."""

from __future__ import annotations

from job_scheduler.job import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Called(Job):
    """Calls what it is given. A function's module is imported in each process that calls it."""

    def process(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return function(*args, **kwargs)
