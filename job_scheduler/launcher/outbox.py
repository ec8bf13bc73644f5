"""The zygote's reports on their way to the program, which may be slow, stopped or gone."""

from __future__ import annotations

import _socket
import os
import select

from job_scheduler.launcher import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import Any
else:
    from _collections import deque


class Outbox:
    """Sends reports in order and never blocks; keeps what the program does not take yet."""

    def __init__(self, reports: _socket.socket) -> None:
        self._reports = reports
        self.waiting: deque[tuple[bytes, int | None, str]] = deque()

    @property
    def descriptor(self) -> int:
        """What to poll for while something waits."""
        return self._reports.fileno()

    def add(self, *header: Any, payload: bytes = b"", complaint: str = "") -> None:
        """Put a report at the end, with what shall stand on stderr if nobody can take it."""
        self.waiting.append((*wire.pack(*header, payload=payload), complaint))

    def flush(self) -> str:
        """Send what can be sent; returns the complaints of what can never be."""
        complaints = ""
        while self.waiting:
            packet, memory_file, complaint = self.waiting[0]
            try:
                wire.send(self._reports, packet, memory_file, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                complaints += complaint
            self.waiting.popleft()
            if memory_file is not None:
                os.close(memory_file)
        return complaints

    def finish(self) -> str:
        """Wait until the program has taken everything or is gone."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        complaints = self.flush()
        while self.waiting:
            poll.poll()
            complaints += self.flush()
        return complaints
