"""``job-scheduler serve`` as a real process: its start, its mistakes, its end, and many of them."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import eventually, lines

BARE = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("JOB_SCHEDULER_", "DATABASE_URL", "MAX_CONCURRENT", "DEBUG"))
}

JOB_FILE = '''
import os, time
from job_scheduler import Job

class Marks(Job):
    """Writes a line at its start and at its end."""

    def process(self, *, path: str, seconds: float = 0.0, tag: str = ""):
        with open(path, "a") as file:
            file.write(f"start {tag} {os.getpid()}\\n")
        time.sleep(seconds)
        with open(path, "a") as file:
            file.write(f"end {tag} {os.getpid()}\\n")
'''


class Server:
    """One ``job-scheduler serve``."""

    command: tuple[str, ...] = ("-m", "job_scheduler.service")

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.output = folder / f"output{time.monotonic_ns()}"
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *self.command, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**BARE, "JOB_SCHEDULER_PORT": "0", **environment},
            )
        self.url = ""

    def ready(self) -> Server:
        found = eventually(
            lambda: re.search(r"http://\S+?:\d+", self.text) or self.process.poll() is not None,
            what="the server's address",
        )
        assert not isinstance(found, bool), self.text
        self.url = found[0]
        eventually(self._answers, what="an answer")
        return self

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/readyz") == {"status": "ready"}
        except urllib.error.URLError:
            return False

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def ask(self, method: str, path: str, body: object = None, **headers: str):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:  # what was sent is read at once, so that no socket is left open
                told = io.BytesIO(error.read())
            raise urllib.error.HTTPError(
                error.url, error.code, error.reason, error.headers, told
            ) from None
        return json.loads(content) if content else None

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def start(tmp_path):
    """Starts servers in one folder, which has a folder of jobs."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").touch()  # or the one of this project is preferred
    (tmp_path / "jobs" / "marks.py").write_text(JOB_FILE)
    servers = []

    def start(*arguments, **environment):
        server = Server(tmp_path, *arguments, **environment)
        servers.append(server)
        return server

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(params=["sqlite", "postgres"])
def address(request):
    """What DATABASE_URL is; nothing for the default."""
    if request.param == "postgres":
        return {"DATABASE_URL": request.getfixturevalue("database")}
    return {}


class TestTheFirstMinute:
    def test_needs_no_set_up(self, start, tmp_path):
        server = start().ready()
        assert server.ask("GET", "/jobs") == []
        assert (tmp_path / "scheduler.db").exists()
        assert (tmp_path / "scheduler.db").stat().st_mode & 0o777 == 0o600
        body = {
            "name": "Hello",
            "cron_expression": "* * * * * *",
            "job_type": "email_notification",
            "parameters": {"recipient": "a@example.com", "subject": "Hi", "password": "hunter2"},
        }
        assert server.ask("POST", "/jobs", body)["parameters"] == body["parameters"]
        eventually(lambda: "completed" in server.text, what="a run")
        [started] = re.findall(r".* started: .*", server.text)[:1]
        assert "job 1 'Hello' (email_notification)" in started
        assert "recipient='a@example.com', subject='Hi'" in started
        assert "SMTP_HOST is not set" in server.text
        assert "hunter2" not in server.text
        [done] = re.findall(r".* completed after .*", server.text)[:1]
        assert "job 1 'Hello' (email_notification)" in done
        assert "subject='Hi'" in done
        assert server.end() == 0
        assert "Traceback" not in server.text

    def test_logs_no_secret_and_no_line_that_a_job_has_forged(self, start, tmp_path):
        (tmp_path / "jobs" / "raises.py").write_text(
            "from job_scheduler import Job\n\n"
            "class Raises(Job):\n"
            "    async def run(self):\n"
            "        raise ValueError('postgres://u:hunter2@h/d\\n2026-01-01 forged \\x1b[31m')\n"
        )
        server = start().ready()
        server.ask("POST", "/run/raises", {})
        eventually(lambda: "failed after" in server.text, what="the end of the run")
        assert "hunter2" not in server.text
        assert "\x1b" not in server.text
        assert "\n2026-01-01 forged" not in server.text
        assert "\\x1b[31m" in server.text

    def test_reads_a_dotenv_file_and_the_environment_wins(self, start, tmp_path):
        (tmp_path / ".env").write_text(
            "DATABASE_URL=sqlite:///other.db\nMAX_CONCURRENT_JOBS=3\nDEBUG=True\n"
        )
        server = start(MAX_CONCURRENT_JOBS="2").ready()
        assert (tmp_path / "other.db").exists()
        assert "at most 2 jobs" in server.text
        assert " DEBUG " in server.text

    @pytest.mark.parametrize(
        ("environment", "said"),
        [
            ({"MAX_CONCURRENT_JOBS": "0"}, "MAX_CONCURRENT_JOBS"),
            ({"MAX_CONCURRENT_JOBS": "many"}, "MAX_CONCURRENT_JOBS"),
            ({"DEBUG": "perhaps"}, "DEBUG"),
            ({"DATABASE_URL": "mysql://u:hunter2@h/d"}, "DATABASE_URL"),
            ({"DATABASE_URL": "sqlite:////nowhere/at/all/x.db"}, "/nowhere/at/all"),
            ({"DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/d"}, "127.0.0.1"),
            ({"JOB_SCHEDULER_HOST": "0.0.0.0"}, "JOB_SCHEDULER_API_KEY"),
            (
                {
                    "JOB_SCHEDULER_HOST": "a..b",
                    "JOB_SCHEDULER_API_KEY": "a-key-that-is-long-enough",
                },
                "a..b",
            ),
            ({"JOB_SCHEDULER_PORT": "x"}, "JOB_SCHEDULER_PORT"),
            ({"JOB_SCHEDULER_JOBS": "nowhere"}, "nowhere"),
        ],
    )
    def test_tells_a_mistake_in_one_line(self, start, environment, said):
        server = start(**environment)
        assert server.process.wait(60) == 1
        lines = server.text.strip().splitlines()
        assert len(lines) == 1, server.text
        assert said in lines[0]
        assert "hunter2" not in server.text

    def test_answers_a_kept_connection_at_once(self, start):
        """A body that waited for the acknowledgement of its head would come after 40 ms."""
        port = int(start().ready().url.rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        took = []
        for _ in range(60):  # the first ones are acknowledged at once
            began = time.monotonic()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            took.append(time.monotonic() - began)
        connection.close()
        assert min(took[-20:]) < 0.03

    def test_ctrl_c_before_the_database_has_answered(self, start):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            server = start(DATABASE_URL=f"postgresql://user@127.0.0.1:{port}/d")
            with silent.accept()[0]:
                assert server.end(signal.SIGINT) == 130
        assert "Traceback" not in server.text

    def test_tells_of_a_port_that_is_taken(self, start):
        port = start().ready().url.rpartition(":")[2]
        other = start("--port", port)
        assert other.process.wait(60) == 1
        assert f"port {port}" in other.text
        assert "Traceback" not in other.text

    def test_with_a_key_it_serves_others(self, start):
        key = "a-key-that-is-long-enough"
        server = start("--host", "0.0.0.0", JOB_SCHEDULER_API_KEY=key)
        found = eventually(lambda: re.search(r"http://0\.0\.0\.0:(\d+)", server.text), what="it")
        server.url = f"http://127.0.0.1:{found[1]}"
        eventually(lambda: _answers(server), what="an answer")
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.ask("GET", "/jobs")
        assert refused.value.code == 401
        assert server.ask("GET", "/jobs", Authorization=f"Bearer {key}") == []


def _answers(server: Server) -> bool:
    try:
        return server.ask("GET", "/healthz") == {"status": "ok"}
    except urllib.error.URLError:
        return False


class TestTheEnd:
    def test_sigterm_lets_jobs_finish(self, start, tmp_path, address):
        server = start(**address).ready()
        log = tmp_path / "log"
        body = {"parameters": {"path": str(log), "seconds": 1.5}}
        server.ask("POST", "/run/marks", body)
        eventually(lambda: lines(log), what="the start")
        stream = urllib.request.urlopen(server.url + "/events")
        assert server.end() == 0
        stream.close()
        assert len(lines(log)) == 2
        assert "Traceback" not in server.text

    def test_what_takes_too_long_is_handed_back(self, start, tmp_path, address):
        log = tmp_path / "log"
        server = start(JOB_SCHEDULER_SHUTDOWN_TIMEOUT="0.2", **address).ready()
        body = {"parameters": {"path": str(log), "seconds": 3}}
        run = server.ask("POST", "/run/marks", body)
        eventually(lambda: lines(log), what="the start")
        assert server.end(signal.SIGINT) == 0
        assert len(lines(log)) == 1
        server = start(**address).ready()
        eventually(lambda: len(lines(log)) == 3, what="the second attempt")
        eventually(
            lambda: server.ask("GET", f"/runs/{run['id']}")["state"] == "completed", what="it"
        )
        assert server.ask("GET", f"/runs/{run['id']}")["attempt"] == 1  # handed back uncounted

    def test_a_second_signal_hurries(self, start, tmp_path):
        log = tmp_path / "log"
        server = start().ready()
        server.ask("POST", "/run/marks", {"parameters": {"path": str(log), "seconds": 60}})
        eventually(lambda: lines(log), what="the start")
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.end() == 0

    def test_a_file_that_another_program_keeps_does_not_keep_the_server(self, start, tmp_path):
        server = start(JOB_SCHEDULER_SHUTDOWN_TIMEOUT="0.1").ready()
        log = tmp_path / "log"
        server.ask("POST", "/run/marks", {"parameters": {"path": str(log), "seconds": 60}})
        eventually(lambda: lines(log), what="the start")
        other = sqlite3.connect(tmp_path / "scheduler.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            assert server.end() == 1
        finally:
            other.close()
        assert "the store does not answer" in server.text
        assert "Traceback" not in server.text


class TestManyServers:
    def test_run_each_due_job_once(self, start, tmp_path, address):
        servers = [start(**address) for _ in range(3)]
        for server in servers:
            server.ready()
        log = tmp_path / "log"
        body = {
            "name": "each second",
            "cron_expression": "* * * * * *",
            "job_type": "Marks",
            "parameters": {"path": str(log)},
        }
        servers[0].ask("POST", "/jobs", body)
        eventually(lambda: len(lines(log)) >= 10, what="five runs")
        servers[1].ask("PATCH", "/jobs/1", {"is_active": False})
        eventually(
            lambda: (
                not servers[2].ask("GET", "/runs?state=running")
                and not servers[2].ask("GET", "/runs?state=pending")
            ),
            what="the end",
        )
        runs = servers[2].ask("GET", "/jobs/1/runs?limit=1000")
        assert len({run["due_at"] for run in runs}) == len(runs)
        assert len(lines(log)) == 2 * len(runs)

    def test_a_job_whose_server_was_killed_is_run_again(self, start, tmp_path, address):
        log = tmp_path / "log"
        first = start(JOB_SCHEDULER_LEASE="1", **address).ready()
        run = first.ask("POST", "/run/marks", {"parameters": {"path": str(log), "seconds": 2}})
        eventually(lambda: lines(log), what="the start")
        first.process.kill()
        first.process.wait()
        second = start(JOB_SCHEDULER_LEASE="1", **address).ready()
        eventually(
            lambda: second.ask("GET", f"/runs/{run['id']}")["state"] == "completed",
            what="the second attempt",
        )
        found = second.ask("GET", f"/runs/{run['id']}")
        assert (found["attempt"], found["crashes"]) == (2, 1)

    def test_a_killed_job_is_run_again(self, start, tmp_path):
        log = tmp_path / "log"
        server = start().ready()
        run = server.ask("POST", "/run/marks", {"parameters": {"path": str(log), "seconds": 3}})
        eventually(lambda: lines(log), what="the start")
        os.kill(int(lines(log)[0].split()[-1]), signal.SIGKILL)
        eventually(
            lambda: server.ask("GET", f"/runs/{run['id']}")["state"] == "completed", what="it"
        )
        assert server.ask("GET", f"/runs/{run['id']}")["crashes"] == 1
