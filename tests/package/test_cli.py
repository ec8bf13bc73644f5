"""The command ``job-scheduler``, as users call it: in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys

import pytest

import job_scheduler
from job_scheduler import Scheduler
from job_scheduler.cli import worker
from job_scheduler.errors import StoreError
from tests.conftest import ROOT

JOBS = """
from job_scheduler import Job

print("imported")

class Clean(Job):
    def __init__(self, depth=1):
        print("made")
    def run(self):
        print("ran")

class Apart(Job):
    def process(self):
        print("ran apart")

class NeedsCore(Job):
    def __init__(self, core_lib):
        super().__init__(core_lib)
    def run(self):
        print(f"core_lib is {self.core_lib}")
"""

GOOD = """
jobs:
  cleanup:
    initial_delay: 2h32m
    handler: {class: work.clean.Clean, params: {depth: 2}}
  often:
    frequency: 16:00
    max_retries: 3
    timeout: 90
    handler: {class: work.clean.Apart}
  report:
    cron: 0 9 * * mon-fri
    timezone: Asia/Kolkata
    catch_up: latest
    handler: {class: work.clean.Clean}
  over:
    cron: 0 9 * * *
    end: 2001-01-01T00:00Z
    handler: {class: work.clean.Clean}
"""


@pytest.fixture
def command(tmp_path):
    """Runs the command in a folder with a package of jobs, as ``job-scheduler`` would be."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "clean.py").write_text(JOBS)
    script = "import sys; from job_scheduler.cli.main import main; sys.exit(main())"

    def command(*arguments, text=GOOD, how=("-P", "-c", script), before=(), env=None):
        (tmp_path / "jobs.yaml").write_text(text, encoding="utf-8")
        return subprocess.run(
            [*before, sys.executable, *how, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TZ": "UTC", **(env or {})},
            capture_output=True,
            text=True,
            timeout=30,
        )

    return command


def test_a_good_file_is_told_in_words(command):
    done = command("check", "jobs.yaml")
    assert done.stderr == ""
    assert done.returncode == 0
    shown = re.sub(r"\d{4}-\d\d-\d\d 09:00", "DAY 09:00", done.stdout)
    assert shown == (
        "imported\n"
        "jobs.yaml is good: 4 jobs\n"
        "\n"
        "cleanup (work.clean.Clean)\n"
        "    once, after 2 hours 32 minutes\n"
        "\n"
        "often (work.clean.Apart)\n"
        "    every 16 minutes, counted from the end of a run, first at startup\n"
        "    max_retries: 3\n"
        "    timeout: 1 minute 30 seconds\n"
        "\n"
        "report (work.clean.Clean)\n"
        "    at 09:00 on Monday to Friday (Asia/Kolkata)\n"
        "    catch_up: latest\n"
        "    next: DAY 09:00:00+05:30, DAY 09:00:00+05:30, DAY 09:00:00+05:30\n"
        "\n"
        "over (work.clean.Clean)\n"
        "    at 09:00 every day (UTC)\n"
        "    end: 2001-01-01 00:00:00+00:00\n"
        "    next: never; it has ended\n"
    )


def test_one_job_is_counted_as_one(command):
    text = "jobs: [{handler: {class: work.clean.Clean}}]"
    assert "jobs.yaml is good: 1 job\n" in command("check", "jobs.yaml", text=text).stdout


@pytest.mark.parametrize("verb", ["check", "run"])
def test_all_that_is_wrong_is_told_on_stderr(command, verb):
    text = GOOD.replace("2h32m", "2x").replace("latest", "lates")
    done = command(verb, "jobs.yaml", text=text)
    assert (done.returncode, done.stdout) == (1, "imported\n")
    first, second = done.stderr.splitlines()
    assert first.startswith(
        "jobs.yaml, line 4, job 'cleanup': initial_delay is '2x', which cannot be read; give a "
    )
    assert second == (
        "jobs.yaml, line 14, job 'report': catch_up is 'lates'; did you mean 'latest'?"
    )


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_file_that_cannot_be_opened(command, verb):
    done = command(verb, "nowhere.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "nowhere.yaml: No such file or directory\n"


def test_as_a_module(command):
    done = command("check", "jobs.yaml", how=("-m", "job_scheduler"))
    assert done.returncode == 0
    assert "jobs.yaml is good: 4 jobs\n" in done.stdout


def test_the_version(command):
    assert command("--version").stdout == f"job-scheduler {job_scheduler.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "COMMAND"), (("chek", "x"), "invalid choice: 'chek'"), (("check",), "FILE")],
)
def test_a_wrong_call_shows_the_usage(command, arguments, words):
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: job-scheduler")
    assert words in done.stderr


def test_the_help_says_that_the_file_is_trusted(command):
    assert "trusted input" in " ".join(command("check", "--help").stdout.split())


def test_what_the_terminal_cannot_show_is_escaped(command):
    text = "jobs: {Zürich: {handler: {class: work.clean.Clean}}}"
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = command("check", "jobs.yaml", text=text, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Z\\xfcrich" in done.stdout


# Its standard output is a pipe that nobody reads: what stands there is never read, and then closed.
UNREAD = ("bash", "-c", '"$@" > >(exec 0<&-; sleep 0.2); echo "code $?"', "bash")


def test_a_reader_that_goes_away_is_no_fault_of_the_file(command):
    done = command("check", "jobs.yaml", before=UNREAD, env={"PYTHONUNBUFFERED": ""})
    assert (done.stdout, done.stderr) == ("code 1\n", "")


def test_run_ends_when_nobody_reads_its_lines_any_more(command):
    text = """
jobs:
  core: {initial_delay: 0.1s, frequency: 0.1s, handler: {class: work.clean.NeedsCore}}
"""
    reader = ("bash", "-c", '"$@" | grep -m1 "core_lib is"; echo "code ${PIPESTATUS[0]}"', "bash")
    done = command("run", "jobs.yaml", text=text, before=reader)
    assert done.stdout == "core_lib is None\ncode 0\n"
    assert done.stderr == ""


def test_check_says_that_there_is_no_core_lib(command):
    text = "jobs: [{handler: {class: work.clean.NeedsCore}}]"
    done = command("check", "jobs.yaml", text=text)
    assert "its constructor takes a core_lib; here it gets None\n" in done.stdout


def test_a_worker_is_told_of_a_wrong_timeout_at_once(command):
    done = command("worker", "--store", "sqlite:///jobs.db", "--jobs", "work", "--timeout", "-1")
    assert done.returncode == 1
    assert "timeout is -1.0" in done.stderr
    assert "working" not in done.stdout


def test_a_worker_that_cannot_ask_whether_it_is_done_fails(tmp_path, monkeypatch):
    async def away(_scheduler):
        raise StoreError("the store is away")

    monkeypatch.setattr(Scheduler, "wait_until_idle", away)
    options = argparse.Namespace(
        store=f"sqlite:///{tmp_path}/jobs.db", concurrency=1, one_shot=True, timeout=0.0
    )
    with pytest.raises(StoreError, match="is away"):
        asyncio.run(worker._work(options, {}))
