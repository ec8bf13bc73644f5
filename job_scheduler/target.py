"""What a run means: what is called, where it runs, what it takes, and within which limits."""

from __future__ import annotations

import functools
import inspect
import sys
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Literal

from job_scheduler.durations import parse_duration
from job_scheduler.errors import ArgumentsError, InvalidJobError, InvalidOptionError
from job_scheduler.job import Job
from job_scheduler.registry import celery_task_of, is_celery_task
from job_scheduler.retry import retry_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from job_scheduler.retry import RetryPolicy

Place = Literal["process", "thread", "coroutine", "celery"]
Verb = Literal["run", "schedule"]

_PLACES: Final = ("process", "thread", "coroutine", "celery")

_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


@dataclass(frozen=True, slots=True)
class Target:
    """Something that can be run, examined once: a job class, a job object, or a function."""

    what: Any
    name: str
    place: Place
    method: str | None
    """The name of the method that runs, ``process`` or ``run``; None for a function."""
    timeout: float | None
    retry: RetryPolicy | None
    names: frozenset[str]
    """The keywords it takes."""
    required: frozenset[str]
    takes_any: bool
    """Whether it takes other keywords too (``**kwargs``)."""
    signature: inspect.Signature | None
    """How it is called, without ``self``; None if that is not known."""

    @classmethod
    def of_class(cls, job_class: type[Job], place: Place) -> Target:
        """Examine what a job class would be in a place, though nobody there may know it yet.

        Raises ``InvalidJobError`` or ``InvalidOptionError``.
        """
        method = _method_of(job_class, _place_of(job_class, "run", place))
        _check_constructor(job_class, method)
        return cls._of_job(job_class, job_class, place, method)

    @classmethod
    def _of_class(cls, job_class: type[Job], place: Place) -> Target:
        target = cls.of_class(job_class, place)
        if place == "celery":
            return replace(target, what=_task(job_class), method=None)
        return target

    @classmethod
    def of_objects(cls, job_class: type[Job], verb: Verb) -> Target:
        """Examine what objects of a job class will be, before there are any.

        Raises ``InvalidJobError`` (a ``TypeError``) or ``InvalidOptionError``.
        """
        place = _place_of(job_class, verb)
        return cls._of_job(job_class, job_class, place, _method_of(job_class, place))

    @classmethod
    def of_anything(cls, what: Any, verb: Verb, place: Place | None = None) -> Target:
        """Examine a job class, an object of one, a task of Celery, or a function.

        Args:
            what: to be run.
            verb: what a job that can run in a process and here is asked for.
            place: where it shall run, whatever it says itself.

        Raises ``InvalidJobError`` (a ``TypeError``) or ``InvalidOptionError``.
        """
        if place is not None and (not isinstance(place, str) or place not in _PLACES):
            raise InvalidOptionError(f"executor is {place!r}; it must be one of {_PLACES}")
        if type(what) is FunctionType:
            return _examine_function(what, place)
        if isinstance(what, type) and issubclass(what, Job):
            return cls._of_class(what, _place_of(what, verb, place))
        if is_celery_task(what):
            return cls._of_task(what, place or "celery")
        if not isinstance(what, Job):
            return cls._of_function(what, place)
        place = _place_of(type(what), verb, place)
        if place == "celery":
            raise InvalidJobError(
                f"{what!r} cannot be sent to another machine: give the class "
                f"{type(what).__name__}, and what it needs as arguments"
            )
        return cls._of_job(what, type(what), place, _method_of(type(what), place))

    @classmethod
    def _of_task(cls, task: Any, place: Place) -> Target:
        """A task of Celery; in another place than its fleet it is a function like others."""
        if inspect.iscoroutinefunction(task.run):
            raise InvalidJobError(
                f"the task {task.name} is a coroutine function, which Celery's workers do not "
                f"await: nothing would run. Let it call asyncio.run(...)"
            )
        if place != "celery":
            return replace(cls._of_function(task.run, place), what=task)
        _check_no_generator(task.run, f"{task.name}()")
        signature = inspect.signature(task.run) if task.typing else None
        return cls(task, task.name, place, None, None, None, *_keywords_of(signature), signature)

    @classmethod
    def _of_job(cls, what: Any, job_class: type[Job], place: Place, method: str) -> Target:
        name = job_class.__qualname__
        _check_no_generator(getattr(job_class, method), f"{name}.{method}()")
        _check_limits(job_class, place)
        signature = _signature_of(job_class, method)
        timeout = seconds_or_none(job_class.timeout, f"{name}.timeout")
        retry = retry_policy(job_class.retry, f"{name}.retry")
        return cls(what, name, place, method, timeout, retry, *_keywords_of(signature), signature)

    @classmethod
    def _of_function(cls, function: Any, place: Place | None) -> Target:
        if not callable(function) or isinstance(function, type):
            called = function is None or inspect.iscoroutine(function)
            hint = "; was a function called here? Give it without the ()" if called else ""
            raise InvalidJobError(
                f"{function!r} cannot be run: give a function, a Job class or an object of one, or "
                f"the name of a registered job{hint}"
            )
        _check_not_of_celery(function)
        name = name_of(function)
        if place == "celery":
            raise InvalidJobError(
                f"{name}() is no task of Celery: put @app.task above it, app being your Celery(...)"
            )
        _check_no_generator(function, f"{name}()")
        is_async = _is_async(function)
        if (is_async and place == "thread") or (not is_async and place == "coroutine"):
            kind = "a coroutine function" if is_async else "no coroutine function"
            raise InvalidJobError(f"{name}() is {kind}, so it cannot run in a {place}")
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some functions written in C do not tell
            signature = None
        return cls(
            function,
            name,
            place or ("coroutine" if is_async else "thread"),
            None,
            None,
            None,
            *_keywords_of(signature),
            signature,
        )

    @property
    def job_class(self) -> type[Job]:
        """The class whose method runs."""
        found: type[Job] = self.what if isinstance(self.what, type) else type(self.what)
        return found

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call it here; a coroutine function gives a coroutine."""
        if self.method is None:
            return self.what(*args, **kwargs)
        job = self.what() if isinstance(self.what, type) else self.what
        return getattr(job, self.method)(*args, **kwargs)

    def check(self, name: str, arguments: dict[str, Any], args: tuple[Any, ...] = ()) -> None:
        """Raise ``ArgumentsError`` unless it can be called with these arguments."""
        if args:
            self._check_positional(name, args, arguments)
            return
        given = arguments.keys()
        fits = self.required <= given and (self.takes_any or given <= self.names)
        if fits and (self.method is None or "self" not in given):
            return
        raise ArgumentsError(self._describe_misfit(name, arguments))

    def _check_positional(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.signature is None:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentsError(
                f"job {name!r}: {self._called}{self.signature} cannot be called with "
                f"args={list(args)!r}, kwargs={kwargs!r}: {error}"
            ) from None

    @property
    def _called(self) -> str:
        return self.name if self.method is None else f"{self.name}.{self.method}"

    def _describe_misfit(self, name: str, arguments: dict[str, Any]) -> str:
        takes = ", ".join(sorted(self.names)) or "no keywords"
        where = f"job {name!r} ({self._called}) takes {takes}"
        if self.method is not None and "self" in arguments:
            return f"{where}; 'self' is the job itself and cannot be a keyword"
        missing = sorted(self.required - arguments.keys())
        unknown = [] if self.takes_any else sorted(arguments.keys() - self.names)
        if missing:
            where += f"; missing: {', '.join(missing)}"
            if self.method is None:
                where += ", to be given as args=[...] or kwargs={...}"
        if not unknown:
            return where
        near = get_close_matches(unknown[0], self.names, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{where}; unknown: {', '.join(unknown)}{hint}"


@functools.lru_cache(maxsize=8)  # not many: it keeps them alive
def _examine_function(function: FunctionType, place: Place | None) -> Target:
    """As ``Target._of_function``; many schedules may have one function."""
    return Target._of_function(function, place)


def name_of(function: Any) -> str:
    """What a function is called: ``module.qualname``, of a partial one that of what it calls."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    module = named.__module__  # None of methods of built-in objects
    return f"{module}.{named.__qualname__}" if module else str(named.__qualname__)


def _check_not_of_celery(function: Any) -> None:
    """Raise for what would send a task, or run it here, without its end being heard."""
    task: Any = getattr(function, "__self__", None)
    if is_celery_task(task) and function.__name__ in ("delay", "apply_async"):
        raise InvalidJobError(
            f"{task.name}.{function.__name__} would send the task and know no more of it: give the "
            f"task itself, {task.name}, which is sent when it is due"
        )
    canvas = sys.modules.get("celery.canvas")
    if canvas is not None and isinstance(function, canvas.Signature):
        raise InvalidJobError(
            f"{function!r} is a signature of Celery, which would run here when it is called: give "
            f"the task, and what it takes as args=[...] or kwargs={{...}}"
        )


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    return not inspect.isroutine(function) and inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004  # of an object that is callable
    )


def seconds_or_none(value: Any, what: str) -> float | None:
    """A duration in seconds; None stays None."""
    return None if value is None else parse_duration(value, what).total_seconds()


def _place_of(job_class: type[Job], verb: Verb, place: Place | None = None) -> Place:
    process = getattr(job_class, "process", None)
    run = getattr(job_class, "run", None)
    run_place: Place = "coroutine" if inspect.iscoroutinefunction(run) else "thread"
    possible: dict[Place, Callable[..., Any] | None] = {
        "process": process,
        run_place: run,
        "celery": process or run,
    }
    chosen = place or job_class.executor
    if chosen is None:
        order: tuple[Place, ...] = ("process", run_place)
        for each in order if verb == "run" else reversed(order):
            if callable(possible[each]):
                return each
        raise InvalidJobError(
            f"{job_class.__qualname__} defines neither process() nor run(), so there is nothing "
            f"to do: add 'def process(self)' to run it in a process of its own"
        )
    if chosen not in _PLACES:
        raise InvalidOptionError(
            f"{job_class.__qualname__}.executor is {chosen!r}; it must be one of {_PLACES}"
        )
    if not callable(possible.get(chosen)):
        needed = {"process": "process()", "thread": "run()", "coroutine": "async run()"}.get(
            chosen, "process() or run()"
        )
        said = f"{job_class.__qualname__}.executor" if place is None else "executor"
        raise InvalidJobError(
            f"{said} is {chosen!r}, but {job_class.__qualname__} does not define {needed}"
        )
    return chosen


def _method_of(job_class: type[Job], place: Place) -> str:
    """The method that runs there."""
    if place == "celery":
        return "process" if callable(getattr(job_class, "process", None)) else "run"
    return "process" if place == "process" else "run"


def _task(job_class: type[Job]) -> Any:
    """The task as which a job class is registered with a Celery application."""
    task = celery_task_of(job_class)
    if task is None:
        name = job_class.__qualname__
        raise InvalidJobError(
            f"{name} is to run on Celery's workers, but no application knows it: write "
            f"job_scheduler.celery.register(app, {name}), app being your Celery(...)"
        )
    return task


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


def _check_no_generator(function: Any, what: str) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidJobError(
            f"{what} is a generator, since it has a 'yield', so calling it would run nothing: "
            f"return a list, or do the work in a loop without 'yield'"
        )


def _check_limits(job_class: type[Job], place: Place) -> None:
    for attribute in ("max_running", "memory_limit"):
        value = getattr(job_class, attribute)
        if value is None:
            continue
        what = f"{job_class.__qualname__}.{attribute}"
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise InvalidOptionError(f"{what} is {value!r}; it must be a whole number above zero")
        if place == "celery":
            raise InvalidOptionError(
                f"{what} is set, but the job runs on Celery's workers, which have limits of their "
                f"own: --concurrency and --max-memory-per-child"
            )
        if place != "process":
            raise InvalidOptionError(
                f"{what} is set, but the job runs in a {place}; only a process can be limited: "
                f"rename its run() to process()"
            )


def _gets_self(attribute: object) -> bool:
    """Whether a call on an object passes that object on, as with any function in a class."""
    is_static = isinstance(attribute, (staticmethod, classmethod))
    return hasattr(attribute, "__get__") and not is_static


def _signature_of(job_class: type[Job], method: str) -> inspect.Signature:
    """How the method is called on an object."""
    signature = inspect.signature(getattr(job_class, method))
    parameters = list(signature.parameters.values())
    if _gets_self(inspect.getattr_static(job_class, method)):
        if not parameters or parameters[0].kind not in _POSITIONAL:
            raise InvalidJobError(
                f"{job_class.__qualname__}.{method}() lacks self: write 'def {method}(self, ...)', "
                f"or put @staticmethod above it"
            )
        if parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            parameters = parameters[1:]
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise InvalidJobError(
                f"{job_class.__qualname__}.{method}() has the positional-only parameter "
                f"{parameter.name!r}, but jobs get keywords: remove the '/' from its signature"
            )
    return signature.replace(parameters=parameters)


def _keywords_of(
    signature: inspect.Signature | None,
) -> tuple[frozenset[str], frozenset[str], bool]:
    """The names that can be given, those that must be, and whether any other can."""
    if signature is None:
        return frozenset(), frozenset(), True
    parameters = signature.parameters.values()
    nameable = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [parameter for parameter in parameters if parameter.kind in nameable]
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    return (
        frozenset(parameter.name for parameter in named),
        frozenset(needed),
        any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters),
    )
