"""Instants at a fixed distance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from job_scheduler.durations import describe_duration, parse_duration
from job_scheduler.instants import to_utc
from job_scheduler.triggers.base import Trigger


@dataclass(frozen=True, slots=True)
class Interval(Trigger):
    """Fires every ``period``: seconds, a string like ``"30m"``, or a ``timedelta``.

    Args:
        period: more than zero.
        start: an instant of it, from which all others are counted, and the first; a naive
            ``datetime`` is taken as local time. None: the next instant is one period after
            any given one.

    It counts elapsed time, so in a timezone with daylight saving its hour of the day moves.
    """

    period: timedelta
    start: datetime | None

    def __init__(self, period: float | str | timedelta, start: datetime | None = None) -> None:
        object.__setattr__(self, "period", parse_duration(period, "period"))
        object.__setattr__(self, "start", None if start is None else to_utc(start, "start"))

    def next_after(self, instant: datetime) -> datetime | None:
        instant = to_utc(instant)
        try:
            if self.start is None:
                return instant + self.period
            if instant < self.start:
                return self.start
            return self.start + ((instant - self.start) // self.period + 1) * self.period
        except OverflowError:
            return None

    def last_from(
        self, first: datetime, until: datetime, most: int
    ) -> tuple[list[datetime], int | None]:
        steps = (until - first) // self.period
        shown = range(max(0, steps + 1 - most), steps + 1)
        return [first + step * self.period for step in shown], steps + 1

    def describe(self) -> str:
        return f"every {describe_duration(self.period)}"
