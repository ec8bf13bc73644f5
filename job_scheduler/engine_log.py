"""What the engine tells its log, beside what an executor tells of a failure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from job_scheduler.log import logger, tell

if TYPE_CHECKING:
    from job_scheduler.schedule import Missed, Schedule
    from job_scheduler.stores.base import Claim, Finish, Rescued


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
    if again and finish.again is not None:
        said = {
            "failure": "job %r: attempt %d has failed, the next is at %s (run %s)",
            "crash": "job %r: attempt %d has crashed, the next is at %s (run %s)",
            "release": "job %r: attempt %d is handed back at %s (run %s)",
        }[finish.again.reason]
        tell(logging.WARNING, said, claim.job, claim.attempt, finish.again.at, claim.run_id)
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


def log_lost_lease(claim: Claim, why: str, what: str) -> None:
    """Tell why this worker gives up a run that goes on, and what becomes of it."""
    said = "job %r: %s, so %s (run %s)"
    tell(logging.WARNING, said, claim.job, why, what, claim.run_id)


def log_rescued(rescued: Rescued, most_crashes: int) -> None:
    """Tell that a run was found whose worker is no more."""
    said = "job %r was left by its worker, crash %d of %d: %s (run %s)"
    becomes = {
        "pending": "it is started again",
        "failed": "it has failed for good",
        "cancelled": "it was to be cancelled, and is",
    }[rescued.state]
    level = logging.ERROR if rescued.state == "failed" else logging.WARNING
    tell(level, said, rescued.job, rescued.crashes, most_crashes, becomes, rescued.run_id)


def log_unknown(job: str, number: int) -> None:
    """Tell of due runs that this worker leaves to others."""
    said = "%s of job %r due, but this worker does not know that job: left for one that does"
    tell(logging.WARNING, said, "1 run is" if number == 1 else f"{number:,} runs are", job)


def log_not_recorded(claim: Claim) -> None:
    """Tell that a run's end did not count, since its claim did not hold any more."""
    said = "job %r has ended, but its claim did not hold any more: that end does not count (run %s)"
    tell(logging.WARNING, said, claim.job, claim.run_id)
