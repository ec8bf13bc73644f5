"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class LoopThread:
    """A daemon thread that runs an event loop until it is told to stop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="job_scheduler loop", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    @property
    def is_current(self) -> bool:
        """Whether the caller is on this loop."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """Stop the loop once its turn is over; harmless twice."""
        with contextlib.suppress(RuntimeError):  # it is closed already
            self.loop.call_soon_threadsafe(self.loop.stop)
