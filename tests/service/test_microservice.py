"""The small application over the service: as a real process, as its README says."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
from typing import Any

import pytest

from job_scheduler import Job
from job_scheduler.errors import DuplicateJobError, InvalidJobError
from job_scheduler.service.job_types.methods import MethodJobs, jobs_of
from job_scheduler.service.job_types.registry import JobTypes
from tests.conftest import ROOT, eventually
from tests.service.test_serve import BARE, Server

EXAMPLE = ROOT / "examples" / "microservice"


class Application(Server):
    command = ("-m", "app.main")

    def ended(self, job_type: str, **parameters: Any) -> dict[str, Any]:
        """A run that was fired and forgotten, once it has ended."""
        run = self.ask("POST", f"/run/{job_type}", {"parameters": parameters})
        path = f"/runs/{run['id']}"
        eventually(lambda: self.ask("GET", path)["ended_at"], what="the end of a run")
        return self.ask("GET", path)

    def refusal(self, path: str, body: object) -> tuple[int, str]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            self.ask("POST", path, body)
        return refused.value.code, refused.value.read().decode()


@pytest.fixture
def folder(tmp_path):
    """A copy of the application, for a user to change."""
    copy = tmp_path / "microservice"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("scheduler.db*", "__pycache__"))
    return copy


@pytest.fixture
def start(folder):
    applications = []

    def start(**environment):
        application = Application(folder, **environment)
        applications.append(application)
        return application

    yield start
    for application in applications:
        if application.process.poll() is None:
            application.process.kill()
            application.process.wait()


def add_methods(folder, text):
    executor = folder / "app" / "job_executor.py"
    executor.write_text(executor.read_text() + text)


def test_other_servers_and_tests_may_serve_it(folder):
    code = """
import os
from starlette.testclient import TestClient
from app.main import app
for number in (1, 2):
    os.environ["DATABASE_URL"] = f"sqlite:///{number}.db"
    with TestClient(app) as client:
        assert client.get("/jobs").json() == []
        body = {"name": "a", "cron_expression": "0 9 * * *", "job_type": "DATA_processing"}
        assert client.post("/jobs", json=body).status_code == 201
assert TestClient(app).get("/healthz").status_code == 200
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


class TestTheApplication:
    def test_runs_both_types_in_any_case(self, start, folder):
        application = start().ready()
        names = [each["name"] for each in application.ask("GET", "/job-types")]
        assert names == ["data_processing", "email_notification"]
        mail = {"recipient": "ada@example.com", "subject": "Good morning", "body": "It is nine."}
        run = application.ended("Email_Notification", **mail)
        assert (run["state"], run["job_type"]) == ("completed", "email_notification")
        assert "e-mail to 'ada@example.com': 'Good morning'" in run["output"]
        assert "SMTP_HOST is not set" in run["output"]
        assert "It is nine." in run["output"]
        run = application.ended("DATA_PROCESSING", dataset="user_events", group_by="country")
        assert run["state"] == "completed"
        assert "processing the dataset 'user_events'" in run["output"]
        assert run["result"]["rows"] == 200
        assert run["result"]["group_by"] == "country"
        assert application.end() == 0
        for said in ("email_notification", "data_processing"):
            assert re.search(f"INFO .*{said} started: ", application.text)
            assert re.search(f"INFO .*{said} completed after ", application.text)
        assert "e-mail to 'ada@example.com': 'Good morning'" in application.text
        assert "processing the dataset 'user_events'" in application.text
        assert "Traceback" not in application.text
        assert (folder / "scheduler.db").exists()

    def test_runs_jobs_on_their_schedule(self, start):
        application = start().ready()
        job = {
            "name": "Events",
            "cron_expression": "* * * * * *",
            "job_type": "Data_Processing",
            "parameters": {"dataset": "user_events"},
        }
        made = application.ask("POST", "/jobs", job)
        assert (made["id"], made["job_type"]) == (1, "Data_Processing")
        eventually(
            lambda: application.ask("GET", "/jobs/1/runs?state=completed"), what="a run of it"
        )

    def test_a_run_that_lacks_what_it_needs_fails_with_a_sentence(self, start):
        run = start().ready().ended("email_notification")
        assert run["state"] == "failed"
        assert run["error"].startswith("ValueError: recipient is missing")

    def test_a_method_added_is_a_job_type_more(self, start, folder):
        application = start().ready()
        body = {"name": "x", "cron_expression": "0 9 * * *", "job_type": "greeting"}
        status, told = application.refusal("/jobs", body)
        assert status == 422
        assert "known are data_processing, email_notification" in told
        application.end()
        add_methods(folder, method_of_the_readme(folder) + METHODS)
        application = start().ready()
        names = [each["name"] for each in application.ask("GET", "/job-types")]
        assert names == ["Count", "data_processing", "email_notification", "greeting"]
        assert application.ended("GREETING", name="Ada")["result"] == "Hello, Ada!"
        assert application.ended("count", until=3)["result"] == [1, 2, 3]
        for hidden in ("_helper", "__init__", "LIMIT", "jobs_of", "os"):
            status, told = application.refusal(f"/run/{hidden}", {})
            assert status == 404, told
            assert "known are Count" in told
        status, told = application.refusal("/run/count", {"parameters": {"untill": 3}})
        assert status == 422
        assert "did you mean 'until'?" in told

    def test_a_run_can_be_stopped(self, start, folder):
        slow = (
            "\n    async def slow(self):\n        import asyncio\n        await asyncio.sleep(60)\n"
        )
        add_methods(folder, slow)
        application = start().ready()
        run = application.ask("POST", "/run/slow")
        path = f"/runs/{run['id']}"
        eventually(lambda: application.ask("GET", path)["state"] == "running", what="the start")
        application.ask("POST", f"{path}/cancel")
        eventually(lambda: application.ask("GET", path)["state"] == "cancelled", what="the end")

    def test_reads_its_dotenv_file_and_the_environment_wins(self, start, folder):
        settings = folder / ".env"
        assert "MAX_CONCURRENT_JOBS=5\n" in settings.read_text()
        assert "# DATABASE_URL=postgresql://" in settings.read_text()
        text = settings.read_text().replace("JOBS=5", "JOBS=3").replace("scheduler.db", "other.db")
        settings.write_text(text)
        application = start(MAX_CONCURRENT_JOBS="2").ready()
        assert (folder / "other.db").exists()
        assert "at most 2 jobs" in application.text

    def test_is_on_port_8000_if_nothing_else_is_said(self, folder):
        code = "from job_scheduler.service.settings import Settings; print(Settings.read({}).port)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=BARE, capture_output=True, check=True
        )
        assert done.stdout == b"8000\n"
        assert "PORT" not in (folder / ".env").read_text()

    @pytest.mark.parametrize(
        ("environment", "methods", "said"),
        [
            ({"MAX_CONCURRENT_JOBS": "0"}, "", "MAX_CONCURRENT_JOBS is '0'"),
            ({"DATABASE_URL": "sqlite:////nowhere/at/all/x.db"}, "", "/nowhere/at/all"),
            ({}, "\n    def DATA_processing(self): ...\n", "differ in upper and lower case alone"),
            ({}, "\n    def many(self):\n        yield 1\n", "JobExecutor.many() is a generator"),
        ],
    )
    def test_tells_a_mistake_in_one_line(self, start, folder, environment, methods, said):
        add_methods(folder, methods)
        application = start(**environment)
        assert application.process.wait(60) == 1
        [line] = application.text.strip().splitlines()
        assert said in line

    def test_ends_on_ctrl_c(self, start):
        assert start().ready().end(signal.SIGINT) == 0


METHODS = """
    LIMIT = 3

    @staticmethod
    def Count(until: int) -> list[int]:
        return list(range(1, until + 1))

    def _helper(self) -> None:
        raise AssertionError
"""


def method_of_the_readme(folder):
    [block] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return "\n" + block


class Base(MethodJobs):
    def inherited(self, *, number: int) -> int:
        return self._doubled(number)

    def _doubled(self, number: int) -> int:
        return 2 * number


class Executor(Base):
    """What can be run."""

    constant = 1
    function = len

    class Inner:
        pass

    def process(self, *, word: str = "a") -> str:
        """Says a word.

        Args:
            word: what it says.
        """
        return self.run(word)

    def run(self, word: str) -> str:
        return f"{word}, {self.named}"

    async def slowly(self, **anything: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return anything

    @classmethod
    def of_class(cls, tag: str) -> str:
        return f"{cls.__name__} {tag}"

    @staticmethod
    def of_none(tag: str) -> str:
        return tag

    @property
    def named(self) -> str:
        return "a property"


class TestMethods:
    def test_each_public_method_is_a_job_class(self):
        jobs = jobs_of(Executor)
        assert sorted(jobs) == ["inherited", "of_class", "of_none", "process", "run", "slowly"]
        assert all(issubclass(job, Job) for job in jobs.values())
        assert jobs["inherited"]().process(number=2) == 4
        assert jobs["process"]().process() == "a, a property"
        assert jobs["run"]().process(word="b") == "b, a property"
        assert jobs["slowly"]().process(a=2) == {"a": 2}
        assert jobs["of_class"]().process(tag="x") == "Executor x"
        assert jobs["of_none"]().process(tag="x") == "x"

    def test_each_subclass_has_its_own(self):
        assert list(jobs_of(Base)) == ["inherited"]
        assert jobs_of(MethodJobs) == {}

    def test_they_are_found_by_their_names_and_described_by_their_signatures(self):
        for name, job in jobs_of(Executor).items():
            assert job.__module__ == __name__
            assert job.__qualname__ == f"Executor._jobs.{name}"
            assert getattr(Executor._jobs, name) is job
        types = {each["name"]: each for each in JobTypes(jobs_of(Executor)).describe()}
        assert {each["executor"] for each in types.values()} == {"process"}
        assert types["process"]["description"] == "Says a word."
        word = {"type": "string", "default": "a", "description": "what it says."}
        assert types["process"]["parameters"]["properties"] == {"word": word}
        assert types["inherited"]["parameters"]["required"] == ["number"]
        assert types["of_class"]["parameters"]["required"] == ["tag"]
        assert types["of_none"]["parameters"]["required"] == ["tag"]
        assert types["slowly"]["parameters"]["additionalProperties"]

    def test_a_class_that_needs_arguments_is_refused(self):
        class Needs(MethodJobs):
            def __init__(self, what: str) -> None: ...

        with pytest.raises(InvalidJobError, match=r"made without arguments.*'what'"):
            jobs_of(Needs)

    def test_a_generator_is_refused(self):
        class Yields(MethodJobs):
            def each(self):
                yield 1

        with pytest.raises(InvalidJobError, match=r"each\(\) is a generator"):
            jobs_of(Yields)

    def test_names_that_differ_in_case_alone_are_refused(self):
        class Both(MethodJobs):
            def one(self): ...
            def One(self): ...  # noqa: N802

        with pytest.raises(DuplicateJobError, match="rename one"):
            JobTypes(jobs_of(Both))
