"""Spare children while they are killed, stopped, refused and left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from job_scheduler.run import RunState
from tests.conftest import (
    eventually,
    freeze,
    grow_spares,
    is_alive,
    lines,
    spares_of,
    zygote_pid,
)


def processor_time(pid):
    """Seconds that a process and its ended children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def test_each_takes_one_job_only(scheduler):
    waiting = grow_spares(scheduler)
    runs = [scheduler.run("Pid") for _ in range(8)]
    assert all(run.wait(20) for run in runs)
    pids = {run.result[0] for run in runs}
    assert len(pids) == 8
    assert pids & set(waiting)
    grow_spares(scheduler)


def test_there_are_none_if_none_are_wanted(make_scheduler):
    scheduler = make_scheduler(spares=0)
    assert all(run.wait(20) for run in [scheduler.run("Noop") for _ in range(20)])
    time.sleep(0.1)
    assert spares_of(scheduler) == []


def test_one_that_is_killed_costs_no_run(make_scheduler, tmp_path, seeded):
    scheduler = make_scheduler(max_processes=8)
    log = tmp_path / "log"
    runs = [scheduler.run("Log", path=str(log), tag="first")]
    assert runs[0].wait(20)
    for tag in range(200):
        for pid in spares_of(scheduler):
            if seeded.random() < 0.3:
                try:
                    os.kill(pid, seeded.choice([signal.SIGKILL, signal.SIGTERM]))
                except ProcessLookupError:
                    continue  # it had ended
        runs.append(scheduler.run("Log", path=str(log), tag=str(tag)))
        time.sleep(seeded.random() * 0.003)
    assert all(run.wait(20) for run in runs)
    ended = {(run.state, run.exitcode) for run in runs}
    # One that is killed when it has its job already is a killed job.
    assert ended <= {("completed", 0), ("failed", -signal.SIGKILL), ("failed", -signal.SIGTERM)}
    tags = [line.split()[0] for line in lines(log)]
    assert len(tags) == len(set(tags))
    assert len(tags) >= sum(run.state == RunState.COMPLETED for run in runs)


def test_a_run_whose_spare_dies_before_it_begins_is_given_to_another(scheduler):
    for pid in grow_spares(scheduler):
        freeze(pid)
    stopped = spares_of(scheduler)
    runs = [scheduler.run("Pid") for _ in range(3)]
    assert not runs[0].wait(0.2)
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)
    assert all(run.wait(20) for run in runs)
    assert {str(run.error or run.state) for run in runs} == {"completed"}
    assert not {run.result[0] for run in runs} & set(stopped)


def test_they_leave_with_the_zygote(scheduler):
    spares = grow_spares(scheduler)
    os.kill(zygote_pid(scheduler), signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, spares)))


def test_they_leave_after_a_shutdown(scheduler):
    spares = grow_spares(scheduler)
    zygote = zygote_pid(scheduler)
    scheduler.shutdown()
    eventually(lambda: not any(map(is_alive, [zygote, *spares])))


def test_they_leave_although_an_import_has_forked(
    make_scheduler, tmp_path, monkeypatch, write_module
):
    """What a module forks when it is imported inherits nothing that holds a spare."""
    write_module("forking", "stranger = os.fork() or time.sleep(60)", result="stranger")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "forking_allowed", os)
    import forking

    scheduler = make_scheduler()
    spares = grow_spares(scheduler)
    scheduler.jobs["Forking"] = forking.Forking
    run = scheduler.run("Forking")
    assert run.wait(20)
    try:
        eventually(lambda: not any(map(is_alive, spares)))
    finally:
        os.kill(run.result, signal.SIGKILL)


def test_the_zygote_rests_while_all_places_are_taken(make_scheduler, gate):
    scheduler = make_scheduler(max_processes=2)
    assert scheduler.run("Noop").wait(20)
    runs = [scheduler.run("Gate", fifo=gate.path) for _ in range(10)]
    eventually(lambda: runs[1].pid)
    before = processor_time(zygote_pid(scheduler))
    time.sleep(1)
    assert processor_time(zygote_pid(scheduler)) - before < 0.3
    for run in runs:
        run.cancel()


@pytest.mark.parametrize("spares", [0, 8])
def test_the_zygote_rests_when_nothing_is_to_be_done(make_scheduler, spares):
    scheduler = make_scheduler(spares=spares)
    grow_spares(scheduler, spares)
    before = processor_time(zygote_pid(scheduler))
    time.sleep(1)
    assert processor_time(zygote_pid(scheduler)) - before < 0.1


def test_there_are_fewer_after_a_quiet_time_and_more_again(make_scheduler):
    scheduler = make_scheduler()
    settings = (scheduler._dispatcher or scheduler._start())._settings
    object.__setattr__(settings, "spare_seconds", 0.05)
    for _ in range(2):
        assert all(run.wait(20) for run in [scheduler.run("Noop") for _ in range(50)])
        eventually(lambda: keeps_one_spare(scheduler))


def keeps_one_spare(scheduler):
    """Whether there is one spare, and still is after half a second."""
    for _ in range(50):
        if len(spares_of(scheduler)) != 1:
            return False
        time.sleep(0.01)
    return True


def test_spares_that_die_at_once_are_not_forked_again_and_again(
    make_scheduler, tmp_path, monkeypatch, write_module
):
    write_module("deadly_fork", "os.register_at_fork(after_in_child=lambda: os._exit(5))")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "deadly_fork_allowed", os)
    import deadly_fork

    scheduler = make_scheduler()
    scheduler.jobs["DeadlyFork"] = deadly_fork.DeadlyFork
    run = scheduler.run("DeadlyFork")
    assert run.wait(20)
    assert str(run.error) == "JobExited: exited with code 5"
    before = processor_time(zygote_pid(scheduler))
    time.sleep(1)
    assert processor_time(zygote_pid(scheduler)) - before < 0.3


def test_few_descriptors(start_caller):
    """Jobs wait for descriptors; spares do without."""
    caller = start_caller(
        """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
scheduler = JobScheduler(jobs=SAMPLES, max_processes=100)
scheduler.run("Noop").wait()
zygote = zygote_pid(scheduler)
runs = []
for _ in range(60):
    runs.append(scheduler.run("Sleep", seconds=0.5))
    time.sleep(0.005)
assert all(run.wait(30) for run in runs)
print({str(run.error or run.state) for run in runs}, zygote_pid(scheduler) == zygote, flush=True)
"""
    )
    assert caller.stdout.readline() == "{'completed'} True\n"


def test_little_memory(start_caller):
    """A job that finds none says so; the others, and the zygote, do their work."""
    caller = start_caller(
        """
import resource
resource.setrlimit(resource.RLIMIT_DATA, (80_000_000, 80_000_000))
scheduler = JobScheduler(jobs=SAMPLES)
small = [scheduler.run("Echo", value=b"x" * 100_000) for _ in range(20)]
large = [scheduler.run("EatMemory", size=500_000_000) for _ in range(5)]
small += [scheduler.run("Echo", value=n) for n in range(20)]
assert all(run.wait(20) for run in small + large)
print({run.state.value for run in small}, {run.error.type for run in large}, flush=True)
"""
    )
    assert caller.stdout.readline() == "{'completed'} {'MemoryError'}\n"


def test_few_processes(start_caller, control_group):
    """Jobs wait for processes; spares do without."""
    caller = start_caller(
        """
with open(f"{sys.argv[1]}/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
scheduler = JobScheduler(jobs=SAMPLES, max_processes=100)
scheduler.run("Noop").wait()
runs = [scheduler.run("Sleep", seconds=0.1) for _ in range(60)]
assert all(run.wait(30) for run in runs)
print({str(run.error or run.state) for run in runs}, flush=True)
""",
        control_group("pids", 12),
    )
    assert caller.stdout.readline() == "{'completed'}\n"
    assert caller.wait(20) == 0


def test_the_rehearsal_makes_no_job_that_could_notice_it(make_scheduler, tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("NOTICED_LOG", str(log))
    scheduler = make_scheduler()
    runs = []
    for _ in range(3):
        runs.append(scheduler.run("Noticed"))
        assert runs[-1].wait(20)
        grow_spares(scheduler)
    assert lines(log) == [str(run.result) for run in runs]
