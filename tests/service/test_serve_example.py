"""``make serve``: a server with lively jobs, posted once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from tests.conftest import ROOT, eventually
from tests.service.test_serve import Server


class Example(Server):
    command = ("examples/serve.py",)


@pytest.fixture
def start(tmp_path):
    """Starts the example in a copy of this project, so that nothing is left in it."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("jobs", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    servers = []

    def start():
        server = Example(tmp_path)
        servers.append(server)
        return server.ready()

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.end()


def test_the_first_look_is_not_empty_and_a_second_start_adds_nothing(start, tmp_path):
    server = start()
    assert str(tmp_path / ".serve") in server.text.splitlines()[0]
    assert (tmp_path / ".serve" / "scheduler.db").exists()
    jobs = eventually(lambda: all_jobs(server), what="the jobs")
    assert len({job["job_type"] for job in jobs}) >= 5
    assert [job["is_active"] for job in jobs].count(False) == 1
    eventually(
        lambda: len(server.ask("GET", "/runs?state=completed")) >= 5, what="a few runs of them"
    )
    assert server.ask("GET", "/runs?job_type=backup&state=running")
    run = server.ask("POST", "/run/FetchPrices", {"parameters": {"fails_one_in": 1}})
    path = f"/runs/{run['id']}"
    eventually(lambda: server.ask("GET", path)["state"] == "failed", what="a failed run")
    assert "503 Service Unavailable" in server.ask("GET", path)["error"]
    assert server.end(signal.SIGINT) == 0

    again = start()
    assert again.ask("GET", f"/runs/{run['id']}")["state"] == "failed"
    eventually(lambda: "Ctrl-C ends it" in again.text, what="its last line")
    assert [job["name"] for job in again.ask("GET", "/jobs")] == [job["name"] for job in jobs]
    assert again.end() == 0


def all_jobs(server):
    jobs = server.ask("GET", "/jobs")
    return jobs if len(jobs) == 8 else None


def test_a_mistake_is_the_servers(tmp_path):
    for name in ("jobs", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    server = Example(tmp_path, "--port", "x")
    assert server.process.wait(60) == 1
    assert "--port is 'x'" in server.text
    assert "Traceback" not in server.text


def test_the_makefile_starts_it():
    done = subprocess.run(
        ["make", "--dry-run", "serve"],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python examples/serve.py" in done.stdout
