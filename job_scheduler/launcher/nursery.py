"""Where the zygote's children come from: forked with a job, or ahead of one.

What a process touches between two forks is copied by the kernel, page by page, at one or two
µs each. So everything is prepared first, then as many as are needed are forked in a row with
next to nothing in between, and the books are kept after.

A spare is forked while there is nothing else to do. It rehearses, which copies the pages that
a job will touch, and then waits for its one job, which starts without a fork. How many there
are follows the load: a job that finds none makes it more, a long quiet time fewer.
"""

from __future__ import annotations

import _socket
import gc
import os
import time

from job_scheduler.launcher import wire
from job_scheduler.launcher.child import fork_child
from job_scheduler.launcher.children import Child, Children
from job_scheduler.launcher.naming import NAMING
from job_scheduler.launcher.queue import Queue, Waiting
from job_scheduler.launcher.works import order, rehearsal, works_of_one, works_of_spare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from job_scheduler.launcher.works import Work

_REFUSAL_SECONDS = 5.0
"""After the system has refused a spare it is not asked for one for so long."""


class _Birth:
    """What one fork needs, made before it."""

    __slots__ = ("kept", "name", "orders", "orders_end", "pid", "stderr", "stderr_end", "works")

    def __init__(self) -> None:
        self.name = ""
        self.works: Iterable[Work] = ()
        self.kept: int | None = None
        """The one among the descriptors to be closed that this child needs."""
        self.orders: _socket.socket | None = None
        self.orders_end: _socket.socket | None = None
        self.pid = 0
        self.stderr, self.stderr_end = os.pipe()
        os.set_blocking(self.stderr, False)

    def descriptors(self) -> list[int]:
        ends = [self.stderr, self.stderr_end]
        if self.orders is not None and self.orders_end is not None:
            ends += [self.orders.fileno(), self.orders_end.fileno()]
        return ends

    def close(self) -> None:
        """Close the child's ends; if there is no child, ours too."""
        os.close(self.stderr_end)
        if self.orders_end is not None:
            self.orders_end.close()
        if not self.pid:
            os.close(self.stderr)
            if self.orders is not None:
                self.orders.close()


class Nursery:
    """Forks children, and keeps the spares."""

    def __init__(
        self,
        queue: Queue,
        children: Children,
        reports: _socket.socket,
        own_descriptors: list[int],
        captured: tuple[int, ...],
        most_spares: int,
        spare_seconds: float,
    ) -> None:
        self._queue = queue
        self._children = children
        self._reports = reports
        self._own_descriptors = own_descriptors
        self._captured = captured
        self._most_spares = most_spares
        self._spare_seconds = spare_seconds
        self._wanted = min(1, most_spares)
        self._spares: list[Child] = []
        self._last_start = time.monotonic()
        self._refused_until = 0.0
        self._pid = os.getpid()
        self.descriptor_limits: tuple[int, int] | None = None
        """What jobs may have, if this process allows itself more."""

    # Children with a job

    def start(self, waiting: list[Waiting]) -> tuple[list[Child], OSError | None]:
        """Start these runs; returns their processes, in order, and why there are not more."""
        started = []
        for each in waiting:
            spare = self._hand_over(each)
            if spare is None:
                break
            started.append(spare)
        self._last_start = time.monotonic()
        left = waiting[len(started) :]
        if not left:
            return started, None
        self._wanted = min(self._wanted + len(left), self._most_spares)
        forked, refusal = self._fork(left)
        for child, each in zip(forked, left, strict=False):
            self._children.employ(child, each)
        return started + forked, refusal

    def _hand_over(self, waiting: Waiting) -> Child | None:
        """Give the run to a spare; None if there is none."""
        while self._spares:
            spare = self._spares.pop()
            assert spare.orders is not None
            try:
                memory_file = waiting.assignment.memory_file
                wire.pass_on(spare.orders, order(waiting), memory_file, _socket.MSG_DONTWAIT)
            except ConnectionError:  # it has been killed; its end will be seen
                spare.dismiss()
                self._refused_until = time.monotonic() + _REFUSAL_SECONDS
                continue
            except OSError:  # the system lacks memory for the packet
                self._spares.append(spare)
                return None
            spare.dismiss()
            self._children.employ(spare, waiting)
            return spare
        return None

    # Spares

    @property
    def has_spare(self) -> bool:
        """Whether the next run needs no fork."""
        return bool(self._spares)

    def next_change(self) -> float | None:
        """From when to look for a quiet moment, on the monotonic clock; None: not at all."""
        if len(self._spares) < self._wanted:
            return self._refused_until
        return self._last_start + self._spare_seconds if self._wanted > 1 else None

    def change(self) -> None:
        """In a quiet moment: one spare more if that is wanted, or one less after a long time."""
        if len(self._spares) < self._wanted:
            forked, refusal = self._fork([None])
            self._spares += forked
            if refusal is not None:
                self._refused_until = time.monotonic() + _REFUSAL_SECONDS
        else:
            self._wanted -= 1
            self._last_start = time.monotonic()
            self._spares.pop().dismiss()

    def forget(self, child: Child) -> None:
        """A child without a job has ended; if nobody had dismissed it, be slow to replace it."""
        if child in self._spares:
            child.dismiss()
            self._spares.remove(child)
            self._refused_until = time.monotonic() + _REFUSAL_SECONDS

    def dismiss_spares(self) -> None:
        """Let them leave: they lack what has been imported since."""
        for spare in self._spares:
            spare.dismiss()
        self._spares.clear()

    def want_no_spares(self) -> None:
        """No more jobs will come; the spares that are there may still get one."""
        self._most_spares = self._wanted = 0

    # Forking

    def _fork(self, waiting: Sequence[Waiting | None]) -> tuple[list[Child], OSError | None]:
        """Fork a child for each run, and a spare for None; fewer if the system refuses."""
        births: list[_Birth] = []
        refusal: OSError | None = None
        try:
            for each in waiting:
                births.append(self._prepare(each))
        except OSError as error:
            refusal = error
        foreign = self._foreign_descriptors(births)
        # Sets the collector's counts to zero, so that the child's first allocation collects
        # nothing: a collection would write to, and so copy, every page it looks at.
        gc.freeze()
        self._children.ignore_ends()
        try:
            for birth in births:
                NAMING.name = birth.name
                birth.pid = fork_child(
                    birth.works,
                    self._reports,
                    birth.stderr_end,
                    self._captured,
                    foreign,
                    birth.kept,
                    self._pid,
                    self.descriptor_limits,
                )
        except OSError as error:
            refusal = error
        self._children.notice_ends()
        children = []
        for birth in births:
            birth.close()
            if birth.pid:
                children.append(Child(birth.pid, birth.stderr, birth.orders))
                self._children.add(children[-1])
        return children, refusal

    def _prepare(self, waiting: Waiting | None) -> _Birth:
        birth = _Birth()
        if waiting is not None:
            birth.name = waiting.assignment.name
            birth.kept = waiting.assignment.memory_file
            birth.works = works_of_one(waiting.assignment)
            return birth
        try:
            ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            birth.orders, birth.orders_end = ends
            birth.orders.send(rehearsal(), _socket.MSG_DONTWAIT)
        except OSError:
            birth.close()
            raise
        birth.kept = birth.orders_end.fileno()
        birth.works = works_of_spare(birth.orders_end, self._queue)
        return birth

    def _foreign_descriptors(self, births: list[_Birth]) -> list[int]:
        """Everything that is open here and that no job should have."""
        descriptors = [*self._own_descriptors, *self._children.by_stderr, *self._queue.memory_files]
        descriptors += [spare.orders.fileno() for spare in self._spares if spare.orders is not None]
        for birth in births:
            descriptors += birth.descriptors()
        return descriptors
