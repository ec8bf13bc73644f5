"""The one rule for durations: a number is seconds, a ``timedelta`` is itself."""

from __future__ import annotations

from datetime import timedelta

from job_scheduler.errors import InvalidOptionError


def parse_duration(value: float | timedelta, what: str = "duration") -> timedelta:
    """Turn a duration into a ``timedelta``; ``what`` names it in the error.

    Raises ``InvalidOptionError`` (a ``ValueError``) for what is not a positive, finite length
    of time.
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
