"""What all triggers promise."""

from __future__ import annotations

import abc
from datetime import UTC, datetime, tzinfo

from job_scheduler.instants import now


class Trigger(abc.ABC):
    """A rule for instants: the next one after any given one, for ever or until None."""

    __slots__ = ()

    @abc.abstractmethod
    def next_after(self, instant: datetime) -> datetime | None:
        """The first instant of this trigger that is later than ``instant``, in UTC, or None.

        Never one at or before ``instant``. A naive ``instant`` is taken as local time.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """When it fires, in plain English."""

    @property
    def zone(self) -> tzinfo | None:
        """The timezone in which its users think; None is the machine's own."""
        return UTC

    def preview(self, count: int = 5, after: datetime | None = None) -> list[datetime]:
        """The next instants, in the trigger's own timezone, so that their offsets are seen.

        Args:
            count: how many; fewer if there are no more.
            after: from when on; default: now.
        """
        instants: list[datetime] = []
        instant = self.next_after(now() if after is None else after)
        while instant is not None and len(instants) < count:
            instants.append(instant.astimezone(self.zone))
            instant = self.next_after(instant)
        return instants
