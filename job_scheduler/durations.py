"""The rule for lengths of time: a number is seconds, a string carries its unit."""

from __future__ import annotations

from datetime import timedelta
from threading import TIMEOUT_MAX
from typing import Final

from job_scheduler.errors import InvalidOptionError

LONGEST: Final = timedelta(days=365_000)
"""A thousand years: what is longer is a slip, and would leave the calendar of ``datetime``."""

_FORMS: Final = (
    "give a number with its unit, as in '30s', '2h32m' or '1.5 days', a colon form, as in '16:00', "
    "which is 16 minutes, a number of seconds"
)

_LONGEST_TEXT: Final = 100


def parse_duration(
    value: float | str | timedelta,
    what: str = "duration",
    *,
    zero: bool = False,
    or_else: str = "a timedelta",
) -> timedelta:
    """Turn a duration into a ``timedelta``; ``what`` names it in the error.

    A number is seconds. A string is what ``pytimeparse`` reads, and carries its unit or its
    colons: ``"1s"``, ``"2h32m"``, ``"1.24 days"``, ``"16:00"`` (16 minutes). With ``zero``,
    nothing at all is a duration too. ``or_else`` is what the error names beside these.

    Raises ``InvalidOptionError`` (a ``ValueError``) for what cannot be read, what is negative,
    and what is longer than a thousand years.
    """
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, str):
        duration = _timedelta(_parse(value, what, or_else), value, what)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        duration = _timedelta(value, value, what)
    else:
        raise InvalidOptionError(f"{what} is {value!r}; {_FORMS}, or {or_else}")
    if duration < timedelta(0) or not (duration or zero):
        least = "zero or more" if zero else "more than zero"
        raise InvalidOptionError(f"{what} is {value!r}; it must be {least}")
    if duration > LONGEST:
        raise InvalidOptionError(f"{what} is {value!r}; a thousand years is the most")
    return duration


def _parse(text: str, what: str, or_else: str) -> float:
    from pytimeparse.timeparse import timeparse

    if len(text) > _LONGEST_TEXT:
        raise InvalidOptionError(
            f"{what} is a text of {len(text):,} characters; {_LONGEST_TEXT} are the most"
        )
    # Many blanks in a row would keep timeparse busy for seconds.
    seconds = timeparse(" ".join(text.split())) if text.isascii() else None
    if seconds is None:
        raise InvalidOptionError(
            f"{what} is {text!r}, which cannot be read; {_FORMS}, or {or_else}"
        )
    return seconds


def _timedelta(seconds: float, value: object, what: str) -> timedelta:
    try:
        return timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        raise InvalidOptionError(f"{what} is {value!r}; it must be a finite number") from None


def seconds_to_wait(
    value: float | timedelta, what: str = "timeout", *, negative: bool = True
) -> float:
    """How many seconds to wait: never more than a lock can, which is 292 years.

    Less than nothing is nothing, as in ``threading``, since a time that is left may be just over;
    without ``negative`` it raises ``InvalidOptionError``, as does what is no length of time.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or seconds != seconds:
        raise InvalidOptionError(f"{what} is {value!r}; give seconds or a timedelta")
    if seconds < 0 and not negative:
        raise InvalidOptionError(f"{what} is {value!r}; it must be zero or more")
    return float(max(0, min(seconds, TIMEOUT_MAX)))


_UNITS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60))


def describe_duration(duration: timedelta) -> str:
    """A length of time in words: ``"1 hour 30 minutes"``."""
    left = duration.days * 86_400 + duration.seconds
    words = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            words.append(count_of(count, unit))
    if duration.microseconds:
        words.append(f"{left + duration.microseconds / 1e6:.6f}".rstrip("0") + " seconds")
    elif left or not words:
        words.append(count_of(left, "second"))
    return " ".join(words)


def count_of(count: int, thing: str) -> str:
    """``"1 hour"``, ``"2 hours"``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
