"""The ``multiprocessing.Process`` face of a run."""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import signal
import warnings
from multiprocessing import connection

import pytest

from job_scheduler.launcher.work import call_process
from tests.conftest import SAMPLES, eventually, is_alive


@pytest.fixture(params=["zygote", "spawn"])
def scheduler(request, make_scheduler):
    return make_scheduler(start_method=request.param)


@pytest.fixture(params=["standard", "zygote", "spawn"])
def start(request, make_scheduler):
    """Starts a process for a job: one of the standard library's, or ours."""
    if request.param == "standard":
        return start_standard_process
    scheduler = make_scheduler(start_method=request.param)
    return lambda job, **arguments: scheduler.run(job, **arguments).process


def start_standard_process(job, **arguments):
    process = multiprocessing.get_context("fork").Process(
        target=call_quietly, name=job, args=(SAMPLES[job], arguments)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this program has threads
        process.start()
    return process


def call_quietly(job_class, arguments):
    faulthandler.disable()  # pytest's, which writes to the terminal
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    call_process(job_class, arguments)


class TestLikeTheStandardOne:
    """The same assertions on a process of the standard library and on ours."""

    def test_while_it_runs(self, start, gate):
        process = start("Gate", fifo=gate.path)
        assert isinstance(process, multiprocessing.process.BaseProcess)
        assert process.name == "Gate"
        assert process.pid == process.ident
        assert process.pid not in (None, os.getpid())
        assert process.is_alive()
        assert process.exitcode is None
        assert not process.daemon
        assert process.join(0) is None
        assert process.join(0.01) is None
        assert process.join(-1) is None
        assert process.is_alive()
        assert connection.wait([process.sentinel], 0) == []
        assert "name='Gate'" in repr(process)
        assert f"pid={process.pid}" in repr(process)
        assert repr(process).endswith("started>")
        with pytest.raises(AssertionError, match="cannot start a process twice"):
            process.start()
        with pytest.raises(ValueError, match="while it is still running"):
            process.close()
        gate.open()
        process.join()

    def test_when_it_has_ended(self, start, gate):
        process = start("Gate", fifo=gate.path)
        gate.open()
        assert connection.wait([process.sentinel], 20) == [process.sentinel]
        assert process.join() is None
        assert process.join(0) is None
        assert not process.is_alive()
        assert process.exitcode == 0
        assert connection.wait([process.sentinel], 0) == [process.sentinel]
        assert repr(process).endswith("stopped exitcode=0>")
        process.terminate()
        process.kill()
        assert process.exitcode == 0

    def test_when_it_is_closed(self, start):
        process = start("Noop")
        process.join()
        process.close()
        process.close()
        assert "closed" in repr(process)
        for attribute in ("pid", "ident", "exitcode", "sentinel"):
            with pytest.raises(ValueError, match="process object is closed"):
                getattr(process, attribute)
        for method in (process.is_alive, process.join, process.terminate, process.kill):
            with pytest.raises(ValueError, match="process object is closed"):
                method()

    def test_it_can_be_waited_for_with_others(self, start, gate):
        waiting = start("Gate", fifo=gate.path)
        done = start("Noop")
        reading, writing = multiprocessing.Pipe(duplex=False)
        everything = [waiting.sentinel, done.sentinel, reading]
        assert connection.wait(everything, 20) == [done.sentinel]
        writing.send("news")
        assert set(connection.wait(everything, 20)) == {done.sentinel, reading}
        gate.open()
        waiting.join()
        done.join()
        assert len(connection.wait(everything, 20)) == 3

    @pytest.mark.parametrize(
        ("job", "arguments", "exitcode"),
        [
            ("Noop", {}, 0),
            ("Raise", {"kind": "x"}, 1),
            ("Exit", {"code": None}, 0),
            ("Exit", {"code": 3}, 3),
            ("Exit", {"code": "words"}, 1),
            ("HardExit", {"code": 7}, 7),
            ("Signal", {"number": int(signal.SIGKILL)}, -signal.SIGKILL),
            ("Signal", {"number": int(signal.SIGTERM)}, -signal.SIGTERM),
            ("Signal", {"number": int(signal.SIGUSR1)}, -signal.SIGUSR1),
            ("Segfault", {}, -signal.SIGSEGV),
        ],
    )
    def test_its_exit_code(self, start, job, arguments, exitcode):
        process = start(job, **arguments)
        process.join(30)
        assert process.exitcode == exitcode
        if exitcode < 0:
            assert f"exitcode=-{signal.Signals(-exitcode).name}" in repr(process)

    @pytest.mark.parametrize("verb", ["terminate", "kill"])
    def test_it_can_be_signalled(self, start, gate, verb):
        process = start("Gate", fifo=gate.path)
        assert getattr(process, verb)() is None
        process.join(20)
        number = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL}[verb]
        assert process.exitcode == -number
        assert not is_alive(process.pid)

    def test_its_name_can_be_changed(self, start):
        process = start("Noop")
        process.name = "other"
        assert process.name == "other"
        process.join()


def test_the_face_is_made_once_and_lazily(scheduler, gate):
    run = scheduler.run("Gate", fifo=gate.path)
    assert run._process is None
    assert run.process is run.process
    gate.open()
    assert run.wait(20)


@pytest.mark.parametrize("verb", ["terminate", "kill"])
def test_who_has_signalled_it_is_told(scheduler, gate, verb):
    run = scheduler.run("Gate", fifo=gate.path)
    getattr(run.process, verb)()
    assert run.wait(20)
    number = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL}[verb]
    assert run.state == "failed"
    assert run.error.message.startswith(f"killed by {number.name}, ")
    assert run.error.message.endswith(", sent by this program")


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
