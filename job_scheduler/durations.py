"""The rule for lengths of time: a number is seconds, a ``timedelta`` is itself."""

from __future__ import annotations

from datetime import timedelta
from threading import TIMEOUT_MAX

from job_scheduler.errors import InvalidOptionError


def parse_duration(value: float | timedelta, what: str = "duration") -> timedelta:
    """Turn a duration into a ``timedelta``; ``what`` names it in the error.

    Raises ``InvalidOptionError`` (a ``ValueError``) for what is not a finite length of time above
    zero.
    """
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            duration = timedelta(seconds=value)
        except (ValueError, OverflowError):
            raise InvalidOptionError(f"{what} is {value!r}; it must be a finite number") from None
    else:
        raise InvalidOptionError(f"{what} is {value!r}; give seconds or a timedelta")
    if duration <= timedelta(0):
        raise InvalidOptionError(f"{what} is {value!r}; it must be more than zero")
    return duration


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
