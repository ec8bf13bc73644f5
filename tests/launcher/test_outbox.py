from __future__ import annotations

import resource
import socket

import pytest

from job_scheduler.launcher import wire
from job_scheduler.launcher.outbox import Outbox

LARGE = b"x" * wire.REPORT_LIMIT


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


def test_a_report_needs_no_descriptor(ends, no_descriptors):
    ours, theirs = ends
    outbox = Outbox(ours)
    outbox.add(wire.ENDED, "first", payload=LARGE)
    assert outbox.flush() == ""
    assert not outbox.waiting
    no_descriptors()
    assert wire.receive(theirs) == ((wire.ENDED, "first", LARGE), None)


def test_a_report_that_nobody_can_take_leaves_its_complaint(ends):
    ours, theirs = ends
    outbox = Outbox(ours)
    outbox.add(wire.ENDED, "first", complaint="first failed\n")
    outbox.add(wire.ENDED, "second")
    theirs.close()
    assert outbox.finish() == "first failed\n"
    assert not outbox.waiting
