"""What a store promises the engine.

A store keeps *schedules*, each with its next instant, and *runs*, each in a state. It holds no
policy: the engine decides, with ``plan``, and the store does what was decided, whole or not at all.

* **Advancing** a schedule inserts the runs of its due instants, notes the gaps, and moves it to its
  next instant, in one step. If the schedule is no longer where the decision found it (another
  worker was sooner, or it was changed or removed), nothing happens. A run's id is made of its
  schedule and its instant, so the same instant never becomes two runs.
* **Claiming** takes due runs, of the highest priority first (the lowest number), then the oldest,
  and makes them this worker's: two workers never get the same. A run is passed over while as many
  of its schedule's runs go on as may at one time.
* **Finishing** ends a claimed run, or puts it back to be tried again. It tells whether the claim
  still held: a run that was cancelled meanwhile, or taken over by another worker, stays what it is.

Every instant that a store gives or takes is in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from job_scheduler.run import RunState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from job_scheduler.retry import RetryPolicy
    from job_scheduler.run import Ending, RunError
    from job_scheduler.schedule import Missed, Plan, Schedule


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


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run that no schedule has made: it was asked for."""

    id: str
    job: str
    at: datetime
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    schedule_id: str | None = None
    priority: int = 5
    retry: RetryPolicy | None = None
    timeout: float | None = None
    beside: bool = False
    """Whether it goes on beside the other runs of its schedule, however many they are."""


class Claim(NamedTuple):
    """A run that this worker has to start."""

    run_id: str
    job: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    schedule: Schedule | None
    retry: RetryPolicy | None
    timeout: float | None
    attempt: int
    """From 1."""
    at: datetime
    """When it was due."""


class Finish(NamedTuple):
    """How a claimed run has ended."""

    claim: Claim
    ending: Ending
    started_at: float | None = None
    """Seconds since 1970."""
    retry_at: datetime | None = None
    """When it is tried again; then the ending is that of the attempt."""
    next_at: datetime | None = None
    """The next instant of a schedule that counts from the end of its runs."""


class Finished(NamedTuple):
    """What became of it."""

    again: bool
    """Whether it waits to be tried again; not if its schedule was removed meanwhile."""
    failures: int
    """How many runs of its schedule have failed in a row."""


class RunRecord(NamedTuple):
    """What a store holds of a run."""

    id: str
    job: str
    schedule_id: str | None
    state: RunState
    attempt: int
    """How often it was started."""
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
    """The one that was started last."""


class Store(Protocol):
    """The contract; see the module's text."""

    async def add(self, schedule: Schedule, next_at: datetime | None) -> bool:
        """Keep a new schedule; False if there is one with its id."""

    async def change(self, schedule: Schedule, next_at: datetime | None) -> bool:
        """Put another definition in place of the one with its id; False if there is none."""

    async def remove(self, schedule_id: str) -> list[str] | None:
        """Forget a schedule, and cancel its waiting runs: their ids; None if there is none."""

    async def pause(self, schedule_id: str) -> bool:
        """Take a schedule off the plan, and hold its waiting runs; False if there is none."""

    async def resume(self, schedule_id: str, next_at: datetime | None, gap: Missed | None) -> bool:
        """Put it back on the plan, and note what was left out; False if there is none."""

    async def schedule(self, schedule_id: str) -> ScheduleRecord | None:
        """One schedule."""

    async def schedules(self) -> list[ScheduleRecord]:
        """All schedules, in the order in which they were added."""

    async def due(self, now: datetime, limit: int) -> list[Due]:
        """Schedules whose next instant is not later than ``now``, the longest due first."""

    async def advance(self, decisions: Sequence[Advance], now: datetime) -> None:
        """Do what was decided; ``now`` may be before the instants of the runs."""

    async def enqueue(self, run: NewRun) -> bool:
        """Keep a run; False if there is one with its id."""

    async def claim(self, now: datetime, limit: int) -> list[Claim]:
        """Take due runs."""

    async def finish(self, ends: Sequence[Finish]) -> list[Finished | None]:
        """End claimed runs; None for each whose claim did not hold any more."""

    async def cancel(self, run_id: str) -> bool:
        """Cancel a run that waits; False if it does not."""

    async def run(self, run_id: str) -> RunRecord | None:
        """One run."""

    async def runs(self, schedule_id: str | None = None, limit: int = 100) -> list[RunRecord]:
        """The runs that were added last, of one schedule or of all, the newest first."""

    async def set_back(self, now: datetime, by: timedelta) -> None:
        """The clock that this store goes by was set back: move waiting runs as much.

        A store that goes by a clock of its own has nothing to do.
        """

    async def next_instant(self) -> datetime | None:
        """When something will be due next, as far as it is known; perhaps in the past."""
