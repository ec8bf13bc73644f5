"""What is wrong with a file: collected, so that all of it is told at once."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from job_scheduler.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_TOLD: Final = 50


class Report:
    """The problems of one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._problems: dict[str, ConfigError] = {}

    def add(
        self,
        said: str,
        *,
        line: int | None = None,
        entry: str | None = None,
        field: str | None = None,
        cause: BaseException | None = None,
    ) -> None:
        """Note a problem; the same one of the same place counts once."""
        problem = problem_at(self.file, said, line=line, entry=entry, field=field)
        problem.__cause__ = cause
        self._problems.setdefault(str(problem), problem)

    def check(self) -> None:
        """Raise ``ConfigError`` if there is any problem."""
        problems = sorted(self._problems.values(), key=lambda problem: problem.line or 0)
        if not problems:
            return
        told = [str(problem) for problem in problems[:_MOST_TOLD]]
        if len(problems) > _MOST_TOLD:
            told.append(f"{self.file}: and {len(problems) - _MOST_TOLD:,} more")
        first = problems[0]
        raise ConfigError(
            "\n".join(told),
            file=first.file,
            line=first.line,
            entry=first.entry,
            field=first.field,
            problems=tuple(problems),
        ) from first.__cause__


def problem_at(
    file: str,
    said: str,
    *,
    line: int | None = None,
    entry: str | None = None,
    field: str | None = None,
) -> ConfigError:
    """One problem, told with its place: ``jobs.yaml, line 7, job 'cleanup': ...``."""
    place = [file]
    if line is not None:
        place.append(f"line {line}")
    if entry is not None:
        place.append(f"job {entry!r}")
    one_line = " ".join(said.split("\n"))
    return ConfigError(
        f"{', '.join(place)}: {one_line}", file=file, line=line, entry=entry, field=field
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean 'frequency'?``, or all that is known."""
    listed = sorted(known)
    near = get_close_matches(name[:100], listed, 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(listed) or 'none'}"
