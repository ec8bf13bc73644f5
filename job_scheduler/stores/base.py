"""What a store promises the engine.

A store keeps *schedules*, each with its next instant, and *runs*, each in a state. It holds no
policy: the engine decides, with ``plan``, and the store does what was decided, whole or not at all.

* **Advancing** a schedule inserts the runs of its due instants, notes the gaps, and moves it to its
  next instant, in one step. If the schedule is no longer where the decision found it (another
  worker was sooner, or it was changed or removed), nothing happens. A run's id is made of its
  schedule and its instant, so the same instant never becomes two runs.
* **Admission**: of one schedule only as many runs may go on as it allows. One more is kept, but
  held until one of the others has ended for good; one that waits to be tried again has not.
* **Claiming** takes due runs, of the highest priority first (the lowest number), then the oldest,
  and makes them this worker's: two workers never get the same. What is held, and jobs that the
  worker does not know, are passed over and stay as they are.
* **The lease.** A claim holds for a time, which the worker renews. Once it is over, any worker may
  *rescue* the run: it is to be started again, with the crash counted, however old it is; after so
  many crashes it fails for good. A lease goes by a clock that nobody sets.
* **Fencing.** Each claim of a run has a token of its own. Finishing and renewing name worker and
  token, and do nothing to a run that was rescued, replaced or cancelled meanwhile: they tell that
  the claim did not hold any more. Whoever rescues sees the end of the lease in the same step.
* **Finishing** ends a claimed run, or puts it back to be started again: after a failure, after a
  crash, or because the worker shuts down, which counts for nothing.

A worker may die between any two steps, and the connection to a store after a step was done but
before it was told: each can be said again without harm. Every instant that a store gives or takes
is in UTC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from job_scheduler.run import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime, timedelta

    from job_scheduler.retry import RetryPolicy
    from job_scheduler.run import Ending, RunError
    from job_scheduler.schedule import ConflictResolution, Missed, Plan, Schedule
    from job_scheduler.target import Place

Reason = Literal["failure", "crash", "release"]
"""Why a run is started again; a release counts for nothing."""

LEASE_LOST: Final = "LeaseLost"
"""The name of the error of an attempt whose worker was not heard of any more."""


class Due(NamedTuple):
    """A schedule whose next instant has come."""

    schedule: Schedule
    instant: datetime
    active: int
    """How many of its runs wait or go on."""


class Advance(NamedTuple):
    """What was decided about it."""

    due: Due
    plan: Plan


class NewRun(NamedTuple):
    """A run that no schedule has made: it was asked for."""

    id: str
    job: str
    at: datetime
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012  # nobody changes it
    schedule_id: str | None = None
    priority: int = 5
    retry: RetryPolicy | None = None
    timeout: float | None = None
    beside: bool = False
    """Whether it goes on beside the other runs of its schedule, however many they are."""
    place: Place | None = None
    """Where it runs; None: where the job says."""
    keep_until: datetime | None = None
    """Until when its id is taken, also after its end."""

    @classmethod
    def beside_its_schedule(cls, schedule: Schedule, run_id: str, at: datetime) -> NewRun:
        """One more run of a schedule's job, that was asked for."""
        return cls(
            id=run_id,
            job=schedule.job,
            at=at,
            args=schedule.args,
            kwargs=schedule.kwargs,
            schedule_id=schedule.id,
            priority=schedule.priority,
            retry=schedule.retry,
            timeout=schedule.timeout,
            beside=True,
            place=schedule.place,
        )


class Worker(NamedTuple):
    """Who claims."""

    id: str
    """Random, made anew at each start."""
    lease: float | None = None
    """Seconds for which a claim holds; None: for ever."""
    jobs: frozenset[str] | None = None
    """The jobs that it knows; None: all."""


class Hold(NamedTuple):
    """A worker's claim on a run, as the store knows it again."""

    run_id: str
    token: int


class Claim(NamedTuple):
    """A run that this worker has to start."""

    run_id: str
    job: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    schedule: Schedule | None
    retry: RetryPolicy | None
    timeout: float | None
    at: datetime
    """When it was due."""
    worker: str
    token: int
    """Another one for each claim of this run."""
    attempt: int
    """From 1."""
    retries: int = 0
    """How often it has failed and was tried again."""
    crashes: int = 0
    """How often its worker or its process has died."""
    place: Place | None = None

    @property
    def hold(self) -> Hold:
        return Hold(self.run_id, self.token)


class Again(NamedTuple):
    """A run is started again."""

    at: datetime
    reason: Reason


class Finish(NamedTuple):
    """How a claimed run, or an attempt at it, has ended."""

    claim: Claim
    ending: Ending
    started_at: float | None = None
    """Seconds since 1970."""
    again: Again | None = None
    """Then the ending is that of the attempt."""
    next_at: datetime | None = None
    """The next instant of a schedule that counts from the end of its runs."""
    result: str | None = None
    """What the job returned, as a JSON text."""
    is_crash: bool = False
    """Whether it is over because its process has died once too often."""


class Finished(NamedTuple):
    """What became of it."""

    again: bool
    """Whether it waits to be tried again; not if its schedule was removed meanwhile."""
    failures: int
    """How many runs of its schedule have failed in a row."""


class Renewal(NamedTuple):
    """What a worker learns of its claims when it renews them."""

    lost: list[Hold]
    """Those that do not hold any more."""
    to_stop: list[Hold]
    """Those that somebody wants to be cancelled."""


class Rescued(NamedTuple):
    """A run whose lease had ended."""

    run_id: str
    job: str
    state: RunState
    """``pending``, or ``failed`` after too many crashes, or ``cancelled`` if that was wanted."""
    crashes: int


class AttemptRecord(NamedTuple):
    """An attempt that was not the last."""

    number: int
    reason: Reason
    worker: str | None
    started_at: datetime | None
    ended_at: datetime | None
    error: RunError | None
    exitcode: int | None = None


class RunRecord(NamedTuple):
    """What a store holds of a run."""

    id: str
    job: str
    schedule_id: str | None
    state: RunState
    attempt: int
    """How often it was started; what was handed back does not count."""
    at: datetime
    """When it was due."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: RunError | None = None
    """Why it, or its last attempt, has failed."""
    exitcode: int | None = None
    peak_memory: int | None = None
    cpu_time: float | None = None
    stderr: str = ""
    result: str | None = None
    """As a JSON text; memory keeps none."""
    args: tuple[Any, ...] = ()
    """Memory keeps them until the end."""
    kwargs: Mapping[str, Any] = {}  # nobody can change a tuple's default
    created_at: datetime | None = None
    priority: int = 5
    retries: int = 0
    max_retries: int = 0
    crashes: int = 0
    worker: str | None = None
    lease_until: datetime | None = None
    heartbeat: datetime | None = None
    attempts: tuple[AttemptRecord, ...] = ()
    timeout: float | None = None
    """Seconds; None: as the job says."""

    @classmethod
    def accepted(cls, run: NewRun, created_at: datetime | None = None) -> RunRecord:
        """What a store holds of a run that it has just accepted, without being asked."""
        return cls(
            id=run.id,
            job=run.job,
            schedule_id=run.schedule_id,
            state=RunState.PENDING,
            attempt=0,
            at=run.at,
            args=run.args,
            kwargs=run.kwargs,
            created_at=created_at,
            priority=run.priority,
            max_retries=0 if run.retry is None else run.retry.max_retries,
            timeout=run.timeout,
        )


class ScheduleRecord(NamedTuple):
    """What a store holds of a schedule."""

    schedule: Schedule
    next_at: datetime | None
    paused: bool
    active: int
    """How many of its runs wait or go on."""
    running: int
    """How many go on."""
    failures: int
    """How many of its runs have failed in a row."""
    completed: int
    failed: int
    cancelled: int
    missed: int
    """How many instants were skipped, as far as they were counted."""
    gaps: tuple[Missed, ...]
    """The last gaps."""
    last_run: RunRecord | None
    """The one that was started last, as long as it is kept."""
    number: int
    """Its place in the order in which schedules were added, from 1; no two ever have the same."""
    last_run_at: datetime | None
    """When the run has started that was started last; that run may have been deleted."""


class ScheduleQuery(NamedTuple):
    """Which schedules; only those that everything here is true of."""

    after: int = 0
    """Those with a higher number."""
    limit: int | None = None
    """How many at most."""
    numbers: tuple[int, ...] | None = None
    ids: tuple[str, ...] | None = None
    job: str | None = None
    paused: bool | None = None
    text: str | None = None
    """It is a part of ``about["name"]``, or of the id where there is no name, in any case."""


ALL_SCHEDULES: Final = ScheduleQuery()


class RunQuery(NamedTuple):
    """Which runs; only those that everything here is true of."""

    schedule_id: str | None = None
    job: str | None = None
    state: RunState | None = None
    before: str | None = None
    """Those that were added before the run of this id; none, if it is not there any more."""
    limit: int = 100
    """How many at most."""


NEWEST_RUNS: Final = RunQuery()


class Outcome(NamedTuple):
    """What became of a run, in short."""

    run_id: str
    state: RunState
    at: datetime
    """When it was due."""
    started_at: datetime | None
    ended_at: datetime | None


class Counts(NamedTuple):
    """How much there is to do."""

    due: int
    """Runs that may be started now."""
    oldest_due: datetime | None
    """The earliest instant of theirs."""
    running: int
    """Runs that go on, on all machines."""
    schedules: int
    """All that there are, paused ones too."""
    next_at: datetime | None
    """The earliest instant of those that are not paused."""


class Retention(NamedTuple):
    """How long ended runs are kept."""

    age: timedelta | None
    most: int | None


class Store(Protocol):
    """The contract; see the module's text."""

    durable: bool
    """Whether it survives this program, and may be shared with others: then arguments are JSON, and
    jobs are found by name."""

    batch: int
    """How many runs to take and to end at one time, at most."""

    def now(self) -> datetime:
        """The instant it is, by the clock that schedules and runs go by."""

    async def open(self) -> None:
        """Be ready; raises ``StoreError`` if that is not possible. Harmless twice."""

    async def close(self) -> None:
        """Let go of connections and files; who needs it later opens it. Harmless twice."""

    async def listen(self, wake: Callable[[], None], renew: Callable[[], None]) -> None:
        """From now on call these, from any thread: hints, which may be missed.

        Args:
            wake: something may have become due.
            renew: a run that goes on is to be stopped; the next renewal tells which.
        """

    async def add(
        self, schedule: Schedule, next_at: datetime | None, *, paused: bool = False
    ) -> int | None:
        """Keep a new schedule; tells its number, or None if there is one with its id."""

    async def change(
        self, schedule: Schedule, next_at: datetime | None, seen: ScheduleRecord | None = None
    ) -> bool:
        """Put another definition in place of the one with its id; False if there is none.

        Args:
            schedule: the new definition.
            next_at: its next instant.
            seen: False as well unless it is still of this generation, and due at this instant.
        """

    async def remove(self, schedule_id: str) -> list[str] | None:
        """Forget a schedule, and cancel its waiting runs: their ids; None if there is none."""

    async def pause(self, schedule_id: str) -> bool:
        """Take a schedule off the plan, and hold its waiting runs; False if there is none."""

    async def resume(self, schedule_id: str, next_at: datetime | None, gap: Missed | None) -> bool:
        """Put it back on the plan, and note what was left out; False if there is none."""

    async def schedule(self, schedule_id: str) -> ScheduleRecord | None:
        """One schedule."""

    async def schedules(self, query: ScheduleQuery = ALL_SCHEDULES) -> list[ScheduleRecord]:
        """Schedules, in the order in which they were added."""

    async def due(self, now: datetime, limit: int) -> list[Due]:
        """Schedules whose next instant is not later than ``now``, the longest due first."""

    async def advance(self, decisions: Sequence[Advance], now: datetime) -> None:
        """Do what was decided; ``now`` may be before the instants of the runs."""

    async def enqueue(
        self,
        runs: Sequence[NewRun],
        on_conflict: ConflictResolution,
        connection: Any = None,
    ) -> dict[str, RunState]:
        """Keep runs; tells those ids that were taken, with the state of the run that was there.

        ``raise``: then none was kept. ``ignore``: the others were. ``replace``: all were, and what
        was there is gone; if it went on, its claim does not hold any more.

        Args:
            runs: no two with the same id.
            on_conflict: what to do about taken ids.
            connection: one of the caller's: they are there once his transaction is committed.
        """

    async def claim(self, now: datetime, limit: int, worker: Worker) -> list[Claim]:
        """Take due runs."""

    async def finish(self, ends: Sequence[Finish]) -> list[Finished | None]:
        """End claimed runs; None for each whose claim did not hold any more."""

    async def exchange(
        self, ends: Sequence[Finish], now: datetime, limit: int, worker: Worker
    ) -> tuple[list[Finished | None], list[Claim]]:
        """As ``finish`` and then ``claim``, in one step."""

    async def renew(self, holds: Sequence[Hold], worker: Worker) -> Renewal:
        """Have the leases of these claims begin anew."""

    async def rescue(self, most_crashes: int) -> list[Rescued]:
        """Put back some runs whose lease has ended; with so many crashes they fail for good."""

    async def cancel(self, run_id: str) -> bool:
        """Cancel a run that waits; False if it does not."""

    async def ask_to_stop(self, run_id: str) -> bool:
        """Have the worker of a run that goes on learn that it is to be cancelled.

        False if it does not go on.
        """

    async def forget(self, retention: Retention) -> int:
        """Delete some ended runs that are to be kept no longer; tells how many."""

    async def run(self, run_id: str) -> RunRecord | None:
        """One run."""

    async def runs(self, query: RunQuery = NEWEST_RUNS) -> list[RunRecord]:
        """The runs that were added last, the newest first.

        The next page is that before the last run of this one: none is lost or told of twice.
        """

    async def outcomes(self, schedule_ids: Sequence[str], most: int) -> dict[str, list[Outcome]]:
        """Of each schedule the runs that were added last, so many at most, the newest first.

        Also those that wait or go on; an empty list for what has none.
        """

    async def counts(self, now: datetime) -> Counts:
        """How much there is to do."""

    async def waiting_for_others(self, worker: Worker) -> dict[str, int]:
        """How many runs are due of each job that this worker does not know."""

    async def set_back(self, now: datetime, by: timedelta) -> bool:
        """The clock that this store goes by was set back: move waiting runs as much.

        False if there is nothing to do about schedules either: it goes by a clock of its own, or
        another worker has noticed.
        """

    async def next_instant(self, worker: Worker) -> datetime | None:
        """When something will be due next, as far as it is known; perhaps in the past."""
