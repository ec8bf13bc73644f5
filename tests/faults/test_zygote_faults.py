"""The launcher while processes are killed, stopped and forked under it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from job_scheduler.errors import LaunchError
from job_scheduler.run import RunState
from tests.conftest import eventually, freeze, is_alive, lines, zygote_pid


class TestChildren:
    def test_killed_at_random_moments(self, make_scheduler, tmp_path, seeded):
        scheduler = make_scheduler(max_processes=8)
        scheduler.run("Noop").wait()
        log = tmp_path / "log"
        runs = []
        for tag in range(300):
            run = scheduler.run("Log", path=str(log), tag=str(tag))
            runs.append(run)
            time.sleep(seeded.random() * 0.002)
            if run.pid and seeded.random() < 0.8:
                try:
                    os.kill(run.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it had ended
        for run in runs:
            assert run.wait(20)
        outcomes = {(run.state, run.exitcode) for run in runs}
        assert outcomes <= {(RunState.COMPLETED, 0), (RunState.FAILED, -signal.SIGKILL)}
        tags = [line.split()[0] for line in lines(log)]
        assert len(tags) == len(set(tags))
        completed = {str(n) for n, run in enumerate(runs) if run.state == RunState.COMPLETED}
        assert completed <= set(tags)

    def test_what_a_job_inherits(self, scheduler):
        with socket.create_server(("127.0.0.1", 0)):
            scheduler.run("Noop").wait()
            run = scheduler.run("Descriptors")
            run.wait()
        inherited = {fd: target for fd, target in run.result.items() if fd > 2}
        # The socket that it reports on, and the folder that it was listing.
        assert len(inherited) == 2, inherited
        assert sum("socket" in target for target in inherited.values()) == 1

    def test_descriptors_threads_and_children_do_not_grow(self, start_caller):
        caller = start_caller(
            """
from pathlib import Path
scheduler = JobScheduler(jobs=SAMPLES)
def counts():
    pids = os.getpid(), zygote_pid(scheduler)
    descriptors = [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]
    threads = [len(os.listdir(f"/proc/{pid}/task")) for pid in pids]
    children = [Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in pids]
    return descriptors, threads, [len(each) for each in children]
runs = [scheduler.run("Echo", value=b"x" * 100_000) for _ in range(20)]
scheduler.run("Raise", kind="x").wait()
assert all(run.wait(30) for run in runs)
grow_spares(scheduler)
time.sleep(0.2)  # until the last of them is settled
before = counts()
runs = [scheduler.run("Echo", value=b"x" * 100_000) for _ in range(100)]
runs += [scheduler.run("Raise", kind="x") for _ in range(20)]
runs += [scheduler.run("HardExit", code=9) for _ in range(20)]
runs += [run for run in [scheduler.run("Sleep", seconds=30)] if run.cancel()]
assert all(run.wait(30) for run in runs)
eventually(lambda: counts() == before)
print("done", before, flush=True)
"""
        )
        assert caller.stdout.readline().startswith("done")

    def test_write_on_a_socket_that_is_not_theirs(self, scheduler, capfd):
        run = scheduler.run("WriteEverywhere")
        assert run.wait(20)
        after = scheduler.run("Echo", value=1)
        assert after.wait(20)
        assert (run.state, after.result) == (RunState.COMPLETED, 1)

    def test_has_no_descriptor_for_a_large_result(self, scheduler):
        run = scheduler.run("LargeResultWithoutDescriptors")
        assert run.wait(20)
        assert (run.state, run.result) == (RunState.COMPLETED, None)
        assert "its return value is dropped: " in run.stderr
        assert "Too many open files" in run.stderr


def test_the_kernel_kills_a_job_for_memory(scheduler, control_group):
    group = control_group("memory", 30_000_000)
    run = scheduler.run("EatMemoryIn", group=group, size=300_000_000)
    assert run.wait(30)
    assert run.exitcode == -signal.SIGKILL
    assert run.error.message.endswith("probably the kernel's out-of-memory killer")
    assert " MB peak, " in run.error.message


class TestZygote:
    def test_dies_with_work_running_and_waiting(self, make_scheduler, tmp_path, gate, caplog):
        scheduler = make_scheduler(max_processes=1)
        log = tmp_path / "log"
        running = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: running.pid)
        waiting = [scheduler.run("Log", path=str(log), tag=str(n)) for n in range(20)]
        cancelled = scheduler.run("Noop")
        first = zygote_pid(scheduler)
        freeze(first)  # so that the cancellation is still under way
        cancelled.cancel()
        with caplog.at_level(logging.WARNING, "job_scheduler"):
            os.kill(first, signal.SIGKILL)
            assert all(run.wait(20) for run in (running, cancelled, *waiting))
            eventually(lambda: "20 waiting runs go to a new one" in caplog.text)
        assert running.state == RunState.FAILED
        assert running.error.type == "JobLost"
        assert cancelled.state == RunState.CANCELLED
        assert {run.state for run in waiting} == {RunState.COMPLETED}
        assert [line.split()[0] for line in lines(log)] == [str(n) for n in range(20)]
        assert zygote_pid(scheduler) != first
        eventually(lambda: not is_alive(running.pid))

    def test_dies_while_a_program_started_by_a_job_lives_on(self, scheduler):
        """What a job has started holds none of our sockets, so the death is seen at once."""
        left = scheduler.run("LeaveProgramBehind")
        assert left.wait(20)
        os.kill(zygote_pid(scheduler), signal.SIGKILL)
        run = scheduler.run("Echo", value=1)
        assert run.wait(20)
        assert run.result == 1
        os.kill(left.result, signal.SIGKILL)

    def test_dies_and_one_class_can_no_longer_be_imported(
        self, make_scheduler, tmp_path, monkeypatch, gate
    ):
        module = tmp_path / "fragile.py"
        module.write_text(
            "from job_scheduler import Job\nclass Fragile(Job):\n    def process(self): pass\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        import fragile

        scheduler = make_scheduler(max_processes=1)
        scheduler.jobs["Fragile"] = fragile.Fragile
        assert scheduler.run("Fragile").wait(20)
        first = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: first.pid)
        broken, whole = scheduler.run("Fragile"), scheduler.run("Echo", value=1)
        module.write_text("raise RuntimeError('half deployed, and longer than it was before')\n")
        os.kill(zygote_pid(scheduler), signal.SIGKILL)
        assert broken.wait(20)
        assert whole.wait(20)
        assert "half deployed" in broken.error.message
        assert whole.result == 1

    def test_dies_idle_and_is_replaced(self, scheduler):
        assert scheduler.run("Echo", value=1).wait(20)
        os.kill(zygote_pid(scheduler), signal.SIGKILL)
        runs = [scheduler.run("Echo", value=n) for n in range(10)]
        assert all(run.wait(20) for run in runs)
        assert [run.result for run in runs] == list(range(10))

    def test_dies_again_and_again_under_load(self, make_scheduler, tmp_path, seeded):
        scheduler = make_scheduler(max_processes=4)
        log = tmp_path / "log"
        runs = [scheduler.run("Log", path=str(log), tag="0")]
        stop = threading.Event()

        def submit():
            while not stop.is_set() and len(runs) < 5_000:  # a slow machine is to end as well
                runs.append(scheduler.run("Log", path=str(log), tag=str(len(runs))))
                time.sleep(0.0005)

        submitter = threading.Thread(target=submit)
        submitter.start()
        for _ in range(12):
            line = eventually(lambda: scheduler._dispatcher._launcher._line)
            time.sleep(seeded.random() * 0.1)
            os.kill(line.pid, signal.SIGKILL)
            eventually(lambda line=line: line.buried)
        stop.set()
        submitter.join()
        for run in runs:
            assert run.wait(30), run
        tags = [line.split()[0] for line in lines(log)]
        assert len(tags) == len(set(tags)), "a job ran twice"
        completed = {str(n) for n, run in enumerate(runs) if run.state == RunState.COMPLETED}
        assert completed <= set(tags)
        lost = [run for run in runs if run.state == RunState.FAILED]
        assert {run.error.type for run in lost} <= {"JobLost"}
        assert len(completed) + len(lost) == len(runs)
        assert len(completed) > len(lost)

    def test_dies_each_time_it_is_started(self, make_scheduler, tmp_path, caplog):
        scheduler = make_scheduler(max_processes=1)
        scheduler.run("Noop").wait()
        scheduler._dispatcher._launcher._settings = scheduler._dispatcher._settings
        freeze(zygote_pid(scheduler))
        waiting = scheduler.run("Noop")
        object.__setattr__(
            scheduler._dispatcher._settings, "initializer", "tests.sample_jobs:broken_initializer"
        )
        os.kill(zygote_pid(scheduler), signal.SIGKILL)
        assert waiting.wait(20)
        assert waiting.state == RunState.FAILED
        assert "this initializer is broken" in waiting.error.message

    def test_dies_and_what_it_ran_does_not_go_on(self, make_scheduler, gate, tmp_path):
        """A job that is recorded as failed runs no more, so no limit is passed either."""
        scheduler = make_scheduler(max_processes=2)
        log = tmp_path / "log"
        stubborn = scheduler.run("Stubborn", log=str(log))
        first = scheduler.run("OneAtATime", fifo=gate.path)
        eventually(lambda: first.pid and len(lines(log)) == 2)
        second = scheduler.run("OneAtATime", fifo=gate.path)
        os.kill(zygote_pid(scheduler), signal.SIGKILL)
        assert first.wait(20)
        assert stubborn.wait(20)
        assert {first.error.type, stubborn.error.type} == {"JobLost"}
        for pid in (first.pid, *map(int, lines(log))):
            eventually(lambda pid=pid: not is_alive(pid))
        gate.open("second")
        assert second.wait(20)
        assert second.result == "second"

    def test_imports_what_takes_its_signals(self, start_caller, tmp_path, write_module):
        write_module(
            "grabs",
            "signal.signal(signal.SIGCHLD, signal.SIG_IGN); signal.set_wakeup_fd(-1); "
            "time.sleep(0.5)",
        )
        caller = start_caller(
            """
sys.path.insert(0, sys.argv[1])
sys.modules["grabs_allowed"] = sys
from grabs import Grabs
scheduler = JobScheduler(jobs={**SAMPLES, "Grabs": Grabs}, max_processes=3)
unseen, seen, short = [scheduler.run("Sleep", seconds=s) for s in (0.2, 1.2, 0)]
assert short.wait(20)
eventually(lambda: unseen.pid and seen.pid)
last = scheduler.run("Grabs")
assert all(run.wait(20) for run in (unseen, seen, last))
print(unseen.error, flush=True)
print(seen.state, last.state, flush=True)
""",
            tmp_path,
        )
        assert caller.stdout.readline().startswith("JobLost: its end was not seen")
        assert caller.stdout.readline() == "completed completed\n"

    def test_dies_while_a_stranger_holds_its_sockets(self, start_caller, tmp_path, write_module):
        write_module("forks", "stranger = os.fork() or time.sleep(60)", result="stranger")
        caller = start_caller(
            """
sys.path.insert(0, sys.argv[1])
sys.modules["forks_allowed"] = sys
from forks import Forks
scheduler = JobScheduler(jobs={**SAMPLES, "Forks": Forks})
run = scheduler.run("Forks")
run.wait()
os.kill(zygote_pid(scheduler), signal.SIGKILL)
again = scheduler.run("Forks")
assert again.wait(20), again
for stranger in (run.result, again.result):
    os.kill(stranger, signal.SIGKILL)
print(again.state, flush=True)
""",
            tmp_path,
        )
        assert caller.stdout.readline() == "completed\n"

    def test_ignores_the_signals_that_end_the_program(self, scheduler, gate):
        run = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: run.pid)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(zygote_pid(scheduler), number)
        gate.open()
        assert run.wait(20)
        assert run.state == RunState.COMPLETED


class TestCaller:
    def test_killed_with_work_running_and_waiting(self, start_caller, tmp_path, gate):
        log = tmp_path / "log"
        caller = start_caller(
            """
server = socket.create_server(("127.0.0.1", 0))
scheduler = JobScheduler(jobs=SAMPLES, max_processes=1)
run = scheduler.run("Gate", fifo=sys.argv[1], log=sys.argv[2], tag="first")
eventually(lambda: run.pid)
for n in range(10):
    scheduler.run("Log", path=sys.argv[2], tag=n)
scheduler.run("Echo", value=b"x" * 1_000_000)
scheduler.run("Log", path=sys.argv[2], tag="last")
print(server.getsockname()[1], zygote_pid(scheduler), flush=True)
time.sleep(60)
""",
            gate.path,
            log,
        )
        port, zygote = map(int, caller.stdout.readline().split())
        caller.kill()
        caller.wait()
        with socket.socket() as again:  # without SO_REUSEADDR: nobody may hold it
            again.bind(("127.0.0.1", port))
            again.listen()
        gate.open()
        eventually(lambda: not is_alive(zygote), what="the zygote's end")
        tags = [line.split()[0] for line in lines(log)]
        assert tags == ["first", *map(str, range(10)), "last"]

    def test_killed_with_the_order_to_terminate(self, start_caller, tmp_path, gate):
        log = tmp_path / "log"
        caller = start_caller(
            """
scheduler = JobScheduler(
    jobs=SAMPLES, max_processes=1, grace=0.3, on_parent_exit="terminate"
)
run = scheduler.run("Stubborn", log=sys.argv[1])
eventually(lambda: os.path.exists(sys.argv[1]) and len(open(sys.argv[1]).readlines()) == 2)
scheduler.run("Log", path=sys.argv[1], tag="never")
print(zygote_pid(scheduler), flush=True)
time.sleep(60)
""",
            log,
        )
        zygote = int(caller.stdout.readline())
        caller.kill()
        eventually(lambda: not is_alive(zygote), what="the zygote's end")
        pids = [int(line) for line in lines(log)]
        assert len(pids) == 2
        eventually(lambda: not any(map(is_alive, pids)))

    def test_killed_while_the_zygote_is_stopped_with_the_order_to_terminate(
        self, start_caller, tmp_path
    ):
        """What waits then is not even begun, spares or not."""
        log = tmp_path / "log"
        caller = start_caller(
            """
scheduler = JobScheduler(jobs=SAMPLES, on_parent_exit="terminate")
for _ in range(20):
    scheduler.run("Log", path=sys.argv[1] + ".warm").wait()
eventually(lambda: spares_of(scheduler))
zygote = zygote_pid(scheduler)
freeze(zygote)
for n in range(5):
    scheduler.run("Log", path=sys.argv[1], tag=n)
print(zygote, flush=True)
time.sleep(60)
""",
            log,
        )
        zygote = int(caller.stdout.readline())
        caller.kill()
        caller.wait()
        os.kill(zygote, signal.SIGCONT)
        eventually(lambda: not is_alive(zygote), what="the zygote's end")
        assert lines(log) == []

    def test_has_more_descriptors_than_select_takes(self, start_caller):
        caller = start_caller(
            """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (2000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
kept = [open("/dev/null") for _ in range(1100)]
scheduler = JobScheduler(jobs=SAMPLES)
scheduler.run("Noop").wait()
zygote = zygote_pid(scheduler)
for _ in range(5):
    time.sleep(0.02)  # the quiet moment of a spare
    assert scheduler.run("Noop").wait(20)
eventually(lambda: spares_of(scheduler))
print(zygote_pid(scheduler) == zygote, flush=True)
"""
        )
        assert caller.stdout.readline() == "True\n"

    def test_stopped_and_continued(self, start_caller, tmp_path):
        log = tmp_path / "log"
        caller = start_caller(
            """
scheduler = JobScheduler(jobs=SAMPLES, max_processes=2)
runs = [scheduler.run("Log", path=sys.argv[1], tag=n) for n in range(3000)]
print("accepted", flush=True)
for run in runs:
    run.wait()
print({str(run.state) for run in runs}, flush=True)
""",
            log,
        )
        assert caller.stdout.readline() == "accepted\n"
        freeze(caller.pid)
        time.sleep(0.5)
        os.kill(caller.pid, signal.SIGCONT)
        assert caller.stdout.readline() == "{'completed'}\n"
        assert caller.wait(30) == 0
        assert len(lines(log)) == 3000

    def test_ctrl_c_reaches_the_caller_only(self, start_caller, tmp_path, gate):
        log = tmp_path / "log"
        caller = start_caller(
            """
scheduler = JobScheduler(jobs=SAMPLES)
run = scheduler.run("Gate", fifo=sys.argv[1], log=sys.argv[2], tag="started")
eventually(lambda: run.pid)
try:
    print("ready", flush=True)
    run.wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
run.wait()
print(run.state, run.result, flush=True)
""",
            gate.path,
            log,
        )
        assert caller.stdout.readline() == "ready\n"
        os.killpg(caller.pid, signal.SIGINT)
        assert caller.stdout.readline() == "interrupted\n"
        gate.open("through")
        assert caller.stdout.readline() == "completed through\n"
        assert caller.wait(20) == 0

    @pytest.mark.parametrize("waits", [True, False])
    def test_ends_normally_while_jobs_run(self, start_caller, tmp_path, gate, waits):
        log = tmp_path / "log"
        caller = start_caller(
            """
scheduler = JobScheduler(jobs=SAMPLES, max_processes=1, wait_at_exit=sys.argv[3] == "True")
scheduler.run("Gate", fifo=sys.argv[1])
scheduler.run("Log", path=sys.argv[2], tag="waited")
""",
            gate.path,
            log,
            waits,
        )
        if waits:
            with pytest.raises(subprocess.TimeoutExpired):
                caller.wait(1)
        else:
            assert caller.wait(20) == 0
        gate.open()
        assert caller.wait(20) == 0
        eventually(lambda: len(lines(log)) == 1)

    def test_its_signals_and_children_are_its_own(self, start_caller):
        caller = start_caller(
            """
import threading
calls = []
signal.signal(signal.SIGCHLD, lambda *_: calls.append(1))
scheduler = JobScheduler(jobs=SAMPLES)
scheduler.run("Noop").wait()
started = len(calls)  # the launching process is started by one that ends at once
for _ in range(20):
    scheduler.run("Noop").wait()
assert len(calls) == started, calls
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no children", [t.daemon for t in threading.enumerate()], flush=True)
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
"""
        )
        assert caller.stdout.readline() == "no children [False, True]\n"
        assert caller.wait(20) == 0

    def test_forks_from_a_thread_while_others_run_jobs(self, start_caller, tmp_path):
        log = tmp_path / "log"
        caller = start_caller(
            """
import json, threading
log = sys.argv[1]
scheduler = JobScheduler(jobs=SAMPLES)
mine = scheduler.options(key="one").run("Log", path=log, tag="parent")
busy = [True]
def submit():
    while busy:
        scheduler.run("Noop")
        time.sleep(0.0005)
threads = [threading.Thread(target=submit) for _ in range(3)]
for thread in threads: thread.start()
def fork():
    for n in range(5):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                try:
                    mine.wait() if not mine.state.ended else mine.cancel()
                except RuntimeError as error:
                    assert "forked child" in str(error), error
                    runs = [scheduler.run("Log", path=log, tag=f"child{n}") for _ in range(3)]
                    runs += [scheduler.options(key="one").run("Log", path=log, tag=f"child{n}")]
                    assert all(run.wait(20) for run in runs), runs
                    code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
forker = threading.Thread(target=fork)
forker.start()
forker.join()
busy.clear()
for thread in threads: thread.join()
scheduler.shutdown()
print("done", flush=True)
""",
            log,
            stderr=None,
        )
        assert caller.stdout.readline() == "done\n"
        assert caller.wait(20) == 0
        tags = sorted(line.split()[0] for line in lines(log))
        assert tags == sorted(["parent"] + [f"child{n}" for n in range(5) for _ in range(4)])

    def test_is_a_daemonic_process(self, start_caller, tmp_path):
        caller = start_caller(
            """
import multiprocessing
def host():
    run = JobScheduler(jobs=SAMPLES).run("Echo", value=7)
    run.wait()
    print(multiprocessing.current_process().daemon, run.result, flush=True)
if __name__ == "__main__":
    process = multiprocessing.get_context("fork").Process(target=host, daemon=True)
    process.start()
    process.join()
"""
        )
        assert caller.stdout.readline() == "True 7\n"

    def test_has_few_descriptors(self, start_caller, gate):
        """What is accepted completes; what would not is refused, and says why."""
        caller = start_caller(
            """
import resource
from job_scheduler.errors import QueueFullError
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
scheduler = JobScheduler(jobs=SAMPLES, max_processes=1)
runs = [scheduler.run("Gate", fifo=sys.argv[1])]
try:
    while True:
        runs.append(scheduler.run("Echo", value=b"x" * 100_000))
except QueueFullError as error:
    print(error, flush=True)
assert 20 < len(runs) < 64, len(runs)
assert all(run.wait(20) for run in runs)
print({str(run.state) for run in runs}, flush=True)
assert scheduler.run("Echo", value=b"x" * 100_000).wait(20)
""",
            gate.path,
        )
        assert "runs out of file descriptors (RLIMIT_NOFILE)" in caller.stdout.readline()
        gate.open()
        assert caller.stdout.readline() == "{'completed'}\n"
        assert caller.wait(20) == 0

    def test_many_large_arguments_cost_it_no_descriptors(self, start_caller, gate):
        caller = start_caller(
            """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 1024))
scheduler = JobScheduler(jobs=SAMPLES, max_processes=1)
runs = [scheduler.run("Gate", fifo=sys.argv[1])]
before = len(os.listdir("/proc/self/fd"))
large = [scheduler.run("DescriptorLimits", padding=b"x" * 40_000) for _ in range(300)]
print(len(os.listdir("/proc/self/fd")) - before, flush=True)
assert all(run.wait(30) for run in large)
print({run.result for run in large}, flush=True)
""",
            gate.path,
        )
        assert caller.stdout.readline() == "0\n"
        gate.open()
        assert caller.stdout.readline() == "{(128, 1024)}\n"
        assert caller.wait(20) == 0

    def test_calls_run_in_a_signal_handler(self, start_caller, tmp_path, write_module):
        """Also while the same thread waits for a zygote to start, or for an import."""
        write_module("slow", "time.sleep(0.6)", result="'slow'")
        (tmp_path / "starting.py").write_text("import time\ndef slowly(): time.sleep(0.6)\n")
        caller = start_caller(
            """
sys.path.insert(0, sys.argv[1])
sys.modules["slow_allowed"] = sys
from slow import Slow
scheduler = JobScheduler(jobs={**SAMPLES, "Slow": Slow}, initializer="starting:slowly")
runs = []
def run_more(*_):
    runs.append(scheduler.run("Echo", value=len(runs)))
    runs.append(scheduler.run("Raise", kind="handler"))
signal.signal(signal.SIGALRM, run_more)
signal.setitimer(signal.ITIMER_REAL, 0.3)
noop = scheduler.run("Noop")
assert len(runs) == 2, runs
zygote = zygote_pid(scheduler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
slow = scheduler.run("Slow")
assert all(run.wait(20) for run in (noop, slow, *runs))
print(noop.state, slow.result, [str(run.error or run.result) for run in runs], flush=True)
assert zygote_pid(scheduler) == zygote
scheduler.shutdown()
eventually(lambda: not os.path.exists(f"/proc/{zygote}"))
""",
            tmp_path,
        )
        said = ["0", "ValueError: a handler problem", "2", "ValueError: a handler problem"]
        assert caller.stdout.readline() == f"completed slow {said}\n"
        assert caller.wait(20) == 0

    def test_its_log_handler_is_slow_and_runs_jobs(self, scheduler, tmp_path, monkeypatch):
        """Whatever a handler waits for, the runs of others start and end."""
        entered, leave = threading.Event(), threading.Event()
        runs = []

        class Handler(logging.Handler):
            def emit(self, record):
                entered.set()
                assert leave.wait(20)
                runs.append(scheduler.options(key="handler").run("Pid"))
                runs[-1].wait(20)

        handler = Handler()
        logging.getLogger("job_scheduler").addHandler(handler)
        try:
            failing = scheduler.run("Raise", kind="x")
            assert entered.wait(20)
            other = scheduler.options(key="other").run("WorkingDirectory")  # has to be imported
            assert other.wait(20)
            assert other.state == RunState.COMPLETED
            assert failing.wait(20)
            leave.set()
            assert eventually(lambda: runs)[0].wait(20)
        finally:
            leave.set()
            logging.getLogger("job_scheduler").removeHandler(handler)
        assert runs[0].state == RunState.COMPLETED

    def test_its_log_handler_shuts_down(self, start_caller):
        caller = start_caller(
            """
import logging
class Handler(logging.Handler):
    def emit(self, record):
        scheduler.shutdown(timeout=1)
        print("handled", record.run.state, flush=True)
logging.getLogger("job_scheduler").addHandler(Handler())
scheduler = JobScheduler(jobs=SAMPLES)
runs = [scheduler.run("Raise", kind="x") for _ in range(2)]
assert all(run.wait(20) for run in runs)
"""
        )
        # The interpreter's exit waits until both are logged.
        assert caller.stdout.read() == "handled failed\n" * 2
        assert caller.wait(20) == 0

    def test_asks_for_one_key_twice_at_once(self, start_caller, tmp_path, write_module):
        """Only a signal handler can; there is never a second run."""
        write_module("slow", "time.sleep(0.6)")
        caller = start_caller(
            """
sys.path.insert(0, sys.argv[1])
sys.modules["slow_allowed"] = sys
from slow import Slow
scheduler = JobScheduler(jobs={**SAMPLES, "Slow": Slow})
scheduler.run("Noop").wait()
def again(*_):
    try:
        scheduler.options(key="k").run("Slow")
    except RuntimeError as error:
        print(error, flush=True)
signal.signal(signal.SIGALRM, again)
signal.setitimer(signal.ITIMER_REAL, 0.3)
run = scheduler.options(key="k").run("Slow")
assert scheduler.options(key="k").run("Slow") is run
run.wait()
print(run.state, flush=True)
""",
            tmp_path,
        )
        assert "interrupted by a signal handler that asks for the same" in caller.stdout.readline()
        assert caller.stdout.readline() == "completed\n"

    def test_can_start_no_thread(self, make_scheduler, monkeypatch, gate):
        scheduler = make_scheduler(max_processes=1)

        def fail(_):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(LaunchError, match="can't start new thread"):
                scheduler.run("Noop")
        running = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: running.pid)
        waiting = [scheduler.run("Noop"), scheduler.run("Echo", value=1)]
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            os.kill(zygote_pid(scheduler), signal.SIGKILL)
            assert all(run.wait(20) for run in (running, *waiting))
        assert {run.error.type for run in (running, *waiting)} == {"JobLost"}
        assert "can't start new thread" in waiting[0].error.message
        assert scheduler.run("Noop").wait(20)

    def test_ignores_signals_that_its_jobs_do_not(self, start_caller, tmp_path):
        caller = start_caller(
            """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
scheduler = JobScheduler(jobs=SAMPLES)
run = scheduler.run("SignalState")
run.wait()
print(run.result, flush=True)
"""
        )
        assert caller.stdout.readline() == "([], True, True, True)\n"

    def test_is_interrupted_while_a_class_is_imported(self, start_caller, tmp_path, write_module):
        write_module("slow", "time.sleep(1)", result="'slow'")
        caller = start_caller(
            """
sys.path.insert(0, sys.argv[1])
sys.modules["slow_allowed"] = sys
from slow import Slow
scheduler = JobScheduler(jobs={**SAMPLES, "Slow": Slow})
scheduler.run("Noop").wait()
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    scheduler.run("Slow")
except KeyboardInterrupt:
    pass
runs = [scheduler.run("Echo", value=1), scheduler.run("Slow"), scheduler.run("Pid")]
assert all(run.wait(20) for run in runs)
print([run.state.value for run in runs], runs[1].result, flush=True)
""",
            tmp_path,
        )
        assert caller.stdout.readline() == "['completed', 'completed', 'completed'] slow\n"

    def test_its_stderr_is_full(self, start_caller, tmp_path):
        """A reader that has gone to sleep holds up the jobs that write, and nothing else."""
        reading, writing = os.pipe()
        caller = start_caller(
            """
scheduler = JobScheduler(jobs=SAMPLES, max_processes=2)
loud = scheduler.run("Say", err="loud ", size=2_000_000)
quiet = [scheduler.run("Echo", value=n) for n in range(20)]
assert all(run.wait(20) for run in quiet), quiet
eventually(lambda: loud.state != "pending")  # its start may be heard after their ends
print("quiet ones done, loud one", loud.state, flush=True)
assert loud.wait(20)
print(loud.state, len(loud.stderr) > 60_000, flush=True)
""",
            stderr=writing,
        )
        os.close(writing)
        assert caller.stdout.readline() == "quiet ones done, loud one running\n"
        received = b""
        while data := os.read(reading, 1 << 16):
            received += data
        os.close(reading)
        assert caller.stdout.readline() == "completed True\n"
        assert received == b"loud " + b"x" * 2_000_000 + b"\n"


class TestNested:
    def test_a_job_runs_a_job(self, scheduler, tmp_path):
        run = scheduler.run("Nested", log=str(tmp_path / "log"))
        assert run.wait(20)
        assert run.result == "completed"
        assert len(lines(tmp_path / "log")) == 1
