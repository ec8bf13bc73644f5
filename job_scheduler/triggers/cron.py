"""Cron expressions.

Daylight saving, as cron daemons do it (crontab(5) and cron(8) of Debian): a job at fixed times
runs once where the clock repeats an hour, and where the clock skips its time, right after. A job
whose minute or hour begins with ``*`` follows the clock: it runs in both passes of what is
repeated, and what is skipped does not happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from job_scheduler.errors import InvalidCronError
from job_scheduler.instants import to_utc
from job_scheduler.triggers.base import Trigger
from job_scheduler.triggers.cron_fields import read
from job_scheduler.triggers.cron_search import Search
from job_scheduler.triggers.cron_words import describe_fields
from job_scheduler.triggers.zones import WIDEST, Stretch, Zone, find_zone

_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Cron(Trigger):
    """Fires as a cron expression says, on the clock of a timezone.

    >>> Cron("*/5 9-17 * * mon-fri", timezone="Europe/Berlin").describe()
    'every 5 minutes from 09:00 to 17:59 on Monday to Friday (Europe/Berlin)'

    Args:
        expression: minute, hour, day of month, month, day of week, with an optional second in
            front; or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``, ``@yearly``.
        timezone: a name like ``"Europe/Berlin"``; ``"local"`` is the machine's.

    Raises ``InvalidCronError`` (a ``ValueError``) with the field, the position and what is
    allowed, also for dates that cannot occur, and ``InvalidOptionError`` (a ``ValueError``) for a
    timezone that is not known.
    """

    expression: str
    timezone: str = "UTC"
    _search: Search = field(init=False, repr=False, compare=False)
    _zone: Zone | None = field(init=False, repr=False, compare=False)
    _follows_clock: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fields = read(self.expression)
        _, minute, hour, day, month, _ = fields
        search = Search(fields)
        if not search.can_match():
            raise InvalidCronError(
                f"cron {self.expression!r} names a date that cannot occur: day {day.text!r} of "
                f"month {month.text!r}",
                field=day.kind.name,
                value=day.text,
            )
        object.__setattr__(self, "_search", search)
        object.__setattr__(self, "_zone", find_zone(self.timezone))
        object.__setattr__(self, "_follows_clock", minute.is_star or hour.is_star)

    def __reduce__(self) -> tuple[type[Cron], tuple[str, str]]:
        return Cron, (self.expression, self.timezone)

    @property
    def zone(self) -> tzinfo | None:
        return UTC if self._zone is None else self._zone.tzinfo

    @property
    def follows_clock(self) -> bool:
        """Whether the minute or the hour begins with ``*``."""
        return self._follows_clock

    def next_after(self, instant: datetime) -> datetime | None:
        if not isinstance(instant, datetime) or instant.tzinfo is not UTC:
            instant = to_utc(instant)
        zone = self._zone
        if zone is None:
            return self._search.after(instant)
        stretch = zone.stretch_at(instant)
        try:
            wall = self._search.after(instant + stretch.offset)
            if wall is not None:
                found = wall - stretch.offset
                if found < stretch.end and (self._follows_clock or found >= stretch.fresh):
                    return found
            follow = self._following_clock if self._follows_clock else self._at_fixed_time
            return follow(zone, instant, wall)
        except OverflowError:  # the end of the calendar
            return None

    def _at_fixed_time(
        self, zone: Zone, instant: datetime, wall: datetime | None
    ) -> datetime | None:
        """The next instant from ``wall`` on: the first pass of what is repeated, or after a gap."""
        while wall is not None:
            shown = zone.instants(wall)
            found = shown[0] if shown else zone.end_of_gap(wall)
            if found > instant:
                return found
            wall = self._search.after(wall)
        return None

    def _following_clock(
        self, zone: Zone, instant: datetime, wall: datetime | None
    ) -> datetime | None:
        """The next instant at which the clock shows ``wall`` or later, or goes back to a match."""
        found = self._when_set_back(zone, instant)
        while wall is not None:
            later = [each for each in zone.instants(wall) if each > instant]
            if later:
                return later[0] if found is None else min(later[0], found)
            wall = self._search.after(wall)
        return found

    def _when_set_back(self, zone: Zone, instant: datetime) -> datetime | None:
        """The first instant in what the clock repeats from soon after ``instant`` on.

        Only from soon on: what it repeats later, it has not shown yet.
        """
        before: Stretch | None = None
        for stretch in zone.between(instant, instant + WIDEST):
            if before is not None and stretch.offset < before.offset:
                wall = self._search.after(stretch.start + stretch.offset - _SECOND)
                if wall is not None and wall - stretch.offset < stretch.end:
                    return wall - stretch.offset
            before = stretch
        return None

    def describe(self) -> str:
        words = describe_fields(read(self.expression))
        return f"{words} ({self.timezone})"
