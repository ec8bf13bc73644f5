"""The runs that go on here: from their claim to what the store is told of their end."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from job_scheduler.attempt import Attempt, not_started
from job_scheduler.errors import SchedulerError, ShutdownError, UnknownJobError
from job_scheduler.executors.starter import Starter
from job_scheduler.run import RunId, RunState
from job_scheduler.stores.base import Finish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from job_scheduler.executors.base import Executor
    from job_scheduler.known import KnownJobs
    from job_scheduler.leases import LeaseSettings
    from job_scheduler.run import Run
    from job_scheduler.stores.base import Claim, Finished
    from job_scheduler.target import Place, Target


class Observer(Protocol):
    """Whoever wants to know what becomes of runs; called by any thread, so it must be quick."""

    def started(self, claim: Claim, run: Run) -> None:
        """An attempt has started."""

    def ended(self, claim: Claim, run: Run, again: bool) -> None:
        """An attempt has ended, and whether there will be another."""


Ends = list[tuple[Finish, Attempt]]


class Going:
    """Starts runs on executors, and knows which of them go on or have ended.

    Args:
        executors: gives the executor for a place.
        known: the jobs that are found by name; None: each comes with what it runs, in ``targets``.
        leases: how claims are kept; None: they hold for ever.
        observer: told when runs start and end here.
        wake: called when a run has ended, by any thread.
    """

    def __init__(
        self,
        executors: Callable[[Place], Executor],
        known: KnownJobs | None,
        leases: LeaseSettings | None,
        observer: Observer | None,
        wake: Callable[[], None],
    ) -> None:
        self.open_executor = executors
        self.observer = observer
        self.targets: dict[str, Target] = {}
        """What runs and schedules run, by their ids."""
        self.running: dict[str, Attempt] = {}
        self.elsewhere: set[str] = set()
        """The ids of those of them that go on in a fleet."""
        self.ended: deque[Attempt] = deque()
        """Those of them that have ended and are not recorded."""
        self._known = known
        self._leases = leases
        self._wake = wake
        self._executors: dict[Place, Executor] = {}
        self._starter = Starter()

    def begin(self) -> None:
        """Forget the executors of an earlier start: they are closed, or on another loop."""
        self._executors.clear()

    def attempts(self) -> list[Attempt]:
        """What goes on here; from any thread."""
        return list(self.running.values())

    def start(self, claim: Claim, claimed_at: float, *, hand_back: bool) -> Place | None:
        """Have a run started; tells where.

        Args:
            claim: of the run.
            claimed_at: when it was asked for, in seconds of the lease's clock.
            hand_back: do not start it, but let the store have it back.
        """
        try:
            target, refused = self._target_of(claim), None
        except SchedulerError as error:  # it is not known any more, or cannot be run as it is now
            target, refused = None, error
        lease = 0.0 if self._leases is None else self._leases.lease
        attempt = Attempt(claim, target, claimed_at + lease, self.notice)
        before = self.running.get(claim.run_id)
        if before is not None:  # it was replaced, or given to others who have left it, too
            before.give_up()
        attempt.given_up = hand_back
        self._add(attempt)
        if refused is not None:
            self._refuse(attempt, refused)
        elif attempt.place in ("process", "celery"):
            self._starter.call(lambda: self._submit(attempt))
        else:
            self._submit(attempt)
        return attempt.place

    def _add(self, attempt: Attempt) -> None:
        run_id = attempt.claim.run_id
        self.running[run_id] = attempt
        if attempt.is_elsewhere:
            self.elsewhere.add(run_id)
        else:
            self.elsewhere.discard(run_id)

    def _refuse(self, attempt: Attempt, error: SchedulerError) -> None:
        """End a run that cannot be started here; one of an unknown job is left to others."""
        attempt.given_up = isinstance(error, UnknownJobError)
        attempt.run = not_started(attempt.claim, ShutdownError() if attempt.given_up else error)
        self.notice(attempt)

    def _target_of(self, claim: Claim) -> Target | None:
        if self._known is not None:
            return self._known.target(claim.job, claim.place)
        target = self.targets.get(claim.run_id)
        if target is None and claim.schedule is not None:
            target = self.targets.get(claim.schedule.id)
        return target

    def _submit(self, attempt: Attempt) -> None:
        """Give a run to its executor."""
        claim, target = attempt.claim, attempt.target
        try:
            if target is None or attempt.cancelled or attempt.given_up:
                raise ShutdownError("it was taken off the plan")
            timeout = target.timeout if claim.timeout is None else claim.timeout
            executor = self._executors.get(target.place)
            if executor is None:
                executor = self._executors[target.place] = self.open_executor(target.place)
            is_kept = self._leases is not None
            run_id = RunId(claim.run_id, claim.attempt, claim.token, is_kept)
            run = executor.submit(claim.job, target, claim.args, claim.kwargs, timeout, run_id)
        except BaseException as error:
            if isinstance(error, ShutdownError) and target is not None and not attempt.cancelled:
                attempt.given_up |= self._leases is not None  # others can start it
            run = not_started(claim, error)
        attempt.run = run
        if attempt.cancelled:
            run.cancel()
        elif attempt.given_up:
            attempt.give_up()
        run._when_changed(attempt.changed)

    def revoke_left(self, target: Target, run_id: str) -> None:
        """Have a fleet give up what it may have of a cancelled run that waited for a worker."""
        fleets: Any = self.open_executor("celery")
        self._starter.call(lambda: fleets.revoke_left(target, run_id))

    def notice(self, attempt: Attempt) -> None:
        """A run has changed; called in whatever thread it is that changes it."""
        run = attempt.run
        assert run is not None
        state = run._state
        if state is RunState.RUNNING:
            if self.observer is not None:
                self.observer.started(attempt.claim, run)
        elif state is not RunState.PENDING:
            self.ended.append(attempt)
            self._wake()

    def take_ended(self, now: datetime, *, retries: bool, keeps_results: bool) -> Ends:
        """What has ended and is not recorded.

        Args:
            now: what time it is.
            retries: whether what has failed may be tried again.
            keeps_results: whether the store wants to have them.
        """
        ends: Ends = []
        while self.ended:
            attempt = self.ended.popleft()
            # It may have told so twice, and perhaps the next attempt goes on already.
            if self.running.get(attempt.claim.run_id) is attempt:
                finish = _finish_of(attempt, now, self._leases, retries, keeps_results)
                ends.append((finish, attempt))
                del self.running[attempt.claim.run_id]
                self.elsewhere.discard(attempt.claim.run_id)
        return ends

    def put_back(self, ends: Ends) -> None:
        """They could not be recorded, and are to be told again."""
        for _, attempt in ends:
            self._add(attempt)
            self.ended.append(attempt)

    def tell(self, ends: Ends, finished: Sequence[Finished | None]) -> None:
        """They are recorded: tell who wants to know."""
        for (finish, attempt), held in zip(ends, finished, strict=True):
            again = held is not None and held.again
            if not again:
                self.targets.pop(finish.claim.run_id, None)
            if self.observer is not None and attempt.run is not None:
                self.observer.ended(finish.claim, attempt.run, again)


def _finish_of(
    attempt: Attempt,
    now: datetime,
    leases: LeaseSettings | None,
    retries: bool,
    keeps_results: bool,
) -> Finish:
    claim = attempt.claim
    most_crashes = None if leases is None else leases.most_crashes
    again = next_at = None
    if retries:
        again = attempt.again(now, most_crashes)
    if claim.schedule is not None and claim.schedule.counts_from_end and again is None:
        next_at = claim.schedule.first_after(now)
    started_at = None if attempt.run is None else attempt.run._started_at
    result = attempt.result() if keeps_results else None
    is_crash = again is None and most_crashes is not None and attempt.has_crashed
    return Finish(claim, attempt.ending, started_at, again, next_at, result, is_crash)
