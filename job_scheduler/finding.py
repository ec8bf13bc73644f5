"""The jobs of folders and modules, by the names that stores keep."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job_scheduler.errors import DuplicateJobError, JobImportError
from job_scheduler.known import job_name
from job_scheduler.registry import definition_of, discover, is_job

if TYPE_CHECKING:
    from collections.abc import Iterable


def find_jobs(places: Iterable[str]) -> dict[str, Any]:
    """The jobs of folders and modules by their names.

    Raises ``JobImportError`` for a place that is neither or that cannot be imported, and
    ``DuplicateJobError`` if two places have different jobs of one name.
    """
    jobs: dict[str, Any] = {}
    for place in places:
        if Path(place).is_dir():
            found: dict[str, Any] = dict(discover(place))
        elif _is_dotted(place):
            found = _jobs_of_module(place)
        else:
            raise JobImportError(f"jobs {place!r}: there is no such folder, and no such module")
        for name in found.keys() & jobs.keys():
            if found[name] is not jobs[name]:
                raise DuplicateJobError(
                    f"two jobs are named {name!r}: one in {place_of(jobs[name])}, one in "
                    f"{place_of(found[name])}; rename one"
                )
        jobs |= found
    return jobs


def is_place(place: str) -> bool:
    """Whether there is such a folder, or at least the package of such a module."""
    if Path(place).is_dir():
        return True
    return _is_dotted(place) and find_spec(place.partition(".")[0]) is not None


def place_of(job: Any) -> str:
    """The file that defines a job, for a message."""
    name, _ = definition_of(job)
    return getattr(sys.modules.get(name), "__file__", None) or name


def _is_dotted(place: str) -> bool:
    return all(part.isidentifier() for part in place.split("."))


def _jobs_of_module(name: str) -> dict[str, Any]:
    try:
        module = import_module(name)
    except (Exception, SystemExit) as error:
        said = f"jobs {name!r}: cannot be imported: {type(error).__name__}: {error}"
        raise JobImportError(said) from error
    found = {}
    for value in vars(module).values():
        is_function = inspect.isfunction(value) and value.__name__ != "<lambda>"
        if (is_function or is_job(value)) and definition_of(value)[0] == name:
            found[job_name(value)] = value
    return found
