"""The FastAPI example: a real server, killed and started again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request

import pytest

from tests.conftest import eventually
from tests.webhook_helpers import EXAMPLES


@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path):
    if request.param == "postgres":
        return request.getfixturevalue("database")
    return f"sqlite:///{tmp_path}/signups.db"


@pytest.fixture
def start(tmp_path, store):
    """Starts the server; gives the process, and a function that asks it."""
    started = []

    def start(delay):
        output = tmp_path / f"output{len(started)}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "--app-dir", EXAMPLES, "--port", "0",
                 "fastapi_app:app"],
                stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                env={**os.environ, "STORE": store, "DELAY": str(delay)},
            )  # fmt: skip
        started.append(process)
        found = eventually(
            lambda: re.search(r"http://127\.0\.0\.1:(\d+)", output.read_text()),
            what="the server's address",
        )

        def ask(method, path):
            url = f"http://127.0.0.1:{found[1]}{path}"
            with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
                return json.load(answer)

        return process, ask, output

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_mail_is_sent_after_a_restart_and_only_once(start):
    process, ask, output = start(delay=3600)
    assert ask("POST", "/signup?email=ada") == {"job": "welcome:ada"}
    process.kill()
    process.wait()
    assert "mail to" not in output.read_text()

    process, ask, output = start(delay=0)
    assert ask("GET", "/jobs/welcome:ada")["state"] == "pending"
    assert ask("DELETE", "/jobs/welcome:ada") == {"cancelled": True}
    for _ in range(3):
        assert ask("POST", "/signup?email=eve") == {"job": "welcome:eve"}
    eventually(lambda: ask("GET", "/jobs/welcome:eve")["state"] == "completed")
    process.terminate()
    process.wait(20)
    assert "Application shutdown complete" in output.read_text()
    assert output.read_text().count("mail to eve: Welcome!") == 1
    assert "mail to ada" not in output.read_text()
