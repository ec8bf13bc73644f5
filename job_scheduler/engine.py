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
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from job_scheduler import instants
from job_scheduler.durations import describe_duration
from job_scheduler.engine_log import log_end, log_gap, log_held_up, log_waiting
from job_scheduler.errors import ShutdownError
from job_scheduler.executors.starter import Starter
from job_scheduler.launcher.ending import log_failure
from job_scheduler.log import tell
from job_scheduler.run import Ending, Run, RunError, RunState
from job_scheduler.schedule import ConflictResolution, Missed, after_set_back, plan
from job_scheduler.stores.base import Advance, Again, Finish, NewRun, Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from job_scheduler.executors.base import Executor
    from job_scheduler.schedule import Schedule
    from job_scheduler.stores.base import Claim, Due, Store
    from job_scheduler.target import Place, Target

_AT_ONE_TIME: Final = 64
"""Schedules that are advanced, and runs that are claimed, before others get their turn."""

_SOON: Final = timedelta(milliseconds=50)
"""How long before its instant a run may be planned."""

_LONGEST_BURST: Final = 0.02
"""Seconds for which runs are started before those that have ended are recorded."""

_BREATH: Final = 50e-6
"""Seconds for which the loop lets go of the interpreter, so that threads begin what they were given
before it goes on; only to offer it is not enough, since no thread wakes that soon."""

_AFTER_AN_ERROR: Final = 1.0
"""Seconds until the next turn after one that has failed."""

_TIME_TO_STOP: Final = 10.0
"""Seconds after which what was told to stop, and does not, is left behind."""

_STALE: Final = 30.0
"""Seconds without a turn after which the loop counts as stuck."""

_LONG: Final = 1.0
"""Seconds by which the loop may wake late, or a run wait for a thread, without being told of."""

_SET_BACK: Final = timedelta(seconds=1)
"""Less is a correction of the clock that nobody notices."""


class _Attempt:
    """A run that is started here."""

    __slots__ = ("cancelled", "claim", "run", "target")

    def __init__(self, claim: Claim, target: Target | None) -> None:
        self.claim = claim
        self.target = target
        """None once its schedule was removed."""
        self.run: Run | None = None
        """None until an executor has taken it."""
        self.cancelled = False

    @property
    def place(self) -> Place | None:
        return None if self.target is None else self.target.place

    def cancel(self) -> bool:
        self.cancelled = True
        return self.run is None or self.run.cancel()


class Engine:
    """Does what is due in a store, on executors.

    Args:
        store: where schedules and runs are kept.
        executors: gives the executor for a place.
        max_concurrent_jobs: how many runs go on at one time; None: as many as are due.
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
        observer: Observer | None = None,
        longest_sleep: float = 5.0,
    ) -> None:
        self.store = store
        self._open_executor = executors
        self._executors: dict[Place, Executor] = {}
        self._most = max_concurrent_jobs
        self._observer = observer
        self._longest_sleep = longest_sleep
        self._worker = Worker(os.urandom(8).hex())
        self._targets: dict[str, Target] = {}
        self._running: dict[str, _Attempt] = {}
        self._ended: deque[_Attempt] = deque()
        self._starter = Starter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._news: asyncio.Event | None = None
        self._notified = False
        self._sleeping_until: datetime | None = None
        self._accepting = True
        self._last_turn: float | None = None
        self._last_recorded = 0.0
        self._looked_at = 0.0
        self._told_of_waiting = False
        self._clock_offset: timedelta | None = None

    # Life

    async def start(self) -> None:
        """Begin to do what is due, on the running loop; harmless twice."""
        if self._task is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
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

        Harmless twice; may be started again.
        """
        self._accepting = False
        if self._task is None:
            return
        assert self._loop is not None
        deadline = None if timeout is None else self._loop.time() + timeout
        while self._running and (deadline is None or self._loop.time() < deadline):
            await self._wait_for_news(deadline)
            await self._end_runs()
        for attempt in tuple(self._running.values()):
            attempt.cancel()
        deadline = self._loop.time() + _TIME_TO_STOP
        while self._can_be_stopped() and self._loop.time() < deadline:
            await self._wait_for_news(deadline)
            await self._end_runs()
        task, self._task = self._task, None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self._end_runs()  # it may have been at that

    def stop_starting(self) -> None:
        """Start nothing more; what goes on goes on. From any thread."""
        self._accepting = False

    def _can_be_stopped(self) -> bool:
        """Whether there is anything that was told to stop and may do so."""
        return any(attempt.place not in (None, "thread") for attempt in self._running.values())

    @property
    def busy(self) -> bool:
        """Whether runs go on, or have ended and are not recorded."""
        return bool(self._running)

    async def __aenter__(self) -> Engine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()

    @property
    def healthy(self) -> bool:
        """Whether the loop runs and has had a turn in the last 30 seconds."""
        age = self.last_turn_age
        return self._task is not None and not self._task.done() and age is not None and age < _STALE

    @property
    def last_turn_age(self) -> float | None:
        """Seconds since the loop's last turn; None before the first."""
        return None if self._last_turn is None else time.monotonic() - self._last_turn

    # What is planned

    async def add(self, schedule: Schedule, target: Target, first: datetime | None = None) -> bool:
        """Plan a schedule, from ``first`` on or from now; False if there is one with its id."""
        next_at = schedule.first_after(self.store.now()) if first is None else first
        if next_at is not None and schedule.end is not None and next_at > schedule.end:
            next_at = None
        if schedule.id not in self._targets:  # before the store has it: it may be due at once
            self._targets[schedule.id] = target
        if not await self.store.add(schedule, next_at):
            return False
        self._expect(next_at)
        return True

    async def remove(self, schedule_id: str) -> bool:
        """Take a schedule off the plan for good; what runs goes on. False if there is none."""
        cancelled = await self.store.remove(schedule_id)
        if cancelled is None:
            return False
        self._targets.pop(schedule_id, None)
        return True

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
            self._wake()
            if gap is not None:
                log_gap(record.schedule, gap)
        return True

    async def enqueue(self, run: NewRun, target: Target) -> bool:
        """Plan one run; False if there is one with its id."""
        self._targets[run.id] = target
        if await self.store.enqueue([run], ConflictResolution.RAISE):
            return False
        self._expect(run.at)
        return True

    async def cancel(self, run_id: str) -> bool:
        """Cancel a run: it never starts, or is asked to stop; False if it had ended."""
        if await self.cancel_waiting(run_id):
            return True
        attempt = self._running.get(run_id)
        return attempt is not None and attempt.cancel()

    async def cancel_waiting(self, run_id: str) -> bool:
        """Cancel a run that has not started; False if it does not wait."""
        if not await self.store.cancel(run_id):
            return False
        self._targets.pop(run_id, None)
        return True

    async def next_instant(self) -> datetime | None:
        """When something will be due next."""
        return await self.store.next_instant(self._worker)

    def target_of(self, schedule_id: str) -> Target:
        """What a schedule runs."""
        return self._targets[schedule_id]

    def attempt_of(self, run_id: str) -> Run | None:
        """What goes on here for a run of this id."""
        attempt = self._running.get(run_id)
        return None if attempt is None else attempt.run

    # The loop

    async def _serve(self) -> None:
        while True:
            try:
                until = await self._turn()
            except Exception:
                tell(
                    logging.ERROR,
                    "the scheduler's loop has failed; it goes on in a second",
                    exc_info=True,
                )
                await asyncio.sleep(_AFTER_AN_ERROR)
                continue
            await self._rest(until)

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
        if self._ended and any(each.active >= each.schedule.most_active for each in due):
            await self._end_runs()  # perhaps theirs: then nothing is overlapped
            due = await self.store.due(now, _AT_ONE_TIME)
        if due:
            await self._advance(due, now)
        room = self._room()
        claims = await self.store.claim(now, room, self._worker) if room else []
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
        instant = await self.store.next_instant(self._worker)
        return instant - _SOON if instant is not None and instant > now + _SOON else instant

    def _room(self) -> int:
        """How many runs may be started now; at none, the end of one will wake the loop."""
        if self._most is None:
            return _AT_ONE_TIME
        return min(_AT_ONE_TIME, self._most - len(self._running))

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
            here = [each for each in self._running.values() if each.place == "coroutine"]
            log_held_up(late, [each.claim.job for each in here])

    def _tell_of_waiting(self) -> None:
        """Tell, once until it has changed, that runs wait for a thread for long."""
        now = time.time()
        if now - self._looked_at < _LONG:
            return
        self._looked_at = now
        waiting = [
            each.claim.job
            for each in self._running.values()
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
            self._wake()

    def _wake(self) -> None:
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
        target = self._targets.get(claim.run_id)
        if target is None and claim.schedule is not None:
            target = self._targets.get(claim.schedule.id)
        attempt = self._running[claim.run_id] = _Attempt(claim, target)
        if attempt.place == "process":
            self._starter.call(lambda: self._submit(attempt))
        else:
            self._submit(attempt)
        return attempt.place

    def _submit(self, attempt: _Attempt) -> None:
        """Give a run to its executor."""
        claim, target = attempt.claim, attempt.target
        try:
            if target is None or attempt.cancelled:
                raise ShutdownError("it was taken off the plan")
            timeout = target.timeout if claim.timeout is None else claim.timeout
            executor = self._executors.get(target.place)
            if executor is None:
                executor = self._executors[target.place] = self._open_executor(target.place)
            run_id = claim.run_id if claim.attempt == 1 else f"{claim.run_id}/{claim.attempt}"
            run = executor.submit(claim.job, target, claim.args, claim.kwargs, timeout, run_id)
        except BaseException as error:
            run = _not_started(claim, error)
        attempt.run = run
        if attempt.cancelled:
            run.cancel()
        run._when_changed(lambda: self._notice(attempt, run))

    def _notice(self, attempt: _Attempt, run: Run) -> None:
        """A run has changed; called in whatever thread it is that changes it."""
        if run.state.ended:
            self._ended.append(attempt)
            self._wake()
        elif self._observer is not None and run.state is RunState.RUNNING:
            self._observer.started(attempt.claim.run_id, run)

    async def _end_runs(self) -> None:
        """Tell the store what came of the runs that have ended."""
        self._last_recorded = time.monotonic()
        if not self._ended:
            return
        ends = []
        while self._ended:
            attempt = self._ended.popleft()
            # It may have told so twice, and perhaps the next attempt goes on already.
            if self._running.get(attempt.claim.run_id) is attempt:
                ends.append(self._finish(attempt))
                del self._running[attempt.claim.run_id]
        try:
            finished = await self.store.finish([finish for finish, _ in ends])
        except BaseException:
            for finish, attempt in ends:  # to be told again
                self._running[finish.claim.run_id] = attempt
                self._ended.append(attempt)
            raise
        for (finish, attempt), held in zip(ends, finished, strict=True):
            again = held is not None and held.again
            if not again:
                self._targets.pop(finish.claim.run_id, None)
            if self._observer is not None and attempt.run is not None:
                self._observer.ended(finish.claim.run_id, attempt.run, again)
        for (finish, _), held in zip(ends, finished, strict=True):  # all were told before
            log_end(finish, again=held is not None and held.again)
            if held is not None:
                await self._pause_after(finish.claim.schedule, held.failures)

    def _finish(self, attempt: _Attempt) -> tuple[Finish, _Attempt]:
        claim, run = attempt.claim, attempt.run
        assert run is not None
        ending = run._ending
        assert ending is not None
        again = next_at = None
        if ending.state is RunState.FAILED and self._accepting and not attempt.cancelled:
            policy = claim.retry
            if policy is None and attempt.target is not None:
                policy = attempt.target.retry
            kinds = () if ending.error is None else (ending.error.type, *ending.error.bases)
            if policy is not None and policy.wants(claim.retries, kinds):
                delay = policy.delay_before(claim.retries + 1)
                again = Again(self.store.now() + delay, "failure")
        if claim.schedule is not None and claim.schedule.counts_from_end and again is None:
            next_at = claim.schedule.first_after(self.store.now())
        return Finish(claim, ending, run._started_at, again, next_at), attempt

    async def _pause_after(self, schedule: Schedule | None, failures: int) -> None:
        most = None if schedule is None else schedule.pause_on_failures
        if schedule is None or most is None or failures < most:
            return
        record = await self.store.schedule(schedule.id)
        if record is None or record.schedule.generation != schedule.generation:
            return  # another has taken its place
        if not record.paused:
            said = "schedule %r is paused: %d failed runs in a row"
            tell(logging.WARNING, said, schedule.id, failures)
            await self.store.pause(schedule.id)


class Observer(Protocol):
    """Whoever wants to know what becomes of runs; called by any thread, so it must be quick."""

    def started(self, run_id: str, run: Run) -> None:
        """An attempt has started."""

    def ended(self, run_id: str, run: Run, again: bool) -> None:
        """An attempt has ended, and whether there will be another."""


class _NoOwner:
    """Of a run that could not be started: there is nothing to ask."""

    def cancel(self, run: Run) -> bool:
        return False

    def signal(self, run: Run, number: int) -> None: ...

    def process(self, run: Run) -> Any: ...


def _not_started(claim: Claim, error: BaseException) -> Run:
    """The run that an executor has refused, or that was not to be started any more."""
    run = Run(claim.run_id, claim.job, _NoOwner())
    if isinstance(error, ShutdownError):
        reason = RunError("JobCancelled", str(error))
        run._ended(Ending(RunState.CANCELLED, reason, ended_at=time.time()))
        return run
    reason = RunError(type(error).__name__, str(error))
    run._ended(Ending(RunState.FAILED, reason, ended_at=time.time()))
    log_failure(run)
    return run
