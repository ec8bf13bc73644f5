"""The ``multiprocessing.Process`` face of a run."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from multiprocessing import connection

import pytest

from tests.conftest import eventually, is_alive


@pytest.fixture(params=["zygote", "spawn"])
def scheduler(request, make_scheduler):
    return make_scheduler(start_method=request.param)


def test_of_a_running_job(scheduler, gate):
    run = scheduler.run("Gate", fifo=gate.path)
    process = run.process
    assert run.process is process
    assert isinstance(process, multiprocessing.Process)
    assert process.name == "Gate"
    assert process.pid == process.ident == run.pid != os.getpid()
    assert process.is_alive()
    assert process.exitcode is None
    assert process.join(0.01) is None
    assert connection.wait([process.sentinel], 0) == []
    assert "started" in repr(process)
    with pytest.raises(AssertionError, match="twice"):
        process.start()
    with pytest.raises(ValueError, match="still running"):
        process.close()
    gate.open()
    process.join()
    assert connection.wait([process.sentinel], 20) == [process.sentinel]
    assert not process.is_alive()
    assert process.exitcode == 0
    process.close()
    with pytest.raises(ValueError, match="closed"):
        process.is_alive()


@pytest.mark.parametrize("verb", ["terminate", "kill"])
def test_can_be_signalled(scheduler, gate, verb):
    run = scheduler.run("Gate", fifo=gate.path)
    process = run.process
    getattr(process, verb)()
    process.join(20)
    number = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL}[verb]
    assert process.exitcode == -number
    assert run.state == "failed"
    assert run.error.message.startswith(f"killed by {number.name}, ")
    assert run.error.message.endswith(", sent by this program")
    assert not is_alive(process.pid)


def test_of_a_job_that_has_ended(scheduler):
    run = scheduler.run("Exit", code=3)
    assert run.wait(20)
    process = run.process
    process.join()
    process.terminate()
    assert process.exitcode == 3
    assert connection.wait([process.sentinel], 0)


def test_a_sentinel_goes_with_its_process(make_scheduler):
    scheduler = make_scheduler()
    run = scheduler.run("Noop")
    sentinel = run.process.sentinel
    assert run.wait(20)
    os.fstat(sentinel)
    del run
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(sentinel)


def test_of_a_run_that_never_started(make_scheduler, gate):
    scheduler = make_scheduler(max_processes=1)
    first = scheduler.run("Gate", fifo=gate.path)
    eventually(lambda: first.pid)
    second = scheduler.run("Noop")
    second.cancel()
    process = second.process
    assert process.pid is None
    assert not process.is_alive()
    gate.open()
    assert first.wait(20)
