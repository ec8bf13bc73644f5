"""Job types that are the methods of one class: a method added is a job type more."""

from __future__ import annotations

import asyncio
import functools
import inspect
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from job_scheduler.errors import InvalidJobError
from job_scheduler.job import Job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator


class MethodJobs:
    """Each public method of a subclass is a job type under its name.

    A run has a process of its own: an object is made there, without arguments, and the method
    called with the run's parameters. Coroutine functions are run to their end. What begins with
    ``_``, and what is no method, is no job type.
    """

    _jobs: ClassVar[SimpleNamespace] = SimpleNamespace()
    """The job classes by name; here since a job's process finds its class by a qualified name."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._jobs = SimpleNamespace(**{name: _job_of(cls, name) for name in _methods_of(cls)})


def jobs_of(executor: type[MethodJobs]) -> dict[str, type[Job]]:
    """Name -> job class, as the service takes them, in the order of the names.

    Raises ``InvalidJobError`` for a class that cannot be made without arguments, and for methods
    that are generators.
    """
    from job_scheduler.target import Target  # what processes of jobs do not need

    try:
        inspect.signature(executor).bind()
    except TypeError as error:
        raise InvalidJobError(
            f"{executor.__qualname__}() is made without arguments for each run: {error}"
        ) from None
    jobs: dict[str, type[Job]] = vars(executor._jobs)
    for name in jobs:
        Target.of_anything(getattr(executor, name), "schedule")
    return dict(jobs)


def _methods_of(executor: type[MethodJobs]) -> Iterator[str]:
    for name in dir(executor):
        attribute = inspect.getattr_static(executor, name)
        is_method = isinstance(attribute, (FunctionType, staticmethod, classmethod))
        if is_method and not name.startswith("_"):
            yield name


def _job_of(executor: type[MethodJobs], name: str) -> type[Job]:
    """The job class whose ``process`` calls the method, and has its signature."""
    method = getattr(executor, name)

    @functools.wraps(method)
    def process(_self: Job | None = None, /, **parameters: Any) -> Any:
        returned = getattr(executor(), name)(**parameters)
        return asyncio.run(_wait(returned)) if inspect.isawaitable(returned) else returned

    gets_self = isinstance(inspect.getattr_static(executor, name), FunctionType)
    contents = {
        "__module__": executor.__module__,
        "__qualname__": f"{executor.__qualname__}._jobs.{name}",
        "__doc__": method.__doc__,
        "process": process if gets_self else staticmethod(process),
    }
    return type(name, (Job,), contents)


async def _wait(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
