from __future__ import annotations

import os
import socket
import sys
import threading
import time

import pytest

from job_scheduler.launcher import quick_send
from job_scheduler.launcher.quick_send import send_keeping_gil


@pytest.fixture
def ends():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


def test_a_packet_arrives_whole(ends):
    left, right = ends
    packet = os.urandom(3000) + b"\0" + os.urandom(3000)
    assert send_keeping_gil(left.fileno(), packet)
    assert right.recv(10_000) == packet


def test_what_cannot_be_sent_at_once_is_not(ends):
    left, right = ends
    sent = 0
    while send_keeping_gil(left.fileno(), b"x" * 1000):
        sent += 1
    assert sent > 10
    right.setblocking(False)
    for _ in range(sent):
        assert right.recv(10_000) == b"x" * 1000
    with pytest.raises(BlockingIOError):
        right.recv(10_000)


def test_an_end_that_is_closed_is_told_without_a_signal(ends):
    left, right = ends
    right.close()
    assert not send_keeping_gil(left.fileno(), b"x")
    assert not send_keeping_gil(-1, b"x")


def test_the_lock_is_kept(ends):
    """With a switch interval of a second, giving the lock up once would cost that second."""
    before = sys.getswitchinterval()
    left, _ = ends
    stop = threading.Event()
    hog = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    sys.setswitchinterval(1.0)
    try:
        hog.start()
        began = time.perf_counter()
        for _ in range(50):
            assert send_keeping_gil(left.fileno(), b"x")
        took = time.perf_counter() - began
    finally:
        stop.set()
        sys.setswitchinterval(before)
        hog.join()
    assert took < 5  # fifty times a second, if each gave it up


def test_where_there_is_none(monkeypatch, ends, scheduler):
    monkeypatch.setattr(quick_send, "_send", None)
    assert not send_keeping_gil(ends[0].fileno(), b"x")
    run = scheduler.run("Echo", value=1)
    assert run.wait(20)
    assert run.result == 1
