"""Name -> job type, as users of the service write it: in upper or lower case.

Nothing that a user writes is ever an attribute or an import.
"""

from __future__ import annotations

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.errors import DuplicateJobError, UnknownJobError
from job_scheduler.finding import find_jobs, place_of
from job_scheduler.log import tell
from job_scheduler.service.job_types import built_in
from job_scheduler.service.job_types.describing import describe_job
from job_scheduler.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_PLACES: Final = ("jobs",)
_MOST_LISTED: Final = 20
_LONGEST_SHOWN: Final = 100


class JobTypes:
    """The jobs that the service may run.

    Args:
        jobs: name -> job class or function; no two names may differ in case alone.

    Raises ``DuplicateJobError``, and what is wrong with a job that cannot be run.
    """

    def __init__(self, jobs: Mapping[str, Any]) -> None:
        self.jobs: dict[str, Any] = dict(jobs)
        """Registered name -> job, as a scheduler takes it."""
        self._names: dict[str, str] = {}
        for name, job in self.jobs.items():
            other = self._names.setdefault(name.casefold(), name)
            if other != name:
                raise DuplicateJobError(
                    f"the job types {other!r} in {place_of(self.jobs[other])} and {name!r} in "
                    f"{place_of(job)} differ in upper and lower case alone, which the service "
                    f"takes for one: rename one"
                )
        self._targets = {name: Target.of_anything(job, "schedule") for name, job in jobs.items()}
        self._described = [describe_job(name, self.jobs[name]) for name in sorted(self.jobs)]

    def find(self, text: str) -> str:
        """The registered name of a job type, which is matched without regard to case.

        Raises ``UnknownJobError``, which names the known ones and the nearest.
        """
        name = self._names.get(text.casefold()) if isinstance(text, str) else None
        if name is None:
            raise UnknownJobError(self._describe_unknown(text))
        return name

    def nearest(self, text: str) -> str:
        """The registered name, or the text itself: of a job that other servers know."""
        return self._names.get(text.casefold(), text)

    @property
    def names(self) -> list[str]:
        """All registered names, in order."""
        return sorted(self.jobs)

    def target(self, name: str) -> Target:
        """What a registered name means."""
        return self._targets[name]

    def describe(self) -> list[dict[str, Any]]:
        """What each takes and where it runs, by name: see :func:`describe_job`."""
        return self._described

    def _describe_unknown(self, text: object) -> str:
        known = sorted(self.jobs)
        shown = text if not isinstance(text, str) else text[:_LONGEST_SHOWN]
        said = f"there is no job type {shown!r}"
        near = get_close_matches(str(shown).casefold(), self._names, 1)
        if near:
            said += f"; did you mean {self._names[near[0]]!r}?"
        listed = ", ".join(known[:_MOST_LISTED])
        more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
        return f"{said}{'' if near else ';'} known are {listed or 'none'}{more}"


def find_job_types(places: Sequence[str] = DEFAULT_PLACES) -> JobTypes:
    """The job types that ship with the service, and those of folders and modules.

    Without a folder ``jobs`` there are none in it, which is fine; any other place has to exist. A
    job found there takes the place of one that ships and has its name, in any case.

    Raises ``JobImportError``, and ``DuplicateJobError`` for names that differ in case alone.
    """
    if tuple(places) == DEFAULT_PLACES and not Path(DEFAULT_PLACES[0]).is_dir():
        places = ()
    found = find_jobs(places)
    theirs = {name.casefold(): name for name in found}
    jobs: dict[str, Any] = {}
    for name, job in built_in().items():
        if name in theirs:
            instead = theirs[name]
            said = "the job type %r in %s takes the place of the one that ships with the service"
            tell(logging.INFO, said, instead, place_of(found[instead]))
        else:
            jobs[name] = job
    return JobTypes(jobs | found)
