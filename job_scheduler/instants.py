"""Points in time: aware and in UTC inside; what users give becomes so once, at the edge."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from job_scheduler.errors import InvalidOptionError

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_utc(value: datetime, what: str = "instant") -> datetime:
    """The same instant in UTC. A naive one is taken as local time, as ``datetime`` itself does.

    Raises ``InvalidOptionError`` (a ``ValueError``) for what is no ``datetime``, or for one so
    near the end of the calendar that UTC has no such date.
    """
    if not isinstance(value, datetime):
        raise InvalidOptionError(f"{what} is {value!r}; give a datetime")
    if value.tzinfo is UTC:
        return value
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise InvalidOptionError(f"{what} is {value!r}, outside of the calendar") from None


def now() -> datetime:
    """The instant it is, by the system's clock."""
    return datetime.now(UTC)
