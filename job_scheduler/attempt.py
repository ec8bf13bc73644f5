"""A run that an engine has started, from its claim to what is told the store of its end."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.errors import SchedulerError, ShutdownError
from job_scheduler.launcher.ending import log_failure
from job_scheduler.log import tell
from job_scheduler.run import Ending, Run, RunError, RunState
from job_scheduler.stores.base import Again, Finish
from job_scheduler.stores.payload import encode_result

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from job_scheduler.stores.base import Claim
    from job_scheduler.target import Place, Target

CRASHES: Final = frozenset({"JobKilled", "JobLost", "MemoryLimitExceeded"})
"""The errors of a job whose process did not come to an end of its own."""


class Attempt:
    """A run that is started here."""

    __slots__ = ("_notice", "cancelled", "claim", "given_up", "held_until", "run", "target")

    def __init__(
        self,
        claim: Claim,
        target: Target | None,
        held_until: float,
        notice: Callable[[Attempt], None],
    ) -> None:
        self._notice = notice
        self.claim = claim
        self.target = target
        """None once its schedule was removed."""
        self.held_until = held_until
        """When the claim ends unless it is renewed, in seconds of the lease's clock."""
        self.run: Run | None = None
        """None until an executor has taken it."""
        self.cancelled = False
        self.given_up = False
        """Whether it was stopped so that it can be started again elsewhere."""

    @property
    def place(self) -> Place | None:
        return None if self.target is None else self.target.place

    @property
    def is_elsewhere(self) -> bool:
        """Whether it goes on in a fleet, whatever becomes of this program."""
        return self.place == "celery"

    @property
    def can_be_stopped(self) -> bool:
        return self.place not in (None, "thread")

    @property
    def ending(self) -> Ending:
        """How it has ended."""
        assert self.run is not None
        assert self.run._ending is not None
        return self.run._ending

    def changed(self) -> None:
        """Its run has changed."""
        self._notice(self)

    def cancel(self) -> bool:
        """Have it stopped for good."""
        self.cancelled = True
        return self.run is None or self.run.cancel()

    def give_up(self) -> bool:
        """Have it stopped here, to be started again elsewhere; False if that is not possible.

        What goes on in a fleet goes on: whoever has the run next finds it there.
        """
        self.given_up = True
        if self.run is None:
            return True
        if self.is_elsewhere and not self.run.state.ended:
            fleets: Any = self.run._owner
            return bool(fleets.let_go(self.run))
        return self.run.cancel()

    def again(self, now: datetime, most_crashes: int | None) -> Again | None:
        """Whether, when and why it is started again, now that it has ended.

        Args:
            now: what time it is.
            most_crashes: with so many it fails for good; None: crashes are failures.
        """
        claim, ending = self.claim, self.ending
        if self.given_up and ending.state is not RunState.COMPLETED:
            return Again(now, "release")
        if ending.state is not RunState.FAILED or self.cancelled:
            return None
        if ending.goes_on:
            return Again(now, "failure")
        kinds = () if ending.error is None else (ending.error.type, *ending.error.bases)
        if most_crashes is not None and self.has_crashed:
            return Again(now, "crash") if claim.crashes + 1 < most_crashes else None
        policy = claim.retry
        if policy is None and self.target is not None:
            policy = self.target.retry
        if policy is None or not policy.wants(claim.retries, kinds):
            return None
        return Again(now + policy.delay_before(claim.retries + 1), "failure")

    @property
    def has_crashed(self) -> bool:
        """Whether it has failed since its process has died."""
        error = self.ending.error
        return self.ending.state is RunState.FAILED and error is not None and error.type in CRASHES

    def hand_back(self, now: datetime) -> Finish:
        """What the store is told of a run that is let go although it goes on."""
        started_at = None if self.run is None else self.run._started_at
        ending = Ending(RunState.CANCELLED, ended_at=now.timestamp())
        return Finish(self.claim, ending, started_at, Again(now, "release"))

    def result(self) -> str | None:
        """What the job returned, as a store keeps it; None for what is not JSON."""
        load = self.ending.load_result
        if load is None:
            return None
        try:
            value = load()
            return None if value is None else encode_result(value)
        except Exception as error:
            said = "what job %r returned is not kept: %s (run %s)"
            tell(logging.INFO, said, self.claim.job, error, self.claim.run_id)
            return None


class _NoOwner:
    """Of a run that could not be started: there is nothing to ask."""

    def cancel(self, run: Run) -> bool:
        return False

    def signal(self, run: Run, number: int) -> None: ...

    def process(self, run: Run) -> Any: ...


def not_started(claim: Claim, error: BaseException) -> Run:
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


def refusal(error: BaseException) -> str:
    """An error in one line: one of ours by its text alone."""
    return str(error) if isinstance(error, SchedulerError) else f"{type(error).__name__}: {error}"
