"""A store in this program's memory: nothing survives, and nothing waits for a disk.

Its methods never suspend, and a lock makes each of them one step, so that any thread may call
them, also by driving the coroutine itself (see ``planner.at_once``). Everything costs the logarithm
of what is planned at most: the next instants and the waiting runs are heaps, from which an entry
that was changed meanwhile is dropped when it comes up.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import count, dropwhile, islice
from typing import TYPE_CHECKING, Any, Final

from job_scheduler import instants
from job_scheduler.run import Ending, RunError, RunState
from job_scheduler.schedule import ConflictResolution
from job_scheduler.stores.base import (
    ALL_SCHEDULES,
    LEASE_LOST,
    NEWEST_RUNS,
    Again,
    AttemptRecord,
    Claim,
    Counts,
    Due,
    Finished,
    Hold,
    Outcome,
    Renewal,
    Rescued,
    RunRecord,
    ScheduleRecord,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from job_scheduler.retry import RetryPolicy
    from job_scheduler.schedule import Missed, Schedule
    from job_scheduler.stores.base import (
        Advance,
        Finish,
        NewRun,
        Reason,
        Retention,
        RunQuery,
        ScheduleQuery,
        Worker,
    )
    from job_scheduler.target import Place

_MOST_ENDED: Final = 10_000
"""Ended runs that are remembered."""

_MOST_STALE: Final = 1_000
"""Entries of changed schedules that a heap may keep, beside one for each that stands."""

_MOST_ATTEMPTS: Final = 20
"""Attempts that are remembered of one run."""

_MOST_GAPS: Final = 20
"""Gaps that are remembered of one schedule."""


class _Planned:
    """A schedule and where it stands."""

    __slots__ = (
        "admitted",
        "aside",
        "blocked",
        "cancelled",
        "completed",
        "failed",
        "failures",
        "gaps",
        "last_run",
        "last_run_at",
        "missed",
        "next_at",
        "number",
        "paused",
        "running",
        "schedule",
        "waiting",
    )

    def __init__(self, number: int, schedule: Schedule, next_at: datetime | None) -> None:
        self.number = number
        self.schedule = schedule
        self.next_at = next_at
        self.paused = False
        self.running = 0
        self.waiting: dict[str, _Kept] = {}
        """Runs that have not started, or wait to be tried again."""
        self.aside: dict[str, _Kept] | None = None
        """Those of them that go on beside the others."""
        self.admitted = 0
        """How many of them may go on, or do."""
        self.blocked: deque[_Kept] | None = None
        """Runs that wait for others of this schedule to end, or for the end of its pause."""
        self.failures = self.completed = self.failed = self.cancelled = self.missed = 0
        self.gaps: deque[Missed] | None = None
        self.last_run: _Kept | None = None
        self.last_run_at: float | None = None
        """Seconds since 1970."""

    @property
    def active(self) -> int:
        return self.running + len(self.waiting)

    def stands_at(self, seen: ScheduleRecord) -> bool:
        return (self.schedule.generation, self.next_at) == (
            seen.schedule.generation,
            seen.next_at,
        )

    def wait_aside(self, run: _Kept) -> None:
        if self.aside is None:
            self.aside = {}
        self.aside[run.id] = run

    def leave_aside(self, run: _Kept) -> None:
        if self.aside is not None:
            self.aside.pop(run.id, None)

    def block(self, run: _Kept) -> None:
        if self.blocked is None:
            self.blocked = deque()
        self.blocked.append(run)

    def note(self, gap: Missed) -> None:
        if self.gaps is None:
            self.gaps = deque(maxlen=_MOST_GAPS)
        self.gaps.append(gap)
        self.missed += gap.number or 0


class _Kept:
    """A run and where it stands."""

    __slots__ = (
        "admitted",
        "args",
        "at",
        "attempt",
        "beside",
        "crashes",
        "created_at",
        "ending",
        "heartbeat",
        "history",
        "id",
        "job",
        "keep_until",
        "kwargs",
        "lease_until",
        "place",
        "planned",
        "priority",
        "retries",
        "retry",
        "schedule_id",
        "started_at",
        "state",
        "timeout",
        "to_stop",
        "token",
        "worker",
    )

    def __init__(
        self,
        run_id: str,
        job: str,
        at: datetime,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        priority: int,
        retry: RetryPolicy | None,
        timeout: float | None,
        planned: _Planned | None,
        created_at: datetime,
        beside: bool = False,
        place: Place | None = None,
        keep_until: datetime | None = None,
    ) -> None:
        self.id = run_id
        self.job = job
        self.at = at
        self.args = args
        self.kwargs = kwargs
        self.priority = priority
        self.retry = retry
        self.timeout = timeout
        self.planned = planned
        """Its schedule, until it has ended."""
        self.schedule_id = None if planned is None else planned.schedule.id
        self.created_at = created_at
        self.beside = beside
        self.place = place
        self.keep_until = keep_until
        self.admitted = True
        self.state = RunState.PENDING
        self.attempt = self.retries = self.crashes = self.token = 0
        self.worker: str | None = None
        self.heartbeat: datetime | None = None
        self.lease_until: datetime | None = None
        self.to_stop = False
        self.started_at: float | None = None
        self.ending: Ending | None = None
        self.history: tuple[AttemptRecord, ...] = ()

    @property
    def is_held(self) -> bool:
        """Whether a claim passes over it."""
        paused = self.planned is not None and self.planned.paused and not self.beside
        return paused or not self.admitted

    def is_held_by(self, claim_or_hold: Claim | Hold, worker: str) -> bool:
        return (
            self.state is RunState.RUNNING
            and self.token == claim_or_hold.token
            and self.worker == worker
        )

    def remember(self, reason: Reason, ending: Ending) -> None:
        """Note an attempt that was not the last."""
        attempt = AttemptRecord(
            self.attempt,
            reason,
            self.worker,
            _at(self.started_at),
            _at(ending.ended_at),
            ending.error,
            ending.exitcode,
        )
        self.history = (*self.history[1 - _MOST_ATTEMPTS :], attempt)

    def record(self) -> RunRecord:
        ending = self.ending
        record = RunRecord(
            self.id,
            self.job,
            self.schedule_id,
            self.state,
            self.attempt,
            self.at,
            _at(self.started_at),
            args=self.args,
            kwargs=self.kwargs,
            created_at=self.created_at,
            priority=self.priority,
            retries=self.retries,
            max_retries=0 if self.retry is None else self.retry.max_retries,
            crashes=self.crashes,
            worker=self.worker,
            lease_until=self.lease_until,
            heartbeat=self.heartbeat,
            attempts=self.history,
            timeout=self.timeout,
        )
        if ending is None:
            return record
        return record._replace(
            ended_at=_at(ending.ended_at) if self.state.ended else None,
            error=ending.error,
            exitcode=ending.exitcode,
            peak_memory=ending.peak_memory,
            cpu_time=ending.cpu_time,
            stderr=ending.stderr,
        )

    def outcome(self) -> Outcome:
        """The same in short."""
        ended_at = self.ending.ended_at if self.ending is not None and self.state.ended else None
        return Outcome(self.id, self.state, self.at, _at(self.started_at), _at(ended_at))


class MemoryStore:
    """Keeps schedules and runs in memory; see the contract in ``stores.base``."""

    durable = False
    batch = 64  # others on the loop get their turn in between

    def __init__(self, clock: Callable[[], datetime] = instants.now) -> None:
        self.now = clock
        self._lock = threading.RLock()  # a signal handler may call while we do
        self._order = count()
        self._numbers = count(1)
        self._schedules: dict[str, _Planned] = {}
        self._by_instant: list[tuple[datetime, int, _Planned]] = []
        self._handed_out: list[tuple[datetime, int, _Planned]] = []
        """What ``due`` has taken from that heap, to be put back unless it is advanced."""
        self._runs: OrderedDict[str, _Kept] = OrderedDict()
        self._later: list[tuple[datetime, int, _Kept]] = []
        self._ready: list[tuple[int, datetime, int, _Kept]] = []
        self._ended: deque[str] = deque()
        self._priority: int | None = None
        """That of all runs for later, if they have the same; then they need no second heap."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def listen(self, wake: Callable[[], None], renew: Callable[[], None]) -> None: ...

    # Schedules

    async def add(
        self, schedule: Schedule, next_at: datetime | None, *, paused: bool = False
    ) -> int | None:
        with self._lock:
            if schedule.id in self._schedules:
                return None
            planned = _Planned(next(self._numbers), schedule, next_at)
            planned.paused = paused
            self._schedules[schedule.id] = planned
            self._plan(planned)
            return planned.number

    async def change(
        self, schedule: Schedule, next_at: datetime | None, seen: ScheduleRecord | None = None
    ) -> bool:
        with self._lock:
            planned = self._schedules.get(schedule.id)
            if planned is None or (seen is not None and not planned.stands_at(seen)):
                return False
            planned.schedule = schedule
            planned.next_at = next_at
            self._plan(planned)
            self._admit(planned)
            return True

    async def remove(self, schedule_id: str) -> list[str] | None:
        with self._lock:
            planned = self._schedules.pop(schedule_id, None)
            if planned is None:
                return None
            planned.next_at = None
            waiting = [*planned.waiting.values(), *(planned.aside or {}).values()]
            for run in waiting:
                self._end(run, RunState.CANCELLED)
            return [run.id for run in waiting]

    async def pause(self, schedule_id: str) -> bool:
        with self._lock:
            planned = self._schedules.get(schedule_id)
            if planned is None:
                return False
            planned.paused = True
            return True

    async def resume(self, schedule_id: str, next_at: datetime | None, gap: Missed | None) -> bool:
        with self._lock:
            planned = self._schedules.get(schedule_id)
            if planned is None:
                return False
            planned.paused = False
            planned.failures = 0
            planned.next_at = next_at
            if gap is not None:
                planned.note(gap)
            self._plan(planned)
            self._admit(planned)
            return True

    async def schedule(self, schedule_id: str) -> ScheduleRecord | None:
        with self._lock:
            planned = self._schedules.get(schedule_id)
            return None if planned is None else _record(planned)

    async def schedules(self, query: ScheduleQuery = ALL_SCHEDULES) -> list[ScheduleRecord]:
        with self._lock:
            found = (each for each in self._schedules.values() if _is_asked_for(each, query))
            return [_record(planned) for planned in islice(found, query.limit)]

    def _plan(self, planned: _Planned) -> None:
        if planned.next_at is None or planned.paused:
            return
        if len(self._by_instant) > _MOST_STALE + 2 * len(self._schedules):
            self._by_instant = [entry for entry in self._by_instant if _is_planned(entry)]
            heapify(self._by_instant)
        heappush(self._by_instant, (planned.next_at, next(self._order), planned))

    def _drop_stale(self) -> None:
        """Take from the front of the heap what was changed since it was put there."""
        heap = self._by_instant
        while heap and not _is_planned(heap[0]):
            heappop(heap)

    # Instants

    async def due(self, now: datetime, limit: int) -> list[Due]:
        with self._lock:
            heap = self._by_instant
            for entry in self._handed_out:  # those that were not advanced are still due
                if _is_planned(entry):
                    heappush(heap, entry)
            handed_out: list[tuple[datetime, int, _Planned]] = []
            self._handed_out = handed_out
            seen: set[int] = set()
            while heap and heap[0][0] <= now and len(handed_out) < limit:
                entry = heappop(heap)
                if _is_planned(entry) and id(entry[2]) not in seen:
                    seen.add(id(entry[2]))
                    handed_out.append(entry)
            return [
                Due(planned.schedule, instant, planned.active) for instant, _, planned in handed_out
            ]

    async def advance(self, decisions: Sequence[Advance], now: datetime) -> None:
        with self._lock:
            for (schedule, instant, _), (runs, missed, next_at) in decisions:
                planned = self._schedules.get(schedule.id)
                if planned is None or planned.schedule is not schedule:
                    continue  # removed or changed meanwhile
                if planned.next_at != instant or planned.paused:
                    continue
                planned.next_at = next_at
                self._plan(planned)
                for gap in missed:
                    planned.note(gap)
                for each in runs:
                    self._keep(
                        _Kept(
                            schedule.run_id(each),
                            schedule.job,
                            schedule.runs_at(each),
                            schedule.args,
                            schedule.kwargs,
                            schedule.priority,
                            schedule.retry,
                            schedule.timeout,
                            planned,
                            now,
                        ),
                        is_due=schedule.jitter is None and each <= now,
                    )

    async def next_instant(self, worker: Worker) -> datetime | None:
        with self._lock:
            if self._ready:
                return self._ready[0][1]
            self._drop_stale()
            if worker.jobs is not None:
                return self._next_of(worker.jobs)
            while self._later and self._later[0][2].state is not RunState.PENDING:
                heappop(self._later)
            instants = [heap[0][0] for heap in (self._by_instant, self._later) if heap]
            instants += [entry[0] for entry in self._handed_out if _is_planned(entry)]
            return min(instants, default=None)

    def _next_of(self, jobs: frozenset[str]) -> datetime | None:
        """When something is due next that a worker with these jobs can do."""
        instants = [
            run.at for _, _, run in self._later if run.state is RunState.PENDING and run.job in jobs
        ]
        instants += [entry[0] for entry in self._by_instant[:1]]
        instants += [entry[0] for entry in self._handed_out if _is_planned(entry)]
        return min(instants, default=None)

    # Runs

    async def enqueue(
        self, runs: Sequence[NewRun], on_conflict: ConflictResolution, connection: Any = None
    ) -> dict[str, RunState]:
        with self._lock:
            taken = {run.id: self._runs[run.id].state for run in runs if self._is_taken(run.id)}
            if taken and on_conflict is ConflictResolution.RAISE:
                return taken
            now = self.now()
            for run in runs:
                if run.id in taken and on_conflict is ConflictResolution.IGNORE:
                    continue
                before = self._runs.pop(run.id, None)
                if before is not None:
                    self._replace(before)
                planned = None if run.schedule_id is None else self._schedules.get(run.schedule_id)
                kept = _Kept(
                    run.id,
                    run.job,
                    run.at,
                    run.args,
                    run.kwargs,
                    run.priority,
                    run.retry,
                    run.timeout,
                    planned,
                    now,
                    run.beside,
                    run.place,
                    run.keep_until,
                )
                if before is not None:
                    kept.token = before.token  # no claim of that one holds this one
                self._keep(kept, is_due=False)
            return taken

    def _is_taken(self, run_id: str) -> bool:
        run = self._runs.get(run_id)
        if run is None:
            return False
        is_over = run.keep_until is not None and run.state.ended and run.keep_until <= self.now()
        return not is_over

    def _replace(self, run: _Kept) -> None:
        """Another takes the place of this one, which is in no book any more."""
        if run.state.ended:
            self._ended.remove(run.id)
            return
        was_running = run.state is RunState.RUNNING
        self._plan_after(run, self.now())
        self._end(run, RunState.CANCELLED, was_running=was_running)
        self._ended.remove(run.id)

    def _keep(self, run: _Kept, *, is_due: bool) -> None:
        """Put a run into the books, and among those to be claimed now or later."""
        if run.id in self._runs:
            return
        self._runs[run.id] = run
        planned = run.planned
        if planned is not None and run.beside:
            planned.wait_aside(run)
        elif planned is not None:
            planned.waiting[run.id] = run
            if planned.admitted >= planned.schedule.most_running:
                run.admitted = False
                planned.block(run)
                return
            planned.admitted += 1
        if is_due:
            self._make_ready(run)
            return
        if len(self._later) > _MOST_STALE + 2 * (len(self._runs) - len(self._ended)):
            self._later = [entry for entry in self._later if entry[2].state is RunState.PENDING]
            heapify(self._later)
        self._make_wait(run)

    def _admit(self, planned: _Planned) -> None:
        """Let go what was blocked, as far as that may be."""
        if not planned.blocked or planned.paused:
            return
        blocked, planned.blocked = planned.blocked, deque()
        for run in blocked:
            if run.state is not RunState.PENDING:
                continue
            if not run.admitted:
                if planned.admitted >= planned.schedule.most_running:
                    planned.blocked.append(run)
                    continue
                run.admitted = True
                planned.admitted += 1
            self._make_wait(run)

    def _make_wait(self, run: _Kept) -> None:
        if not self._later:
            self._priority = run.priority
        elif run.priority != self._priority:
            self._priority = None
        heappush(self._later, (run.at, next(self._order), run))

    def _make_ready(self, run: _Kept) -> None:
        heappush(self._ready, (run.priority, run.at, next(self._order), run))

    def _pop_due(self, now: datetime) -> _Kept | None:
        """The due run that is first: by priority, then by instant."""
        later, ready = self._later, self._ready
        if self._priority is None or ready:
            while later and later[0][0] <= now:
                at, order, run = heappop(later)
                heappush(ready, (run.priority, at, order, run))
            return heappop(ready)[3] if ready else None
        return heappop(later)[2] if later and later[0][0] <= now else None

    async def claim(self, now: datetime, limit: int, worker: Worker) -> list[Claim]:
        with self._lock:
            started_at = now.timestamp()
            heartbeat, lease_until = self._lease(worker)
            claims: list[Claim] = []
            unknown: list[_Kept] = []
            while len(claims) < limit and (run := self._pop_due(now)) is not None:
                if run.state is not RunState.PENDING:
                    continue
                planned = run.planned
                if worker.jobs is not None and run.job not in worker.jobs:
                    unknown.append(run)
                    continue
                if planned is not None:
                    if run.beside:
                        planned.leave_aside(run)
                    else:
                        if planned.paused:
                            planned.block(run)
                            continue
                        planned.running += 1
                        del planned.waiting[run.id]
                    planned.last_run, planned.last_run_at = run, started_at
                run.state = RunState.RUNNING
                run.worker = worker.id
                run.heartbeat = heartbeat
                run.lease_until = lease_until
                run.token += 1
                run.attempt += 1
                run.started_at = started_at
                claims.append(
                    Claim(
                        run.id,
                        run.job,
                        run.args,
                        run.kwargs,
                        None if planned is None else planned.schedule,
                        run.retry,
                        run.timeout,
                        run.at,
                        worker.id,
                        run.token,
                        run.attempt,
                        run.retries,
                        run.crashes,
                        run.place,
                    )
                )
            for run in unknown:
                self._make_wait(run)
            return claims

    async def finish(self, ends: Sequence[Finish]) -> list[Finished | None]:
        with self._lock:
            return [self._finish(each) for each in ends]

    async def exchange(
        self, ends: Sequence[Finish], now: datetime, limit: int, worker: Worker
    ) -> tuple[list[Finished | None], list[Claim]]:
        with self._lock:
            return [self._finish(each) for each in ends], await self.claim(now, limit, worker)

    def _finish(self, finish: Finish) -> Finished | None:
        claim, again = finish.claim, finish.again
        run = self._runs.get(claim.run_id)
        if run is None or not run.is_held_by(claim, claim.worker):
            return None
        planned = run.planned
        run.started_at = finish.started_at
        if planned is not None and planned.last_run is run and finish.started_at is not None:
            planned.last_run_at = finish.started_at
        is_back = again is not None and not self._is_removed(planned)
        if again is not None and is_back:
            self._put_back(run, again, finish.ending)
        else:
            run.ending = finish.ending._replace(load_result=None)  # nobody can ask for it here
            run.crashes += finish.is_crash
            self._end(run, finish.ending.state, was_running=True)
        if planned is None:
            return Finished(is_back, 0)
        if finish.next_at is not None and planned.next_at is None and not run.beside:
            planned.next_at = finish.next_at
            if not self._is_removed(planned):
                self._plan(planned)
        return Finished(is_back, planned.failures)

    def _put_back(self, run: _Kept, again: Again, ending: Ending) -> None:
        """Have a run that goes on be started again."""
        if again.reason == "release":
            run.attempt -= 1
        else:
            run.remember(again.reason, ending)
            run.ending = ending._replace(load_result=None)
            run.retries += again.reason == "failure"
            run.crashes += again.reason == "crash"
        planned = run.planned
        if planned is not None and run.beside:
            planned.wait_aside(run)
        elif planned is not None:
            planned.running -= 1
            planned.waiting[run.id] = run
        run.state = RunState.PENDING
        run.worker = run.lease_until = run.heartbeat = None
        run.at = again.at
        self._make_wait(run)

    def _is_removed(self, planned: _Planned | None) -> bool:
        return planned is not None and self._schedules.get(planned.schedule.id) is not planned

    def _end(self, run: _Kept, state: RunState, *, was_running: bool = False) -> None:
        planned = run.planned
        run.state = state
        # What has ended is kept for long, and what it was called with may be large.
        run.args, run.kwargs, run.planned = (), {}, None
        run.lease_until = None
        if planned is not None:
            if run.beside:
                planned.leave_aside(run)
            if state is RunState.COMPLETED:
                planned.completed += 1
                planned.failures = 0
            elif state is RunState.FAILED:
                planned.failed += 1
                planned.failures += 1
            else:
                planned.cancelled += 1
            if not run.beside:
                if was_running:
                    planned.running -= 1
                else:
                    planned.waiting.pop(run.id, None)
                if run.admitted:
                    planned.admitted -= 1
                    self._admit(planned)
        self._ended.append(run.id)
        if len(self._ended) > _MOST_ENDED:
            del self._runs[self._ended.popleft()]

    # Leases

    def _lease(self, worker: Worker) -> tuple[datetime, datetime | None]:
        """The instant of a claim, and that at which it ends."""
        now = self.now()
        return now, None if worker.lease is None else now + timedelta(seconds=worker.lease)

    async def renew(self, holds: Sequence[Hold], worker: Worker) -> Renewal:
        with self._lock:
            lost, to_stop = [], []
            heartbeat, until = self._lease(worker)
            for hold in holds:
                run = self._runs.get(hold.run_id)
                if run is None or not run.is_held_by(hold, worker.id):
                    lost.append(hold)
                    continue
                run.heartbeat, run.lease_until = heartbeat, until
                if run.to_stop:
                    to_stop.append(hold)
            return Renewal(lost, to_stop)

    async def rescue(self, most_crashes: int) -> list[Rescued]:
        with self._lock:
            now = self.now()
            return [
                self._rescue(run, now, most_crashes)
                for run in list(self._runs.values())
                if run.state is RunState.RUNNING
                and run.lease_until is not None
                and run.lease_until < now
            ]

    def _rescue(self, run: _Kept, now: datetime, most_crashes: int) -> Rescued:
        error = RunError(LEASE_LOST, f"worker {run.worker} was not heard of any more")
        ending = Ending(RunState.FAILED, error, ended_at=now.timestamp())
        if run.to_stop or run.crashes + 1 >= most_crashes or self._is_removed(run.planned):
            run.ending = ending
            run.crashes += 1
            state = RunState.CANCELLED if run.to_stop else RunState.FAILED
            self._plan_after(run, now)
            self._end(run, state, was_running=True)
        else:
            self._put_back(run, Again(now, "crash"), ending)
        return Rescued(run.id, run.job, run.state, run.crashes)

    def _plan_after(self, run: _Kept, now: datetime) -> None:
        """The end of a run of a schedule that counts from there."""
        planned = run.planned
        if (
            planned is not None
            and planned.schedule.counts_from_end
            and planned.next_at is None
            and not run.beside
            and not self._is_removed(planned)
        ):
            planned.next_at = planned.schedule.first_after(now)
            self._plan(planned)

    async def ask_to_stop(self, run_id: str) -> bool:
        with self._lock:
            run = self._runs.get(run_id)
            if run is None or run.state is not RunState.RUNNING:
                return False
            run.to_stop = True
            return True

    async def cancel(self, run_id: str) -> bool:
        with self._lock:
            run = self._runs.get(run_id)
            if run is None or run.state is not RunState.PENDING:
                return False
            self._plan_after(run, self.now())
            self._end(run, RunState.CANCELLED)
            return True

    async def forget(self, retention: Retention) -> int:
        """Nothing: as many ended runs are kept as there is room for, and no more."""
        return 0

    async def waiting_for_others(self, worker: Worker) -> dict[str, int]:
        now, jobs = self.now(), worker.jobs
        with self._lock:
            return Counter(
                run.job
                for run in self._runs.values()
                if run.state is RunState.PENDING
                and run.at <= now
                and jobs is not None
                and run.job not in jobs
                and not run.is_held
            )

    async def set_back(self, now: datetime, by: timedelta) -> bool:
        with self._lock:
            waiting = [entry for entry in self._later if entry[2].state is RunState.PENDING]
            for _, _, run in waiting:
                run.at -= by
            self._later = [(run.at, order, run) for _, order, run in waiting]
            heapify(self._later)
        return True

    async def run(self, run_id: str) -> RunRecord | None:
        with self._lock:
            run = self._runs.get(run_id)
            return None if run is None else run.record()

    async def runs(self, query: RunQuery = NEWEST_RUNS) -> list[RunRecord]:
        with self._lock:
            if query.before is not None and query.before not in self._runs:
                return []
            newest: Iterator[_Kept] = reversed(self._runs.values())
            if query.before is not None:
                newest = islice(dropwhile(lambda run: run.id != query.before, newest), 1, None)
            found = (
                run.record()
                for run in newest
                if query.schedule_id in (None, run.schedule_id)
                and query.job in (None, run.job)
                and query.state in (None, run.state)
            )
            return list(islice(found, query.limit))

    async def outcomes(self, schedule_ids: Sequence[str], most: int) -> dict[str, list[Outcome]]:
        found: dict[str, list[Outcome]] = {schedule_id: [] for schedule_id in schedule_ids}
        if most < 1:
            return found
        wanted = set(found)
        with self._lock:
            for run in reversed(self._runs.values()):
                if run.schedule_id not in wanted:
                    continue
                mine = found[run.schedule_id]
                mine.append(run.outcome())
                if len(mine) == most:
                    wanted.remove(run.schedule_id)
                    if not wanted:
                        break
        return found

    async def counts(self, now: datetime) -> Counts:
        with self._lock:
            going = [run for run in self._runs.values() if not run.state.ended]
            due = [
                run.at
                for run in going
                if run.state is RunState.PENDING and run.at <= now and not run.is_held
            ]
            running = sum(run.state is RunState.RUNNING for run in going)
            planned = [
                each.next_at
                for each in self._schedules.values()
                if not each.paused and each.next_at is not None
            ]
            return Counts(
                len(due),
                min(due, default=None),
                running,
                len(self._schedules),
                min(planned, default=None),
            )


def _is_planned(entry: tuple[datetime, int, _Planned]) -> bool:
    """Whether nothing has changed since the entry was put into the heap."""
    return entry[2].next_at == entry[0] and not entry[2].paused


def _is_asked_for(planned: _Planned, query: ScheduleQuery) -> bool:
    schedule = planned.schedule
    return (
        planned.number > query.after
        and (query.numbers is None or planned.number in query.numbers)
        and (query.ids is None or schedule.id in query.ids)
        and query.job in (None, schedule.job)
        and query.paused in (None, planned.paused)
        and (query.text is None or query.text.casefold() in schedule.label.casefold())
    )


def _record(planned: _Planned) -> ScheduleRecord:
    return ScheduleRecord(
        planned.schedule,
        planned.next_at,
        planned.paused,
        planned.active,
        planned.running,
        planned.failures,
        planned.completed,
        planned.failed,
        planned.cancelled,
        planned.missed,
        tuple(planned.gaps or ()),
        None if planned.last_run is None else planned.last_run.record(),
        planned.number,
        _at(planned.last_run_at),
    )


def _at(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
