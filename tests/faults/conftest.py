"""Fixtures for tests that break things."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, eventually


@pytest.fixture
def start_caller(tmp_path):
    """Starts a program of its own that runs jobs, in a process group of its own."""
    started = []

    def start(code, *arguments, **options):
        script = tmp_path / f"caller{len(started)}.py"
        script.write_text(CALLER_PROLOGUE + code)
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=options.pop("stderr", subprocess.DEVNULL),
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


CALLER_PROLOGUE = """\
import os, signal, socket, sys, time
from job_scheduler import JobScheduler
from tests.conftest import SAMPLES, eventually, freeze, grow_spares, spares_of, zygote_pid
"""


@pytest.fixture
def control_group(tmp_path):
    """Makes control groups with a limit: "memory" in bytes, or "pids"."""
    made = []

    def make(kind, limit):
        group = make_control_group(kind, f"test-{os.getpid()}-{tmp_path.name}", limit)
        if group is None:
            pytest.skip(f"no control group for {kind} can be made here")
        made.append(group)
        return str(group)

    yield make
    for group in made:
        eventually(lambda group=group: not (group / "cgroup.procs").read_text())
        group.rmdir()


def make_control_group(kind, name, limit):
    in_first_version = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}[kind]
    for root, file in (
        (f"/sys/fs/cgroup/{kind}", in_first_version),
        ("/sys/fs/cgroup", f"{kind}.max"),
    ):
        group = Path(root) / name
        try:
            group.mkdir()
            (group / file).write_text(str(limit))
        except OSError:
            continue
        return group
    return None
