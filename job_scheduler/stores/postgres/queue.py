"""New runs on their way into PostgreSQL, and what is told where their ids are taken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.errors import StoreError
from job_scheduler.run import RunState
from job_scheduler.schedule import ConflictResolution
from job_scheduler.stores.postgres.books import count_admitted, open_books, write_books
from job_scheduler.stores.postgres.link import UNIQUE_VIOLATION, RefusedError
from job_scheduler.stores.postgres.rows import run_columns, statement, statements

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from job_scheduler.stores.base import NewRun
    from job_scheduler.stores.postgres.books import Book, Released
    from job_scheduler.stores.postgres.link import Link

Taken = dict[str, RunState]

_MANY: Final = 2_000
"""Runs that one statement inserts, at most."""

_TRIES: Final = 10
"""How often to look again at ids that are taken, and then are not."""


class _TakenError(Exception):
    """Nothing is kept."""

    def __init__(self, taken: Taken) -> None:
        super().__init__(taken)
        self.taken = taken


class _GoneError(Exception):
    """What had an id was deleted before it could be looked at."""


class Entry:
    """Some runs that are to be kept, all in one step.

    Args:
        link: the way to the database.
        runs: no two with the same id.
        on_conflict: what to do about taken ids.
        now: the instant it is.
        clock: the same, or None for what the server says.
    """

    def __init__(
        self,
        link: Link,
        runs: Sequence[NewRun],
        on_conflict: ConflictResolution,
        now: datetime,
        clock: datetime | None,
    ) -> None:
        self._link = link
        self._runs = runs
        self._on_conflict = on_conflict
        self._now = now
        self._clock = clock
        self.released: Released = []
        """Other runs that may go on because these have taken the place of some."""

    async def keep(self, connection: Any, *, tell: bool) -> Taken:
        """Do it; ``tell`` has others told that something is due."""
        for _ in range(_TRIES):
            try:
                if connection is None:
                    return await self._keep(tell)
                return await self._link.within(connection, lambda it: self._with_books(it, tell))
            except _TakenError as error:
                return error.taken
            except _GoneError:
                continue
        raise StoreError("others take the same ids and give them back all the time")

    async def _keep(self, tell: bool) -> Taken:
        replaces = self._on_conflict is ConflictResolution.REPLACE
        if replaces or any(run.schedule_id is not None for run in self._runs):
            return await self._link.transaction(lambda it: self._with_books(it, tell))
        if self._on_conflict is ConflictResolution.RAISE and len(self._runs) > 1:
            if await self._insert_all(tell):
                return {}
            return await self._link.transaction(lambda it: self._with_books(it, tell))
        return await self._insert_those_free(tell)

    async def _insert_all(self, tell: bool) -> bool:
        """Insert all, or none."""
        try:
            if len(self._runs) <= _MANY:
                return await self._insert_part(self._link.fetch, self._runs, tell)
            await self._link.transaction(lambda it: self._insert_parts(it, tell))
        except RefusedError as error:
            if error.sqlstate != UNIQUE_VIOLATION:
                raise
            return False
        except _TakenError:
            return False
        return True

    async def _insert_part(
        self, fetch: Callable[..., Awaitable[list[Any]]], runs: Sequence[NewRun], tell: bool
    ) -> bool:
        insert = statement("insert_runs", unless="unless_taken", conflict="")
        [row] = await fetch(insert, *_plain_columns(runs), tell, self._clock)
        return len(row[0] or ()) == len(runs)

    async def _insert_parts(self, connection: Any, tell: bool) -> None:
        """Insert many in parts: while the server does one, the next is made ready."""
        parts = [self._runs[at : at + _MANY] for at in range(0, len(self._runs), _MANY)]
        insert = statement("insert_runs", unless="unless_taken", conflict="")
        columns = _plain_columns(parts[0])
        for number, part in enumerate(parts):
            is_last = number + 1 == len(parts)
            saying = asyncio.create_task(
                connection.fetch(insert, *columns, tell and is_last, self._clock)
            )
            try:
                await asyncio.sleep(0)  # now it is on its way
                columns = [] if is_last else _plain_columns(parts[number + 1])
            finally:
                [row] = await saying
            if len(row[0] or ()) < len(part):
                raise _TakenError({})

    async def _insert_those_free(self, tell: bool) -> Taken:
        [row] = await self._link.fetch(
            statement("insert_runs", unless="", conflict="conflict_over"),
            *_plain_columns(self._runs),
            tell,
            self._clock,
            False,
        )
        missing = self._missing(row[0])
        if not missing:
            return {}
        found = await self._link.fetch(statements()["states"], missing)
        return self._states(found, missing)

    def _missing(self, added: list[str] | None) -> list[str]:
        done = set(added or ())
        return [run.id for run in self._runs if run.id not in done]

    def _states(self, found: list[Any], missing: list[str]) -> Taken:
        states = {row["job_id"]: _state(row["status"]) for row in found}
        if len(states) < len(missing):
            # Those that are kept by now would be told as taken: look which of them are not.
            self._runs = [run for run in self._runs if run.id in missing]
            raise _GoneError
        return states

    # Where other rows are to be looked at

    async def _with_books(self, connection: Any, tell: bool) -> Taken:
        ids = [run.id for run in self._runs]
        named = {run.schedule_id for run in self._runs if run.schedule_id is not None}
        replaces = self._on_conflict is ConflictResolution.REPLACE
        if replaces:
            found = await connection.fetch(statements()["schedules_of"], ids)
            named |= {row[0] for row in found}
        books = await open_books(connection, named)
        taken: Taken = {}
        admitted = await count_admitted(connection, books) if books else {}
        if replaces:
            found = await connection.fetch(statements()["take_rows"], ids, self._clock)
            taken = {row["job_id"]: _state(row["status"]) for row in found if not row["is_over"]}
            _end_replaced(found, books, admitted, self._now)
        row = await connection.fetchrow(
            statement("insert_runs", unless="", conflict="conflict_over"),
            *self._columns(books, admitted),
            tell,
            self._clock,
            replaces,
        )
        missing = self._missing(row[0])
        if missing:
            taken = await self._look_at(connection, missing)
        for book in books.values():
            book.freed = True
        self.released = await write_books(connection, books.values())
        return taken

    async def _look_at(self, connection: Any, missing: list[str]) -> Taken:
        found = await connection.fetch(statements()["states"], missing)
        states = {row["job_id"]: _state(row["status"]) for row in found}
        if len(states) < len(missing):
            raise _GoneError  # everything is rolled back, and done again
        if self._on_conflict is ConflictResolution.RAISE:
            raise _TakenError(states)
        return states

    def _columns(self, books: dict[str, Book], admitted: dict[str, int]) -> list[Any]:
        """The columns of the runs, with their place among those of their schedule."""
        of_schedule: list[str | None] = []
        may_start: list[bool] = []
        held: list[bool] = []
        for run in self._runs:
            book = None if run.schedule_id is None else books.get(run.schedule_id)
            of_schedule.append(None if book is None else book.schedule_id)
            has_room = True
            if book is not None and not run.beside:
                number = admitted.get(book.schedule_id, 0)
                has_room = number < book.schedule().most_running
                admitted[book.schedule_id] = number + has_room
            may_start.append(has_room)
            held.append(book is not None and not run.beside and (book.paused or not has_room))
        beside = [run.beside for run in self._runs]
        return [*run_columns(self._runs), of_schedule, beside, may_start, held]


def _plain_columns(runs: Sequence[NewRun]) -> list[Any]:
    return [*run_columns(runs), None, None, None, None]


def _state(status: str) -> RunState:
    """The state of a row; a word of somebody else's stands for a run that will not go on."""
    try:
        return RunState(status)
    except ValueError:
        return RunState.CANCELLED


def _end_replaced(
    found: list[Any], books: dict[str, Book], admitted: dict[str, int], now: datetime
) -> None:
    """Count the runs that others take the place of, as far as they had not ended."""
    for row in found:
        book = books.get(row["schedule_id"] or "")
        state = _state(row["status"])
        is_disowned = state is RunState.RUNNING and not row["admitted"]
        if book is None or state.ended or is_disowned:
            continue
        book.count(RunState.CANCELLED)
        if not row["beside"]:
            book.plan_after(now)
        if row["admitted"] and not row["beside"]:
            admitted[book.schedule_id] = admitted.get(book.schedule_id, 1) - 1
