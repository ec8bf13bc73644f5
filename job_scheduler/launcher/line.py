"""One zygote, as the program sees it: the two sockets to it, and asking it for something."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import select
import signal
import socket
import threading
import time
import weakref
from typing import Any, Final

from job_scheduler.errors import LaunchError
from job_scheduler.launcher import wire
from job_scheduler.launcher.quick_send import send_keeping_gil

_SEND_PATIENCE: Final = 10.0
"""Seconds for which a zygote may take no requests before a sender gives up."""

Answer = tuple[Any, bytes]
"""A report that answers a request, and its payload."""


class ZygoteDiedError(Exception):
    """The zygote has died while something was asked of it."""


class Line:
    """A zygote's pid, the two sockets to it, and what is known of it.

    Whoever sends holds a reference to the line, and the sockets are closed with the last one,
    so that no send can hit a descriptor that has been closed and given to something else.
    """

    def __init__(self, control: socket.socket, reports: socket.socket) -> None:
        self.control = control
        self.reports = reports
        self.pid = 0
        self.pidfd = -1
        """Becomes readable when the zygote has died; -1 where the kernel has none."""
        self.threads = 0
        """Python threads that imported modules have started in the zygote."""
        self.loaded: set[int] = set()
        """Ids of the classes that this zygote has imported."""
        self.main_loaded = False
        self.left = False
        """Whether it was told to hand its runs back, since modules have started threads in it."""
        self.buried = False
        """Whether its runs have been seen to; what is sent from then on is lost."""
        self.reader: threading.Thread | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, queue.SimpleQueue[Answer | None]] = {}
        self._dead = False
        _lines.add(self)

    def close(self) -> None:
        self.control.close()
        self.reports.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    __del__ = close

    def set_pid(self, pid: int) -> None:
        self.pid = pid
        with contextlib.suppress(AttributeError, OSError):
            self.pidfd = os.pidfd_open(pid)

    def kill(self) -> None:
        """End the zygote at once, if it is known and alive."""
        with contextlib.suppress(ProcessLookupError):
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            elif self.pid:
                os.kill(self.pid, signal.SIGKILL)

    def send(self, packet: bytes, attachment: bytes | None = None) -> None:
        """Send one packet; waits while the zygote is busy, but not for ever."""
        if attachment is None and send_keeping_gil(self.control.fileno(), packet):
            return
        try:
            wire.send(self.control, packet, attachment, socket.MSG_DONTWAIT)
            return
        except BlockingIOError:
            pass
        poll = select.poll()
        poll.register(self.control, select.POLLOUT)
        deadline = time.monotonic() + _SEND_PATIENCE
        while time.monotonic() < deadline:
            poll.poll(1000)
            with contextlib.suppress(BlockingIOError):
                wire.send(self.control, packet, attachment, socket.MSG_DONTWAIT)
                return
        raise LaunchError(
            f"the launching process {self.pid} has taken no request for {_SEND_PATIENCE:g} s"
        )

    def tell(self, *request: Any) -> None:
        """Send a request that needs no answer; one to a dead zygote is dropped."""
        with contextlib.suppress(ConnectionError):
            self.send(*wire.pack(*request))

    # Questions: each has a number, since a signal handler may ask while its thread waits

    def ask(self, timeout: float, kind: int, *content: Any) -> Answer:
        """Send a request and wait for its answer.

        Raises ``queue.Empty`` after ``timeout`` seconds, ``ZygoteDiedError`` if none will come.
        """
        number = next(self._numbers)
        answers = self._asked[number] = queue.SimpleQueue()
        try:
            if self._dead:
                raise ZygoteDiedError
            self.tell(kind, number, *content)
            answer = answers.get(timeout=timeout)
        finally:
            del self._asked[number]
        if answer is None:
            raise ZygoteDiedError
        return answer

    def take_answer(self, number: int, answer: Answer) -> None:
        """Give an answer to who waits for it, if that has not been interrupted."""
        answers = self._asked.get(number)
        if answers is not None:
            answers.put(answer)

    def take_death(self) -> None:
        """No more answers will come."""
        self._dead = True
        for answers in tuple(self._asked.values()):
            answers.put(None)


_lines: weakref.WeakSet[Line] = weakref.WeakSet()


def _close_all_after_fork() -> None:
    """A forked child must not hold the parent's sockets."""
    for line in tuple(_lines):
        line.close()


os.register_at_fork(after_in_child=_close_all_after_fork)
