"""A store in PostgreSQL: any number of programs on any number of machines share it.

Each verb of the contract is one statement, or one transaction on one connection. Runs are ended and
claimed in batches by one statement; those of schedules are ended with the row of their schedule
locked, see ``books``. The clock that counts is the server's.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from job_scheduler import instants
from job_scheduler.log import tell
from job_scheduler.run import Ending, RunError, RunState
from job_scheduler.stores import rows
from job_scheduler.stores.base import (
    ALL_SCHEDULES,
    LEASE_LOST,
    NEWEST_RUNS,
    Again,
    Claim,
    Counts,
    Due,
    Finish,
    Finished,
    Hold,
    Renewal,
    Rescued,
    ScheduleQuery,
    Worker,
)
from job_scheduler.stores.postgres.books import (
    admit,
    advance,
    open_books,
    settle,
    with_gaps,
    write_books,
)
from job_scheduler.stores.postgres.exchange import MOST, Exchange
from job_scheduler.stores.postgres.hints import Announcer, Listener
from job_scheduler.stores.postgres.link import Link, RefusedError
from job_scheduler.stores.postgres.lists import STATES, runs_asked, schedules_asked
from job_scheduler.stores.postgres.queue import Entry
from job_scheduler.stores.postgres.rows import (
    MIGRATIONS,
    aware,
    bare_claim,
    claim_of,
    outcome,
    readable_schedules,
    run_record,
    schedule_record,
    statement,
    statements,
    without_words,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from job_scheduler.schedule import ConflictResolution, Missed, Schedule
    from job_scheduler.stores.base import (
        Advance,
        NewRun,
        Outcome,
        Retention,
        RunQuery,
        RunRecord,
        ScheduleRecord,
    )
    from job_scheduler.stores.postgres.books import Book, Released, Settled

_SOON: Final = timedelta(seconds=5)
"""What is due later is found by everybody who looks by himself."""

_LONGEST_TRUST: Final = 5.0
"""Seconds for which it counts that no schedule was due: somebody may have moved one by hand."""


class PostgresStore:
    """Keeps schedules and runs in PostgreSQL; see the contract in ``stores.base``.

    Args:
        pool_or_dsn: a pool of asyncpg, which stays the caller's, or ``postgresql://...``.
        listen: hear from others what is due; False behind a transaction pooler.
        clock: another clock than the server's, for tests.
    """

    durable = True
    batch = MOST

    def __init__(
        self,
        pool_or_dsn: Any,
        *,
        listen: bool = True,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._link = Link(pool_or_dsn, direct=listen)
        self._listens = listen
        self._clock = clock
        self._last_created = instants.EPOCH
        self._read: datetime | None = None
        """What the server's clock said, not before ``_read_at``."""
        self._read_at = 0.0
        self._exchange = Exchange(self._link)
        self._horizon = _Horizon()
        self._announcer = Announcer(lambda: self._link.fetch(statements()["notify"], "due"))
        self._plan_announcer = Announcer(lambda: self._link.fetch(statements()["notify"], "plan"))
        self._listener: Listener | None = None

    # Life

    async def open(self) -> None:
        await self._link.open()
        await self._migrate()
        await self._read_clock()

    async def _migrate(self) -> None:
        """Bring the tables to their newest form, whoever else begins to do so."""
        if await self._version(self._link) >= len(MIGRATIONS):
            return

        async def work(connection: Any) -> None:
            await connection.fetch(statements()["lock_versions"])
            await connection.execute(statements()["create_versions"])
            for number in range(await self._version(connection), len(MIGRATIONS)):
                await connection.execute(statements()[MIGRATIONS[number]])
                await connection.execute(statements()["add_version"], number + 1)

        await self._link.transaction(work)

    async def _version(self, connection: Any) -> int:
        [[has_versions]] = await connection.fetch(statements()["has_versions"])
        if not has_versions:
            return 0
        [[version]] = await connection.fetch(statements()["version"])
        return int(version)

    async def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
        await self._announcer.close()
        await self._plan_announcer.close()
        await self._link.close()

    async def listen(self, wake: Callable[[], None], renew: Callable[[], None]) -> None:
        def heard(hint: str) -> None:
            if hint == "stop":
                renew()
                return
            if hint == "plan":
                self._horizon.forget()
            self._exchange.marks.doubt()
            wake()

        if self._listens and self._link.can_listen:
            self._listener = Listener(self._link, heard)

    # The clock

    def now(self) -> datetime:
        if self._clock is not None:
            return self._clock()
        if self._read is None:
            return instants.now()
        return self._read + timedelta(seconds=time.monotonic() - self._read_at)

    def _set_clock(self, new: int = 0) -> datetime | None:
        """The instant for statements that go by the server's clock, if it is another.

        It may stand, but the order of new runs is told by their instants: those of ``new`` ones are
        a microsecond apart.
        """
        if self._clock is None:
            return None
        now = self._clock()
        if new:
            now = max(now, self._last_created)
            self._last_created = now + timedelta(microseconds=new)
        return now

    async def _read_clock(self) -> None:
        sent_at = time.monotonic()
        [[real]] = await self._link.fetch(statements()["clock"])
        self._note_clock(real, sent_at)

    def _note_clock(self, real: datetime, sent_at: float) -> None:
        """Go by what the server's clock said in the reply to a statement; never ahead of it."""
        came_at = time.monotonic()
        latest = real + timedelta(seconds=came_at - sent_at)
        if self._read is not None:
            guessed = self._read + timedelta(seconds=came_at - self._read_at)
            if real <= guessed <= latest:
                return  # no better known than before
        self._read, self._read_at = real, came_at

    # Schedules

    async def add(
        self, schedule: Schedule, next_at: datetime | None, *, paused: bool = False
    ) -> int | None:
        label = rows.folded(schedule.label)
        values = (*rows.definition_of(schedule), label, next_at, paused)
        added = await self._link.fetch(statements()["add_schedule"], *values)
        self._expect_schedule(next_at)
        return int(added[0]["id"]) if added else None

    async def change(
        self, schedule: Schedule, next_at: datetime | None, seen: ScheduleRecord | None = None
    ) -> bool:
        where = (None, None) if seen is None else (seen.schedule.generation, seen.next_at)
        values = (*rows.definition_of(schedule), rows.folded(schedule.label), next_at, *where)

        async def work(connection: Any) -> Released | None:
            if not await connection.fetch(statements()["change_schedule"], *values):
                return None
            books = await open_books(connection, [schedule.id])
            return await admit(connection, books.values())

        released = await self._link.transaction(work)
        self._expect_schedule(next_at)
        self._let_go(released or [])
        return released is not None

    async def remove(self, schedule_id: str) -> list[str] | None:
        now = self.now()

        async def work(connection: Any) -> list[str] | None:
            if not await open_books(connection, [schedule_id]):
                return None
            waiting = await connection.fetch(statements()["cancel_waiting"], schedule_id, now)
            await connection.execute(statements()["disown"], schedule_id)
            await connection.execute(statements()["remove_schedule"], schedule_id)
            return [row["job_id"] for row in waiting]

        return await self._link.transaction(work)

    async def pause(self, schedule_id: str) -> bool:
        async def work(connection: Any) -> bool:
            if not await connection.fetch(statements()["pause_schedule"], schedule_id):
                return False
            await connection.execute(statements()["hold_waiting"], schedule_id)
            return True

        return await self._link.transaction(work)

    async def resume(self, schedule_id: str, next_at: datetime | None, gap: Missed | None) -> bool:
        async def work(connection: Any) -> Released | None:
            books = await open_books(connection, [schedule_id])
            if not books:
                return None
            [book] = books.values()
            book.paused = False
            noted = with_gaps(book, () if gap is None else (gap,))
            await connection.execute(statements()["resume_schedule"], schedule_id, next_at, *noted)
            found = await connection.fetch(statements()["let_go"], schedule_id)
            released = [(row["priority"], aware(row["execution_time"])) for row in found]
            return released + await admit(connection, [book])

        released = await self._link.transaction(work)
        self._expect_schedule(next_at)
        self._let_go(released or [])
        return released is not None

    async def schedule(self, schedule_id: str) -> ScheduleRecord | None:
        records = await self.schedules(ScheduleQuery(ids=(schedule_id,)))
        return records[0] if records else None

    async def schedules(self, query: ScheduleQuery = ALL_SCHEDULES) -> list[ScheduleRecord]:
        asked, values = schedules_asked(query)
        found = await self._link.fetch(asked, *values)
        ids = [row["last_run"] for row in found if row["last_run"] is not None]
        last = {run.id: run for run in await self._these_runs(ids)} if ids else {}
        return [
            schedule_record(row, schedule, last.get(row["last_run"]))
            for row, schedule in readable_schedules(found)
        ]

    def _expect_schedule(self, next_at: datetime | None) -> None:
        """A schedule was put on the plan here."""
        self._horizon.forget()
        if next_at is not None and next_at <= self.now() + _SOON:
            self._plan_announcer.soon()

    # Instants

    async def due(self, now: datetime, limit: int) -> list[Due]:
        if self._horizon.is_beyond(now):
            return []
        version = self._horizon.version
        found = await self._link.fetch(statements()["due"], now, limit)
        if not found or aware(found[0]["next_at"]) > now:
            self._horizon.note(aware(found[0]["next_at"]) if found else None, version)
            return []
        readable = list(readable_schedules(found))
        if len(readable) < len(found):
            await self._pause_others(found, {schedule.id for _, schedule in readable})
        return [
            Due(schedule, aware(row["next_at"]), row["active"])
            for row, schedule in readable
            if aware(row["next_at"]) <= now
        ]

    async def _pause_others(self, found: list[Any], readable: set[str]) -> None:
        """Take off the plan what cannot be read, so that it is not told of all the time."""
        for row in found:
            if row["schedule_id"] not in readable:
                await self.pause(row["schedule_id"])

    async def advance(self, decisions: Sequence[Advance], now: datetime) -> None:
        if not decisions:
            return
        self._horizon.forget()
        clock = self._set_clock(sum(len(each.plan.runs) for each in decisions))
        released = await self._link.transaction(lambda it: advance(it, decisions, clock))
        self._let_go(released)

    async def next_instant(self, worker: Worker) -> datetime | None:
        version = self._horizon.version
        jobs = None if worker.jobs is None else list(worker.jobs)
        asked = statement("next_instant", levels="levels_all")
        [found] = await self._link.fetch(asked, jobs)
        earliest, of_schedules = (None if each is None else aware(each) for each in found)
        self._horizon.note(of_schedules, version)
        return earliest

    # Runs

    async def enqueue(
        self, runs: Sequence[NewRun], on_conflict: ConflictResolution, connection: Any = None
    ) -> dict[str, RunState]:
        if not runs:
            return {}
        now = self.now()
        is_soon = any(run.at <= now + _SOON for run in runs)
        tells = is_soon and (connection is not None or self._announcer.may_tell())
        entry = Entry(self._link, runs, on_conflict, now, self._set_clock(len(runs)))
        taken = await entry.keep(connection, tell=tells)
        for run in runs:
            self._exchange.marks.lower(run.priority, run.at)
        if is_soon and not tells:
            self._announcer.soon()
        self._horizon.forget()
        self._let_go(entry.released)
        return taken

    def _let_go(self, released: Released) -> None:
        """Runs may be claimed that were not before."""
        if not released:
            return
        for priority, at in released:
            self._exchange.marks.lower(priority, at)
        if min(at for _, at in released) <= self.now() + _SOON:
            self._announcer.soon()

    async def claim(self, now: datetime, limit: int, worker: Worker) -> list[Claim]:
        return (await self.exchange((), now, limit, worker))[1]

    async def finish(self, ends: Sequence[Finish]) -> list[Finished | None]:
        if not ends:
            return []
        return (await self.exchange(ends, self.now(), 0, Worker(ends[0].claim.worker)))[0]

    async def exchange(
        self, ends: Sequence[Finish], now: datetime, limit: int, worker: Worker
    ) -> tuple[list[Finished | None], list[Claim]]:
        told: list[Finished | None] = [None] * len(ends)
        plain, others = _sorted(ends, worker)
        await self._settle(ends, others, told)
        if not plain and not limit:
            return told, []
        most, clock = min(limit, MOST), self._set_clock()
        try:
            mine = [ends[place] for place in plain]
            ended, found = await self._exchange.look(mine, now, most, worker, clock)
        except RefusedError:
            await self._settle(ends, plain, told)
            ended, found = await self._exchange.look((), now, most, worker, clock)
        for place in plain:
            run_id = ends[place].claim.run_id
            if run_id in ended:
                ended.remove(run_id)  # said twice, it holds once
                told[place] = _ENDED
        claims = await self._claims(found, worker)
        if len(found) == MOST < limit:
            claims += await self.claim(now, limit - MOST, worker)
        return told, claims

    async def _claims(self, found: list[Any], worker: Worker) -> list[Claim]:
        """The claims of rows; what cannot be read, since somebody has written it, fails."""
        claims: list[Claim] = []
        for row in found:
            try:
                claims.append(claim_of(row, worker.id))
            except Exception as error:
                tell(logging.ERROR, "run %r cannot be read", row["job_id"], exc_info=True)
                reason = RunError(type(error).__name__, f"its row cannot be read: {error}")
                ending = Ending(RunState.FAILED, reason, ended_at=self.now().timestamp())
                await self._settle([Finish(bare_claim(row, worker.id), ending)], [0], [None])
        return claims

    async def _settle(
        self, ends: Sequence[Finish], places: list[int], told: list[Finished | None]
    ) -> None:
        """End or put back those at these places, and note what became of them."""
        if not places:
            return
        mine = [ends[place] for place in places]
        try:
            settled = await self._settle_together(mine)
        except RefusedError as error:
            if len(places) > 1:
                for place in places:
                    await self._settle(ends, [place], told)
                return
            said = "the end of run %r is kept without its words: %s"
            tell(logging.ERROR, said, mine[0].claim.run_id, error)
            settled = await self._settle_together([without_words(mine[0])])
        for place, each in zip(places, settled, strict=True):
            told[place] = each

    async def _settle_together(self, ends: list[Finish]) -> list[Finished | None]:
        ids = {end.claim.schedule.id for end in ends if end.claim.schedule is not None}

        async def work(connection: Any) -> Settled:
            return await settle(connection, ends, await open_books(connection, ids))

        settled = await self._link.transaction(work)
        self._forget_horizon(ends)
        self._let_go(settled.released)
        return settled.told

    def _forget_horizon(self, ends: Sequence[Finish]) -> None:
        """The end of a run is the beginning of what counts from there."""
        if any(end.next_at is not None for end in ends):
            self._horizon.forget()

    # Leases

    async def renew(self, holds: Sequence[Hold], worker: Worker) -> Renewal:
        if not holds:
            return Renewal([], [])
        asked = sorted(holds)
        sent_at = time.monotonic()
        found = await self._link.fetch(
            statements()["renew"],
            worker.id,
            [hold.run_id for hold in asked],
            [hold.token for hold in asked],
            self._set_clock(),
            worker.lease,
        )
        self._note_clock(found[0]["real"], sent_at)
        renewed = {Hold(row["job_id"], row["token"]): row["to_stop"] for row in found}
        return Renewal(
            [hold for hold in holds if hold not in renewed],
            [hold for hold in holds if renewed.get(hold)],
        )

    async def rescue(self, most_crashes: int) -> list[Rescued]:
        sent_at = time.monotonic()
        found = await self._link.fetch(statements()["lost"], self._set_clock())
        self._note_clock(found[0]["real"], sent_at)
        lost = [row for row in found if row["job_id"] is not None]
        if not lost:
            return []
        now = found[0]["now"]
        ids = [row["job_id"] for row in lost]
        of_schedules = {row["schedule_id"] for row in lost} - {None}

        async def work(connection: Any) -> tuple[list[Rescued], list[Finish], Released]:
            books = await open_books(connection, of_schedules)
            taken = await connection.fetch(statements()["take_lost"], ids, now)
            ends = [_rescue(row, books, now, most_crashes) for row in taken]
            if not ends:
                return [], [], []
            settled = await settle(connection, ends, books, lost=True)
            return list(map(_rescued, ends, settled.told)), ends, settled.released

        rescued, ends, released = await self._link.transaction(work)
        self._forget_horizon(ends)
        self._let_go(released)
        return rescued

    async def cancel(self, run_id: str) -> bool:
        now = self.now()
        if await self._link.fetch(statements()["cancel"], run_id, now, False):
            return True
        found = await self._link.fetch(statements()["waits_for_schedule"], run_id)
        if not found:
            return False

        async def work(connection: Any) -> Released | None:
            books = await open_books(connection, [found[0]["schedule_id"]])
            rows = await connection.fetch(statements()["cancel"], run_id, now, True)
            if not rows:
                return None
            for book in books.values():
                book.count(RunState.CANCELLED)
                if not rows[0]["beside"]:
                    book.freed = True
                    book.plan_after(now)
            return await write_books(connection, books.values())

        released = await self._link.transaction(work)
        self._horizon.forget()
        self._let_go(released or [])
        return released is not None

    async def ask_to_stop(self, run_id: str) -> bool:
        return bool(await self._link.fetch(statements()["ask_to_stop"], run_id))

    async def forget(self, retention: Retention) -> int:
        now, forgotten = self.now(), 0
        if retention.age is not None:
            old = await self._link.fetch(statements()["forget_old"], now, retention.age)
            forgotten += len(old)
        if retention.most is not None:
            many = await self._link.fetch(statements()["forget_many"], now, retention.most)
            forgotten += len(many)
        return forgotten

    # What there is

    async def run(self, run_id: str) -> RunRecord | None:
        found = await self._these_runs([run_id])
        return found[0] if found else None

    async def _these_runs(self, ids: list[str]) -> list[RunRecord]:
        asked = statements()["runs"].format(ids="$1::text[]")
        return [run_record(row) for row in await self._link.fetch(asked, ids)]

    async def runs(self, query: RunQuery = NEWEST_RUNS) -> list[RunRecord]:
        asked, values = runs_asked(query)
        return [run_record(row) for row in await self._link.fetch(asked, *values)]

    async def outcomes(self, schedule_ids: Sequence[str], most: int) -> dict[str, list[Outcome]]:
        found: dict[str, list[Outcome]] = {schedule_id: [] for schedule_id in schedule_ids}
        for row in await self._link.fetch(statements()["outcomes"], list(found), most, STATES):
            found[row["schedule_id"]].append(outcome(row))
        return found

    async def counts(self, now: datetime) -> Counts:
        [found] = await self._link.fetch(statements()["counts"], now)
        return Counts(*found)

    async def waiting_for_others(self, worker: Worker) -> dict[str, int]:
        if worker.jobs is None:
            return {}
        asked = statements()["waiting_for_others"]
        found = await self._link.fetch(asked, self.now(), list(worker.jobs))
        return {row[0]: row[1] for row in found}

    async def set_back(self, now: datetime, by: timedelta) -> bool:
        """False: the server's clock is set by others than the machines that run jobs."""
        return False


_ENDED: Final = Finished(again=False, failures=0)


class _Horizon:
    """The instant before which no schedule is due, as long as nothing is heard of any."""

    def __init__(self) -> None:
        self.version = 0
        """Counts what was heard; an answer to a question from before tells nothing."""
        self._instant: datetime | None = None
        self._until = float("-inf")

    def is_beyond(self, now: datetime) -> bool:
        if time.monotonic() > self._until:
            return False
        return self._instant is None or self._instant > now

    def note(self, instant: datetime | None, version: int) -> None:
        if version == self.version:
            self._instant = instant
            self._until = time.monotonic() + _LONGEST_TRUST

    def forget(self) -> None:
        self.version += 1
        self._until = float("-inf")


def _sorted(ends: Sequence[Finish], worker: Worker) -> tuple[list[int], list[int]]:
    """The places of those that one statement ends, and of all others.

    The former are ordered, so that no two statements wait for each other.
    """
    plain: list[int] = []
    others: list[int] = []
    for place, end in enumerate(ends):
        is_of_schedule = end.claim.schedule is not None
        is_counted = end.again is not None or end.is_crash
        is_mine = end.claim.worker == worker.id
        (plain if is_mine and not is_of_schedule and not is_counted else others).append(place)
    plain.sort(key=lambda place: ends[place].claim.run_id)
    return plain, others


def _rescue(row: Any, books: dict[str, Book], now: datetime, most_crashes: int) -> Finish:
    """What becomes of a run whose lease has ended."""
    error = RunError(LEASE_LOST, f"worker {row['worker_id']} was not heard of any more")
    book = books.get(row["schedule_id"]) if row["admitted"] else None
    schedule = None if book is None else book.schedule()
    at = aware(row["execution_time"])
    claim = Claim(
        row["job_id"],
        row["job_name"],
        (),
        {},
        schedule,
        None,
        None,
        at,
        row["worker_id"],
        row["token"],
        row["attempt"],
        crashes=row["crashes"],
    )
    if not (row["to_stop"] or row["crashes"] + 1 >= most_crashes or not row["admitted"]):
        ending = Ending(RunState.FAILED, error, ended_at=now.timestamp())
        return Finish(claim, ending, _seconds(row), Again(now, "crash"))
    state = RunState.CANCELLED if row["to_stop"] else RunState.FAILED
    ending = Ending(state, error, ended_at=now.timestamp())
    counts_on = schedule is not None and schedule.counts_from_end
    next_at = schedule.first_after(now) if schedule is not None and counts_on else None
    return Finish(claim, ending, _seconds(row), next_at=next_at, is_crash=True)


def _seconds(row: Any) -> float | None:
    return None if row["started_at"] is None else row["started_at"].timestamp()


def _rescued(end: Finish, told: Finished | None) -> Rescued:
    """What is told of it; its row is locked, so that nothing can have come between."""
    assert told is not None
    state = RunState.PENDING if told.again else end.ending.state
    return Rescued(end.claim.run_id, end.claim.job, state, end.claim.crashes + 1)
