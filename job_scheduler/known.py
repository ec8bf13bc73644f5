"""The jobs that this program knows, under the names that stores keep.

A job class is called by its own name or by that under which it was registered, a task of Celery by
the name it has there, a function by its module and its name in it: ``reports.monthly:send``. So two
functions of one name in two modules are two jobs, and a worker elsewhere, or after a restart, finds
what is meant, if it knows it.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from job_scheduler.errors import DuplicateJobError, InvalidJobError, UnknownJobError
from job_scheduler.job import Job
from job_scheduler.registry import celery_task_of, definition_of, is_celery_task, is_job
from job_scheduler.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from job_scheduler.target import Place, Verb

AnyJob = TypeVar("AnyJob")


class KnownJobs:
    """Name -> job, with what each of them means once it is to be run.

    Args:
        jobs: to be registered: a dictionary of names, or jobs that have names of their own.
        live: gives a dictionary of job classes that others change at any time.
    """

    def __init__(
        self,
        jobs: Mapping[str, Any] | Iterable[Any] = (),
        live: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self._jobs: dict[str, Any] = {}
        self._targets: dict[tuple[Any, Place | None, Verb], Target] = {}
        self._names: frozenset[str] = frozenset()
        self._live = live
        if hasattr(jobs, "items"):
            for name, job in jobs.items():
                self.register(job, name)
        else:
            for job in jobs:
                self.register(job)

    @property
    def names(self) -> frozenset[str]:
        """What it knows."""
        if self._live is None:
            return self._names
        return self._names | {name for name, job in tuple(self._live().items()) if is_job(job)}

    def _find(self, name: str) -> Any:
        """The job of this name, or None."""
        found = None if self._live is None else self._live().get(name)
        return self._jobs.get(name) if found is None else found

    def register(self, job: Any, name: str | None = None) -> str:
        """Know a job, and tell what it is called; harmless twice.

        Raises ``InvalidJobError`` (a ``TypeError``) for what cannot be found by a name, or not be
        run, and ``DuplicateJobError`` if the name is that of another job.
        """
        if name is None:
            name = job_name(job)
        known = self._find(name)
        if known == job:  # a task of Celery may be given by two objects
            return name
        if known is not None and not _is_the_same(known, job):
            raise DuplicateJobError(f"{name!r} is registered already, as {known!r}")
        self._targets[job, None, "schedule"] = Target.of_anything(job, "schedule")
        self._jobs[name] = job
        self._names = frozenset(self._jobs)
        return name

    def name_of(self, what: Any) -> str:
        """The name of a job, or of what is registered by that; raises ``UnknownJobError``."""
        if not isinstance(what, str):
            jobs = self._jobs if self._live is None else {**self._jobs, **self._live()}
            for name, job in jobs.items():
                if job == what:
                    return name
            return self.register(what)
        if self._find(what) is not None:
            return what
        names = self.names
        near = get_close_matches(what, names, 1)
        listed = ", ".join(map(repr, sorted(names)[:10])) or "none"
        hint = f"did you mean {near[0]!r}?" if near else f"known jobs: {listed}"
        raise UnknownJobError(f"no job is registered as {what!r}; {hint}")

    @property
    def in_fleets(self) -> frozenset[str]:
        """The names of those that Celery's workers know."""
        live = () if self._live is None else tuple(self._live().items())
        both = (*self._jobs.items(), *live)
        return frozenset(name for name, job in both if celery_task_of(job) is not None)

    def target(self, name: str, place: Place | None = None, verb: Verb = "schedule") -> Target:
        """What a name means where it is to run; raises ``UnknownJobError``."""
        job = self._find(name)
        if job is None:
            raise UnknownJobError(f"no job is registered as {name!r}")
        target = self._targets.get((job, place, verb))
        if target is None:
            target = self._targets[job, place, verb] = Target.of_anything(job, verb, place)
        return target


def job_name(job: Any) -> str:
    """What a store calls a job; raises ``InvalidJobError`` for what has no name of its own."""
    if isinstance(job, type) and issubclass(job, Job):
        return job.__name__
    if is_celery_task(job):
        return str(job.name)
    if isinstance(job, Job):
        raise InvalidJobError(
            f"{job!r} cannot be kept in a store, which keeps names, not objects: give the class "
            f"{type(job).__name__}, and what it needs as arguments"
        )
    if type(job) not in (FunctionType, BuiltinFunctionType):
        Target.of_anything(job, "schedule")  # what cannot be run at all is told so
        raise InvalidJobError(
            f"{job!r} cannot be kept in a store, which keeps names: give a function of a module or "
            f"a Job class, and what it needs as arguments"
        )
    if job.__name__ == "<lambda>":
        raise InvalidJobError("a lambda has no name by which it is found again: write a function")
    if getattr(job, "__closure__", None):
        names = ", ".join(job.__code__.co_freevars)
        raise InvalidJobError(
            f"{job.__qualname__}() uses {names} of the function around it, which no store can keep:"
            f" give it as arguments"
        )
    return f"{_module_of(job)}:{job.__qualname__}"


def _module_of(function: Any) -> str:
    """Its module as others would import it, also if that is the program's main file."""
    module = str(function.__module__)
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return module if file is None else Path(file).stem


def _is_the_same(known: Any, job: Any) -> bool:
    """Whether it is the same definition, made anew: reloaded, or in a function called again."""
    if type(known) is not type(job):
        return False
    return definition_of(known) == definition_of(job)
