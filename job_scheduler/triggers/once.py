"""One instant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from job_scheduler.instants import to_utc
from job_scheduler.triggers.base import Trigger


@dataclass(frozen=True, slots=True)
class Once(Trigger):
    """Fires at one instant; a naive ``datetime`` is taken as local time."""

    instant: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "instant", to_utc(self.instant))

    def next_after(self, instant: datetime) -> datetime | None:
        return self.instant if self.instant > to_utc(instant) else None

    def describe(self) -> str:
        return f"once, at {self.instant.isoformat(sep=' ')}"
