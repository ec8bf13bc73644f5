"""A schedule: a job, when it is due, and what happens to instants that were missed.

``plan`` decides without doing: from a schedule, its next instant and the time it is, it tells
what to run, what to skip and why, and which instant is next. Every instant is accounted for: it
is in the runs, in a ``Missed``, or it is the next one or later.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from job_scheduler.durations import describe_duration, parse_duration
from job_scheduler.errors import InvalidOptionError
from job_scheduler.instants import to_utc
from job_scheduler.triggers import Cron, Interval, Once, Trigger

if TYPE_CHECKING:
    from job_scheduler.retry import RetryPolicy
    from job_scheduler.target import Place

CatchUp = Literal["latest", "all", "none"]
Overlap = Literal["skip", "queue"] | int


class ConflictResolution(StrEnum):
    """What becomes of a schedule whose id is taken; equal to its own name as a string."""

    RAISE = "raise"
    """A ``DuplicateIdError``."""
    IGNORE = "ignore"
    """The one that is there stays."""
    REPLACE = "replace"
    """The new one takes its place."""


MOST_CAUGHT_UP: Final = 1_000
"""Missed instants that ``catch_up="all"`` makes up for."""

_ON_TIME: Final = timedelta(minutes=1)
"""How late an instant may be that ``catch_up="none"`` does not call missed, unless it is said."""

_LOOKED_AT: Final = 25
"""Instants among which the shortest distance is looked for."""

_LONG_SET_BACK: Final = timedelta(hours=3)
"""From here on a clock that was set back was wrong before, as Debian's cron sees it."""


class Missed(NamedTuple):
    """A gap: instants in a row that were skipped for one reason."""

    first: datetime
    last: datetime
    number: int | None
    """How many; None: more than were counted."""
    reason: str
    """``late``, ``coalesced`` (a later one ran), ``overlap``, ``too many`` or ``paused``."""


class Plan(NamedTuple):
    """What ``plan`` has decided."""

    runs: tuple[datetime, ...]
    missed: tuple[Missed, ...]
    next_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A job with its arguments, a trigger and policies, under an id of its own.

    Args:
        id: what the schedule is called; no two have the same.
        job: the name of what to run.
        trigger: when.
        misfire_grace_time: how late an instant may still run; None: however late.
        catch_up: of several instants that were missed run the ``"latest"``, ``"all"`` (the last
            1,000), or ``"none"``, where a minute is not late yet, or ``misfire_grace_time``.
        overlap: while a run is not over, ``"skip"`` the next, ``"queue"`` one, or a number of
            runs that may go on at one time.
        jitter: up to how much later than its instant a run starts, at random.
        start, end: no instant before or after; a naive ``datetime`` is taken as local time.
        pause_on_failures: after so many failed runs in a row the schedule pauses.
        counts_from_end: the next instant is counted from the end of a run.
        relative: its first instant was given as a delay, not as a time on the clock.
        place: where its runs go on; None: where the job says.
        about: what somebody wants to know of it, as JSON; it decides nothing.

    Raises ``InvalidOptionError`` (a ``ValueError``).
    """

    id: str
    job: str
    trigger: Trigger
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    misfire_grace_time: timedelta | None = None
    catch_up: CatchUp = "latest"
    overlap: Overlap = "skip"
    jitter: timedelta | None = None
    start: datetime | None = None
    end: datetime | None = None
    pause_on_failures: int | None = None
    counts_from_end: bool = False
    relative: bool = False
    retry: RetryPolicy | None = None
    timeout: float | None = None
    priority: int = 5
    place: Place | None = None
    about: dict[str, Any] = field(default_factory=dict)
    generation: int = 0

    def __post_init__(self) -> None:
        put = object.__setattr__
        if self.misfire_grace_time is not None:
            put(
                self,
                "misfire_grace_time",
                parse_duration(self.misfire_grace_time, "misfire_grace_time"),
            )
        if self.jitter is not None:
            jitter = parse_duration(self.jitter, "jitter", zero=True)
            put(self, "jitter", jitter or None)
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None:
                put(self, name, to_utc(value, name))
        if self.start is not None and self.end is not None and self.end < self.start:
            raise InvalidOptionError(f"end ({self.end}) is before start ({self.start})")
        if self.catch_up not in ("latest", "all", "none"):
            raise InvalidOptionError(
                f"catch_up is {self.catch_up!r}; it must be 'latest', 'all' or 'none'"
            )
        if self.overlap not in ("skip", "queue") and not _is_count(self.overlap):
            raise InvalidOptionError(
                f"overlap is {self.overlap!r}; it must be 'skip', 'queue', or the number of runs "
                f"that may go on at one time"
            )
        distance = None if self.jitter is None else _shortest_distance(self.trigger)
        if self.jitter is not None and distance is not None and self.jitter >= distance:
            raise InvalidOptionError(
                f"jitter ({describe_duration(self.jitter)}) must be shorter than the time from one "
                f"instant to the next ({describe_duration(distance)})"
            )
        if self.pause_on_failures is not None and not _is_count(self.pause_on_failures):
            raise InvalidOptionError(
                f"pause_on_failures is {self.pause_on_failures!r}; it must be a whole number from 1"
            )

    @property
    def most_running(self) -> int:
        """How many of its runs may go on at one time."""
        return self.overlap if isinstance(self.overlap, int) else 1

    @property
    def most_active(self) -> int:
        """How many of its runs may go on or wait, before instants are skipped."""
        return 2 if self.overlap == "queue" else self.most_running

    @property
    def runs_however_late(self) -> bool:
        """Whether no instant is ever too late, and the next does not depend on the run."""
        return (
            self.misfire_grace_time is None and self.catch_up != "none" and not self.counts_from_end
        )

    def says_the_same(self, other: Schedule) -> bool:
        """Whether both are one definition, perhaps made at different times.

        What is ``about`` them is no part of it.
        """
        return replace(self, generation=other.generation, about=other.about) == other

    def is_due_like(self, other: Schedule) -> bool:
        """Whether both are due at the same instants, wherever they are."""
        return (
            self.trigger == other.trigger
            and (self.start, self.end, self.jitter) == (other.start, other.end, other.jitter)
            and self.counts_from_end == other.counts_from_end
        )

    @property
    def label(self) -> str:
        """What it is called by those who list schedules: the name that is about it, or its id."""
        name = self.about.get("name")
        return name if isinstance(name, str) and name else self.id

    def first_after(self, instant: datetime) -> datetime | None:
        """Its first instant after this one, within its bounds."""
        if self.start is not None and instant < self.start:
            if isinstance(self.trigger, Interval) and self.trigger.start is None:
                return self.start  # it begins there
            instant = self.start - timedelta(microseconds=1)
        found = self.trigger.next_after(instant)
        return None if found is None or (self.end is not None and found > self.end) else found

    def runs_at(self, instant: datetime) -> datetime:
        """When the run of an instant starts: some time later, if there is jitter.

        How much follows from the schedule and the instant, so that every worker finds the same.
        """
        if self.jitter is None:
            return instant
        chance = zlib.crc32(self.run_id(instant).encode()) / 2**32
        return instant + self.jitter * chance

    def run_id(self, instant: datetime) -> str:
        """The id of the run of an instant: there is only one."""
        return f"{self.id}:{self.generation}:{instant.isoformat()}"


def _shortest_distance(trigger: Trigger) -> timedelta | None:
    """From one instant to the next; of cron among the first of a year, which tells most."""
    if isinstance(trigger, Interval):
        return trigger.period
    if isinstance(trigger, Once):
        return None
    shown = trigger.preview(_LOOKED_AT, datetime(2024, 1, 1, tzinfo=UTC))
    first = [instant.astimezone(UTC) for instant in shown]
    return min((later - sooner for sooner, later in pairwise(first)), default=None)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def plan(schedule: Schedule, due: datetime, active: int, now: datetime) -> Plan:
    """Decide about all instants from ``due`` to ``now``.

    Args:
        schedule: what is due.
        due: its next instant, not later than ``now``.
        active: how many of its runs wait or go on.
        now: what time it is.
    """
    instants = [due]
    missed: list[Missed] = []
    # What counts from the end of a run has only this instant, until there is such an end.
    next_at = schedule.first_after(now if schedule.counts_from_end else due)
    if next_at is not None and next_at <= now:
        instants, missed, next_at = _catch_up(schedule, due, now)
    instants, late = _split_late(schedule, instants, now)
    if late is not None:
        missed.append(late)
    if instants and active >= schedule.most_active:
        missed.append(Missed(instants[0], instants[-1], len(instants), "overlap"))
        instants = []
    if not instants and len(missed) > 1:  # no later run makes up for any: it is one gap
        missed = [_joined(missed)]
    if schedule.counts_from_end and (instants or active):
        next_at = None  # it is known at the end of that run
    return Plan(tuple(instants), tuple(missed), next_at)


def _joined(gaps: list[Missed]) -> Missed:
    """Gaps that follow one another, as one; the last one's reason is that of all."""
    numbers = [gap.number for gap in gaps]
    number = None if None in numbers else sum(number or 0 for number in numbers)
    return Missed(gaps[0].first, gaps[-1].last, number, gaps[-1].reason)


def _catch_up(
    schedule: Schedule, due: datetime, now: datetime
) -> tuple[list[datetime], list[Missed], datetime | None]:
    """Of several instants those to run, those to skip, and the one after ``now``."""
    end = now if schedule.end is None else min(now, schedule.end)
    most = MOST_CAUGHT_UP if schedule.catch_up == "all" else 1
    last, count = schedule.trigger.last_from(due, end, most)
    next_at = schedule.first_after(last[-1])
    if last[0] == due:
        return last, [], next_at
    reason = {"latest": "coalesced", "all": "too many", "none": "late"}[schedule.catch_up]
    before = None if count is None else count - len(last)
    return last, [Missed(due, _before(schedule, due, last[0]), before, reason)], next_at


def _before(schedule: Schedule, first: datetime, instant: datetime) -> datetime:
    """The instant before this one; there is one, as ``first`` is before it."""
    just_before = instant - timedelta(microseconds=1)
    return schedule.trigger.last_from(first, just_before, 1)[0][-1]


def _split_late(
    schedule: Schedule, instants: list[datetime], now: datetime
) -> tuple[list[datetime], Missed | None]:
    """Those that may still run, and those that are too late."""
    grace = schedule.misfire_grace_time
    if grace is None and schedule.catch_up == "none":
        grace = _ON_TIME
    if grace is None or now - instants[0] <= grace:
        return instants, None
    late = [instant for instant in instants if now - instant > grace]
    return instants[len(late) :], Missed(late[0], late[-1], len(late), "late")


def after_set_back(
    schedule: Schedule, next_at: datetime, now: datetime, by: timedelta
) -> tuple[Schedule, datetime | None] | None:
    """The schedule and its next instant once the clock was set back ``by`` so much.

    None: both stay. What counts elapsed time goes on as if nothing had happened. Cron follows the
    clock, but a job at fixed times that has run already does not run again, unless the clock had
    been wrong by more than three hours (cron(8) of Debian). An instant that was given stays.
    """
    trigger = schedule.trigger
    anew = replace(schedule, generation=schedule.generation + 1)
    if isinstance(trigger, Cron):
        if trigger.follows_clock or by >= _LONG_SET_BACK:
            return anew, schedule.first_after(now)
        return None
    if isinstance(trigger, Once):
        if not schedule.relative:
            return None
        return replace(anew, trigger=Once(next_at - by)), next_at - by
    if isinstance(trigger, Interval) and trigger.start is None:
        return anew, next_at - by
    return anew, schedule.first_after(now)
