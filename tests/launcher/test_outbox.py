from __future__ import annotations

import resource
import socket

import pytest

from job_scheduler.launcher import wire
from job_scheduler.launcher.outbox import Outbox

LARGE = b"x" * (wire.INLINE_LIMIT + 1)


@pytest.fixture
def ends():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


@pytest.fixture
def no_descriptors():
    """Lets this process open nothing until it is called."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_report_that_lacks_a_descriptor_is_kept(ends, no_descriptors):
    ours, theirs = ends
    outbox = Outbox(ours)
    outbox.add(wire.ENDED, "first", payload=LARGE)
    outbox.add(wire.ENDED, "second")
    assert outbox.flush() == ""
    assert outbox.starved
    no_descriptors()
    assert outbox.flush() == ""
    assert not outbox.starved
    (_, run_id, inline), memory_file = wire.receive(theirs)
    assert (run_id, wire.take_payload(inline, memory_file)) == ("first", LARGE)
    assert wire.receive(theirs)[0][1] == "second"


def test_a_report_that_nobody_can_take_leaves_its_complaint(ends):
    ours, theirs = ends
    outbox = Outbox(ours)
    outbox.add(wire.ENDED, "first", complaint="first failed\n")
    outbox.add(wire.ENDED, "second")
    theirs.close()
    assert outbox.finish() == "first failed\n"
    assert not outbox.waiting
