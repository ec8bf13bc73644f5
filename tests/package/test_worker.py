"""The command ``job-scheduler worker``."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from job_scheduler import Job, JobScheduler, Scheduler
from job_scheduler.errors import DuplicateJobError, JobImportError
from job_scheduler.finding import find_jobs
from tests.conftest import ROOT, eventually

JOBS = """
    import asyncio, time
    from job_scheduler import Job

    class Append(Job):
        def process(self, path, text, seconds=0):
            time.sleep(seconds)
            with open(path, "a") as file:
                file.write(text + "\\n")

    class Waits(Job):
        async def run(self, path):
            open(path, "w").close()
            await asyncio.sleep(3600)
"""

TASKS = """
    from job_scheduler import Job
    from json import dumps

    async def send(path):
        open(path, "w").close()

    not_this = lambda: None
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").touch()
    (tmp_path / "jobs" / "append.py").write_text(textwrap.dedent(JOBS))
    (tmp_path / "tasks_of_test.py").write_text(textwrap.dedent(TASKS))
    return tmp_path


class Append(Job):
    def process(self, path, text, seconds=0):
        raise AssertionError("only the worker runs it")


class Waits(Job):
    async def run(self, path):
        raise AssertionError("only the worker runs it")


@pytest.fixture
def scheduler(folder):
    """Accepts runs, and runs none."""
    jobs = {"Append": Append, "Waits": Waits}
    scheduler = JobScheduler(jobs, workers=0, store=f"sqlite:///{folder}/jobs.db")
    yield scheduler
    scheduler.shutdown()


@pytest.fixture
def work(folder):
    """Starts a worker in the folder."""
    started = []

    def work(*options, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "job_scheduler", "worker", *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield work
    for process in started:
        process.kill()
        process.communicate()


def test_one_shot_runs_what_is_due_and_ends(scheduler, work, folder):
    runs = [scheduler.run("Append", path=str(folder / "log"), text=str(n)) for n in range(5)]
    later = scheduler.options(delay=3600).run("Append", path=str(folder / "log"), text="later")
    out, err = work("--store", "sqlite:///jobs.db", "--one-shot").communicate(timeout=60)
    assert "jobs: Append, Waits" in out, err
    assert sorted((folder / "log").read_text().split()) == ["0", "1", "2", "3", "4"]
    assert {run.state for run in runs} == {"completed"}
    assert later.state == "pending"


def test_sigterm_waits_for_what_goes_on_and_a_second_one_hands_it_back(scheduler, work, folder):
    began = folder / "began"
    waits = scheduler.run("Waits", path=str(began))
    worker = work(DATABASE_URL="sqlite:///jobs.db")
    eventually(began.exists)
    short = scheduler.run("Append", path=str(folder / "log"), text="short", seconds=0.5)
    eventually(lambda: short.state == "running")
    worker.send_signal(signal.SIGTERM)
    assert short.wait(20)
    assert short.state == "completed"
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    out, err = worker.communicate(timeout=20)
    assert worker.returncode == 0, err
    assert "Traceback" not in out + err
    assert waits.state == "pending"


def test_functions_of_a_module(work, folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))

    async def schedule():
        import tasks_of_test

        scheduler = Scheduler(store=f"sqlite:///{folder}/jobs.db")
        await scheduler.schedule(tasks_of_test.send, args=[str(folder / "sent")])
        await scheduler.shutdown()

    asyncio.run(schedule())
    worker = work("--store", "sqlite:///jobs.db", "--jobs", "tasks_of_test", "--one-shot")
    out, err = worker.communicate(timeout=60)
    assert "jobs: tasks_of_test:send\n" in out, err
    assert (folder / "sent").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "say which store: --store sqlite:///jobs.db"),
        (("--store", "jobs.db"), "it must be like 'sqlite:///jobs.db'"),
        (("--store", "sqlite:///x/y/jobs.db"), "folder"),
        (("--store", "sqlite:///jobs.db", "--jobs", "no_such"), "jobs 'no_such': cannot be"),
        (("--store", "sqlite:///jobs.db", "--jobs", "no/such"), "no such folder"),
        (("--store", "sqlite:///jobs.db", "--concurrency", "0"), "max_concurrent_jobs is 0"),
    ],
)
def test_mistakes_are_told_in_one_line(work, options, said):
    worker = work(*options, DATABASE_URL="") if options else work()
    out, err = worker.communicate(timeout=60)
    assert worker.returncode == 1
    assert said in err
    assert "Traceback" not in out + err


def test_a_module_that_fails_is_told(tmp_path, monkeypatch):
    (tmp_path / "fails_at_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(JobImportError, match="ZeroDivisionError"):
        find_jobs(["fails_at_import"])


def test_one_name_in_two_places_is_told_with_both(tmp_path, monkeypatch):
    for name in ("first_place", "second_place"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(JOBS))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DuplicateJobError, match=r"first_place\.py, one in .*second_place\.py"):
        find_jobs(["first_place", "second_place"])
    assert find_jobs(["first_place", "first_place"]).keys() == {"Append", "Waits"}
