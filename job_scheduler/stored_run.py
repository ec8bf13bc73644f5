"""The handle on a run that a store keeps: any process can have one, and it asks the store."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from job_scheduler.durations import seconds_to_wait
from job_scheduler.run import Run

if TYPE_CHECKING:
    import multiprocessing
    from datetime import datetime, timedelta

    from job_scheduler.run import RunError, RunState
    from job_scheduler.stores.base import RunRecord

_SHORTEST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.5
"""Seconds between two looks at a run that may go on elsewhere."""


class Keeper(Protocol):
    """Whoever can ask the store."""

    def look_up(self, run_id: str) -> RunRecord | None: ...

    def cancel(self, run: Run) -> bool: ...

    def signal(self, run: Run, number: int) -> None: ...

    def process(self, run: Run) -> multiprocessing.Process | None: ...

    def attempt_of(self, run_id: str) -> Run | None: ...

    def wait_for_end(self, run_id: str, seconds: float) -> None: ...


class StoredRun(Run):
    """As :class:`~job_scheduler.Run`; what it tells is what the store holds.

    It works in any process, also for runs that others have started. ``pid`` and ``process`` are
    known only where the job goes on. ``result`` is JSON: None if what the job returned is not.
    """

    __slots__ = ("_keeper", "_record")

    def __init__(self, record: RunRecord, keeper: Keeper) -> None:
        super().__init__(record.id, record.job, keeper)
        self._keeper = keeper
        self._record = record

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.name!r}: {self.state}>"

    def _look(self) -> RunRecord:
        """What the store holds; what has ended does not change, and may have been deleted."""
        if not self._record.state.ended:
            self._record = self._keeper.look_up(self.id) or self._record
        return self._record

    @property
    def state(self) -> RunState:
        return self._look().state

    @property
    def pid(self) -> int | None:
        attempt = self._keeper.attempt_of(self.id)
        return None if attempt is None else attempt.pid

    @property
    def exitcode(self) -> int | None:
        return self._look().exitcode

    @property
    def result(self) -> Any:
        text = self._look().result
        return None if text is None else json.loads(text)

    @property
    def error(self) -> RunError | None:
        return self._look().error

    @property
    def created_at(self) -> datetime:
        return self._record.created_at or super().created_at

    @property
    def started_at(self) -> datetime | None:
        return self._look().started_at

    @property
    def ended_at(self) -> datetime | None:
        return self._look().ended_at

    @property
    def peak_memory(self) -> int | None:
        return self._look().peak_memory

    @property
    def cpu_time(self) -> float | None:
        return self._look().cpu_time

    @property
    def stderr(self) -> str:
        return self._look().stderr

    @property
    def process(self) -> multiprocessing.Process | None:
        return self._keeper.process(self)

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        seconds = None if timeout is None else seconds_to_wait(timeout)
        if self._look().state.ended:
            return True
        self._check_may_wait(seconds)
        deadline = None if seconds is None else time.monotonic() + seconds
        pause = _SHORTEST_PAUSE
        while not self._look().state.ended:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._keeper.wait_for_end(self.id, pause if left is None else min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def cancel(self) -> bool:
        return not self._look().state.ended and self._keeper.cancel(self)
