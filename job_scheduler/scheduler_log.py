"""What the engine tells its log, beside what an executor tells of a failure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from job_scheduler.schedule import Missed, Plan, Schedule
    from job_scheduler.stores.base import Finish

logger: Final = logging.getLogger("job_scheduler")


def log_missed(schedule: Schedule, decision: Plan) -> None:
    """Tell of the instants that are skipped."""
    for gap in decision.missed:
        logger.warning("schedule %r: %s", schedule.id, describe_gap(gap))


_WHY: Final = {
    "late": "too late",
    "coalesced": "made up for by one later run",
    "overlap": "the run before goes on",
    "too many": "more than are made up for",
    "paused": "the schedule was paused",
}


def describe_gap(gap: Missed) -> str:
    """``2 instants were skipped, 09:00 to 09:05: the run before goes on``."""
    why = _WHY[gap.reason]
    if gap.number == 1:
        return f"the instant {gap.first} was skipped: {why}"
    number = "more than 100,000" if gap.number is None else gap.number
    return f"{number} instants were skipped, {gap.first} to {gap.last}: {why}"


def log_end(finish: Finish) -> None:
    """Tell how a run has ended, if anybody listens, and that it is tried again."""
    claim = finish.claim
    if finish.retry_at is not None:
        logger.warning(
            "job %r: attempt %d has failed, the next is at %s (run %s)",
            claim.job,
            claim.attempt,
            finish.retry_at,
            claim.run_id,
        )
    elif logger.isEnabledFor(logging.INFO):
        took = ""
        if finish.started_at is not None and finish.ending.ended_at is not None:
            took = f" after {max(0.0, finish.ending.ended_at - finish.started_at):.3f} s"
        logger.info("job %r %s%s (run %s)", claim.job, finish.ending.state, took, claim.run_id)
