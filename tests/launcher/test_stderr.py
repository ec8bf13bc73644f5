from __future__ import annotations

import os
import socket

import pytest

from job_scheduler.launcher.stderr import TAIL_SIZE, Sink, Tail


class TestTail:
    def test_keeps_all_that_fits(self):
        tail = Tail()
        assert tail.bytes() == b""
        tail.add(b"one ")
        tail.add(b"two")
        assert tail.bytes() == b"one two"

    def test_keeps_the_end_and_says_how_much_is_missing(self):
        tail = Tail()
        for _ in range(3):
            tail.add(b"x" * TAIL_SIZE)
        tail.add(b"end")
        kept = tail.bytes()
        assert kept.startswith(b"[%d bytes before these were not kept]\n" % (2 * TAIL_SIZE + 3))
        assert kept.endswith(b"xend")
        assert len(kept.partition(b"\n")[2]) == TAIL_SIZE


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue  # closed by the test


def drain(descriptor):
    os.set_blocking(descriptor, False)
    received = b""
    while True:
        try:
            received += os.read(descriptor, 1 << 20)
        except BlockingIOError:
            return received


class TestSink:
    def test_a_full_pipe_does_not_block_and_loses_nothing_that_fits(self, pipe):
        reading, writing = pipe
        sink = Sink(writing)
        assert os.get_blocking(writing)  # the program's own writes are as before
        written = os.urandom(500_000)
        sink.write(written)
        assert sink.pending
        received = b""
        while sink.pending:
            received += drain(reading)
            sink.flush()
        received += drain(reading)
        assert received == written
        sink.close()

    def test_too_much_is_dropped_with_a_word(self, pipe):
        reading, writing = pipe
        sink = Sink(writing)
        for _ in range(3):
            sink.write(b"x" * 1_000_000)
        received = b""
        while sink.pending:
            received += drain(reading)
            sink.flush()
        received += drain(reading)
        text = received.lstrip(b"x")
        dropped = 3_000_000 - (len(received) - len(text))
        assert text == b"\n[%d bytes of the jobs' stderr dropped]\n" % dropped
        sink.close()

    def test_a_file_is_appended_to_where_the_program_is(self, tmp_path):
        with open(tmp_path / "log", "wb") as file:
            file.write(b"before ")
            file.flush()
            Sink(file.fileno()).write(b"job ")
            file.write(b"after")
        assert (tmp_path / "log").read_bytes() == b"before job after"

    def test_a_socket(self):
        left, right = socket.socketpair()
        with left, right:
            sink = Sink(left.fileno())
            sink.write(b"line\n")
            assert right.recv(100) == b"line\n"
            sink.close()

    def test_a_reader_that_is_gone(self, pipe):
        reading, writing = pipe
        sink = Sink(writing)
        os.close(reading)
        sink.write(b"nobody reads this")
        sink.write(b"nor this")
        assert not sink.pending
        sink.close()

    def test_no_stderr_at_all(self, pipe):
        _, writing = pipe
        os.close(writing)
        sink = Sink(writing)
        sink.write(b"nowhere to go")
        assert not sink.pending
