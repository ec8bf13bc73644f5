"""Timezones as stretches of time with one offset each, found by asking for offsets alone.

``zoneinfo`` tells the offset of an instant, and nothing of when it will change. With the
stretches of a year at hand, an instant and its time on the clock are an addition apart, and what
lies around a change can be decided exactly, also for the machine's own zone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from job_scheduler.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)

WIDEST: Final = timedelta(hours=26)
"""More than any clock is away from UTC, and than any change moves one."""

_EDGES: Final = (1, 9999)
"""Years of which not every instant has a date everywhere: their offset is taken as one."""

_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


class Stretch(NamedTuple):
    """From ``start`` until ``end`` (UTC, exclusive) the clock shows UTC plus ``offset``."""

    start: datetime
    end: datetime
    offset: timedelta
    fresh: datetime
    """From when on the clock shows what it has not shown before."""


class Zone:
    """A timezone, by its offsets. Times on its clock are written as if they were UTC."""

    __slots__ = ("_stretches", "tzinfo")

    def __init__(self, info: tzinfo | None) -> None:
        self.tzinfo = info
        """None is the machine's own zone."""
        self._stretches: dict[int, tuple[Stretch, ...]] = {}

    def stretch_at(self, instant: datetime) -> Stretch:
        """The stretch that an instant is in; at most a year long."""
        stretches = self._of_year(instant.year)
        for stretch in stretches:
            if instant < stretch.end:
                return stretch
        return stretches[-1]

    def around(self, wall: datetime) -> Iterator[Stretch]:
        """The stretches, in order, in which the clock may show ``wall``."""
        return self.between(_moved(wall, -WIDEST), _moved(wall, WIDEST))

    def between(self, first: datetime, last: datetime) -> Iterator[Stretch]:
        """The stretches, in order, from the one of ``first`` to the one of ``last``."""
        for year in range(first.year, last.year + 1):
            for stretch in self._of_year(year):
                if stretch.end > first and stretch.start <= last:
                    yield stretch

    def instants(self, wall: datetime) -> list[datetime]:
        """When the clock shows ``wall``: once, never (in a gap), or twice (in an overlap)."""
        return [
            wall - stretch.offset
            for stretch in self.around(wall)
            if stretch.start <= wall - stretch.offset < stretch.end
        ]

    def end_of_gap(self, wall: datetime) -> datetime:
        """The instant at which the clock jumped over ``wall``, which it never shows."""
        before: Stretch | None = None
        for stretch in self.around(wall):
            if before is not None and wall - stretch.offset < stretch.start <= wall - before.offset:
                return stretch.start
            before = stretch
        raise AssertionError(f"the clock shows {wall}")

    def _of_year(self, year: int) -> tuple[Stretch, ...]:
        found = self._stretches.get(year)
        if found is None:
            found = self._stretches[year] = self._find(year)
        return found

    def _find(self, year: int) -> tuple[Stretch, ...]:
        """Look at each day of the year, and between two days that differ for the second."""
        first = datetime(year, 1, 1, tzinfo=UTC)
        if year in _EDGES:
            return (Stretch(first, _LAST, self._offset(first + 180 * _DAY), first),)
        end = datetime(year + 1, 1, 1, tzinfo=UTC)
        # From earlier on, since what is shown early in a year may be repeated.
        day = fresh = start = first - 2 * _DAY
        offset = self._offset(start)
        stretches: list[Stretch] = []
        while day < end:
            next_day = min(day + _DAY, end)
            while self._offset(next_day) != offset:
                change = self._first_change(day, next_day, offset)
                if change > first:
                    stretches.append(Stretch(max(start, first), change, offset, fresh))
                new_offset = self._offset(change)
                start = day = change
                fresh = change + max(offset - new_offset, timedelta(0))
                offset = new_offset
            day = next_day
        if start < end:
            stretches.append(Stretch(max(start, first), end, offset, fresh))
        return tuple(stretches)

    def _first_change(self, low: datetime, high: datetime, offset: timedelta) -> datetime:
        """The first second after ``low`` at which the offset is another, by bisection."""
        seconds = int((high - low).total_seconds())
        known = 0
        while seconds - known > 1:
            middle = (known + seconds) // 2
            if self._offset(low + middle * _SECOND) == offset:
                known = middle
            else:
                seconds = middle
        return low + seconds * _SECOND

    def _offset(self, instant: datetime) -> timedelta:
        offset = instant.astimezone(self.tzinfo).utcoffset()
        assert offset is not None
        return offset


def _moved(instant: datetime, by: timedelta) -> datetime:
    """That much later, or the end of the calendar."""
    try:
        return instant + by
    except OverflowError:
        return _LAST if by > timedelta(0) else _FIRST


def find_zone(name: str) -> Zone | None:
    """The zone of this name, ``"local"`` for the machine's; None for UTC.

    Raises ``InvalidOptionError`` (a ``ValueError``) with the nearest known name.
    """
    if not isinstance(name, str):
        raise InvalidOptionError(
            f"timezone is {name!r}; give a name like 'Europe/Berlin', or 'local'"
        )
    return None if name in ("UTC", "utc", "Etc/UTC") else _find_zone(name)


@lru_cache(maxsize=1000)
def _find_zone(name: str) -> Zone:
    if name == "local":
        return Zone(None)
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return Zone(ZoneInfo(name))
    except (LookupError, ValueError, OSError):
        known = available_timezones()
    if not known:
        raise InvalidOptionError(
            f"timezone is {name!r}, but no timezones are installed here: "
            f"install the system's tzdata, or the package tzdata"
        )
    from difflib import get_close_matches

    by_lower = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), by_lower, 1)
    hint = f"did you mean {by_lower[near[0]]!r}?" if near else "give one like 'Europe/Berlin'"
    raise InvalidOptionError(f"timezone is {name!r}, which is not known; {hint}")
