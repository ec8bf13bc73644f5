"""The search for the next time on the clock that a cron expression allows, without timezones.

The time of day is looked up in tables. The days of a month depend only on its first weekday and
its length, so there are at most 28 sets of them, kept as bits. So a search looks at one number
per month, and is fast also when the next date is decades away.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from job_scheduler.triggers.cron_fields import Field

_LENGTHS: Final = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_LAST_YEAR: Final = 9999


class Search:
    """Finds wall-clock times; they are given and returned as if they were UTC."""

    __slots__ = (
        "_any_day",
        "_any_weekday",
        "_day",
        "_days",
        "_first_hour",
        "_first_minute",
        "_first_second",
        "_months",
        "_next_hour",
        "_next_minute",
        "_next_second",
        "_weekday",
    )

    def __init__(self, fields: tuple[Field, ...]) -> None:
        second, minute, hour, day, month, weekday = fields
        self._next_second = _table(second.values, 60)
        self._next_minute = _table(minute.values, 60)
        self._next_hour = _table(hour.values, 24)
        self._first_second = self._next_second[0]
        self._first_minute = self._next_minute[0]
        self._first_hour = self._next_hour[0]
        self._months = month.values
        self._day, self._weekday = day, weekday
        # Both restricted: either may match. A field that begins with * is unrestricted in this
        # sense, whatever follows; then both must match (crontab(5)).
        self._any_day, self._any_weekday = day.is_star, weekday.is_star
        self._days: dict[tuple[int, int], int] = {}

    def can_match(self) -> bool:
        """Whether any date at all is allowed."""
        if self._weekday.values and any(day <= 28 for day in self._day.values):
            return True  # every month has such a day, and it is of every weekday some time
        return any(
            self._days_of(first_weekday, length)
            for month in self._months
            for length in ((28, 29) if month == 2 else (_LENGTHS[month],))
            for first_weekday in range(7)
        )

    def after(self, wall: datetime) -> datetime | None:
        """The first time later than ``wall``, or None before the year 10000."""
        year, month, day = wall.year, wall.month, wall.day
        first_weekday = (wall.weekday() - day + 1) % 7
        if month in self._months:
            days = self._days_of(first_weekday, _length_of(year, month))
            if days >> day & 1:
                time_of_day = self._time_after(wall.hour, wall.minute, wall.second)
                if time_of_day is not None:
                    return datetime(year, month, day, *time_of_day, tzinfo=UTC)
            days = days >> (day + 1) << (day + 1)
        else:
            days = 0
        while not days:
            first_weekday = (first_weekday + _length_of(year, month)) % 7
            month += 1
            if month > 12:
                month, year = 1, year + 1
                if year > _LAST_YEAR:
                    return None
            if month in self._months:
                days = self._days_of(first_weekday, _length_of(year, month))
        return datetime(
            year,
            month,
            (days & -days).bit_length() - 1,
            self._first_hour,
            self._first_minute,
            self._first_second,
            tzinfo=UTC,
        )

    def _time_after(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        next_hour = self._next_hour[hour]
        if next_hour == hour:
            next_minute = self._next_minute[minute]
            if next_minute == minute:
                next_second = self._next_second[second + 1]
                if next_second < 60:
                    return hour, minute, next_second
                next_minute = self._next_minute[minute + 1]
            if next_minute < 60:
                return hour, next_minute, self._first_second
            next_hour = self._next_hour[hour + 1]
        if next_hour < 24:
            return next_hour, self._first_minute, self._first_second
        return None

    def _days_of(self, first_weekday: int, length: int) -> int:
        """The allowed days of such a month, as bits; Monday is 0."""
        days = self._days.get((first_weekday, length))
        if days is None:
            days = self._days[first_weekday, length] = self._find_days(first_weekday, length)
        return days

    def _find_days(self, first_weekday: int, length: int) -> int:
        by_date = _bits(self._day.values) | (1 << length if self._day.last_day else 0)
        by_date &= (1 << (length + 1)) - 2
        # The weekday of a day, counted from Sunday as cron does.
        weekdays = {day: (first_weekday + day) % 7 for day in range(1, length + 1)}
        by_weekday = _bits(day for day in weekdays if weekdays[day] in self._weekday.values)
        for weekday, nth in self._weekday.nth:
            of_kind = [day for day in weekdays if weekdays[day] == weekday]
            if nth <= len(of_kind):
                by_weekday |= 1 << of_kind[nth - 1 if nth > 0 else -1]
        if self._any_day or self._any_weekday:
            return by_date & by_weekday
        return by_date | by_weekday


@lru_cache(maxsize=1000)
def _table(values: frozenset[int], size: int) -> tuple[int, ...]:
    """For each number the next allowed one from it on; ``size`` where there is none."""
    table = [size] * (size + 1)
    for number in range(size - 1, -1, -1):
        table[number] = number if number in values else table[number + 1]
    return tuple(table)


def _bits(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in set(numbers))


def _length_of(year: int, month: int) -> int:
    if month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):
        return 29
    return _LENGTHS[month]
