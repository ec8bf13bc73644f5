"""The zygote's one queue: which waiting run is next, within the limits of its class."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Callable
    from typing import Any
else:
    from _collections import OrderedDict


class Assignment:
    """What a child has to do."""

    __slots__ = (
        "arguments",
        "make",
        "memory_file",
        "memory_limit",
        "name",
        "payload",
        "run_id",
    )

    def __init__(
        self,
        run_id: str,
        name: str,
        make: Callable[[], Any],
        memory_limit: int | None,
        payload: bytes | None,
        memory_file: int | None,
    ) -> None:
        self.run_id = run_id
        self.name = name
        self.make = make
        self.memory_limit = memory_limit
        self.payload = payload
        self.memory_file = memory_file
        self.arguments: dict[str, Any] | None = None
        """The arguments, if they could be decoded ahead; else they are in the payload."""


class JobClass:
    """A class that jobs are made of, with its limits and its waiting runs, oldest first."""

    __slots__ = ("id", "make", "max_running", "memory_limit", "running", "waiting")

    def __init__(
        self,
        class_id: int,
        make: Callable[[], Any],
        max_running: int | None,
        memory_limit: int | None,
    ) -> None:
        self.id = class_id
        self.make = make
        """Makes a job: the class, or what does the same sooner."""
        self.max_running = max_running
        self.memory_limit = memory_limit
        self.running = 0
        self.waiting: OrderedDict[str, Waiting] = OrderedDict()


class Waiting:
    """An accepted run that has not started."""

    __slots__ = ("assignment", "number", "of", "timeout")

    def __init__(self, assignment: Assignment, of: JobClass, timeout: float | None) -> None:
        self.assignment = assignment
        self.of = of
        self.timeout = timeout
        self.number = 0
        """Its place in the order of all runs."""


class Queue:
    """Waiting runs, oldest first; those whose class is at its limit are passed over."""

    def __init__(self) -> None:
        self._classes: dict[int, JobClass] = {}
        self._accepted = 0
        self.latest: JobClass
        """The class that was added or started last: the next run is likely of it too."""
        self.ready: dict[JobClass, None] = {}
        """The classes of which a run could start now; empty means that there is none."""
        self.memory_files: set[int] = set()
        """The descriptors of large arguments that wait with their runs."""

    def add_class(self, job_class: JobClass) -> None:
        self._classes[job_class.id] = self.latest = job_class

    def job_class(self, class_id: int) -> JobClass:
        return self._classes[class_id]

    def add(self, waiting: Waiting) -> None:
        self._accepted += 1
        waiting.number = self._accepted
        waiting.of.waiting[waiting.assignment.run_id] = waiting
        self._judge(waiting.of)
        memory_file = waiting.assignment.memory_file
        if memory_file is not None and memory_file >= 0:
            self.memory_files.add(memory_file)

    def next(self) -> Waiting:
        """Take the oldest run that may start; there is one while ``ready`` is not empty."""
        if len(self.ready) == 1:
            [of] = self.ready
        else:
            of = min(self.ready, key=_number_of_oldest)
        _, waiting = of.waiting.popitem(last=False)
        self._judge(of)
        return waiting

    def put_back(self, waiting: Waiting) -> None:
        """Make a run that could not start the first of its class again."""
        run_id = waiting.assignment.run_id
        waiting.of.waiting[run_id] = waiting
        waiting.of.waiting.move_to_end(run_id, last=False)
        self._judge(waiting.of)

    def one_started(self, of: JobClass) -> None:
        of.running += 1
        self.latest = of
        self._judge(of)

    def one_ended(self, of: JobClass) -> None:
        of.running -= 1
        self._judge(of)

    def take(self, run_id: str) -> Waiting | None:
        """Take one run out, wherever it stands."""
        for of in self._classes.values():
            if run_id in of.waiting:
                waiting = of.waiting.pop(run_id)
                self._judge(of)
                return waiting
        return None

    def take_all(self) -> list[Waiting]:
        """Take everything out, oldest first."""
        taken = [waiting for of in self._classes.values() for waiting in of.waiting.values()]
        for of in self._classes.values():
            of.waiting.clear()
        self.ready.clear()
        return sorted(taken, key=lambda waiting: waiting.number)

    def close_memory_file(self, waiting: Waiting) -> None:
        """Close the large arguments of a run that was taken out."""
        memory_file = waiting.assignment.memory_file
        if memory_file is not None and memory_file in self.memory_files:
            self.memory_files.remove(memory_file)
            os.close(memory_file)

    def _judge(self, of: JobClass) -> None:
        if of.waiting and (of.max_running is None or of.running < of.max_running):
            self.ready[of] = None
        else:
            self.ready.pop(of, None)


def _number_of_oldest(of: JobClass) -> int:
    return next(iter(of.waiting.values())).number
