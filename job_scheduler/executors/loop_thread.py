"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import selectors
import threading
from typing import TYPE_CHECKING, Final

from job_scheduler.log import tell
from job_scheduler.run import forbid_waiting

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_SECONDS: Final = 0.1

_MOST_SELECTED: Final = 1024
"""Descriptors from this number on are refused by ``select``."""


class LoopThread:
    """A daemon thread that runs an event loop until it is told to stop, whatever jobs do to it."""

    def __init__(self) -> None:
        self.loop = _precise_loop()
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="job_scheduler loop", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        forbid_waiting("it would stop the loop that the job runs on: await asyncio.to_thread(...)")
        try:
            while not self._stopping:
                try:
                    self.loop.run_forever()
                except BaseException:
                    said = "a job has stopped the event loop of all jobs; it goes on"
                    tell(logging.ERROR, said, exc_info=True)
            self.loop.run_until_complete(_end_other_tasks())
        finally:
            self.loop.close()

    @property
    def is_current(self) -> bool:
        """Whether the caller is on this loop."""
        return threading.current_thread() is self._thread

    @property
    def is_alive(self) -> bool:
        """Whether the loop is there."""
        return self._thread.is_alive()

    def stop_once(self, is_idle: Callable[[], bool]) -> None:
        """Stop the loop as soon as it has nothing to do any more; harmless twice."""
        with contextlib.suppress(RuntimeError):  # it is closed already
            self.loop.call_soon_threadsafe(self._stop_once, is_idle)

    def _stop_once(self, is_idle: Callable[[], bool]) -> None:
        if self._stopping:
            return
        if is_idle():
            self._stopping = True
            self.loop.stop()
        else:
            self.loop.call_later(_LOOK_SECONDS, self._stop_once, is_idle)


async def _end_other_tasks() -> None:
    await asyncio.sleep(0)  # what was asked for just now has begun
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def _precise_loop() -> asyncio.AbstractEventLoop:
    """A loop that wakes within microseconds, where the system can; others do within one or two ms.

    ``epoll`` counts in milliseconds, and ``select`` does not: so it is that which waits for the
    ``epoll``.
    """
    if not hasattr(selectors, "EpollSelector"):
        return asyncio.new_event_loop()

    class PreciseSelector(selectors.EpollSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0 and self.fileno() < _MOST_SELECTED:
                select.select([self.fileno()], (), (), timeout)
                timeout = 0
            return super().select(timeout)

    return asyncio.SelectorEventLoop(PreciseSelector())
