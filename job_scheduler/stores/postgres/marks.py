"""Where in the queue to begin to look for due runs.

While somebody keeps a transaction open, PostgreSQL keeps what was claimed since then, dead, at the
head of the index: to look from there costs more with each claim. So a look begins, at each
priority, where the last one has ended, as long as that finds enough. Rows that came in before, from
elsewhere, are found by the next look at all, which follows within a second.

An answer tells of the queue as it was when it was asked for: what has come in since is kept aside
until it is there.
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LONGEST: Final = 1.0
"""Seconds from one look at all to the next."""

_SHARE: Final = 10
"""A look at all that takes long is had no more often than so many times its duration."""

_QUICK: Final = 0.02
"""Seconds up to which a look at all costs nothing to speak of."""

_EACH: Final = 20e-6
"""Seconds of a look that are due to each run which it takes."""

NEVER: Final = datetime(1, 1, 1, tzinfo=UTC)


class Mark(NamedTuple):
    """A place in the queue of one priority."""

    at: datetime
    created_at: datetime


class Marks:
    """The places, and when to trust them."""

    def __init__(self) -> None:
        self._jobs: frozenset[str] | None = None
        self._marks: dict[int, Mark] | None = None
        self._looked_at = float("-inf")
        self._cost = 0.0
        self._found_enough = False
        self._doubted = False
        self._looks = 0
        self._lowered: dict[int, Mark] = {}
        """What was lowered while the server was being asked."""

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """The server is being asked: what comes in now may not be in its answer."""
        self._looks += 1
        try:
            yield
        finally:
            self._looks -= 1
            if not self._looks:
                self._lowered.clear()

    def doubt(self) -> None:
        """Something has come in from elsewhere."""
        self._doubted = True

    def suffice(self, jobs: frozenset[str] | None) -> bool:
        """Whether to begin at the marks."""
        if self._marks is None or jobs != self._jobs:
            return False
        if time.monotonic() - self._looked_at > max(_LONGEST, _SHARE * self._cost):
            return False
        return not self.quick or (self._found_enough and not self._doubted)

    @property
    def quick(self) -> bool:
        """Whether a look at all is had at once where that from the marks finds too little."""
        if self._cost < _QUICK:
            return True
        return time.monotonic() - self._looked_at > _SHARE * self._cost

    def arrays(self) -> tuple[list[int], list[datetime], list[datetime]]:
        """Priorities, the first first, and their marks."""
        marks = sorted((self._marks or {}).items())
        return (
            [priority for priority, _ in marks],
            [mark.at for _, mark in marks],
            [mark.created_at for _, mark in marks],
        )

    def trust(self) -> None:
        """All that has come in until now will be looked at."""
        self._doubted = False

    def look_at_all(
        self, jobs: frozenset[str] | None, levels: Iterable[int], seconds: float, found: int
    ) -> None:
        """Begin anew after a look at all priorities that are there."""
        self._jobs = jobs
        self._marks = dict.fromkeys([*levels, *self._lowered], Mark(NEVER, NEVER))
        self._looked_at = time.monotonic()
        self._cost = max(0.0, seconds - found * _EACH)

    def move(self, last: dict[int, Mark], *, enough: bool) -> None:
        """Begin after the last runs that were taken, but before what has come in meanwhile."""
        self._found_enough = enough
        if self._marks is not None:
            for priority, mark in last.items():
                self._marks[priority] = min(mark, self._lowered.get(priority, mark))

    def lower(self, priority: int, at: datetime) -> None:
        """Have a run be seen that was added, or let go, here."""
        mark = Mark(at, NEVER)
        if self._looks:
            self._lowered[priority] = min(mark, self._lowered.get(priority, mark))
        if self._marks is not None:
            self._marks[priority] = min(mark, self._marks.get(priority, mark))
