"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_SECONDS: Final = 0.1


async def _end_other_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class LoopThread:
    """A daemon thread that runs an event loop until it is told to stop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="job_scheduler loop", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(_end_other_tasks())
        finally:
            self.loop.close()

    @property
    def is_current(self) -> bool:
        """Whether the caller is on this loop."""
        return threading.current_thread() is self._thread

    def stop_once(self, is_idle: Callable[[], bool]) -> None:
        """Stop the loop as soon as it has nothing to do any more; harmless twice."""
        with contextlib.suppress(RuntimeError):  # it is closed already
            self.loop.call_soon_threadsafe(self._stop_once, is_idle)

    def _stop_once(self, is_idle: Callable[[], bool]) -> None:
        if is_idle():
            self.loop.stop()
        else:
            self.loop.call_later(_LOOK_SECONDS, self._stop_once, is_idle)
