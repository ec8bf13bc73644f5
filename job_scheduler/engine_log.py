"""What the engine tells its log, beside what an executor tells of a failure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from job_scheduler.log import logger, tell

if TYPE_CHECKING:
    from job_scheduler.schedule import Missed, Schedule
    from job_scheduler.stores.base import Finish


def log_gap(schedule: Schedule, gap: Missed) -> None:
    """Tell of instants that are skipped."""
    tell(logging.WARNING, "schedule %r: %s", schedule.id, describe_gap(gap))


_WHY: Final = {
    "late": "too late",
    "coalesced": "made up for by one later run",
    "overlap": "the run before has not ended",
    "too many": "more than are made up for",
    "paused": "the schedule was paused",
}


def describe_gap(gap: Missed) -> str:
    """``2 instants were skipped, 09:00 to 09:05: the run before goes on``."""
    why = _WHY[gap.reason]
    if gap.number == 1:
        return f"the instant {gap.first} was skipped: {why}"
    number = "more than 100,000" if gap.number is None else f"{gap.number:,}"
    return f"{number} instants were skipped, {gap.first} to {gap.last}: {why}"


def log_end(finish: Finish, again: bool) -> None:
    """Tell how a run has ended, if anybody listens, and whether it is tried again."""
    claim = finish.claim
    if again:
        tell(
            logging.WARNING,
            "job %r: attempt %d has failed, the next is at %s (run %s)",
            claim.job,
            claim.attempt,
            None if finish.again is None else finish.again.at,
            claim.run_id,
        )
    elif logger.isEnabledFor(logging.INFO):
        took = ""
        if finish.started_at is not None and finish.ending.ended_at is not None:
            took = f" after {max(0.0, finish.ending.ended_at - finish.started_at):.3f} s"
        said = "job %r %s%s (run %s)"
        tell(logging.INFO, said, claim.job, finish.ending.state, took, claim.run_id)


def log_held_up(seconds: float, jobs: list[str]) -> None:
    """Tell that the event loop stood still, and who may have done it."""
    named = ", ".join(repr(job) for job in dict.fromkeys(jobs)) or "none of the jobs"
    said = (
        "the event loop stood still for %.1f s; on it: %s. What computes there, or waits without "
    )
    tell(logging.WARNING, f"{said}await, holds up all schedules", seconds, named)


def log_waiting(jobs: list[str]) -> None:
    """Tell that runs wait for a thread."""
    said = (
        "all threads are busy, so %s for more than a second: give JobScheduler more max_threads, "
        "or long work a process() of its own"
    )
    who = f"{jobs[0]!r} waits" if len(jobs) == 1 else f"{jobs[0]!r} and {len(jobs) - 1:,} more wait"
    tell(logging.WARNING, said, who)
