from __future__ import annotations

import threading
from datetime import timedelta
from itertools import product

import pytest

from job_scheduler.errors import InvalidOptionError
from job_scheduler.run import TRANSITIONS, Ending, Run, RunError, RunState


class Owner:
    def cancel(self, run):
        return True

    def process(self, run):
        return None


@pytest.fixture
def run():
    return Run("r-1", "Name", Owner())


def ending(state=RunState.COMPLETED, **more):
    return Ending(state, **more)


def test_states_are_their_names():
    assert RunState.COMPLETED == "completed"
    assert f"{RunState.FAILED}" == "failed"
    assert {state for state in RunState if state.ended} == {"completed", "failed", "cancelled"}


@pytest.mark.parametrize(("before", "after"), list(product(RunState, RunState)))
def test_only_legal_transitions_are_made(run, before, after):
    run._state = before
    if after in TRANSITIONS.get(before, ()):
        run._move(after)
        assert run.state == after
    else:
        with pytest.raises(AssertionError, match=f"from {before} to {after}"):
            run._move(after)


def test_nothing_is_known_at_first(run):
    assert run
    assert run.state == "pending"
    assert (run.pid, run.exitcode, run.result, run.error) == (None,) * 4
    assert (run.started_at, run.ended_at, run.peak_memory, run.cpu_time) == (None,) * 4
    assert run.stderr == ""
    assert run.created_at.utcoffset().total_seconds() == 0
    assert repr(run) == "<Run r-1 of 'Name': pending>"


def test_what_is_known_at_the_end(run):
    run._started(12, 100.5)
    assert repr(run) == "<Run r-1 of 'Name': running, pid 12>"
    run._ended(ending(exitcode=0, ended_at=101, load_result=lambda: ["value"]))
    assert run.result == ["value"]
    assert run.result is run.result
    assert run.started_at.timestamp() == 100.5
    assert (run.ended_at - run.started_at).total_seconds() == 0.5


def test_a_result_that_cannot_be_loaded_raises_when_it_is_asked_for(run):
    def fail():
        raise ImportError("gone")

    run._started(1, 1.0)
    run._ended(ending(load_result=fail))
    with pytest.raises(ImportError, match="gone"):
        run.result  # noqa: B018


def test_wait_times_out_and_leaves_nothing(run):
    assert run.wait(0.001) is False
    assert run.wait(0) is False
    assert run._waiters == []


def test_wait_takes_a_timedelta_and_less_than_nothing(run):
    assert run.wait(timedelta(milliseconds=1)) is False
    assert run.wait(timedelta(0)) is False
    assert run.wait(-1) is False


@pytest.mark.parametrize("timeout", [1e10, float("inf"), timedelta.max])
def test_wait_for_longer_than_a_lock_allows(run, timeout):
    threading.Timer(0.05, run._ended, [ending(RunState.CANCELLED)]).start()
    assert run.wait(timeout) is True


def test_wait_refuses_what_is_no_time_also_once_the_run_has_ended(run):
    for _ in range(2):
        with pytest.raises(InvalidOptionError, match="timeout is '5'; give seconds or a timedelta"):
            run.wait("5")
        run._state = RunState.COMPLETED


def test_wait_in_several_threads(run):
    results = []
    threads = [threading.Thread(target=lambda: results.append(run.wait(20))) for _ in range(5)]
    for thread in threads:
        thread.start()
    run._started(1, 1.0)
    run._ended(ending())
    for thread in threads:
        thread.join()
    assert results == [True] * 5
    assert run.wait()


def test_cancel_asks_the_owner_until_the_run_has_ended(run):
    assert run.cancel() is True
    run._ended(ending(RunState.CANCELLED))
    assert run.cancel() is False


def test_an_error_reads_as_a_line():
    assert str(RunError("ValueError", "bad")) == "ValueError: bad"
    assert str(RunError("ValueError", "")) == "ValueError"
