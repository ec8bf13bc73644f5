"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys

from job_scheduler import Cron
from tests.conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def block_with(text):
    [block] = [block for block in BLOCKS if text in block]
    return block


def test_the_five_lines(run_script):
    assert run_script(block_with("class Hello(Job)")).stdout == "Hello, World!\n"


def test_the_web_handler(run_script, tmp_path):
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    code = block_with("from flask import Flask")
    done = run_script(
        f"{code}\n"
        "if __name__ == '__main__':\n"
        "    answer = app.test_client().post('/welcome?name=Ada')\n"
        "    print(answer.status_code, list(answer.json), flush=True)\n"
        "    scheduler.shutdown()\n",
        env={"PYTHONUNBUFFERED": ""},  # with it, lines of parallel processes mix
    )
    assert sorted(done.stdout.splitlines()) == ["202 ['accepted']", "Awesome, Ada!"]
    assert done.stderr == ""


def test_adding_a_job(run_script, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").touch()
    (tmp_path / "jobs" / "send_receipt.py").write_text(block_with("class SendReceipt"))
    done = run_script(
        "from job_scheduler import JobScheduler\n"
        "from job_scheduler.registry import discover\n"
        "from jobs.send_receipt import SendReceipt\n"
        "if __name__ == '__main__':\n"
        "    scheduler = JobScheduler()\n"
        + "".join(f"    {line}\n" for line in block_with("run.cancel()").splitlines())
        + "    print(run.state, run.result)\n"
    )
    assert done.stdout in ("completed sent\n", "cancelled None\n"), done.stderr


def test_later_and_repeatedly(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(block_with("scheduler.wait()"))
    program = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = set()
    while not {"Hello, Ada!", "report", "Hello, later!"} <= seen:
        line = program.stdout.readline()
        assert line, program.stderr.read()
        seen.add(line.strip())
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 0
    assert "Traceback" not in err
    assert "Report at 02:30 on Monday to Friday (Europe/Berlin)" in err


def test_accepted_means_kept(run_script, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").touch()
    (tmp_path / "jobs" / "send_receipt.py").write_text(block_with("class SendReceipt"))
    done = run_script(
        "from job_scheduler import JobScheduler\n"
        "from job_scheduler.registry import discover\n"
        "if __name__ == '__main__':\n"
        + "".join(f"    {line}\n" for line in block_with('options(key="evt_1").run').splitlines())
        + "    run.wait(20)\n"
        + "    print(scheduler.get_run(run.id).result)\n"
        + "    scheduler.shutdown()\n"
    )
    assert (done.stdout, done.stderr) == ("sent\n", "")


def test_in_an_asyncio_program(run_script, database):
    code = block_with("import asyncpg").replace("postgresql://localhost/app", database)
    done = run_script(code)
    assert sorted(done.stdout.splitlines()) == [
        "mail to boss@example.com: Report",
        "mail to user@example.com: Welcome!",
    ]
    assert done.stderr == ""


def test_what_is_said_of_cron():
    assert "every 5 minutes" in Cron("*/5 9-17 * * mon-fri").describe()
    assert len(Cron("*/5 9-17 * * mon-fri").preview()) == 5
