"""The zygote's reports on their way to the program, which may be slow, stopped or gone."""

from __future__ import annotations

import _socket
import marshal
import select
import time

from job_scheduler.launcher import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import Any
else:
    from _collections import deque


RETRY_SECONDS = 0.05
"""Seconds after which something that the system had no room for is tried again."""


class Outbox:
    """Sends reports in order and never blocks; keeps what cannot be sent yet."""

    def __init__(self, reports: _socket.socket) -> None:
        self._reports = reports
        self.waiting: deque[tuple[bytes, str]] = deque()
        self.starved = False
        """Whether the system lacks memory for a report: try again later."""

    @property
    def descriptor(self) -> int:
        """What to poll for while something waits."""
        return self._reports.fileno()

    def add(self, *header: Any, payload: bytes = b"", complaint: str = "") -> None:
        """Put a report at the end, with what shall stand on stderr if nobody can take it."""
        self.waiting.append((marshal.dumps((*header, payload)), complaint))

    def flush(self) -> str:
        """Send what can be sent; returns the complaints of what can never be."""
        complaints = ""
        self.starved = False
        while self.waiting:
            packet, complaint = self.waiting[0]
            try:
                wire.send(self._reports, packet, None, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionError:  # nobody is at the other end any more
                complaints += complaint
            except OSError:
                self.starved = True
                break
            self.waiting.popleft()
        return complaints

    def finish(self) -> str:
        """Wait until the program has taken everything or is gone."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        complaints = self.flush()
        while self.waiting:
            if self.starved:
                time.sleep(RETRY_SECONDS)
            poll.poll()
            complaints += self.flush()
        return complaints
