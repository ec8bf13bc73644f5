"""What a child does: the one job it was forked with, or a rehearsal and then the job it is given.

A work is an assignment, what announces it (the child adds its pid), and whether it is real: the
program is told of that one only. Its time is that of its start by the zygote, so that the times
of runs have the order of their starts.
"""

from __future__ import annotations

import marshal
from time import time as now

from job_scheduler.job import Job
from job_scheduler.launcher import wire
from job_scheduler.launcher.importing import maker_of, touch
from job_scheduler.launcher.naming import NAMING
from job_scheduler.launcher.queue import Assignment, JobClass, Queue, Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator

Work = tuple[Assignment, bytes, bool]

_REHEARSAL_CLASS = 0
"""The id of a class that no program gives; its runs are not real."""


class _Rehearsal(Job):
    def process(self) -> None:
        pass


REHEARSED = JobClass(_REHEARSAL_CLASS, maker_of(_Rehearsal), None, None)

REHEARSAL = ("0" * 32, _REHEARSAL_CLASS, "rehearsal")
"""Run, class and job name of what is not real, of the size of what is."""

NOTHING = wire.encode({})
"""Its arguments."""


def works_of_one(assignment: Assignment) -> tuple[Work]:
    """The work of a child that is forked for this assignment."""
    assignment.arguments = wire.decode_ahead(assignment.payload)
    return ((assignment, wire.announcement(assignment.run_id, now()), True),)


def works_of_spare(orders: _socket.socket, queue: Queue) -> Iterator[Work]:
    """The works of a spare, as they arrive: first a rehearsal; none once it is dismissed."""
    while (received := wire.receive(orders, wait=True)) is not None:
        (at, run_id, class_id, name, payload), memory_file = received
        real = class_id != _REHEARSAL_CLASS
        if real:
            orders.close()
        of = queue.job_class(class_id) if real else REHEARSED
        assignment = Assignment(run_id, name, of.make, of.memory_limit, payload, memory_file)
        assignment.arguments = wire.decode_ahead(payload)
        NAMING.name = name
        yield assignment, wire.announcement(run_id, at), real
        touch(queue.latest.make)


def order(waiting: Waiting) -> bytes:
    """The packet by which a spare is given a run."""
    assignment = waiting.assignment
    run_id, name, payload = assignment.run_id, assignment.name, assignment.payload
    return marshal.dumps((now(), run_id, waiting.of.id, name, payload))


def rehearsal() -> bytes:
    """The packet by which a spare is told to rehearse."""
    return marshal.dumps((0.0, *REHEARSAL, NOTHING))
