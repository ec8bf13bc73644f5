"""The class that a handler names: imported and judged, and never called here."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from importlib import import_module
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from job_scheduler.config.report import nearest
from job_scheduler.job import Job
from job_scheduler.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def import_job_class(path: str) -> type[Job]:
    """The job class of this path, ``package.module.Class``.

    Raises ``ValueError`` with what is wrong: the path, the import, or what is found there.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(
            f"class is {path!r}; give the module and the class, as in 'some_package.MyJob'"
        )
    try:
        module = import_module(module_name)
        found = getattr(module, name, None)
    except (Exception, SystemExit) as error:
        said = f"class {path!r} cannot be imported: {type(error).__name__}: {error}{_place(error)}"
        if "is not a package" in str(error):
            said += "; only a class at the top of a module can be named"
        raise ValueError(said) from error
    if found is None:
        raise ValueError(f"module {module_name!r} has no {name!r}{_near(module, name)}")
    return _check_class(path, found)


def _near(module: ModuleType, name: str) -> str:
    jobs = [each for each, value in vars(module).items() if _is_job_class(value)]
    near = get_close_matches(name, jobs, 1) or get_close_matches(name, vars(module), 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; its jobs are {', '.join(sorted(jobs))}" if jobs else ", and no jobs at all"


def _place(error: BaseException) -> str:
    """Where the import failed, if any code of the module ran."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _is_job_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Job) and value is not Job


def _check_class(path: str, found: Any) -> type[Job]:
    if not _is_job_class(found):
        kind = found.__name__ if isinstance(found, type) else type(found).__name__
        what = "the base of all jobs" if found is Job else f"no Job class, but {_kind(found, kind)}"
        raise ValueError(f"class {path!r} is {what}; derive one from job_scheduler.Job")
    job_class: type[Job] = found
    if not any(callable(getattr(job_class, method, None)) for method in ("process", "run")):
        raise ValueError(
            f"class {path!r} defines neither process() nor run(), so there is nothing to do"
        )
    missing = sorted(getattr(job_class, "__abstractmethods__", ()))
    if missing:
        raise ValueError(f"class {path!r} is abstract; it does not define {', '.join(missing)}")
    try:
        target_of(job_class).check(path, {})
    except (TypeError, ValueError) as error:
        raise ValueError(f"class {path!r}: {error}") from error
    return job_class


def target_of(job_class: type[Job]) -> Target:
    """What objects of the class will run, and where."""
    return Target.of_objects(job_class, "schedule")


def _kind(found: object, name: str) -> str:
    return f"the class {name!r}" if isinstance(found, type) else f"a {name}"


def check_params(job_class: type[Job], params: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the keywords for a constructor, each with the name of the parameter."""
    if job_class.__new__ is not Job.__new__:
        return  # what it takes, only a call can tell
    parameters = list(inspect.signature(job_class.__init__).parameters.values())[1:]
    names = [each.name for each in parameters if each.kind in _NAMED and each.name != "core_lib"]
    by_position = [each.name for each in parameters if each.kind is each.POSITIONAL_ONLY]
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    constructor = f"{job_class.__qualname__}()"
    for name in params:
        if name == "core_lib":
            yield "param 'core_lib' cannot stand in a file; it is given by load_jobs", name
        elif name == "self" or not (takes_any or name in names or name in by_position):
            takes = nearest(name, names) if names else "it takes none"
            yield f"{constructor} has no param {name[:100]!r}; {takes}", name
    for each in parameters:
        if each.default is not each.empty or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        if each.kind is each.POSITIONAL_ONLY:
            yield f"{constructor} takes {each.name!r} by position only; remove the '/'", each.name
        elif each.name not in params and each.name != "core_lib":
            yield f"{constructor} needs the param {each.name!r}", each.name


def needs_core_lib(job_class: type[Job]) -> bool:
    """Whether a constructor cannot do without ``core_lib``."""
    parameter = inspect.signature(job_class.__init__).parameters.get("core_lib")
    return parameter is not None and parameter.default is parameter.empty
