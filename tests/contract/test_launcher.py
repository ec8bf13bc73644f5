"""What every launcher promises; the same tests for each."""

from __future__ import annotations

import logging
import os
import signal
import time

import pytest

from job_scheduler.errors import ArgumentsError, JobImportError, QueueFullError, ShutdownError
from job_scheduler.run import RunState
from tests.conftest import eventually, is_alive, lines, spares_of
from tests.sample_jobs import Noop


@pytest.fixture(params=["fork", "spare", "spawn"])
def way(request):
    """How processes start: forked for the job, forked ahead of it, or in a fresh interpreter."""
    return request.param


@pytest.fixture
def start_method(way):
    return "spawn" if way == "spawn" else "zygote"


@pytest.fixture
def make(make_scheduler, start_method, way):
    def make(**options):
        if way == "fork":
            options["spares"] = 0
        scheduler = make_scheduler(start_method=start_method, **options)
        if way == "spare":
            run_each_in_a_spare(scheduler)
        return scheduler

    return make


def run_each_in_a_spare(scheduler):
    """Wait for a spare before each run, if the run may start at once."""
    run = scheduler._run

    def run_in_spare(name, *arguments):
        launcher = (scheduler._dispatcher or scheduler._start())._open_launcher()
        if len(launcher.pending()) < launcher._settings.max_processes and not launcher._closed:
            job_class = scheduler.jobs.get(name, Noop)
            if hasattr(job_class, "process") and "<locals>" not in job_class.__qualname__:
                launcher.prepare(job_class)
                eventually(lambda: spares_of(scheduler))
        return run(name, *arguments)

    scheduler._run = run_in_spare


@pytest.fixture
def scheduler(make):
    return make()


def ended(run, state=RunState.COMPLETED):
    assert run.wait(30), f"{run} has not ended"
    assert run.state == state, f"{run}: {run.error} {run.error and run.error.traceback}"
    return run


class TestCompletedRuns:
    def test_each_has_a_process_and_session_of_its_own(self, scheduler):
        runs = [scheduler.run("Pid") for _ in range(3)]
        pids = {ended(run).result[0] for run in runs}
        assert len(pids) == 3
        assert os.getpid() not in pids
        for run in runs:
            pid, _, group, session = run.result
            assert pid == group == session == run.pid

    @pytest.mark.parametrize(
        "value",
        [
            None,
            0,
            1.5,
            "text",
            "\udcff lone surrogate",
            b"bytes",
            bytearray(b"array"),
            (1, [2, {"three": {4, 5}}]),
            2**200,
            complex(1, 2),
            range(3),
        ],
    )
    def test_values_come_and_go_unchanged(self, scheduler, value):
        result = ended(scheduler.run("Echo", value=value)).result
        assert result == value
        assert type(result) is type(value)

    def test_a_circular_value_is_sent(self, scheduler):
        circle = []
        circle.append(circle)
        result = ended(scheduler.run("Echo", value=circle)).result
        assert result[0] is result

    def test_a_hundred_megabytes_come_and_go(self, scheduler):
        value = os.urandom(1024) * 1024 * 100
        assert ended(scheduler.run("Echo", value=value)).result == value

    def test_what_is_known_afterwards(self, scheduler):
        before = time.time()
        run = ended(scheduler.run("Say", err="a line"))
        assert run.exitcode == 0
        assert run.error is None
        assert run.pid
        assert run.name == "Say"
        assert before - 1 <= run.created_at.timestamp() <= run.started_at.timestamp() + 0.01
        assert run.started_at <= run.ended_at
        assert run.peak_memory > 1_000_000
        assert run.cpu_time >= 0
        assert run.stderr == "a line\n"
        assert not is_alive(run.pid)

    def test_exit_without_a_code_and_with_zero_complete(self, scheduler):
        assert ended(scheduler.run("Exit")).exitcode == 0
        assert ended(scheduler.run("Exit", code=0)).exitcode == 0
        assert ended(scheduler.run("HardExit", code=0)).exitcode == 0

    def test_a_coroutine_function_is_run(self, scheduler):
        assert ended(scheduler.run("Asynchronous", value=3)).result == 3

    def test_a_result_that_cannot_be_sent_is_dropped_with_a_word(self, scheduler):
        run = ended(scheduler.run("Unsendable"))
        assert run.result is None
        assert "generator" in run.stderr

    def test_signals_are_as_in_a_fresh_process(self, scheduler):
        assert ended(scheduler.run("SignalState")).result == ([], True, True, True)

    def test_the_working_directory_is_its_own(self, scheduler, tmp_path):
        here = os.getcwd()
        assert ended(scheduler.run("ChangeDirectory", path=str(tmp_path))).result == str(tmp_path)
        assert ended(scheduler.run("WorkingDirectory")).result == here

    def test_threads_are_waited_for(self, scheduler, tmp_path):
        log = tmp_path / "log"
        assert ended(scheduler.run("Threads", log=str(log))).result is True
        assert lines(log) == ["thread"]

    def test_it_may_have_children_and_knows_its_name(self, scheduler):
        run = ended(scheduler.run("Multiprocessing"))
        assert run.result == ([1, 2, 3], "Multiprocessing")

    def test_it_may_fork(self, scheduler, tmp_path):
        log = tmp_path / "log"
        assert ended(scheduler.run("Fork", log=str(log))).result == "parent"
        assert lines(log) == ["child"]

    def test_what_it_leaves_behind_is_left_alone(self, scheduler, tmp_path, gate):
        log = tmp_path / "log"
        run = scheduler.run("LeaveBehind", fifo=gate.path, log=str(log))
        assert ended(run).result == "gone"
        gate.open()
        eventually(lambda: lines(log) == ["left behind, done"])

    def test_it_may_close_all_descriptors(self, scheduler):
        assert ended(scheduler.run("CloseEverything")).result in ("done", None)

    def test_it_may_close_its_stderr(self, scheduler, gate):
        run = scheduler.run("CloseStderr", fifo=gate.path)
        gate.open()
        assert ended(run).result == "went on"

    def test_the_initializer_has_run(self, make):
        scheduler = make(initializer="tests.sample_jobs:find_main")
        assert ended(scheduler.run("Initialized")).result


class TestFailedRuns:
    def test_an_exception(self, scheduler):
        run = ended(scheduler.run("Raise", kind="real"), RunState.FAILED)
        assert (run.error.type, run.error.message) == ("ValueError", "a real problem")
        assert "sample_jobs.py" in run.error.traceback
        assert "launcher" not in run.error.traceback
        assert run.exitcode == 1
        assert run.result is None

    def test_an_exception_with_a_cause_shows_both(self, scheduler):
        run = ended(scheduler.run("Raise", kind="chained"), RunState.FAILED)
        assert "KeyError: 'inner'" in run.error.traceback
        assert "direct cause" in run.error.traceback

    def test_a_base_exception(self, scheduler):
        run = ended(scheduler.run("Raise", kind="base"), RunState.FAILED)
        assert str(run.error) == "Unexpected: not even an Exception"

    def test_an_exception_without_a_printable_message(self, scheduler):
        run = ended(scheduler.run("Raise", kind="unprintable"), RunState.FAILED)
        assert run.error.type == "Unprintable"

    @pytest.mark.parametrize(("code", "exitcode"), [(3, 3), ("words", 1), (256 + 4, 4)])
    def test_sys_exit(self, scheduler, code, exitcode):
        run = ended(scheduler.run("Exit", code=code), RunState.FAILED)
        assert run.exitcode == exitcode
        assert str(run.error) == f"JobExited: exited with code {exitcode}"
        assert ("words" in run.stderr) == (code == "words")

    def test_os_exit(self, scheduler):
        run = ended(scheduler.run("HardExit", code=7), RunState.FAILED)
        assert (run.exitcode, run.error.type) == (7, "JobExited")

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
    def test_a_signal_is_named(self, scheduler, number):
        run = ended(scheduler.run("Signal", number=int(number)), RunState.FAILED)
        assert run.exitcode == -number
        assert str(run.error).startswith(f"JobKilled: killed by {number.name}, ")

    def test_a_segmentation_fault(self, scheduler):
        run = ended(scheduler.run("Segfault"), RunState.FAILED)
        assert run.exitcode == -signal.SIGSEGV
        assert "SIGSEGV" in run.error.message
        assert "native code" in run.error.message
        assert "Fatal Python error: Segmentation fault" in run.stderr
        assert "in process" in run.stderr  # the job's own frame, named by faulthandler

    def test_the_memory_limit_is_named(self, scheduler):
        assert ended(scheduler.run("HoldMemory", size=50_000_000)).result == 50_000_000
        run = ended(scheduler.run("HoldMemory", size=400_000_000), RunState.FAILED)
        assert run.error.type == "MemoryLimitExceeded"
        assert "209,715,200 bytes" in run.error.message

    def test_a_log_filter_that_raises_does_not_hold_up_the_run(self, scheduler, capsys):
        def broken(record):
            raise RuntimeError("a broken filter")

        logger = logging.getLogger("job_scheduler")
        logger.addFilter(broken)
        try:
            ended(scheduler.run("Raise", kind="real"), RunState.FAILED)
            ended(scheduler.run("Noop"))
            eventually(lambda: "a broken filter" in capsys.readouterr().err)
        finally:
            logger.removeFilter(broken)

    def test_one_log_record_tells_all(self, scheduler, caplog):
        with caplog.at_level(logging.DEBUG, "job_scheduler"):
            run = ended(scheduler.run("Raise", kind="logged"), RunState.FAILED)
            [record] = eventually(lambda: caplog.records)
        assert record.levelname == "ERROR"
        assert record.run is run
        for part in ("'Raise'", run.id, "a logged problem", "exit code 1", "Traceback"):
            assert part in record.getMessage()

    def test_the_end_of_stderr_is_logged_where_there_is_no_traceback(self, scheduler, caplog):
        run = ended(scheduler.run("Exit", code="last words"), RunState.FAILED)
        [record] = eventually(lambda: caplog.records)
        assert "last words" in record.getMessage()
        assert run.id in record.getMessage()

    def test_what_is_printed_is_kept_if_that_is_wanted(self, make, capfd):
        scheduler = make(capture_stdout=True)
        run = ended(scheduler.run("Prints"))
        assert run.stderr == "one\ntwo\nthree\n"
        assert capfd.readouterr() == ("", run.stderr)
        run = scheduler.run("PrintsAndWaits")
        eventually(lambda: "begun" in capfd.readouterr().err)
        run.process.kill()
        assert ended(run, RunState.FAILED).stderr == "begun\n"

    def test_a_flood_of_stderr_is_passed_on_and_its_tail_kept(self, scheduler, capfd):
        size = 3_000_000
        run = ended(scheduler.run("Say", err="start ", size=size))
        assert run.stderr.startswith("[2934471 bytes before these were not kept]\nxxx")
        assert len(run.stderr) == 64 * 1024 + run.stderr.index("\n") + 1
        passed = ""

        def all_passed():
            nonlocal passed
            passed += capfd.readouterr().err
            return len(passed) >= size + 7

        eventually(all_passed)
        assert passed == "start " + "x" * size + "\n"


class TestRefusals:
    """What is wrong before the start is said in the caller, and nothing runs."""

    def test_a_value_that_cannot_be_sent_is_named(self, scheduler):
        with pytest.raises(ArgumentsError, match=r"'Echo'.*value of 'more' \(a generator\)"):
            scheduler.run("Echo", value=1, more=(each for each in "abc"))

    def test_a_class_in_a_function(self, scheduler):
        class Local(Noop):
            pass

        scheduler.jobs["Local"] = Local
        with pytest.raises(JobImportError, match=r"inside a function.*top level"):
            scheduler.run("Local")

    def test_a_class_that_is_not_what_its_name_says(self, scheduler):
        impostor = type("Noop", (Noop,), {"__module__": "tests.sample_jobs"})
        scheduler.jobs["Noop"] = impostor
        with pytest.raises(JobImportError, match="would run something else"):
            scheduler.run("Noop")

    def test_more_waiting_runs_than_allowed(self, make, gate, tmp_path):
        scheduler = make(max_processes=1, max_waiting=2)
        first = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: first.pid)
        waiting = [scheduler.run("Noop") for _ in range(2)]
        with pytest.raises(QueueFullError, match="'Noop' was not accepted"):
            scheduler.run("Noop")
        gate.open()
        for run in (first, *waiting):
            ended(run)
        ended(scheduler.run("Noop"))

    def test_a_run_after_shutdown(self, scheduler):
        ended(scheduler.run("Noop"))
        scheduler.shutdown()
        scheduler.shutdown()
        with pytest.raises(ShutdownError, match="'Noop' was not accepted"):
            scheduler.run("Noop")


class TestOrderAndLimits:
    def test_no_more_run_than_allowed_and_in_order(self, make, tmp_path, gate):
        scheduler = make(max_processes=1)
        log = str(tmp_path / "log")
        runs = [scheduler.run("Gate", fifo=gate.path, log=log, tag=str(n)) for n in range(4)]
        for n, run in enumerate(runs):
            eventually(lambda n=n: len(lines(log)) == n + 1)
            eventually(lambda run=run: run.state == "running")
            assert [each.state for each in runs[n + 1 :]] == ["pending"] * (3 - n)
            gate.open()
            ended(run)
        assert lines(log) == ["0", "1", "2", "3"]

    def test_a_class_at_its_limit_lets_others_pass(self, make, tmp_path, gate):
        scheduler = make(max_processes=4)
        log = str(tmp_path / "log")
        limited = [
            scheduler.run("OneAtATime", fifo=gate.path, log=log, tag=str(n)) for n in range(3)
        ]
        ended(scheduler.run("Noop"))
        for n, run in enumerate(limited):
            eventually(lambda n=n: len(lines(log)) == n + 1)
            ended(scheduler.run("Noop"))
            gate.open()
            ended(run)
        assert lines(log) == ["0", "1", "2"]


class TestStopping:
    def test_a_waiting_run_never_starts(self, make, gate, tmp_path):
        scheduler = make(max_processes=1)
        first = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: first.pid)
        second = scheduler.run("Log", path=str(tmp_path / "log"))
        assert second.cancel() is True
        ended(second, RunState.CANCELLED)
        assert second.pid is None
        assert second.error.type == "JobCancelled"
        gate.open()
        ended(first)
        assert lines(tmp_path / "log") == []
        assert second.cancel() is False

    def test_a_parked_run_can_be_cancelled(self, make, gate):
        scheduler = make(max_processes=2)
        first, second = (scheduler.run("OneAtATime", fifo=gate.path) for _ in range(2))
        eventually(lambda: first.pid)
        second.cancel()
        ended(second, RunState.CANCELLED)
        gate.open()
        ended(first)

    def test_a_running_one_gets_sigterm(self, scheduler, gate):
        run = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: run.pid)
        assert run.cancel() is True
        ended(run, RunState.CANCELLED)
        assert run.exitcode == -signal.SIGTERM
        assert not is_alive(run.pid)

    def test_one_that_ends_orderly_on_sigterm_is_cancelled_too(self, scheduler, tmp_path):
        log = tmp_path / "log"
        run = scheduler.run("Orderly", log=str(log))
        eventually(lambda: lines(log))
        run.cancel()
        ended(run, RunState.CANCELLED)
        assert run.exitcode == 0

    def test_after_the_grace_nothing_of_the_group_is_left(self, scheduler, tmp_path):
        log = tmp_path / "log"
        run = scheduler.run("Stubborn", log=str(log))
        eventually(lambda: len(lines(log)) == 2)
        run.cancel()
        assert not run.wait(0.1)
        ended(run, RunState.CANCELLED)
        assert run.exitcode == -signal.SIGKILL
        eventually(lambda: not any(is_alive(int(pid)) for pid in lines(log)))

    def test_a_timeout_of_the_class(self, scheduler):
        run = ended(scheduler.run("Impatient", seconds=30), RunState.FAILED)
        assert str(run.error) == "JobTimeout: not done after 0.2 s"
        assert run.exitcode == -signal.SIGTERM

    def test_a_timeout_of_the_run(self, scheduler):
        ended(scheduler.run("Noop"))
        run = ended(scheduler.options(timeout=0.1).run("Sleep", seconds=30), RunState.FAILED)
        assert run.error.type == "JobTimeout"
        ended(scheduler.options(timeout=20).run("Impatient", seconds=0.3))

    def test_a_timeout_of_months(self, scheduler):
        ended(scheduler.options(timeout=90 * 24 * 3600).run("Noop"))

    def test_shutdown_waits(self, scheduler, tmp_path):
        log = tmp_path / "log"
        runs = [scheduler.run("Log", path=str(log)) for _ in range(5)]
        scheduler.shutdown()
        assert {run.state for run in runs} == {RunState.COMPLETED}
        assert len(lines(log)) == 5

    def test_shutdown_stops_what_is_not_done_in_time(self, make, gate, tmp_path):
        scheduler = make(max_processes=1)
        running = scheduler.run("Gate", fifo=gate.path)
        waiting = scheduler.run("Noop")
        eventually(lambda: running.pid)
        scheduler.shutdown(timeout=0.05)
        assert [running.state, waiting.state] == [RunState.CANCELLED] * 2

    def test_shutdown_without_waiting_lets_accepted_runs_finish(self, scheduler, gate):
        run = scheduler.run("Gate", fifo=gate.path)
        scheduler.shutdown(wait=False)
        assert run.state in (RunState.PENDING, RunState.RUNNING)
        gate.open()
        ended(run)
