"""Word that something has changed, for whoever shows it."""

from __future__ import annotations

import asyncio
from typing import Self


class Changes:
    """Counts changes, and wakes those who wait for the next; made on the loop that waits."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Future[None] = self._loop.create_future()
        self.count = 0
        self.closed = False
        """No more changes will come; set once, when the service ends."""

    def note(self) -> None:
        """Something has changed; on the loop."""
        self.count += 1
        self._next.set_result(None)
        self._next = self._loop.create_future()

    def note_from_anywhere(self) -> None:
        """The same, from any thread."""
        self._loop.call_soon_threadsafe(self.note)

    async def after(self, count: int, seconds: float) -> int:
        """Wait until there were more changes than so many, but not for longer; tells how many."""
        if self.count <= count and not self.closed:
            await asyncio.wait([self._next], timeout=seconds)
        return self.count

    def close(self) -> Self:
        """Have everybody wait no longer."""
        self.closed = True
        self.note()
        return self
