"""The one rule for durations: a number is seconds, a ``timedelta`` is itself."""

from __future__ import annotations

from datetime import timedelta

from job_scheduler.errors import InvalidOptionError


def parse_duration(
    value: float | timedelta, what: str = "duration", *, zero: bool = False
) -> timedelta:
    """Turn a duration into a ``timedelta``; ``what`` names it in the error.

    Raises ``InvalidOptionError`` (a ``ValueError``) for what is not a finite length of time, or
    is negative, or zero where ``zero`` does not allow that.
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
    if duration < timedelta(0) or (duration == timedelta(0) and not zero):
        least = "zero or more" if zero else "more than zero"
        raise InvalidOptionError(f"{what} is {value!r}; it must be {least}")
    return duration
