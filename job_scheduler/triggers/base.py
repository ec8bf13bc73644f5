"""What all triggers promise."""

from __future__ import annotations

import abc
from collections import deque
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from job_scheduler.errors import InvalidOptionError
from job_scheduler.instants import now

_MOST_COUNTED: Final = 100_000
_MOMENT: Final = timedelta(microseconds=1)


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

    def last_from(
        self, first: datetime, until: datetime, most: int
    ) -> tuple[list[datetime], int | None]:
        """The last instants from ``first`` to ``until``, ``most`` of them, and how many there are.

        ``first`` is an instant of this trigger, and not later than ``until``. The count is None
        where there are more than 100,000; then only the last ones are looked for.
        """
        last = deque([first], maxlen=most)
        count = 1
        instant = self.next_after(first)
        while instant is not None and instant <= until:
            count += 1
            if count > _MOST_COUNTED:
                return self._last_before(instant, until, most), None
            last.append(instant)
            instant = self.next_after(instant)
        return list(last), count

    def _last_before(self, first: datetime, until: datetime, most: int) -> list[datetime]:
        """The last instants up to ``until``, from which to go back ever further."""
        back = timedelta(minutes=1)
        while True:
            start = max(first - _MOMENT, until - back)
            last = deque[datetime](maxlen=most)
            instant = self.next_after(start)
            while instant is not None and instant <= until:
                last.append(instant)
                instant = self.next_after(instant)
            if len(last) == most or start < first:
                return list(last)
            back *= 2

    def preview(self, count: int = 5, after: datetime | None = None) -> list[datetime]:
        """The next instants, in the trigger's own timezone, so that their offsets are seen.

        Args:
            count: how many; fewer if there are no more.
            after: from when on; default: now.
        """
        if isinstance(count, bool) or not isinstance(count, int):
            raise InvalidOptionError(f"count is {count!r}; it must be a whole number")
        instants: list[datetime] = []
        instant = self.next_after(now() if after is None else after)
        while instant is not None and len(instants) < count:
            instants.append(instant.astimezone(self.zone))
            instant = self.next_after(instant)
        return instants
