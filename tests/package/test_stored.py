"""``JobScheduler`` with a store: the same verbs, and what was accepted is kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta

import pytest

from job_scheduler import Job, JobScheduler
from job_scheduler.errors import (
    ArgumentsError,
    DuplicateIdError,
    InvalidJobError,
    InvalidOptionError,
    LaunchError,
    ShutdownError,
    StoreError,
    UnknownIdError,
    UnknownJobError,
)
from tests.conftest import ROOT, SAMPLES, eventually, lines

log = []


class Note(Job):
    def run(self, what):
        log.append(what)
        return {"noted": what}


class OnTheLoop(Job):
    async def run(self, seconds=0.0):
        log.append("began")
        await asyncio.sleep(seconds)


class Plus(Job):
    def process(self, first, second):
        return first + second


class Fails(Job):
    def process(self):
        raise ValueError("no")


class RunsAnother(Job):
    scheduler = None

    async def run(self):
        RunsAnother.scheduler.run("Note", what="another")


JOBS = {
    **SAMPLES,
    "Plus": Plus,
    "Fails": Fails,
    "Note": Note,
    "OnTheLoop": OnTheLoop,
    "RunsAnother": RunsAnother,
}


def note_function(what="function"):
    log.append(what)


@pytest.fixture(autouse=True)
def _empty_log():
    log.clear()


@pytest.fixture(params=["sqlite", "postgres"])
def address(request, tmp_path):
    if request.param == "postgres":
        return request.getfixturevalue("database")
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def make(address):
    made = []

    def make(**options):
        scheduler = JobScheduler(jobs=JOBS, store=address, grace=0.5, **{"lease": 1.5, **options})
        made.append(scheduler)
        return scheduler

    yield make
    for scheduler in made:
        scheduler.shutdown(timeout=0)


class TestRuns:
    def test_are_in_the_store_before_run_returns(self, make):
        accepting, elsewhere = make(workers=0), make(workers=0)
        run = accepting.run("Plus", first=1, second=2)
        assert run
        found = elsewhere.get_run(run.id)
        assert (found.id, found.name, found.state) == (run.id, "Plus", "pending")
        assert found.created_at is not None

    def test_go_on_in_a_process_of_their_own_and_tell_what_came_of_it(self, make):
        run = make().run("Plus", first=1, second=2)
        assert run.wait(20)
        assert (run.state, run.result, run.exitcode, run.error) == ("completed", 3, 0, None)
        assert run.started_at <= run.ended_at
        assert make(workers=0).get_run(run.id).result == 3

    def test_of_all_kinds(self, make):
        scheduler = make()
        runs = [scheduler.run("Note", what=1), scheduler.run("OnTheLoop")]
        assert all(run.wait(20) for run in runs)
        assert runs[0].result == {"noted": 1}

    def test_are_done_by_whoever_has_the_store(self, make):
        run = make(workers=0).run("Note", what="x")
        assert not run.wait(0)
        make()
        assert run.wait(20)
        assert log == ["x"]

    def test_with_a_key_are_one_over_programs_and_restarts(self, make):
        first = make().options(key="evt_1").run("Note", what=1)
        second = make(workers=0).options(key="evt_1").run("Note", what=2)
        assert first.id == second.id
        assert second.wait(20)
        third = make().options(key="evt_1").run("Note", what=3)
        assert (third.id, third.state) == (first.id, "completed")
        assert make().options(key="evt_1").run("OnTheLoop").id != first.id
        assert log.count(1) == 1
        assert 2 not in log

    def test_later_by_priority_and_again(self, make):
        accepting = make(workers=0)
        soon = accepting.options(delay=0.2).run("Note", what="later")
        accepting.run("Note", what="second")
        accepting.options(priority=1).run("Note", what="first")
        failing = accepting.options(max_retries=1).run("Fails")
        make(workers=1)
        assert soon.wait(20)
        assert log.index("first") < log.index("second")
        assert log[-1] == "later"
        assert failing.wait(20)
        assert failing.state == "failed"
        assert failing.error.type == "ValueError"

    def test_are_cancelled_wherever_they_are(self, make):
        waiting = make(workers=0).options(delay=3600).run("Note", what=1)
        assert make(workers=0).get_run(waiting.id).cancel()
        assert (waiting.state, waiting.cancel()) == ("cancelled", False)
        going = make().run("OnTheLoop", seconds=3600)
        eventually(lambda: log)
        assert make(workers=0).get_run(going.id).cancel()
        assert going.wait(20)
        assert going.state == "cancelled"

    def test_are_cancelled_between_their_claim_and_their_start(self, make):
        scheduler = make()
        held = []
        scheduler._dispatcher.stored()._engine._going._starter.call = held.append
        run = scheduler.run("TestJob")  # in a process, which another thread starts
        [start] = eventually(lambda: held)
        assert run.cancel()
        start()
        assert run.wait(20)
        assert (run.state, run.error.type) == ("cancelled", "JobCancelled")

    def test_are_handed_back_by_a_shutdown(self, make):
        scheduler = make()
        run = scheduler.run("OnTheLoop", seconds=3600)
        eventually(lambda: log)
        scheduler.shutdown(timeout=0)
        with pytest.raises(ShutdownError):
            scheduler.run("Note", what=1)
        found = make(workers=0).get_run(run.id)
        assert found.state == "pending"
        make()
        eventually(lambda: log == ["began", "began"])
        assert found.cancel()

    def test_of_a_job_in_the_loop_are_refused_with_what_to_write(self, make):
        RunsAnother.scheduler = make()
        run = RunsAnother.scheduler.run("RunsAnother")
        assert run.wait(20)
        assert run.error.type == LaunchError.__name__
        assert "asyncio.to_thread(scheduler.run" in run.error.message

    def test_of_a_forked_child_are_kept_too(self, make, tmp_path):
        scheduler = make()
        assert scheduler.run("Note", what=1).wait(20)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                run = scheduler.run("Pid")
                run.wait(20)
                os.write(write, f"{run.id} {run.state}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        run_id, state = os.read(read, 1000).decode().split()
        assert state == "completed"
        assert scheduler.get_run(run_id).state == "completed"

    def test_can_be_asked_after_the_end(self, make):
        with make() as scheduler:
            run = scheduler.run("Plus", first=1, second=2)
            assert run.wait(20)
            unseen = scheduler.get_run(scheduler.run("Plus", first=2, second=2).id)
        assert (run.state, run.result) == ("completed", 3)
        assert unseen.state in ("pending", "completed")
        assert scheduler.get_run(run.id).result == 3
        for verb in (scheduler.get_job_info, scheduler.pause_job, scheduler.remove_job):
            with pytest.raises(ShutdownError, match="was shut down"):
                verb("job")

    def test_can_be_asked_in_a_forked_child(self, make):
        run = make(workers=0).run("Plus", first=1, second=2)
        child = os.fork()
        if child == 0:
            os._exit(0 if run.state == "pending" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_may_be_waited_for_while_something_is_scheduled(self, make):
        scheduler, done = make(), threading.Event()

        def run_and_wait():
            while not done.is_set():
                scheduler.run("Note", what=1).wait()

        threads = [threading.Thread(target=run_and_wait, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()

        def add():
            for number in range(150):
                scheduler.add_job(f"job-{number}", "Note", "1h", kwargs={"what": 2})

        adding = threading.Thread(target=add, daemon=True)
        adding.start()
        adding.join(20)
        done.set()
        assert not adding.is_alive()
        for thread in threads:
            thread.join(20)


class TestSchedules:
    def test_are_of_names_classes_and_functions(self, make):
        scheduler = make()
        scheduler.schedule(0, 0.01, "OnTheLoop")
        scheduler.add_job("f", note_function, interval=0.05, args=["tick"])
        eventually(lambda: log.count("began") > 2 and log.count("tick") > 2)
        assert scheduler.get_job_info("OnTheLoop")["completed"] > 1
        scheduler.stop("OnTheLoop")
        scheduler.remove_job("f")
        with pytest.raises(UnknownIdError):
            scheduler.get_job_info("f")

    def test_of_objects_are_refused_with_what_to_give(self, make):
        with pytest.raises(InvalidJobError, match="give the class Note"):
            make().schedule(0, 1, Note())

    def test_are_declared_by_each_start_and_each_worker(self, make):
        def declare(interval):
            scheduler = make(workers=0)
            scheduler.add_job("f", note_function, interval=interval)
            return scheduler.get_job_info("f")

        first = declare("1h")
        assert declare("1h") == first
        changed = declare("2h")
        assert changed["trigger"] == "every 2 hours"
        assert changed["next_run_time"] > first["next_run_time"]
        scheduler = make(workers=0)
        scheduler.add_job("g", note_function, interval=1)
        with pytest.raises(DuplicateIdError, match="in this program"):
            scheduler.add_job("g", note_function, interval=1)
        scheduler.add_job("g", note_function, interval=2, conflict_resolution="replace")
        assert scheduler.get_job_info("g")["trigger"] == "every 2 seconds"

    def test_pause_resume_and_run_now(self, make):
        scheduler = make()
        scheduler.add_job("f", note_function, interval="1h")
        scheduler.pause_job("f")
        assert make(workers=0).get_job_info("f")["paused"]
        scheduler.resume_job("f")
        assert scheduler.run_job_now("f").wait(20)
        assert log == ["function"]
        for verb in (scheduler.pause_job, scheduler.resume_job, scheduler.remove_job):
            with pytest.raises(InvalidOptionError, match="job_id is"):
                verb("\0")
            with pytest.raises(UnknownIdError):
                verb("unknown")

    def test_once(self, make):
        scheduler = make()
        scheduler.schedule_once(0.05, "OnTheLoop")
        past = datetime.now(UTC) - timedelta(hours=1)
        scheduler.add_job("past", note_function, at=past)
        eventually(lambda: sorted(log) == ["began", "function"])


class TestMistakes:
    def test_of_making_one(self, address, tmp_path):
        for options, said in [
            ({"workers": 3}, "'workers' needs a store"),
            ({"store": address, "workers": -1}, "workers is -1"),
            ({"store": address, "eager": True}, "eager=True"),
            ({"store": "jobs.db"}, "it must be like"),
            ({"store": "memory://"}, "keeps nothing that this program does not"),
            ({"store": "sqlite:///:memory:"}, "a file that programs share"),
            ({"store": address, "lease": 0}, "lease"),
        ]:
            with pytest.raises(InvalidOptionError, match=said):
                JobScheduler(**options)

    def test_of_asking_before_there_is_anything(self, make):
        scheduler = make(workers=0)
        for verb in ("get_job_info", "pause_job", "resume_job", "run_job_now", "remove_job"):
            with pytest.raises(UnknownIdError, match="'unknown'"):
                getattr(scheduler, verb)("unknown")

    def test_of_running(self, make):
        scheduler = make(workers=0)
        with pytest.raises(UnknownJobError, match="did you mean 'Note'"):
            scheduler.run("Not")
        with pytest.raises(ArgumentsError, match="missing: what"):
            scheduler.run("Note")
        with pytest.raises(ArgumentsError, match=r"kwargs\['what'\] is b'x'.*base64"):
            scheduler.run("Note", what=b"x")
        with pytest.raises(UnknownIdError, match="no run 'x'"):
            scheduler.get_run("x")
        with pytest.raises(InvalidOptionError, match="key is ''"):
            scheduler.options(key="").run("Note", what=1)

    def test_a_store_that_cannot_be_opened(self, tmp_path):
        scheduler = JobScheduler(jobs=JOBS, store=f"sqlite:///{tmp_path}/no/such/folder/jobs.db")
        with pytest.raises(StoreError, match="folder"):
            scheduler.run("Note", what=1)
        scheduler.shutdown(timeout=0)

    def test_asking_for_a_run_without_a_store(self):
        with pytest.raises(InvalidOptionError, match="give JobScheduler"):
            JobScheduler().get_run("x")


PROGRAM = """
    import os, signal, sys, time
    from job_scheduler import Job, JobScheduler

    class Append(Job):
        def process(self, path, text, seconds=0):
            with open(path, "a") as file:
                file.write(text + " began\\n")
            time.sleep(seconds)
            with open(path, "a") as file:
                file.write(text + "\\n")

    if __name__ == "__main__":
        scheduler = JobScheduler({"Append": Append}, store="sqlite:///jobs.db", lease=1)
        what = sys.argv[1]
        if what == "accept and die":
            scheduler.run("Append", path="log", text="a", seconds=float(sys.argv[2]))
            if float(sys.argv[2]):
                while not os.path.exists("log"):
                    time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        while not os.path.exists("log") or "a" not in open("log").read().splitlines():
            time.sleep(0.01)
        scheduler.shutdown()
"""


class TestCrashes:
    @pytest.mark.parametrize("seconds", [0, 3600], ids=["right after run()", "amid the job"])
    def test_lose_nothing(self, tmp_path, seconds):
        (tmp_path / "app.py").write_text(textwrap.dedent(PROGRAM))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}

        def start(*arguments):
            return subprocess.run(
                [sys.executable, "app.py", *arguments],
                cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
            )  # fmt: skip

        done = start("accept and die", str(seconds))
        assert done.returncode == -signal.SIGKILL, done.stderr
        if seconds:
            assert lines(tmp_path / "log") == ["a began"]
            # The next attempt ends at once.
            import sqlite3

            file = sqlite3.connect(tmp_path / "jobs.db")
            with contextlib.closing(file), file:
                file.execute(
                    "UPDATE scheduled_jobs SET task_data = json_set(task_data, "
                    "'$.kwargs.seconds', 0)"
                )
        done = start("run")
        assert done.returncode == 0, done.stderr
        assert lines(tmp_path / "log")[-1] == "a"


def test_a_job_in_a_process_may_run_others(tmp_path):
    (tmp_path / "app.py").write_text(
        textwrap.dedent(
            """
            from job_scheduler import Job, JobScheduler

            class Second(Job):
                def process(self):
                    return "second"

            class First(Job):
                def process(self):
                    return scheduler.run("Second").id

            scheduler = JobScheduler({"First": First, "Second": Second}, store="sqlite:///jobs.db")

            if __name__ == "__main__":
                first = scheduler.run("First")
                assert first.wait(30), first
                assert first.state == "completed", first.error
                second = scheduler.get_run(first.result)
                assert second.wait(30)
                print(second.result)
                scheduler.shutdown()
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("second\n", 0), done.stderr


def test_threads_may_all_run_at_one_time(make):
    scheduler = make()
    runs = []
    threads = [
        threading.Thread(
            target=lambda: runs.extend(scheduler.run("Note", what=n) for n in range(20))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.id for run in runs}) == 160
    assert all(run.wait(20) for run in runs)
    assert len(log) == 160
