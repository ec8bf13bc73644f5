"""Name -> job: looking a job up, judging what was registered, discovering a folder of jobs."""

from __future__ import annotations

import sys

from job_scheduler.errors import (
    DuplicateJobError,
    InvalidJobError,
    JobImportError,
    UnknownJobError,
)
from job_scheduler.job import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike
    from pathlib import Path
    from types import ModuleType
    from typing import Any


_LONGEST_NAME = 1_000


def is_celery_task(what: object) -> bool:
    """Whether this is a task of a Celery application; Celery is not imported to find out."""
    module = sys.modules.get("celery.app.task")
    return module is not None and isinstance(what, module.Task)


def is_job(what: object) -> bool:
    """Whether this can stand in a dictionary of jobs: a job class, or a task of Celery."""
    return (isinstance(what, type) and issubclass(what, Job)) or is_celery_task(what)


def celery_task_of(job: object) -> Any:
    """What a job is to Celery: itself, or what its class is registered as; None if nothing."""
    if isinstance(job, type):
        return vars(job).get("celery_task")  # not of a base: a subclass is another job
    return job if is_celery_task(job) else None


def definition_of(job: Any) -> tuple[str, str]:
    """The module and the name there of a class or a function, of a task that of its function."""
    defined = job.run if is_celery_task(job) else job
    return defined.__module__, defined.__qualname__


def lookup(jobs: Mapping[str, Any], name: str) -> Any:
    """The job registered under the name: a job class, or a task of Celery.

    Raises ``UnknownJobError`` with the nearest known name, and ``InvalidJobError`` if what is
    registered is neither, or the name too long to be one.
    """
    if not isinstance(name, str):
        raise UnknownJobError(_describe_no_name(name, jobs))
    if len(name) > _LONGEST_NAME:
        raise InvalidJobError(
            f"a job's name may have {_LONGEST_NAME:,} characters; the one that begins with "
            f"{name[:20]!r} has {len(name):,}"
        )
    try:
        job = jobs[name]
    except KeyError:
        raise UnknownJobError(_describe_unknown(name, jobs)) from None
    if not is_job(job):
        hint = (
            f"; register the class {type(job).__name__}, not an object of it"
            if isinstance(job, Job)
            else "; derive it from job_scheduler.Job"
        )
        raise InvalidJobError(f"jobs[{name!r}] is {job!r}, not a Job class{hint}")
    return job


def _describe_no_name(value: object, jobs: Mapping[str, Any]) -> str:
    said = f"run() takes the name of a job, a string, not {value!r}"
    job_class = value if isinstance(value, type) else type(value)
    if not issubclass(job_class, Job):
        return said
    for name, registered in jobs.items():
        if registered is job_class:
            return f"{said}; write run({name!r})"
    return f"{said}; write run({job_class.__name__!r}), once it is registered in jobs"


def _describe_unknown(name: str, jobs: Mapping[str, Any]) -> str:
    from difflib import get_close_matches

    known = [each for each in jobs if isinstance(each, str)]
    near = get_close_matches(name, known, 1)
    if near:
        return f"no job is registered as {name!r}; did you mean {near[0]!r}?"
    listed = ", ".join(map(repr, sorted(known)[:10])) or "none"
    return f"no job is registered as {name!r}; known jobs: {listed}"


def discover(folder: str | PathLike[str]) -> dict[str, type[Job]]:
    """Find the job classes in a folder of modules, by their class names.

    Every ``*.py`` file directly in the folder is imported as ``<folder name>.<file name>``, so
    the folder's parent is put on ``sys.path`` if it is not there; files whose name begins with
    ``_`` are passed over. A class counts where it is defined, not where it is imported, and
    only if it defines ``process`` or ``run``. An ``__init__.py`` in the folder is not needed, but
    without one any other package of the same name on ``sys.path`` is preferred by Python.

    A relative folder is looked up in the working directory. Raises ``FileNotFoundError``,
    ``JobImportError`` if a file cannot be imported and ``DuplicateJobError`` if two define one
    name; each names the places.
    """
    from pathlib import Path

    path = Path(folder).resolve()
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path)!r} to find jobs in")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    files = [file for file in sorted(path.glob("*.py")) if not file.name.startswith("_")]
    found: dict[str, type[Job]] = {}
    for file in files:
        for job_class in _jobs_of(_import_file(file)):
            name = job_class.__name__
            if name in found:
                other = sys.modules[found[name].__module__].__file__
                raise DuplicateJobError(
                    f"two jobs are named {name!r}: one in {other}, one in {file}; rename one"
                )
            found[name] = job_class
    return found


def _import_file(file: Path) -> ModuleType:
    name = f"{file.parent.name}.{file.stem}"
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise JobImportError(_describe_failure(error, file)) from error
        raise JobImportError(_describe_namesake(file, name)) from None
    except (Exception, SystemExit) as error:
        raise JobImportError(_describe_failure(error, file)) from error
    module = sys.modules[name]
    if module.__file__ is None or not file.samefile(module.__file__):
        raise JobImportError(_describe_namesake(file, name))
    return module


def _describe_failure(error: BaseException, file: Path) -> str:
    return f"{file} cannot be imported: {type(error).__name__}: {error} ({_place(error, file)})"


def _describe_namesake(file: Path, name: str) -> str:
    """What is wrong where Python takes something else for the folder of this file, or for it."""
    folder = file.parent
    package = getattr(sys.modules[folder.name], "__file__", None)
    module = getattr(sys.modules.get(name), "__file__", None)
    failed = f"{file} cannot be imported as {name!r}, because"
    if package is None and module is None:
        return f"{failed} {folder.name!r} is built into Python: rename the folder"
    taken = f"{folder.name!r} is {package}" if package else f"that is {module}"
    init = "" if (folder / "__init__.py").exists() else "give it an __init__.py and "
    return (
        f"{failed} {taken}: rename the folder, or {init}put its parent {folder.parent} first on "
        f"sys.path"
    )


def _place(error: BaseException, file: Path) -> str:
    """Where in the file, or in what it imports, the error came up."""
    from traceback import extract_tb

    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [f for f in extract_tb(error.__traceback__) if "importlib" not in f.filename]
    within = [f for f in frames if f.filename == str(file)] or frames
    return f"{within[-1].filename}, line {within[-1].lineno}"


def _jobs_of(module: ModuleType) -> Iterable[type[Job]]:
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, Job)
            and value.__module__ == module.__name__
            and (hasattr(value, "process") or hasattr(value, "run"))
        ):
            yield value
