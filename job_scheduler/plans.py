"""What ``JobScheduler`` asks of whatever keeps its plans, in memory or in a store."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from job_scheduler import instants
from job_scheduler.durations import parse_duration
from job_scheduler.log import tell
from job_scheduler.planning import (
    check_known,
    describe,
    has_ended,
    keywords,
    positional,
    trigger_of,
)
from job_scheduler.schedule import Schedule
from job_scheduler.triggers import Interval, Once

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from job_scheduler.run import Run
    from job_scheduler.target import Place, Target
    from job_scheduler.triggers import Trigger


class Wanted(NamedTuple):
    """A schedule as a user has given it."""

    schedule_id: str | None
    given: Any
    """What is to be run."""
    trigger: Trigger
    first: datetime | None
    policies: dict[str, Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012  # nobody changes it
    place: Place | None = None
    conflict_resolution: str = "raise"
    relative: bool = False
    counts_from_end: bool = False

    def schedule(
        self, schedule_id: str, job: str, generation: int, policies: dict[str, Any]
    ) -> Schedule:
        """The schedule that is meant, with policies that were checked."""
        return Schedule(
            id=schedule_id,
            job=job,
            trigger=self.trigger,
            args=self.args,
            kwargs=self.kwargs,
            generation=generation,
            relative=self.relative,
            counts_from_end=self.counts_from_end,
            place=self.place,
            **policies,
        )


class Plans(ABC):
    """Schedules and runs of one ``JobScheduler``; all methods from any thread."""

    def __init__(self) -> None:
        self._given: dict[str, Any] = {}
        """What was given to be run in this program, by schedule."""
        self._numbers: Counter[str] = Counter()

    def schedule(
        self,
        jobs: Mapping[str, Any],
        initial_delay: Any,
        frequency: Any,
        job: Any,
        job_id: str | None,
        policies: dict[str, Any],
    ) -> str:
        """Run a job after a delay, and again so long after each end; None: only once."""
        delay = parse_duration(initial_delay, "initial_delay", zero=True)
        first = instants.now() + delay
        trigger: Trigger = Once(first)
        if frequency is not None:
            trigger = Interval(parse_duration(frequency, "frequency"))
        wanted = Wanted(
            job_id,
            job,
            trigger,
            first,
            policies,
            relative=True,
            counts_from_end=frequency is not None,
        )
        return self._add(jobs, wanted)

    def add_job(
        self,
        jobs: Mapping[str, Any],
        job_id: str,
        func: Any,
        *,
        interval: Any,
        cron: str | None,
        at: datetime | None,
        timezone: str | None,
        args: Any,
        kwargs: Any,
        executor: Place | None,
        conflict_resolution: str,
        policies: dict[str, Any],
    ) -> str:
        """Run a function or a job at a fixed rate, as cron says, or at an instant."""
        check_known(policies)
        trigger = trigger_of(job_id, interval=interval, cron=cron, at=at, timezone=timezone)
        first = trigger.instant if isinstance(trigger, Once) else None
        wanted = Wanted(
            job_id,
            func,
            trigger,
            first,
            policies,
            positional(job_id, args),
            keywords(job_id, kwargs),
            executor,
            conflict_resolution,
        )
        return self._add(jobs, wanted)

    @abstractmethod
    def _add(self, jobs: Mapping[str, Any], wanted: Wanted) -> str:
        """Plan what was checked as far as it can be without knowing what it runs."""

    def _free_id(self, name: str) -> str:
        """An id for what was given none: the same in each program that says the same."""
        if name not in self._given:
            return name
        while True:
            self._numbers[name] += 1
            numbered = f"{name}-{self._numbers[name] + 1}"
            if numbered not in self._given:
                return numbered

    def _tell_planned(self, schedule: Schedule, first: datetime | None, *, is_new: bool) -> None:
        if has_ended(schedule, first):
            said = "%r will not run: it has ended at %s"
            tell(logging.WARNING, said, schedule.id, schedule.end)
        elif is_new:
            tell(logging.INFO, "%r is scheduled: %s", schedule.id, describe(schedule, first))

    @abstractmethod
    def stop(self, what: Any) -> None:
        """Take off the plan what was given to be run, or everything for None."""

    @abstractmethod
    def remove(self, schedule_id: str) -> None:
        """Take one schedule off the plan."""

    @abstractmethod
    def pause(self, schedule_id: str) -> None:
        """Take one schedule off the plan until it is resumed."""

    @abstractmethod
    def resume(self, schedule_id: str) -> None:
        """Put one schedule back on the plan."""

    @abstractmethod
    def run_now(self, schedule_id: str) -> Run:
        """Run a schedule's job once more, beside whatever goes on."""

    @abstractmethod
    def info(self, schedule_id: str) -> dict[str, Any]:
        """What is known of a schedule."""

    @abstractmethod
    def run_later(
        self,
        name: str,
        target: Target,
        kwargs: dict[str, Any],
        *,
        delay: Any = 0,
        timeout: float | None = None,
        priority: int = 5,
        max_retries: int | None = None,
        key: str | None = None,
    ) -> Run:
        """Plan one run of a job; it is tried again as it says, or as the job does."""

    @property
    @abstractmethod
    def healthy(self) -> bool:
        """Whether the engine's loop turns."""

    @property
    @abstractmethod
    def has_plans(self) -> bool:
        """Whether anything goes on or will be due."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether anything goes on, or has ended without being told yet."""

    @abstractmethod
    def close(self) -> None:
        """Start nothing more."""
