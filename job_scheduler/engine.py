"""The engine: one asyncio loop that does what is due, and sleeps until the next instant.

Each turn of the loop ends the runs that have ended, advances the schedules whose instant has come,
as ``plan`` decides, claims the runs that are due, and starts them on executors. It holds no truth
of its own beyond the runs it has started: that is the store's. Whatever goes wrong in a turn is
logged, and the loop goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from job_scheduler import instants
from job_scheduler.attempt import Attempt
from job_scheduler.durations import describe_duration
from job_scheduler.engine_log import log_end, log_gap, log_held_up, log_not_recorded, log_waiting
from job_scheduler.errors import (
    DuplicateIdError,
    StoreError,
)
from job_scheduler.going import Going
from job_scheduler.leases import LeaseKeeper, lease_clock
from job_scheduler.log import tell
from job_scheduler.run import RunState
from job_scheduler.schedule import ConflictResolution, Missed, after_set_back, plan
from job_scheduler.stores.base import Advance, Due, NewRun, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from job_scheduler.executors.base import Executor
    from job_scheduler.going import Ends, Observer
    from job_scheduler.known import KnownJobs
    from job_scheduler.leases import LeaseSettings
    from job_scheduler.run import Run
    from job_scheduler.schedule import Schedule
    from job_scheduler.stores.base import Claim, Finished, ScheduleRecord, Store
    from job_scheduler.target import Place, Target

_AT_ONE_TIME: Final = 64
"""Schedules that are advanced before others get their turn."""

_MOST_ELSEWHERE: Final = 10_000
"""Runs on their way in fleets after which more wait in the store, where priorities count."""

_SOON: Final = timedelta(milliseconds=50)
"""How long before its instant a run may be planned."""

_LONGEST_BURST: Final = 0.02
"""Seconds for which runs are started before those that have ended are recorded."""

_BREATH: Final = 50e-6
"""Seconds for which the loop lets go of the interpreter, so that threads begin what they were given
before it goes on; only to offer it is not enough, since no thread wakes that soon."""

_AFTER_AN_ERROR: Final = 1.0
"""Seconds until the next turn after one that has failed."""

_PATIENCE: Final = 5.0
"""Seconds for which a shutdown tries to record what has ended in a store that is away."""

_BETWEEN_TRIES: Final = 0.1
"""Seconds between two tries to record the last ends."""

_TAKEN: Final = timedelta(milliseconds=10)
"""When to look again for what is due, but was being taken by another worker."""

_TIME_TO_RECORD: Final = 1.0
"""Seconds beyond a deadline for the store to answer: what it was asked is done all the same."""

_TIME_TO_STOP: Final = 10.0
"""Seconds after which what was told to stop, and does not, is left behind."""

_STALE: Final = 30.0
"""Seconds without a turn after which the loop counts as stuck."""

_LONG: Final = 1.0
"""Seconds by which the loop may wake late, or a run wait for a thread, without being told of."""

_SET_BACK: Final = timedelta(seconds=1)
"""Less is a correction of the clock that nobody notices."""


class _Coming(NamedTuple):
    """What a store was asked for."""

    task: asyncio.Task[list[Claim]]
    limit: int
    asked_at: float


class Engine:
    """Does what is due in a store, on executors.

    Args:
        store: where schedules and runs are kept.
        executors: gives the executor for a place.
        max_concurrent_jobs: how many runs go on here at one time; None: as many as are due. Those
            that go on in a fleet do not count.
        known: the jobs that are found by name; None: each comes with what it runs.
        leases: how claims are kept; None: they hold for ever.
        clock: gives seconds, by which claims are kept.
        observer: told when runs start and end here.
        longest_sleep: seconds after which the loop looks up in any case: the clock may have
            been set, or a row changed by hand.
    """

    def __init__(
        self,
        store: Store,
        executors: Callable[[Place], Executor],
        *,
        max_concurrent_jobs: int | None = None,
        known: KnownJobs | None = None,
        leases: LeaseSettings | None = None,
        clock: Callable[[], float] = lease_clock,
        observer: Observer | None = None,
        longest_sleep: float = 5.0,
    ) -> None:
        self.store = store
        self._most = max_concurrent_jobs
        self._longest_sleep = longest_sleep
        self._known = known
        self._leases = leases
        self._lease_clock = clock
        self._keeper: LeaseKeeper | None = None
        self._worker_id = os.urandom(8).hex()
        self._going = Going(executors, known, leases, observer, self.wake)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._news: asyncio.Event | None = None
        self._notified = False
        self._sleeping_until: datetime | None = None
        self._accepting = True
        self._last_turn: float | None = None
        self._last_recorded = 0.0
        self._looked_at = 0.0
        self._claimed_at = 0.0
        self._told_of_waiting = False
        self._failing = False
        self._is_open = False
        self._opening = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._coming: _Coming | None = None
        self._turning = asyncio.Lock()
        self._clock_offset: timedelta | None = None

    # Life

    async def ready(self) -> None:
        """Have the store opened; costs nothing once it is."""
        if self._is_open:
            return
        async with self._opening:
            if not self._is_open:
                await self.store.open()
                self._is_open = True

    @property
    def is_open(self) -> bool:
        """Whether the store is, and so its clock is known."""
        return self._is_open

    async def start(self) -> None:
        """Begin to do what is due, on the running loop; harmless twice.

        Raises ``StoreError`` if the store cannot be opened.
        """
        loop = asyncio.get_running_loop()
        if self._task is not None:
            if self._loop is not loop:
                raise RuntimeError(
                    "the scheduler was started on another event loop, and not shut down there: "
                    "write 'async with scheduler', or 'await scheduler.shutdown()' at the end"
                )
            return
        if self._loop is not loop:
            self._opening, self._turning = asyncio.Lock(), asyncio.Lock()
            self._starting = asyncio.Lock()
        self._loop = loop
        async with self._starting:
            if self._task is None:
                await self._start_anew()

    async def _start_anew(self) -> None:
        self._news = asyncio.Event()
        self._going.begin()
        if self.store.durable:
            self._worker_id = os.urandom(8).hex()
            await self.ready()
        if self._leases is not None:
            self._keeper = LeaseKeeper(self, self._leases, self._lease_clock)
            self._keeper.start()
            await self.store.listen(self.wake, self._keeper.hint)
        self._accepting = True
        self._last_turn = time.monotonic()
        self._begin()

    def _begin(self) -> None:
        assert self._loop is not None
        self._task = self._loop.create_task(self._serve(), name="job_scheduler")
        self._task.add_done_callback(self._begin_again)

    def _begin_again(self, task: asyncio.Task[None]) -> None:
        """Nobody but :meth:`shutdown` ends the loop, also not a job that cancels all tasks."""
        if task is self._task and self._accepting:
            self._begin()
            tell(logging.ERROR, "the scheduler's loop was cancelled; it goes on")

    async def shutdown(self, timeout: float | None = None) -> None:
        """Start nothing more, wait for what goes on, and stop the rest after ``timeout`` seconds.

        Harmless twice, also at one time and if one is cancelled; may be started again.
        """
        self._accepting = False
        task = self._task
        if task is None:
            return
        assert self._loop is not None
        deadline = None if timeout is None else self._loop.time() + timeout
        if self._leases is not None:
            for attempt in self.attempts():
                if attempt.is_elsewhere:  # whoever has the store finds it in its fleet
                    attempt.give_up()
        await self._record_ends(lambda: bool(self._going.running), deadline)
        for attempt in self.attempts():
            attempt.cancel() if self._leases is None else attempt.give_up()
        await self._record_ends(self._can_be_stopped, self._loop.time() + _TIME_TO_STOP)
        task.cancel()
        await asyncio.wait([task])
        if self._coming is not None:  # the store has not answered in time
            self._coming.task.cancel()
            self._coming = None
        await self._let_go()
        if self._task is task:
            self._task = None
        self.wake()  # somebody else may be waiting in here

    async def _record_ends(self, go_on: Callable[[], bool], deadline: float | None) -> None:
        """Record what ends, as long as there is anything to wait for, until the deadline."""
        assert self._loop is not None
        failing_since: float | None = None
        latest = None if deadline is None else deadline + _TIME_TO_RECORD
        while True:
            try:
                async with asyncio.timeout_at(latest), self._turning:
                    await self._take_what_comes()
                    await self._end_runs()
            except TimeoutError:
                return
            except StoreError as error:
                self._tell_of_failure(error)
                failing_since = failing_since or self._loop.time()
                only_to_record = len(self._going.ended) >= len(self._going.running)
                if only_to_record and self._loop.time() - failing_since > _PATIENCE:
                    return  # their leases end, and others start them again
                await asyncio.sleep(_BETWEEN_TRIES)
            else:
                if not go_on():
                    return
                await self._wait_for_news(deadline)
            if deadline is not None and self._loop.time() >= deadline:
                return

    async def _take_what_comes(self) -> None:
        """What was claimed on the way to the end is not started, but handed back."""
        coming = self._coming
        if coming is not None:
            await asyncio.wait([coming.task])  # not to lose what comes if it is not waited for
            self._coming = None
            for claim in coming.task.result():
                self._start(claim)

    async def _let_go(self) -> None:
        """Hand back what did not stop, and only then renew no more."""
        if self._leases is not None and self._going.running:
            now = self.store.now()
            ends = [attempt.hand_back(now) for attempt in self.attempts()]
            try:
                await self.store.finish(ends)
            except StoreError as error:
                said = "%d runs could not be handed back, and are started again later: %s"
                tell(logging.ERROR, said, len(ends), error)
            self._going.running.clear()
        if self._keeper is not None:
            await self._keeper.stop()
            self._keeper = None

    async def close(self) -> None:
        """Have the store let go of what it holds; it is opened again when it is needed."""
        self._is_open = False
        await self.store.close()

    def stop_starting(self) -> None:
        """Start nothing more; what goes on goes on. From any thread."""
        self._accepting = False

    def _can_be_stopped(self) -> bool:
        """Whether there is anything that was told to stop and may do so."""
        return any(attempt.can_be_stopped for attempt in self._going.running.values())

    @property
    def busy(self) -> bool:
        """Whether runs go on, are on their way here, or have ended and are not recorded."""
        return bool(self._going.running) or self._coming is not None or self._turning.locked()

    async def __aenter__(self) -> Engine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()

    @property
    def max_concurrent_jobs(self) -> int | None:
        """How many runs go on here at one time; None: as many as are due."""
        return self._most

    @property
    def healthy(self) -> bool:
        """Whether the loop runs and has had a turn in the last 30 seconds."""
        age = self.last_turn_age
        return self._task is not None and not self._task.done() and age is not None and age < _STALE

    @property
    def last_turn_age(self) -> float | None:
        """Seconds since the loop's last turn; None before the first."""
        return None if self._last_turn is None else time.monotonic() - self._last_turn

    @property
    def worker(self) -> Worker:
        """Who this is to the store."""
        lease = None if self._leases is None else self._leases.lease
        return Worker(self._worker_id, lease, None if self._known is None else self._known.names)

    def attempts(self) -> list[Attempt]:
        """What goes on here; from any thread."""
        return self._going.attempts()

    @property
    def observer(self) -> Observer | None:
        """Who is told when runs start and end here."""
        return self._going.observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self._going.observer = observer

    @property
    def unknown(self) -> dict[str, int]:
        """How many runs are due of jobs that are not known here, when it was last looked."""
        return {} if self._keeper is None else self._keeper.unknown

    # What is planned

    async def add(self, schedule: Schedule, target: Target, first: datetime | None = None) -> bool:
        """Plan a schedule, from ``first`` on or from now; False if there is one with its id."""
        next_at = self._first_of(schedule, first)
        if schedule.id not in self._going.targets:  # before the store has it: it may be due at once
            self._going.targets[schedule.id] = target
        if not await self.store.add(schedule, next_at):
            return False
        self._expect(next_at)
        return True

    async def add_known(self, schedule: Schedule, *, paused: bool = False) -> int | None:
        """Plan a schedule of a known job; tells its number, or None if there is one with its id.

        Args:
            schedule: its first instant is the first from now on.
            paused: whether it waits to be resumed.
        """
        next_at = self._first_of(schedule, None)
        number = await self.store.add(schedule, next_at, paused=paused)
        self._expect(next_at)
        return number

    def _first_of(self, schedule: Schedule, first: datetime | None) -> datetime | None:
        next_at = schedule.first_after(self.store.now()) if first is None else first
        is_over = next_at is not None and schedule.end is not None and next_at > schedule.end
        return None if is_over else next_at

    async def declare(
        self, schedule: Schedule, first: datetime | None, on_conflict: ConflictResolution
    ) -> bool:
        """Have the store keep a schedule of a known job; True if it is new or was changed.

        One that is there with the same definition stays as it is: a program says what it wants at
        each start, and many workers do. Raises ``DuplicateIdError`` for another definition.
        """
        next_at = self._first_of(schedule, first)
        while not await self.store.add(schedule, next_at):
            there = await self.store.schedule(schedule.id)
            if there is None:
                continue  # it was removed just now
            if on_conflict is ConflictResolution.IGNORE or schedule.says_the_same(there.schedule):
                return False
            if on_conflict is ConflictResolution.RAISE:
                raise DuplicateIdError(
                    f"{schedule.id!r} is scheduled already, {there.schedule.trigger.describe()}: "
                    f"give another id, remove that one first, or say "
                    f"conflict_resolution='replace'"
                )
            if await self.store.change(schedule, next_at):
                break
        self._expect(next_at)
        return True

    async def redefine(self, schedule: Schedule, seen: Schedule | None = None) -> bool:
        """Put another definition in place of the one with its id; False if there is none.

        One that is due at the same instants goes on where it is. Otherwise it is planned anew from
        now on, after what is due by now was planned as it stood. What is paused stays so.

        Args:
            schedule: the new definition.
            seen: False as well unless the definition that is there is still this one.
        """
        while (there := await self.store.schedule(schedule.id)) is not None:
            now, before = self.store.now(), there.schedule
            if seen is not None and seen != before:
                return False
            # A new one each time: by this the store knows that nobody else has changed it.
            new = replace(schedule, generation=max(schedule.generation, before.generation + 1))
            if schedule.is_due_like(before):
                next_at = there.next_at
            elif there.next_at is not None and there.next_at <= now and not there.paused:
                await self._advance([Due(before, there.next_at, there.active)], now)
                continue
            else:
                next_at = new.first_after(_planned_until(there, now))
            if await self.store.change(new, next_at, there):
                self._expect(next_at)
                return True
        return False

    async def remove(self, schedule_id: str) -> list[str] | None:
        """Take a schedule off the plan for good; what runs goes on.

        Gives the ids of the waiting runs that are cancelled; None if there is no such schedule.
        """
        cancelled = await self.store.remove(schedule_id)
        if cancelled is not None:
            self._going.targets.pop(schedule_id, None)
            for run_id in cancelled:
                self._going.targets.pop(run_id, None)
        return cancelled

    async def pause(self, schedule_id: str) -> bool:
        """Take a schedule off the plan until it is resumed; False if there is none."""
        return await self.store.pause(schedule_id)

    async def resume(self, schedule_id: str) -> bool:
        """Put a schedule back on the plan, from now on; False if there is none.

        Instants in the pause are not made up for.
        """
        record = await self.store.schedule(schedule_id)
        if record is None:
            return False
        if record.paused:
            now, next_at, gap = self.store.now(), record.next_at, None
            if next_at is not None and next_at <= now:
                last, number = record.schedule.trigger.last_from(next_at, now, 1)
                gap = Missed(next_at, last[-1], number, "paused")
                next_at = record.schedule.first_after(now)
            await self.store.resume(schedule_id, next_at, gap)
            self.wake()
            if gap is not None:
                log_gap(record.schedule, gap)
        return True

    async def enqueue(self, run: NewRun, target: Target) -> bool:
        """Plan one run; False if there is one with its id."""
        self._going.targets[run.id] = target
        if await self.store.enqueue([run], ConflictResolution.RAISE):
            return False
        self._expect(run.at)
        return True

    async def enqueue_known(
        self,
        runs: Sequence[NewRun],
        on_conflict: ConflictResolution = ConflictResolution.RAISE,
        connection: Any = None,
    ) -> dict[str, RunState]:
        """Have the store keep runs of known jobs; see ``Store.enqueue``."""
        taken = await self.store.enqueue(runs, on_conflict, connection)
        self._expect(min(run.at for run in runs) if runs else None)
        return taken

    async def cancel(self, run_id: str) -> bool:
        """Cancel a run: it never starts, or is asked to stop; False if it had ended."""
        if await self.cancel_waiting(run_id):
            return True
        attempt = self._going.running.get(run_id)
        if attempt is not None:
            return attempt.cancel()
        return await self.store.ask_to_stop(run_id)

    async def cancel_waiting(self, run_id: str) -> bool:
        """Cancel a run that has not started; False if it does not wait."""
        if not await self.store.cancel(run_id):
            return False
        self._going.targets.pop(run_id, None)
        if self._known is not None and (in_fleets := self._known.in_fleets):
            record = await self.store.run(run_id)
            if record is not None and record.job in in_fleets:  # it may have been sent before
                target = self._known.target(record.job, "celery")
                self._going.revoke_left(target, run_id)
        return True

    async def next_instant(self) -> datetime | None:
        """When something will be due next."""
        return await self.store.next_instant(self.worker)

    def target_of(self, schedule_id: str) -> Target:
        """What a schedule runs."""
        return self._going.targets[schedule_id]

    def attempt_of(self, run_id: str) -> Run | None:
        """What goes on here for a run of this id."""
        attempt = self._going.running.get(run_id)
        return None if attempt is None else attempt.run

    # The loop

    async def _serve(self) -> None:
        while True:
            try:
                async with self._turning:
                    until = await self._turn()
            except Exception as error:
                self._tell_of_failure(error)
                await asyncio.sleep(_AFTER_AN_ERROR)
                continue
            if self._failing:
                self._failing = False
                tell(logging.INFO, "the store is there again")
            await self._rest(until)

    def _tell_of_failure(self, error: Exception) -> None:
        """Tell of a store that is away once, and of whatever else each time."""
        if not isinstance(error, StoreError):
            said = "the scheduler's loop has failed; it goes on in a second"
            tell(logging.ERROR, said, exc_info=True)
        elif not self._failing:
            self._failing = True
            tell(logging.ERROR, "nothing is started for now, until the store is back: %s", error)

    async def _turn(self) -> datetime | None:
        """Do what is due; returns when something will be."""
        self._sleeping_until = None
        self._last_turn = time.monotonic()
        await self._notice_clock()
        if not self._accepting:
            await self._end_runs()
            return None
        now = self.store.now()
        due = await self.store.due(now, _AT_ONE_TIME)
        if self._going.ended and any(each.active >= each.schedule.most_active for each in due):
            await self._end_runs()  # perhaps theirs: then nothing is overlapped
            due = await self.store.due(now, _AT_ONE_TIME)
        if due:
            await self._advance(due, now)
        claims = await self._claim(now)
        if "thread" in [self._start(claim) for claim in claims]:
            time.sleep(_BREATH)
        # What is due goes before what has ended, but not for long: runs that are not recorded
        # as ended take up room, and are overlapped.
        in_a_burst = due or claims
        if not in_a_burst or self._last_turn - self._last_recorded > _LONGEST_BURST:
            await self._end_runs()
        if in_a_burst or await self._plan_ahead(now):
            return now
        return await self._next_look(now) if self._room() else None

    async def _claim(self, now: datetime) -> list[Claim]:
        """Take what is due; a store on disk is told in the same step what has ended.

        While there is more than one batch, the next is on its way while this one is started.
        """
        if not self.store.durable:
            room = self._room()
            self._claimed_at = self._lease_clock()
            return await self.store.claim(now, room, self._claimer()) if room else []
        coming, self._coming = self._coming or self._ask(now), None
        if coming is None:
            return []
        self._claimed_at = coming.asked_at
        claims = await coming.task
        if self._accepting and len(claims) == coming.limit > 0:
            self._coming = self._ask(self.store.now(), len(claims))
            await asyncio.sleep(0)  # now it is on its way
        return claims

    def _ask(self, now: datetime, claimed: int = 0) -> _Coming | None:
        """Have the store told what has ended, and asked for what is due; None if there is no need.

        Args:
            now: what time it is.
            claimed: how many runs are to be started before those that come.
        """
        assert self._loop is not None
        ends = self._take_ended()
        room = self._room(claimed)
        if not ends and not room:
            return None
        asked_at = self._lease_clock()
        return _Coming(self._loop.create_task(self._exchange(ends, now, room)), room, asked_at)

    async def _exchange(self, ends: Ends, now: datetime, room: int) -> list[Claim]:
        try:
            if not ends:
                return await self.store.claim(now, room, self._claimer())
            finishes = [finish for finish, _ in ends]
            finished, claims = await self.store.exchange(finishes, now, room, self._claimer())
        except BaseException:
            self._going.put_back(ends)
            raise
        await self._tell_ended(ends, finished)
        return claims

    async def _plan_ahead(self, now: datetime) -> bool:
        """Plan what is due soon, so that its runs have but to be started; whether there was any.

        Only where nothing that happens until the instant can change the decision: no run of the
        schedule waits or goes on, and it runs however late. The runs then wait for their instant,
        and can be held or cancelled.
        """
        soon = [
            each
            for each in await self.store.due(now + _SOON, _AT_ONE_TIME)
            if each.instant > now and not each.active and each.schedule.runs_however_late
        ]
        if soon:
            await self._advance(soon, now)
        return bool(soon)

    async def _next_look(self, now: datetime) -> datetime | None:
        """When to look again: a little before something is due, or just then."""
        instant = await self.store.next_instant(self._claimer())
        if instant is None or instant > now + _SOON:
            return None if instant is None else instant - _SOON
        return max(instant, now + _TAKEN) if self.store.durable else instant

    def _room(self, claimed: int = 0) -> int:
        """How many runs may be claimed now; at none, the end of one will wake the loop."""
        batch = self.store.batch
        if self._most is None:
            return batch
        if self.store.durable:  # one half runs while the other is ended and claimed anew
            batch = min(batch, (self._most + 1) // 2)
        here = len(self._going.running) - len(self._going.elsewhere)
        return max(0, min(batch, self._most - here - claimed))

    def _claimer(self) -> Worker:
        """Who claims: one that leaves fleets alone while enough is on its way to them."""
        worker = self.worker
        if worker.jobs is None or len(self._going.elsewhere) < _MOST_ELSEWHERE:
            return worker
        assert self._known is not None
        return worker._replace(jobs=worker.jobs - self._known.in_fleets)

    async def _advance(self, due: list[Due], now: datetime) -> None:
        """Decide what to do about schedules; one that cannot be planned is paused alone."""
        decisions = []
        for each in due:
            try:
                decision = plan(each.schedule, each.instant, each.active, max(now, each.instant))
            except Exception:
                said = "schedule %r cannot be planned: it is paused"
                tell(logging.ERROR, said, each.schedule.id, exc_info=True)
                await self.store.pause(each.schedule.id)
                continue
            decisions.append(Advance(each, decision))
            for gap in decision.missed:
                log_gap(each.schedule, gap)
        await self.store.advance(decisions, now)

    async def _rest(self, until: datetime | None) -> None:
        """Sleep until then, or let others have their turn; tell if that takes too long."""
        assert self._loop is not None
        seconds = self._longest_sleep
        if until is not None:
            seconds = min(seconds, (until - self.store.now()).total_seconds())
        deadline = self._loop.time() + max(0.0, seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
        else:
            self._sleeping_until = until or self.store.now() + timedelta(days=1)
            self._tell_of_waiting()
            await self._wait_for_news(deadline)
        late = self._loop.time() - deadline
        if late > _LONG:
            here = [each for each in self._going.running.values() if each.place == "coroutine"]
            log_held_up(late, [each.claim.job for each in here])

    def _tell_of_waiting(self) -> None:
        """Tell, once until it has changed, that runs wait for a thread for long."""
        now = time.time()
        if now - self._looked_at < _LONG:
            return
        self._looked_at = now
        waiting = [
            each.claim.job
            for each in self._going.running.values()
            if each.place == "thread"
            and each.run is not None
            and each.run.state is RunState.PENDING
            and now - each.run._created_at > _LONG
        ]
        if waiting and not self._told_of_waiting:
            log_waiting(waiting)
        self._told_of_waiting = bool(waiting)

    async def _wait_for_news(self, deadline: float | None) -> None:
        assert self._news is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._news.wait()
        self._news.clear()
        self._notified = False

    def _expect(self, instant: datetime | None) -> None:
        """Wake the loop if this comes before what it sleeps for; from any thread."""
        until = self._sleeping_until
        if until is None or (instant is not None and instant < until):
            self.wake()

    def wake(self) -> None:
        """Have the loop look at what has changed; from any thread."""
        if self._notified or self._loop is None or self._news is None:
            return
        self._notified = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing will be done
            self._loop.call_soon_threadsafe(self._news.set)

    async def _notice_clock(self) -> None:
        """Go on as before when the clock was set back: what counts elapsed time does not stop."""
        assert self._loop is not None
        read_before = self._loop.time()
        now = self.store.now()
        if self._loop.time() - read_before > _SET_BACK.total_seconds() / 2:
            return  # held up between the two clocks: look again later
        offset = now - instants.EPOCH - timedelta(seconds=read_before)
        before, self._clock_offset = self._clock_offset, offset
        if before is None or before - offset < _SET_BACK:
            return
        by = before - offset
        tell(logging.WARNING, "the clock was set back by %s", describe_duration(by))
        if not await self.store.set_back(now, by):
            return
        for record in await self.store.schedules():
            if record.next_at is None:
                continue
            changed = after_set_back(record.schedule, record.next_at, now, by)
            if changed is not None:
                await self.store.change(*changed)

    # Runs

    def _start(self, claim: Claim) -> Place | None:
        """Have a run started; tells where."""
        hand_back = self._leases is not None and not self._accepting
        return self._going.start(claim, self._claimed_at, hand_back=hand_back)

    async def _end_runs(self) -> None:
        """Tell the store what came of the runs that have ended."""
        self._last_recorded = time.monotonic()
        if not self._going.ended:
            return
        ends = self._take_ended()
        try:
            finished = await self.store.finish([finish for finish, _ in ends])
        except BaseException:
            self._going.put_back(ends)
            raise
        await self._tell_ended(ends, finished)

    def _take_ended(self) -> Ends:
        return self._going.take_ended(
            self.store.now(),
            retries=self._accepting or self._leases is not None,
            keeps_results=self.store.durable,
        )

    async def _tell_ended(self, ends: Ends, finished: list[Finished | None]) -> None:
        self._going.tell(ends, finished)
        for (finish, _), held in zip(ends, finished, strict=True):  # all were told before
            if held is None and self._leases is not None:
                log_not_recorded(finish.claim)
                continue
            log_end(finish, again=held is not None and held.again)
            if held is not None and finish.claim.schedule is not None:
                await self._pause_after(finish.claim.schedule, held.failures)

    async def _pause_after(self, schedule: Schedule, failures: int) -> None:
        if schedule.pause_on_failures is None or failures < schedule.pause_on_failures:
            return
        record = await self.store.schedule(schedule.id)
        if record is None or record.schedule.generation != schedule.generation:
            return  # another has taken its place
        if not record.paused:
            said = "schedule %r is paused: %d failed runs in a row"
            tell(logging.WARNING, said, schedule.id, failures)
            await self.store.pause(schedule.id)


def _planned_until(record: ScheduleRecord, now: datetime) -> datetime:
    """Now, or the instant of a schedule that was planned a little ahead of it."""
    ahead = record.schedule.first_after(now)
    if ahead is None or ahead > now + 2 * _SOON:  # whatever another worker's clock says
        return now
    return ahead if record.next_at is None or record.next_at > ahead else now
