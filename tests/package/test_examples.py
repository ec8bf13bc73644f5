"""The examples run as their texts say, and the demo tells the truth, also about failure."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT, eventually
from tests.webhook_helpers import EXAMPLES, processes_with


@pytest.fixture
def start(tmp_path):
    """Starts a script whose temporary files all go to a folder that has to be empty after it."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    settings = {"TMPDIR": str(temporary), "PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"}

    def start(script, **more):
        return subprocess.Popen(
            [sys.executable, script],
            env={**os.environ, **settings, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    yield start
    eventually(lambda: not processes_with(f"TMPDIR={temporary}"), what="the end of all processes")
    assert list(temporary.iterdir()) == []


@pytest.fixture
def copy(tmp_path):
    """A copy of the examples and jobs, to break something in it; returns the demo's path."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    return tmp_path / "examples" / "demo.py"


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_hello(start):
    assert finish(start(EXAMPLES / "hello.py")) == (0, "Hello, World!\n", "")


def test_my_awesome_job(start, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from job_scheduler import JobScheduler\n"
        "from job_scheduler.registry import discover\n"
        f"scheduler = JobScheduler(jobs=discover({str(ROOT / 'jobs')!r}))\n"
        "scheduler.run('MyAwesomeJob', name='Ada')\n"
    )
    assert finish(start(script)) == (0, "Awesome, Ada!\n", "")


def test_receipts_go_to_the_temporary_folder_if_no_other_is_named(start, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import shutil\n"
        "from jobs.payment_succeeded import PaymentSucceeded, default_folder\n"
        "payment = {'amount': 1, 'currency': 'eur', 'customer': ''}\n"
        "PaymentSucceeded().process(event_id='evt_1', payment_id='pi_1', **payment)\n"
        "print(open(default_folder() + '/pi_1.txt').readline(), end='')\n"
        "shutil.rmtree(default_folder())\n"
    )
    path = {"PYTHONPATH": str(ROOT), "RECEIPTS_DIR": ""}
    code, out, err = finish(start(script, **path))
    assert (code, err) == (0, "")
    assert re.fullmatch(r"receipt for pi_1: 0\.01 EUR \(pid \d+\)\npayment:  pi_1\n", out)


def test_demo(start):
    code, out, err = finish(start(EXAMPLES / "demo.py"))
    assert (code, err) == (0, "")
    assert "51 jobs ran, one for each payment" in out
    assert "FAILED" not in out
    assert out.splitlines()[-1].startswith("All was well")


def test_demo_fails_if_receipts_are_missing(start, copy):
    job = copy.parent.parent / "jobs" / "payment_succeeded.py"
    job.write_text(job.read_text().replace("os.replace(unfinished, path)", "os.remove(unfinished)"))
    code, out, err = finish(start(copy))
    assert (code, err) == (1, "")
    assert [line.split() for line in out.splitlines() if "FAILED" in line] == [
        ["FAILED", "51", "receipts", "were", "written"]
    ]


def test_demo_fails_if_the_signature_is_not_checked(start, copy):
    server = copy.with_name("stripe_webhook.py")
    checked = "any(is_signed(text, signature, secret) for secret in secrets)"
    assert checked in server.read_text()
    server.write_text(server.read_text().replace(checked, "True"))
    code, out, err = finish(start(copy))
    assert (code, err) == (1, "")
    assert "FAILED  the one that was tampered with was refused" in out


def test_demo_fails_if_the_server_does_not_start(start, copy):
    copy.with_name("stripe_webhook.py").write_text("raise SystemExit('no licence')")
    code, out, err = finish(start(copy))
    assert (code, err) == (1, "")
    assert "the server did not start" in out
    assert "no licence" in out


SILENT_SERVER = """\
import socket
server = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{server.getsockname()[1]}", flush=True)
connection, _ = server.accept()
server.accept()
"""


@pytest.fixture
def interruptible():
    """As in a shell's foreground; a program that is started with SIGINT ignored ignores it too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_demo_cleans_up_when_it_is_interrupted(start, copy, number, expected):
    copy.with_name("stripe_webhook.py").write_text(SILENT_SERVER)
    demo = start(copy)
    assert "A Stripe webhook" in demo.stdout.readline()
    demo.send_signal(number)
    code, _, err = finish(demo)
    assert (code, err) == (expected, "")


def test_later(start):
    program = start(EXAMPLES / "later.py")
    seen = ""
    wanted = {"Hello, world!", "in, and out", "Hello, you!", "report 3", "Hello, World!"}
    # Threads that print at the same time may share a line: print writes its end separately.
    while not all(each in seen for each in wanted):
        line = program.stdout.readline()
        assert line, program.stderr.read()
        seen += line
    program.send_signal(signal.SIGINT)
    code, _, err = finish(program)
    assert code == 0
    assert "'greeting' is scheduled: __main__.greet every 1 second" in err
    assert "Traceback" not in err


def command(name):
    return subprocess.Popen(
        [sys.executable, "-m", "job_scheduler", name, "examples/jobs.yaml"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_file_of_jobs_is_good():
    program = command("check")
    out, _ = program.communicate(timeout=60)
    assert program.returncode == 0, out
    assert "at 02:30 on Monday to Friday (Europe/Berlin)" in out


def test_a_file_of_jobs_runs_until_it_is_interrupted():
    program = command("run")
    seen = ""
    while "job 'MyAwesomeJob' completed" not in seen:
        line = program.stdout.readline()
        assert line, seen
        seen += line
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=60)
    assert program.returncode == 0
    assert "Awesome, World!" in seen
