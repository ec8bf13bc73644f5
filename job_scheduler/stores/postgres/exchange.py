"""The statement that ends runs and claims the next: most of what a busy store does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from job_scheduler.stores.postgres.marks import NEVER, Mark, Marks
from job_scheduler.stores.postgres.rows import aware, ending_columns, statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from job_scheduler.stores.base import Finish, Worker
    from job_scheduler.stores.postgres.link import Link

MOST: Final = 500
"""Runs that one statement claims; it stands there too."""


class Exchanged(NamedTuple):
    """What a statement has done."""

    ended: set[str]
    claimed: list[Any]
    """Rows, the first first."""
    levels: list[int]
    """The priorities that it has looked at."""


class Exchange:
    """Says that statement, from the marks on where that is enough."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.marks = Marks()

    async def look(
        self,
        ends: Sequence[Finish],
        now: datetime,
        limit: int,
        worker: Worker,
        clock: datetime | None,
    ) -> tuple[set[str], list[Any]]:
        """End runs and claim due ones, at most ``MOST``."""
        with self.marks.asking():
            marks, ended = self.marks, set[str]()
            found: list[Any] = []
            if not limit or marks.suffice(worker.jobs):
                ended, found, _ = await self._say("levels_known", ends, now, limit, worker, clock)
                if limit:  # otherwise nothing was looked for
                    self._move(found, enough=len(found) == limit)
                if len(found) == limit or not marks.quick:
                    return ended, found
                ends = ()
            marks.trust()
            began, left = time.monotonic(), limit - len(found)
            too, more, levels = await self._say("levels_all", ends, now, left, worker, clock)
            marks.look_at_all(worker.jobs, levels, time.monotonic() - began, len(more))
            self._move(more, enough=len(more) == left)
            return ended | too, found + more

    async def _say(
        self,
        levels: str,
        ends: Sequence[Finish],
        now: datetime,
        limit: int,
        worker: Worker,
        clock: datetime | None,
    ) -> Exchanged:
        columns = ending_columns(ends) if ends else [None] * 8
        values = [
            worker.id,
            now,
            limit,
            worker.lease,
            None if worker.jobs is None else list(worker.jobs),
            *columns,
            clock,
        ]
        if levels == "levels_known":
            values += self.marks.arrays()
        found = await self._link.fetch_by_index(statement("exchange", levels=levels), *values)
        claimed = [row for row in found if row["job_id"] is not None]
        [told] = [row for row in found if row["job_id"] is None]
        claimed.sort(key=_order)
        return Exchanged(set(told["texts"] or ()), claimed, told["levels"] or [])

    def _move(self, claimed: list[Any], *, enough: bool) -> None:
        last = {
            row["priority"]: Mark(aware(row["execution_time"]), row["created_at"] or NEVER)
            for row in claimed
        }
        self.marks.move(last, enough=enough)


def _order(row: Any) -> tuple[int, datetime, datetime]:
    return row["priority"], aware(row["execution_time"]), row["created_at"] or NEVER
