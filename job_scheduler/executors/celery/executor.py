"""Runs jobs on the workers of Celery, by way of their applications."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.errors import ShutdownError
from job_scheduler.executors.celery.checking import check_task
from job_scheduler.executors.celery.fleet import Fleet
from job_scheduler.executors.celery.flight import Flight
from job_scheduler.launcher.base import Settings, wait_at_exit
from job_scheduler.log import tell
from job_scheduler.run import Run, RunId

if TYPE_CHECKING:
    from job_scheduler.target import Target

_BETWEEN_LOOKS: Final = 0.01
"""Seconds, at the program's exit, until it is looked again whether all is sent."""

_TO_REVOKE: Final = 5.0
"""Seconds for which the program's exit tries to tell workers what was cancelled."""


_PATIENCE: Final = 1.0
"""Seconds after which the user is told what the exit waits for."""


class CeleryExecutor:
    """Sends each run to the application that its task belongs to."""

    def __init__(self, settings: Settings) -> None:
        self._grace = settings.grace
        self._fleets: dict[Any, Fleet] = {}
        self._lock = threading.Lock()
        self._closed = False
        prefix = os.urandom(10).hex()
        self._ids = map(f"{prefix}-{{}}".format, itertools.count(1))
        self._at_exit = _Unsent(self)
        wait_at_exit(self._at_exit, settings)

    def submit(
        self,
        name: str,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
        run_id: RunId | None = None,
    ) -> Run:
        """Accept a run; it is sent as soon as the broker takes it.

        Raises ``ArgumentsError`` for arguments that are not JSON, and ``InvalidOptionError`` for an
        application whose settings do not do.
        """
        if self._closed:
            raise ShutdownError(f"job {name!r} was not accepted: the scheduler was shut down")
        check_task(target.what)
        fleet = self._fleet_of(target.what.app)
        sent_as = run_id or RunId(next(self._ids))
        run = Run(str(sent_as), name, self)
        fleet.take(Flight(run, sent_as, target.what, args, kwargs, timeout))
        return run

    def _fleet_of(self, app: Any) -> Fleet:
        with self._lock:
            fleet = self._fleets.get(app)
            if fleet is None:
                fleet = self._fleets[app] = Fleet(app, self._grace)
            return fleet

    def pending(self) -> list[Run]:
        """The runs that have not ended."""
        return [run for fleet in tuple(self._fleets.values()) for run in fleet.pending()]

    @property
    def has_unsent(self) -> bool:
        """Whether any run is not in its fleet yet."""
        return any(fleet.unsent() for fleet in tuple(self._fleets.values()))

    @property
    def has_unsaid(self) -> bool:
        """Whether any worker may begin with what was cancelled."""
        return any(fleet.unsaid() for fleet in tuple(self._fleets.values()))

    def cancel(self, run: Run) -> bool:
        """Revoke the run's task."""
        return any(fleet.cancel(run) for fleet in tuple(self._fleets.values()))

    def let_go(self, run: Run) -> bool:
        """Follow a run no longer; what is in the fleet stays there."""
        return any(fleet.let_go(run) for fleet in tuple(self._fleets.values()))

    def revoke_left(self, target: Target, run: str) -> None:
        """Revoke the task of a run that nobody follows, if there is one."""
        self._fleet_of(target.what.app).revoke_left(run)

    def signal(self, run: Run, number: int) -> None:
        """Its process is on another machine."""

    def process(self, run: Run) -> None:
        """Its process is on another machine."""

    def close(self) -> None:
        """Take no more runs; what was accepted is sent."""
        self._closed = True
        for fleet in tuple(self._fleets.values()):
            fleet.close()


class _Unsent:
    """What the interpreter's exit waits for: that all is sent or revoked, not that it has ended."""

    def __init__(self, executor: CeleryExecutor) -> None:
        self._executor = executor

    def pending(self) -> list[_Unsent]:
        return [self] if self._executor.has_unsent or self._executor.has_unsaid else []

    def wait(self) -> None:
        told_at = time.monotonic() + _PATIENCE
        while self._executor.has_unsent:
            time.sleep(_BETWEEN_LOOKS)
            if time.monotonic() > told_at:
                told_at = math.inf
                said = "the program's end waits until all runs are sent to Celery's broker"
                tell(logging.WARNING, said)
        deadline = time.monotonic() + _TO_REVOKE
        while self._executor.has_unsaid and time.monotonic() < deadline:
            time.sleep(_BETWEEN_LOOKS)

    def close(self) -> None:
        self._executor.close()
