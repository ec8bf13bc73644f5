"""What happens to runs of schedules: within a transaction that holds the rows of their schedules.

The rows of schedules are locked first, in the order of their ids, then those of runs: so no two
transactions wait for each other, and who counts the admitted runs counts all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from job_scheduler.run import RunState
from job_scheduler.stores import rows
from job_scheduler.stores.base import Finished
from job_scheduler.stores.postgres.rows import (
    again_columns,
    aware,
    ending_columns,
    instant_columns,
    schedule_of_row,
    statement,
    statements,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from job_scheduler.schedule import Missed, Schedule
    from job_scheduler.stores.base import Advance, Finish

Released = list[tuple[int, "datetime"]]
"""Priority and instant of each run that may now be claimed."""


class Book:
    """A schedule's row, which is locked, and what is to be written there."""

    __slots__ = (
        "cancelled",
        "completed",
        "failed",
        "failures",
        "freed",
        "generation",
        "id",
        "last_run",
        "last_run_at",
        "next_at",
        "paused",
        "row",
        "schedule_id",
    )

    def __init__(self, row: Any) -> None:
        self.row = row
        self.id = row["id"]
        self.schedule_id: str = row["schedule_id"]
        self.generation = row["generation"]
        self.next_at: datetime | None = row["next_at"]
        self.paused = row["paused"]
        self.failures = row["failures"]
        self.completed = row["completed"]
        self.failed = row["failed"]
        self.cancelled = row["cancelled"]
        self.last_run: str | None = row["last_run"]
        self.last_run_at: datetime | None = row["last_run_at"]
        self.freed = False
        """Whether a run of it has ended that was admitted."""

    def schedule(self) -> Schedule:
        return schedule_of_row(self.row[1:8])

    def started(self, run_id: str, at: datetime | None) -> None:
        """One of its runs has started then, perhaps before others that are noted."""
        if self.last_run_at is None or (at is not None and at >= self.last_run_at):
            self.last_run, self.last_run_at = run_id, at

    def count(self, state: RunState) -> None:
        """One of its runs has ended."""
        if state is RunState.COMPLETED:
            self.completed += 1
            self.failures = 0
        elif state is RunState.FAILED:
            self.failed += 1
            self.failures += 1
        else:
            self.cancelled += 1

    def plan_after(self, now: datetime) -> None:
        """A run has ended without anybody to say when the next one is."""
        if self.next_at is None and self.schedule().counts_from_end:
            self.next_at = self.schedule().first_after(now)


class Settled(NamedTuple):
    """What has become of claimed runs."""

    told: list[Finished | None]
    released: Released


async def open_books(connection: Any, ids: Iterable[str]) -> dict[str, Book]:
    """Lock the rows of schedules."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    found = await connection.fetch(statements()["lock_schedules"], wanted)
    return {row["schedule_id"]: Book(row) for row in found}


async def write_books(connection: Any, books: Iterable[Book]) -> Released:
    """Write what was counted, and let go the next runs of those that have ended."""
    changed = list(books)
    if not changed:
        return []
    await connection.fetch(
        statements()["update_books"],
        [book.id for book in changed],
        [book.next_at for book in changed],
        [book.failures for book in changed],
        [book.completed for book in changed],
        [book.failed for book in changed],
        [book.cancelled for book in changed],
        [book.last_run for book in changed],
        [book.last_run_at for book in changed],
    )
    return await admit(connection, [book for book in changed if book.freed])


async def admit(connection: Any, books: Iterable[Book]) -> Released:
    """Let go the runs that wait for others of their schedule, as far as that may be."""
    most = {book.schedule_id: book.schedule().most_running for book in books if not book.paused}
    if not most:
        return []
    found = await connection.fetch(statements()["admit"], list(most), list(most.values()))
    return [(row["priority"], aware(row["execution_time"])) for row in found]


async def settle(
    connection: Any, ends: Sequence[Finish], books: dict[str, Book], *, lost: bool = False
) -> Settled:
    """End claimed runs, or put them back.

    Args:
        connection: in a transaction.
        ends: how they have ended.
        books: of their schedules.
        lost: their workers were not heard of any more, which counts as a crash also at the end.
    """
    workers, instants, reasons, attempts = again_columns(ends)
    known = [_book_of(end, books) for end in ends]
    found = await connection.fetch(
        statements()["settle"],
        *ending_columns(ends),
        workers,
        instants,
        ["crash"] * len(ends) if lost else reasons,
        attempts,
        [book is not None and book.paused for book in known],
        rows.MOST_ATTEMPTS,
    )
    by_id = {row["job_id"]: row for row in found}
    told: list[Finished | None] = []
    released: Released = []
    for end in ends:
        row = by_id.pop(end.claim.run_id, None)
        told.append(None if row is None else _settled(end, row, books, released))
    return Settled(told, released + await write_books(connection, books.values()))


def _book_of(end: Finish, books: dict[str, Book]) -> Book | None:
    schedule = end.claim.schedule
    return None if schedule is None else books.get(schedule.id)


def _settled(end: Finish, row: Any, books: dict[str, Book], released: Released) -> Finished:
    """Count an end that has held."""
    state = RunState(row["status"])
    is_back = state is RunState.PENDING
    if is_back:
        released.append((row["priority"], aware(row["execution_time"])))
    book = books.get(row["schedule_id"]) if row["admitted"] else None
    if book is None:
        return Finished(is_back, 0)
    book.started(end.claim.run_id, row["started_at"])
    if not is_back:
        book.count(state)
    if not row["beside"]:
        book.freed |= not is_back
        if end.next_at is not None and book.next_at is None:
            book.next_at = end.next_at
    return Finished(is_back, book.failures)


async def advance(
    connection: Any, decisions: Sequence[Advance], clock: datetime | None
) -> Released:
    """Insert the runs of due instants and move their schedules on, where they still are there."""
    books = await open_books(connection, [each.due.schedule.id for each in decisions])
    valid: list[tuple[Book, Advance]] = []
    for each in decisions:
        book = books.pop(each.due.schedule.id, None)  # one decision about each
        if book is not None and _is_as_decided(book, each):
            valid.append((book, each))
    if not valid:
        return []
    released = await _insert_instants(connection, valid, clock)
    await _move_on(connection, valid)
    return released


def _is_as_decided(book: Book, decision: Advance) -> bool:
    due = decision.due
    return (
        book.generation == due.schedule.generation
        and book.next_at == due.instant
        and not book.paused
        and book.schedule() == due.schedule
    )


async def _insert_instants(
    connection: Any, valid: list[tuple[Book, Advance]], clock: datetime | None
) -> Released:
    planned = [
        (book, each.due.schedule, instant) for book, each in valid for instant in each.plan.runs
    ]
    if not planned:
        return []
    admitted = await count_admitted(connection, {book.schedule_id for book, _, _ in planned})
    may_start = []
    for book, schedule, _ in planned:
        has_room = admitted.get(book.schedule_id, 0) < schedule.most_running
        admitted[book.schedule_id] = admitted.get(book.schedule_id, 0) + has_room
        may_start.append(has_room)
    row = await connection.fetchrow(
        statement("insert_runs", unless="", conflict="conflict_nothing"),
        *instant_columns([(schedule, instant) for _, schedule, instant in planned]),
        [book.schedule_id for book, _, _ in planned],
        None,
        may_start,
        [not may for may in may_start],
        False,
        clock,
    )
    released = [(schedule.priority, schedule.runs_at(instant)) for _, schedule, instant in planned]
    if len(row[0] or ()) < len(planned):  # one was there already: another may take its place
        released += await admit(connection, [book for book, _ in valid])
    return released


async def count_admitted(connection: Any, ids: Iterable[str]) -> dict[str, int]:
    """How many runs of each schedule go on, or may."""
    found = await connection.fetch(statements()["admitted"], list(ids))
    return {row[0]: row[1] for row in found}


async def _move_on(connection: Any, valid: list[tuple[Book, Advance]]) -> None:
    noted = [with_gaps(book, each.plan.missed) for book, each in valid]
    await connection.fetch(
        statements()["move_on"],
        [book.id for book, _ in valid],
        [each.plan.next_at for _, each in valid],
        [each.due.instant for _, each in valid],
        [missed for missed, _ in noted],
        [gaps for _, gaps in noted],
    )


def with_gaps(book: Book, gaps: Sequence[Missed]) -> tuple[int, str]:
    """The columns ``missed`` and ``gaps`` of a schedule with these in addition."""
    if not gaps:
        return book.row["missed"], book.row["gaps"]
    kept = (*rows.gaps_of(book.row["gaps"]), *gaps)[-rows.MOST_GAPS :]
    return book.row["missed"] + sum(gap.number or 0 for gap in gaps), rows.gaps_text(kept)
