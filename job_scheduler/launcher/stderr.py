"""What jobs write to their standard error: kept as a tail, and passed on live."""

from __future__ import annotations

import _socket
import os
import select
import stat
import time

TAIL_SIZE = 64 * 1024
"""Bytes of a job's stderr that are kept."""

READ_SIZE = 64 * 1024
"""Bytes read at a time: what a pipe holds, so that one read empties it."""

_MOST_PENDING = 1024 * 1024
_FINISH_SECONDS = 1.0


class Tail:
    """The last bytes of a stream."""

    __slots__ = ("_data", "_dropped")

    def __init__(self) -> None:
        self._data = b""
        self._dropped = 0

    def add(self, data: bytes) -> None:
        joined = self._data + data if self._data else data
        self._dropped += max(0, len(joined) - TAIL_SIZE)
        self._data = joined[-TAIL_SIZE:]

    def bytes(self) -> bytes:
        """The tail, after a line that says how much came before it, if anything did."""
        if not self._dropped:
            return self._data
        return b"[%d bytes before these were not kept]\n" % self._dropped + self._data


class Sink:
    """The program's stderr, written to without ever blocking.

    While it is full, the caller is expected to read no more from the jobs (so they wait, as if
    they wrote to it directly). What must be taken all the same is held back up to 1 MB.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._socket: _socket.socket | None = None
        self.pending = b""
        """What waits until the program's stderr takes more."""
        self.watched = False
        """Whether the zygote waits for that."""
        self._dropped = 0
        self._open = True
        self._must_ask = False
        self._open_for_non_blocking_writes()

    def _open_for_non_blocking_writes(self) -> None:
        """Get a file description of our own: O_NONBLOCK on the inherited one is the program's."""
        try:
            mode = os.fstat(self.descriptor).st_mode
        except OSError:
            self._open = False
            return
        if stat.S_ISSOCK(mode):
            self._socket = _socket.socket(fileno=os.dup(self.descriptor))
            self.descriptor = self._socket.fileno()
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            try:
                self.descriptor = os.open(
                    f"/proc/self/fd/{self.descriptor}",
                    os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
                )
            except OSError:
                self._must_ask = True  # another user's terminal: ask before each small write

    @property
    def own(self) -> int:
        """The descriptor that a child has no use for; -1 if it is the plain stderr."""
        return self.descriptor if self.descriptor != 2 else -1

    def write(self, data: bytes) -> None:
        """Pass on as much as fits, hold the rest back."""
        room = _MOST_PENDING - len(self.pending)
        self._dropped += max(0, len(data) - room)
        self.pending += data[:room]
        self.flush()

    def flush(self) -> None:
        """Pass on what was held back, as far as it fits now."""
        while self.pending and self._open:
            try:
                written = self._write_some()
            except BlockingIOError:
                return
            except OSError:
                self._open = False
                break
            self.pending = self.pending[written:]
            if not self.pending and self._dropped:
                self.pending = b"\n[%d bytes of the jobs' stderr dropped]\n" % self._dropped
                self._dropped = 0
        if not self._open:
            self.pending = b""

    def finish(self) -> None:
        """Give a slow reader a last moment before the end."""
        deadline = time.monotonic() + _FINISH_SECONDS
        while self.pending and time.monotonic() < deadline:
            self._ready(timeout=50)
            self.flush()

    def close(self) -> None:
        """Give up the descriptor, if it is our own."""
        if self._socket is not None:
            self._socket.close()
        elif self.own >= 0:
            os.close(self.own)

    def _write_some(self) -> int:
        if self._socket is not None:
            return self._socket.send(self.pending, _socket.MSG_DONTWAIT)
        if not self._must_ask:
            return os.write(self.descriptor, self.pending)
        if not self._ready(timeout=0):
            raise BlockingIOError
        return os.write(self.descriptor, self.pending[: select.PIPE_BUF])

    def _ready(self, timeout: int) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        return bool(poll.poll(timeout))
