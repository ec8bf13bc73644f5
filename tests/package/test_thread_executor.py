"""Jobs in threads of this program: who settles a run when several want to."""

from __future__ import annotations

import sys
import threading

import pytest

from job_scheduler import Job
from job_scheduler.executors.thread import ThreadExecutor
from job_scheduler.launcher.base import Settings
from job_scheduler.target import Target
from tests.conftest import eventually

THREADS = 32


class Wait(Job):
    def run(self, event):
        event.wait(60)


class Quick(Job):
    def run(self):
        pass


WAIT, QUICK = (Target.of_anything(each, "run") for each in (Wait, Quick))


@pytest.fixture
def executor():
    executor = ThreadExecutor(Settings())
    yield executor
    executor.close()


@pytest.fixture
def busy(executor):
    """All threads of the pool are taken until the event is set."""
    event = threading.Event()
    runs = [executor.submit("Wait", WAIT, (), {"event": event}, None) for _ in range(THREADS)]
    eventually(lambda: all(run.state == "running" for run in runs))
    yield event
    event.set()
    assert all(run.wait(20) for run in runs)


@pytest.fixture
def eager_switching():
    """Threads are switched as often as can be, so that what can interleave does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*functions):
    """Call each in a thread of its own, all at once; gives what they raised."""
    barrier, raised = threading.Barrier(len(functions)), []

    def call(function):
        barrier.wait()
        try:
            function()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=call, args=(each,)) for each in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_two_that_cancel_at_once(executor, busy, eager_switching):
    runs = [executor.submit("Quick", QUICK, (), {}, None) for _ in range(3000)]

    def cancel_all():
        assert all(run.cancel() or run.state.ended for run in runs)

    assert at_once(cancel_all, cancel_all, cancel_all) == []
    assert {run.state for run in runs} == {"cancelled"}
    assert len(executor.pending()) == THREADS


def test_a_start_and_a_cancel_at_once(executor, busy, eager_switching):
    runs = [executor.submit("Quick", QUICK, (), {}, None) for _ in range(3000)]
    cancelled = []

    def cancel_all():
        cancelled.extend(run for run in reversed(runs) if run.cancel())

    assert at_once(cancel_all, busy.set) == []
    assert all(run.wait(20) for run in runs)
    assert {run for run in runs if run.state == "cancelled"} == set(cancelled)
    eventually(lambda: not executor.pending())


def test_a_submission_and_a_cancel_at_once(executor, busy, eager_switching):
    """As a shutdown does it, which finds the runs in the books."""
    submitted = threading.Event()
    runs = []

    def submit_all():
        for _ in range(1000):
            runs.append(executor.submit("Quick", QUICK, (), {}, None))
        submitted.set()

    def cancel_all():
        while not submitted.is_set():
            for run in executor.pending()[THREADS:]:
                run.cancel()
        for run in runs:
            run.cancel()

    assert at_once(submit_all, cancel_all) == []
    assert {run.state for run in runs} == {"cancelled"}


def test_nothing_is_left_in_the_books(executor, eager_switching):
    runs = [executor.submit("Quick", QUICK, (), {}, None) for _ in range(1000)]
    assert all(run.wait(20) for run in runs)
    eventually(lambda: not executor._running and not executor._waiting)


def test_a_submission_after_the_end_leaves_nothing(executor):
    executor.close()
    with pytest.raises(RuntimeError, match="was shut down"):
        executor.submit("Quick", QUICK, (), {}, None)
    assert executor.pending() == []


class Interrupt(Job):
    def run(self):
        raise KeyboardInterrupt("by itself")


def test_a_job_that_raises_an_interrupt_has_ended(executor):
    run = executor.submit("Interrupt", Target.of_anything(Interrupt, "run"), (), {}, None)
    assert run.wait(5)
    assert str(run.error) == "KeyboardInterrupt: by itself"
