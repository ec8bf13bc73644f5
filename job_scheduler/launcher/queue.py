"""The zygote's one queue: which waiting run is next, within the limits of its class."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Iterable

    from job_scheduler.launcher.child import Assignment
else:
    from _collections import OrderedDict


class JobClass:
    """A class that jobs are made of, with its limits and the runs that wait for one of them."""

    __slots__ = ("job_class", "max_running", "memory_limit", "parked", "running")

    def __init__(self, job_class: type, max_running: int | None, memory_limit: int | None) -> None:
        self.job_class = job_class
        self.max_running = max_running
        self.memory_limit = memory_limit
        self.running = 0
        self.parked: OrderedDict[str, Waiting] = OrderedDict()


class Waiting:
    """An accepted run that has not started."""

    __slots__ = ("assignment", "of", "timeout")

    def __init__(self, assignment: Assignment, of: JobClass, timeout: float | None) -> None:
        self.assignment = assignment
        self.of = of
        self.timeout = timeout


class Queue:
    """Waiting runs, oldest first; those whose class is at its limit are passed over.

    A run that is passed over is parked with its class, so that it is not looked at again until
    a run of that class ends; then the oldest parked one goes back to the front.
    """

    def __init__(self) -> None:
        self.ready: OrderedDict[str, Waiting] = OrderedDict()
        """Runs that may be started, by id; while some are parked only, others are running."""
        self._classes: dict[int, JobClass] = {}
        self.memory_files: set[int] = set()
        """The descriptors of large arguments that wait with their runs."""

    def add_class(self, class_id: int, job_class: JobClass) -> None:
        self._classes[class_id] = job_class

    def job_class(self, class_id: int) -> JobClass:
        return self._classes[class_id]

    def add(self, waiting: Waiting) -> None:
        self.ready[waiting.assignment.run_id] = waiting
        memory_file = waiting.assignment.memory_file
        if memory_file is not None and memory_file >= 0:
            self.memory_files.add(memory_file)

    def next(self) -> Waiting | None:
        """Take the oldest run that may start now; None if all are held by their class's limit."""
        while self.ready:
            run_id, waiting = self.ready.popitem(last=False)
            limit = waiting.of.max_running
            if limit is None or waiting.of.running < limit:
                return waiting
            waiting.of.parked[run_id] = waiting
        return None

    def put_back(self, waiting: Waiting) -> None:
        """Make a run that could not start the next one again."""
        run_id = waiting.assignment.run_id
        self.ready[run_id] = waiting
        self.ready.move_to_end(run_id, last=False)

    def one_ended(self, job_class: JobClass) -> None:
        """A running job of this class has ended: one that waits for that may be next."""
        job_class.running -= 1
        if job_class.parked:
            self.put_back(job_class.parked.popitem(last=False)[1])

    def take(self, run_id: str) -> Waiting | None:
        """Take one run out, wherever it waits."""
        for runs in (self.ready, *(each.parked for each in self._classes.values())):
            if run_id in runs:
                return runs.pop(run_id)
        return None

    def take_all(self) -> list[Waiting]:
        """Take everything out; the runs of one class stay in their order."""
        parked: Iterable[OrderedDict[str, Waiting]] = (e.parked for e in self._classes.values())
        taken = [waiting for runs in (*parked, self.ready) for waiting in runs.values()]
        for runs in (self.ready, *(each.parked for each in self._classes.values())):
            runs.clear()
        return taken

    def close_memory_file(self, waiting: Waiting) -> None:
        """Close the large arguments of a run that is taken out."""
        memory_file = waiting.assignment.memory_file
        if memory_file is not None and memory_file in self.memory_files:
            self.memory_files.remove(memory_file)
            os.close(memory_file)
