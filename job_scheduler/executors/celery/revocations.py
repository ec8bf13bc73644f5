"""What the workers are told not to start, and to stop.

They keep that in memory alone. So it is said again in each round, to those that were away, until
the task is seen to be revoked, or this program ends.
"""

from __future__ import annotations

import threading
import time
from typing import Final

_REPEATED_FOR: Final = 24 * 3600.0
"""Seconds."""


class Revocations:
    """Tasks to be revoked; from any thread."""

    def __init__(self) -> None:
        self._new: set[str] = set()
        self._repeated: dict[str, float] = {}
        self._runs: set[str] = set()
        self._lock = threading.Lock()

    def add(self, task_id: str, *, repeat: bool) -> None:
        """Have a task revoked; ``repeat`` says that it may come up at any time."""
        with self._lock:
            self._new.add(task_id)
            if repeat:
                self._repeated[task_id] = time.monotonic()

    def add_run(self, run: str) -> None:
        """Have revoked what a run was sent as, which has to be found first."""
        with self._lock:
            self._runs.add(run)

    def runs(self) -> list[str]:
        """The runs whose tasks are to be found."""
        with self._lock:
            return list(self._runs)

    def found(self, run: str, task_id: str | None) -> None:
        """The task of a run, if there is one."""
        if task_id is not None:
            self.add(task_id, repeat=True)
        with self._lock:
            self._runs.discard(run)

    def new(self) -> list[str]:
        """What was not said yet."""
        with self._lock:
            return list(self._new)

    def said(self, task_ids: list[str]) -> None:
        """The workers were told of these."""
        with self._lock:
            self._new.difference_update(task_ids)

    @property
    def has_unsaid(self) -> bool:
        """Whether there is anything that the workers were not told yet."""
        return bool(self._new or self._runs)

    def repeated(self) -> list[str]:
        """What is said in each round."""
        early = time.monotonic() - _REPEATED_FOR
        with self._lock:
            self._repeated = {each: at for each, at in self._repeated.items() if at > early}
            return list(self._repeated)

    def is_repeated(self, task_id: str) -> bool:
        """Whether it is said in each round."""
        return task_id in self._repeated

    def confirm(self, task_id: str) -> None:
        """It is known to be revoked, or to have ended."""
        with self._lock:
            self._repeated.pop(task_id, None)
