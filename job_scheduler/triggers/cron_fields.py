"""The fields of a cron expression: what they allow, and how they are read.

They are read as Debian's cron does it (crontab(5)): names of three letters in any case, ranges,
steps and lists, 0 and 7 for Sunday. Beyond it: seconds in front, ``L`` (the last day of the
month, or the last weekday of a kind) and ``#`` (the nth weekday of a kind), and ``5/10`` for
``5-59/10``, as other libraries read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from job_scheduler.errors import InvalidCronError

_MONTHS: Final = (
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
)
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_ITEM: Final = re.compile(
    r"(?P<first>\*|[0-9]+|[a-z]+)(?:-(?P<last>[0-9]+|[a-z]+))?(?:/(?P<step>[0-9]+))?"
)
_LAST_WEEKDAY: Final = re.compile(r"(?P<day>[0-7]|[a-z]{3})l")
_NTH_WEEKDAY: Final = re.compile(r"(?P<day>[0-7]|[a-z]{3})#(?P<nth>[0-9]+)")
_LONGEST: Final = 1_000
"""Characters of an expression; the longest that means something has fewer."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the fields: its name, its numbers, and their names."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    """The names of its numbers, from ``low`` on."""

    @property
    def allowed(self) -> str:
        numbers = f"{self.low} to {self.high}"
        return f"{numbers}, or {self.names[0]} to {self.names[-1]}" if self.names else numbers


SECOND: Final = Kind("second", 0, 59)
MINUTE: Final = Kind("minute", 0, 59)
HOUR: Final = Kind("hour", 0, 23)
DAY: Final = Kind("day of month", 1, 31)
MONTH: Final = Kind("month", 1, 12, _MONTHS)
WEEKDAY: Final = Kind("day of week", 0, 7, _WEEKDAYS)

_KINDS: Final = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)


@dataclass(frozen=True, slots=True)
class Field:
    """What one field of an expression allows."""

    kind: Kind
    text: str
    values: frozenset[int]
    """The numbers it allows; weekdays count from 0 for Sunday to 6."""
    last_day: bool = False
    """Whether the last day of the month is among them."""
    nth: frozenset[tuple[int, int]] = frozenset()
    """Weekdays of one week of the month: (weekday, 1 to 5 or -1 for the last)."""

    @property
    def is_star(self) -> bool:
        """Whether it begins with ``*``, which makes it unrestricted in the sense of cron."""
        return self.text.startswith("*")


def read(expression: str) -> tuple[Field, ...]:
    """The six fields of an expression, from seconds to weekdays; raises ``InvalidCronError``."""
    if not isinstance(expression, str):
        raise InvalidCronError(f"a cron expression is a string, not {expression!r}")
    if len(expression) > _LONGEST:
        raise InvalidCronError(f"a cron expression has {_LONGEST} characters at most")
    text = expression.strip().lower()
    if text.startswith("@"):
        text = _nickname(expression, text)
        placed = [(part, 0) for part in text.split()]
    else:
        placed = [(found.group(), found.start()) for found in re.finditer(r"\S+", expression)]
    if len(placed) not in (5, 6):
        raise InvalidCronError(
            f"cron {expression!r} has {_count(len(placed))}; it needs five, minute, hour, day of "
            f"month, month and day of week, or six, with the second in front"
        )
    if len(placed) == 5:
        placed.insert(0, ("0", 0))
    return tuple(
        _Reader(expression, kind, part, position).field()
        for kind, (part, position) in zip(_KINDS, placed, strict=True)
    )


def _count(number: int) -> str:
    return "no fields" if number == 0 else "one field" if number == 1 else f"{number} fields"


def _nickname(expression: str, text: str) -> str:
    if text in NICKNAMES:
        return NICKNAMES[text]
    if text == "@reboot":
        hint = "give a job that shall run at the start of the program a delay of zero instead"
    else:
        near = get_close_matches(text, NICKNAMES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(NICKNAMES)}"
    raise InvalidCronError(f"cron {expression!r} is not known; {hint}", value=expression)


class _Reader:
    """Reads one field."""

    def __init__(self, expression: str, kind: Kind, text: str, position: int) -> None:
        self._expression = expression
        self._kind = kind
        self._text = text
        self._position = position
        self._values: set[int] = set()
        self._nth: set[tuple[int, int]] = set()
        self._last_day = False

    def field(self) -> Field:
        position = self._position
        for item in self._text.split(","):
            self._read_item(item, position)
            position += len(item) + 1
        if self._kind is WEEKDAY and 7 in self._values:
            self._values = self._values - {7} | {0}
        return Field(
            self._kind, self._text, frozenset(self._values), self._last_day, frozenset(self._nth)
        )

    def _read_item(self, item: str, position: int) -> None:
        text = item.lower() if item.isascii() else item
        if self._kind is DAY and text == "l":
            self._last_day = True
        elif self._kind is WEEKDAY and (found := _LAST_WEEKDAY.fullmatch(text)):
            self._nth.add((self._number(found["day"], item, position) % 7, -1))
        elif self._kind is WEEKDAY and (found := _NTH_WEEKDAY.fullmatch(text)):
            nth = int(found["nth"])
            if not 1 <= nth <= 5:
                self._refuse(item, position, "there are only the weekdays #1 to #5 of a month")
            self._nth.add((self._number(found["day"], item, position) % 7, nth))
        elif found := _ITEM.fullmatch(text):
            self._values.update(self._range(found, item, position))
        else:
            self._refuse(item, position, "it cannot be read")

    def _range(self, found: re.Match[str], item: str, position: int) -> range:
        if found["first"] == "*":
            if found["last"]:
                self._refuse(item, position, "it cannot be read")
            first, last = self._kind.low, min(self._kind.high, 6 if self._kind is WEEKDAY else 59)
        else:
            first = last = self._number(found["first"], item, position)
            if found["last"]:
                last = self._number(found["last"], item, position)
            elif found["step"]:
                last = self._kind.high
        if first > last:
            self._refuse(item, position, "the range runs backwards")
        step = int(found["step"] or 1)
        if step == 0:
            self._refuse(item, position, "a step is 1 or more")
        return range(first, last + 1, step)

    def _number(self, text: str, item: str, position: int) -> int:
        kind = self._kind
        if text.isdigit():
            number = int(text)
            if not kind.low <= number <= kind.high:
                self._refuse(item, position, f"{text} is out of range")
            return number
        if text not in kind.names:
            near = get_close_matches(text, kind.names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            self._refuse(item, position, f"{text!r} names no {kind.name}{hint}")
        return kind.low + kind.names.index(text)

    def _refuse(self, item: str, position: int, why: str) -> None:
        raise InvalidCronError(
            f"cron {self._expression!r}: {self._kind.name} {item!r}, at character {position + 1}: "
            f"{why}; allowed are {self._kind.allowed}, '*', ranges, steps and lists",
            field=self._kind.name,
            position=position,
            value=item,
        )
