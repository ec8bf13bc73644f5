"""What a run of a job class means: where it runs, what it takes, and within which limits."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Literal

from job_scheduler.durations import parse_duration
from job_scheduler.errors import ArgumentsError, InvalidJobError, InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from job_scheduler.job import Job

Place = Literal["process", "thread", "coroutine"]

_PLACES: Final = ("process", "thread", "coroutine")

_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A job class, examined once."""

    job_class: type[Job]
    place: Place
    method: str
    """The name of the method that runs: ``process`` or ``run``."""
    timeout: float | None
    names: frozenset[str]
    """The keywords it takes."""
    required: frozenset[str]
    takes_any: bool
    """Whether it takes other keywords too (``**kwargs``)."""

    @classmethod
    def of(cls, job_class: type[Job]) -> Target:
        """Examine a class; raises ``InvalidJobError`` or ``InvalidOptionError``."""
        place = _place_of(job_class)
        method = "process" if place == "process" else "run"
        _check_constructor(job_class, method)
        _check_method(job_class, method)
        _check_limits(job_class, place)
        names, required, takes_any = _keywords_of(job_class, method)
        timeout = seconds_or_none(job_class.timeout, f"{job_class.__qualname__}.timeout")
        return cls(job_class, place, method, timeout, names, required, takes_any)

    def check(self, name: str, arguments: dict[str, Any]) -> None:
        """Raise ``ArgumentsError`` unless the job can be called with these keywords."""
        given = arguments.keys()
        fits = self.required <= given and (self.takes_any or given <= self.names)
        if fits and "self" not in given:
            return
        raise ArgumentsError(self._describe_misfit(name, arguments))

    def _describe_misfit(self, name: str, arguments: dict[str, Any]) -> str:
        takes = ", ".join(sorted(self.names)) or "no keywords"
        where = f"job {name!r} ({self.job_class.__qualname__}.{self.method}) takes {takes}"
        if "self" in arguments:
            return f"{where}; 'self' is the job itself and cannot be a keyword"
        missing = sorted(self.required - arguments.keys())
        unknown = [] if self.takes_any else sorted(arguments.keys() - self.names)
        if missing:
            where += f"; missing: {', '.join(missing)}"
        if not unknown:
            return where
        near = get_close_matches(unknown[0], self.names, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{where}; unknown: {', '.join(unknown)}{hint}"


def seconds_or_none(value: Any, what: str) -> float | None:
    """A duration in seconds; None stays None."""
    return None if value is None else parse_duration(value, what).total_seconds()


def _place_of(job_class: type[Job]) -> Place:
    process = getattr(job_class, "process", None)
    run = getattr(job_class, "run", None)
    run_place: Place = "coroutine" if inspect.iscoroutinefunction(run) else "thread"
    possible: dict[Place, Callable[..., Any] | None] = {"process": process, run_place: run}
    chosen = job_class.executor
    if chosen is None:
        for place, method in possible.items():
            if callable(method):
                return place
        raise InvalidJobError(
            f"{job_class.__qualname__} defines neither process() nor run(), so there is nothing "
            f"to do: add 'def process(self)' to run it in a process of its own"
        )
    if chosen not in _PLACES:
        raise InvalidOptionError(
            f"{job_class.__qualname__}.executor is {chosen!r}; it must be one of {_PLACES}"
        )
    if not callable(possible.get(chosen)):
        needed = {"process": "process()", "thread": "run()", "coroutine": "async run()"}[chosen]
        raise InvalidJobError(
            f"{job_class.__qualname__}.executor is {chosen!r}, but it does not define {needed}"
        )
    return chosen


def _check_constructor(job_class: type[Job], method: str) -> None:
    parameters = list(inspect.signature(job_class.__init__).parameters.values())[1:]
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise InvalidJobError(
            f"{job_class.__qualname__}() needs {', '.join(needed)}, but a job that is run by name "
            f"is made without arguments: give them defaults, or take them as keywords of "
            f"{method}()"
        )


def _check_method(job_class: type[Job], method: str) -> None:
    function = getattr(job_class, method)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidJobError(
            f"{job_class.__qualname__}.{method}() is a generator, since it has a 'yield', so "
            f"calling it would run nothing: return a list, or do the work in a loop without 'yield'"
        )


def _check_limits(job_class: type[Job], place: Place) -> None:
    for attribute in ("max_running", "memory_limit"):
        value = getattr(job_class, attribute)
        if value is None:
            continue
        what = f"{job_class.__qualname__}.{attribute}"
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise InvalidOptionError(f"{what} is {value!r}; it must be a whole number above zero")
        if place != "process":
            raise InvalidOptionError(
                f"{what} is set, but the job runs in a {place}; only a process can be limited: "
                f"rename its run() to process()"
            )


def _gets_self(attribute: object) -> bool:
    """Whether a call on an object passes that object on, as with any function in a class."""
    is_static = isinstance(attribute, (staticmethod, classmethod))
    return hasattr(attribute, "__get__") and not is_static


def _keywords_of(job_class: type[Job], method: str) -> tuple[frozenset[str], frozenset[str], bool]:
    parameters = list(inspect.signature(getattr(job_class, method)).parameters.values())
    if _gets_self(inspect.getattr_static(job_class, method)):
        if not parameters or parameters[0].kind not in _POSITIONAL:
            raise InvalidJobError(
                f"{job_class.__qualname__}.{method}() lacks self: write 'def {method}(self, ...)', "
                f"or put @staticmethod above it"
            )
        parameters = parameters[1:]
    nameable = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise InvalidJobError(
                f"{job_class.__qualname__}.{method}() has the positional-only parameter "
                f"{parameter.name!r}, but jobs get keywords: remove the '/' from its signature"
            )
    named = [parameter for parameter in parameters if parameter.kind in nameable]
    return (
        frozenset(parameter.name for parameter in named),
        frozenset(parameter.name for parameter in named if parameter.default is parameter.empty),
        any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters),
    )
