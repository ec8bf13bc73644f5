"""Fixtures that all tests share."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from job_scheduler import JobScheduler
from tests import sample_jobs

pytest_plugins = ["tests.postgres"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Begun in the background of a shell: programs that are to be interrupted would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent

SAMPLES = {
    name: value
    for name, value in vars(sample_jobs).items()
    if isinstance(value, type)
    and issubclass(value, sample_jobs.Job)
    and value is not sample_jobs.Job
}


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the long forms of tests/soak")


def eventually(condition, timeout=20.0, what="the condition"):
    """Wait until the condition holds and return its value; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout} s")
        time.sleep(0.005)


def lines(path):
    """The lines of a file, none if it does not exist."""
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def is_alive(pid):
    """Whether a process of this id exists and is no zombie."""
    try:
        return state_of(pid) != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends while it is read
        return False


def state_of(pid):
    """A letter as in ps(1): "Z" for a zombie, "T" for a stopped process."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def freeze(pid):
    """Stop a process, and wait until it stands: a signal is only on its way at first."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: state_of(pid) == "T", what=f"the stop of {pid}")


def zygote_pid(scheduler):
    """The process that a scheduler's jobs are forked from."""
    return scheduler._dispatcher._launcher._line.pid


def spares_of(scheduler):
    """The processes that wait for a job, forked ahead by the zygote of a scheduler."""
    children = Path("/proc/{0}/task/{0}/children".format(zygote_pid(scheduler)))
    running = {run.pid for run in scheduler._dispatcher._launcher.pending()}
    return [pid for pid in map(int, children.read_text().split()) if pid not in running]


def grow_spares(scheduler, count=8):
    """Run bursts until so many spares are kept, and return them; they know Noop and Pid."""
    deadline = time.monotonic() + 30
    while True:
        for run in [scheduler.run(job) for job in ("Noop", "Pid") for _ in range(20)]:
            assert run.wait(20)
        settled = time.monotonic() + 1
        while time.monotonic() < settled:
            spares = spares_of(scheduler)
            if len(spares) == count:
                return spares
            time.sleep(0.005)
        assert time.monotonic() < deadline, f"there are {len(spares)} spares, not {count}"


class FifoGate:
    """What ``Gate`` jobs wait for."""

    def __init__(self, path):
        self.path = str(path)
        os.mkfifo(self.path)

    def open(self, text="open"):
        """Let one waiting job go on; blocks until it waits."""
        with open(self.path, "w") as file:
            file.write(text)

    def release(self):
        """Let go what still waits, so that a failed test leaves no process."""
        os.close(os.open(self.path, os.O_RDWR | os.O_NONBLOCK))


@pytest.fixture
def gate(tmp_path):
    gate = FifoGate(tmp_path / "gate")
    yield gate
    gate.release()


@pytest.fixture
def make_scheduler():
    """Makes schedulers that know all sample jobs and are shut down at the end."""
    made = []

    def make(**options):
        options.setdefault("grace", 0.5)
        scheduler = JobScheduler(jobs=SAMPLES, **options)
        made.append(scheduler)
        return scheduler

    yield make
    for scheduler in made:
        scheduler.shutdown(timeout=0)


@pytest.fixture
def scheduler(make_scheduler):
    return make_scheduler()


@pytest.fixture
def run_script(tmp_path):
    """Runs a script of its own in a fresh interpreter and returns the finished process."""

    def run(code, *arguments, name="script.py", timeout=60, check=True, module=False, **options):
        script = tmp_path / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(textwrap.dedent(code))
        what = ["-m", name.removesuffix(".py").replace("/", ".")] if module else [str(script)]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
        done = subprocess.run(
            [sys.executable, *what, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=tmp_path,
            env=environment | options.pop("env", {}),
            **options,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def write_module(tmp_path):
    """Writes a module with a job class that does this wherever it is not imported by the test."""

    def write(name, elsewhere, result="None"):
        class_name = name.title().replace("_", "")
        (tmp_path / f"{name}.py").write_text(
            "import os, signal, sys, time\n"
            "from job_scheduler import Job\n"
            f"class {class_name}(Job):\n"
            f"    def process(self): return {result}\n"
            f"if '{name}_allowed' not in sys.modules: {elsewhere}\n"
        )

    return write


@pytest.fixture
def seeded():
    """A random generator whose seed is printed, so that a failure can be repeated."""
    seed = int(os.environ.get("TEST_SEED", time.time_ns() % 1_000_000))
    print(f"TEST_SEED={seed}")
    return random.Random(seed)
