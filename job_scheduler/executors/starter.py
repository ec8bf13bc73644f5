"""A thread that starts what may take a while to start, in order, so that nobody waits for it."""

from __future__ import annotations

import logging
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from job_scheduler.log import tell

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE_SECONDS: Final = 10.0


class Starter:
    """Calls functions one after another in a thread that is there while there are some."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._is_there = False

    def call(self, function: Callable[[], None]) -> None:
        """Have it called; what it raises is logged."""
        self._calls.put(function)
        with self._lock:
            if not self._is_there:
                self._is_there = True
                threading.Thread(
                    target=self._work, name="job_scheduler starter", daemon=True
                ).start()

    def _work(self) -> None:
        while True:
            try:
                function = self._calls.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._calls.empty():
                        self._is_there = False
                        return
                continue
            try:
                function()
            except BaseException:
                tell(logging.ERROR, "a run could not be started", exc_info=True)
            del function
