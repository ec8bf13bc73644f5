"""What the README shows of Celery works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.conftest import ROOT, eventually

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def block_with(text):
    [block] = [block for block in BLOCKS if text in block]
    return block


def test_the_readme(redis_server, tmp_path):
    tasks = block_with("# tasks.py, which")
    assert tasks.count("redis://localhost:6379/0") == 2
    (tmp_path / "tasks.py").write_text(tasks.replace("redis://localhost:6379/0", redis_server.url))
    main = block_with('scheduler.remove_job("job1")')
    (tmp_path / "main.py").write_text(
        main.replace("scheduler.remove_job", "run.wait(60)\nscheduler.remove_job")
        + "print(run.state, run.error, flush=True)\n"
    )
    log = tmp_path / "worker.log"
    with log.open("w") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "--app", "tasks", "worker", "--concurrency", "1"],
            cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, timeout=90,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "completed None\n"), done.stderr
        eventually(lambda: "now" in log.read_text())
    finally:
        worker.terminate()
        worker.wait(30)


def test_every_setting_is_explained():
    from job_scheduler.celery import SETTINGS

    text = (ROOT / "docs" / "celery.md").read_text()
    assert [name for name in SETTINGS if f"`{name}`" not in text] == []
