"""Cron expressions in plain English."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from job_scheduler.durations import count_of
from job_scheduler.triggers.cron_fields import HOUR, MINUTE, MONTH, SECOND, WEEKDAY, Field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MONTHS: Final = (
    "",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_WEEKDAYS: Final = (
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
)
_NTH: Final = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", -1: "last"}
_MOST_TIMES: Final = 6
"""Times of day that are listed one by one."""


def describe_fields(fields: tuple[Field, ...]) -> str:
    """What the six fields say, without the timezone."""
    second, minute, hour, day, month, weekday = fields
    time = _time(second, minute, hour)
    days = _days(day, weekday, "" if _is_all(month) else _listed(month.values, _MONTHS.__getitem__))
    if days:
        return f"{time} {days}"
    return f"{time} every day" if time.startswith("at ") and "every" not in time else time


def _time(second: Field, minute: Field, hour: Field) -> str:
    if len(second.values) == 1 and len(minute.values) * len(hour.values) <= _MOST_TIMES:
        [at_second] = second.values
        clocks = [_clock(h, m, at_second) for h in _sorted(hour) for m in _sorted(minute)]
        return f"at {_joined(clocks)}"
    frequencies = []
    if second.values != {0}:
        frequencies.append(_frequency(second))
    if second.values == {0} or not _is_all(minute):
        frequencies.append(_frequency(minute))
    return _in_hours(frequencies, hour)


def _frequency(field: Field) -> str:
    """``every minute``, ``every 5 minutes``, ``at minute 7``."""
    unit, size = field.kind.name, field.kind.high + 1
    if _is_all(field):
        return f"every {unit}"
    if step := _whole_step(field, size):
        return f"every {count_of(step, unit)}"
    plural = "" if len(field.values) == 1 else "s"
    return f"at {unit}{plural} {_listed(field.values, str)}"


def _in_hours(frequencies: list[str], hour: Field) -> str:
    """``at minute 5 of every hour``, ``every 2 hours, at minute 5``, ``... from 9:00 to 17:59``."""
    hours = _sorted(hour)
    frequency = " ".join(frequencies)
    every = frequencies[-1].startswith("every")
    on_the_hour = frequency == "at minute 0"
    if _is_all(hour):
        return frequency if every else "every hour" if on_the_hour else f"{frequency} of every hour"
    if not every and (step := _whole_step(hour, 24)):
        return f"every {step} hours" + ("" if on_the_hour else f", {frequency}")
    if every and hours == list(range(hours[0], hours[-1] + 1)):
        return f"{frequency} from {hours[0]:02}:00 to {hours[-1]:02}:59"
    plural = "" if len(hours) == 1 else "s"
    return f"{frequency} of the hour{plural} {_listed(hours, str)}"


def _days(day: Field, weekday: Field, months: str) -> str:
    of_month = f"of {months}" if months else "of the month"
    if _is_all(day) and _is_all(weekday):
        return f"in {months}" if months else ""
    if _is_all(weekday):
        return f"on {_dates(day)} {of_month}"
    if not _is_all(day):
        if day.is_star or weekday.is_star:
            return f"on {_dates(day)} {of_month}, if that is {_weekdays(weekday)}"
        return f"on {_dates(day)} and on every {_weekdays(weekday)} {of_month}"
    if weekday.nth:
        return f"on {_weekdays(weekday)} {of_month}"
    return f"on {_weekdays(weekday)}" + (f" in {months}" if months else "")


def _dates(day: Field) -> str:
    step = _step(_sorted(day))
    if step > 1 and len(day.values) > _MOST_TIMES:
        days = f"every {_ordinal(step)} day from the {_ordinal(min(day.values))}"
    elif day.values:
        days = f"the {_listed(day.values, _ordinal)}"
    else:
        return "the last day"
    return f"{days} and the last day" if day.last_day else days


def _weekdays(weekday: Field) -> str:
    # From Monday, so that a range that ends with Sunday is one.
    days = {(number - 1) % 7 for number in weekday.values}
    words = [_listed(days, lambda number: _WEEKDAYS[(number + 1) % 7])] if days else []
    words += [f"the {_NTH[nth]} {_WEEKDAYS[number]}" for number, nth in sorted(weekday.nth)]
    return _joined(words)


def _listed(values: Iterable[int], name: Callable[[int], str]) -> str:
    """``1, 2 and 8 to 12``; only three and more in a row are a range."""
    rows: list[list[int]] = []
    for value in sorted(values):
        if rows and value == rows[-1][-1] + 1:
            rows[-1].append(value)
        else:
            rows.append([value])
    words = []
    for row in rows:
        if len(row) > 2:
            words.append(f"{name(row[0])} to {name(row[-1])}")
        else:
            words += map(name, row)
    return _joined(words)


def _joined(words: list[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _ordinal(number: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number in (11, 12, 13) else suffix}"


def _clock(hour: int, minute: int, second: int) -> str:
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")


def _step(values: list[int]) -> int:
    """The distance of the values, if it is one."""
    steps = {after - before for before, after in itertools.pairwise(values)}
    return steps.pop() if len(steps) == 1 else 0


def _whole_step(field: Field, size: int) -> int:
    """The step, if the values go with it through the whole of the field without a rest."""
    values = _sorted(field)
    step = _step(values)
    return step if step > 1 and size % step == 0 and values == list(range(0, size, step)) else 0


def _sorted(field: Field) -> list[int]:
    return sorted(field.values)


_ALL: Final = {
    SECOND: range(60),
    MINUTE: range(60),
    HOUR: range(24),
    MONTH: range(1, 13),
    WEEKDAY: range(7),
}


def _is_all(field: Field) -> bool:
    every = _ALL.get(field.kind, range(1, 32))
    return field.values >= set(every)
