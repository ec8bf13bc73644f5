"""Which job types there are, by which names, and what they take."""

from __future__ import annotations

import enum
import logging
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Optional

import pytest

from job_scheduler import Job, JobScheduler
from job_scheduler.errors import DuplicateJobError, InvalidJobError, JobImportError, UnknownJobError
from job_scheduler.service.job_types import built_in
from job_scheduler.service.job_types.registry import JobTypes, find_job_types
from tests.conftest import ROOT


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Report(Job):
    """Takes one parameter
    of each kind.

    More on that.

    Args:
        whole: how many,
            at least one.
        text (str): what it says: anything.

    Returns nothing.
    """

    async def run(
        self,
        anything,
        whole: int,
        number: float = 1.5,
        text: str = "x",
        flag: bool = False,
        *,
        items: list[int] = [],  # noqa: B006
        pairs: tuple[str, ...] = ("a",),
        table: dict[str, Any] | None = None,
        mapping: Mapping[str, int] = {},
        optional: Optional[int] = None,  # noqa: UP045
        mode: Literal["fast", "slow", 3] = "fast",
        colour: Colour = Colour.RED,
        several: str | list[str] = "a",
        noted: Annotated[int, "more"] = 1,
        strange: object = object(),
        unknown: NotImported = 1,  # noqa: F821
        **others: Any,
    ) -> None:
        raise AssertionError


def described(job, name="it"):
    [found] = JobTypes({name: job}).describe()
    return found


def test_a_job_is_described_by_its_signature():
    found = described(Report)
    assert found["name"] == "it"
    assert found["description"] == "Takes one parameter of each kind."
    assert found["executor"] == "coroutine"
    assert found["parameters"] == {
        "type": "object",
        "properties": {
            "anything": {},
            "whole": {"type": "integer", "description": "how many, at least one."},
            "number": {"type": "number", "default": 1.5},
            "text": {"type": "string", "default": "x", "description": "what it says: anything."},
            "flag": {"type": "boolean", "default": False},
            "items": {"type": "array", "items": {"type": "integer"}, "default": []},
            "pairs": {"type": "array", "items": {"type": "string"}, "default": ["a"]},
            "table": {"type": ["object", "null"], "default": None},
            "mapping": {"type": "object", "default": {}},
            "optional": {"type": ["integer", "null"], "default": None},
            "mode": {"enum": ["fast", "slow", 3], "default": "fast"},
            "colour": {"enum": ["red", "blue"], "default": "red"},
            "several": {
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
                "default": "a",
            },
            "noted": {"type": "integer", "default": 1},
            "strange": {},
            "unknown": {"default": 1},
        },
        "required": ["anything", "whole"],
        "additionalProperties": True,
    }


def test_where_jobs_run_and_what_says_nothing_of_itself():
    class Bare(Job):
        def process(self):
            raise AssertionError

    class Threaded(Job):
        def run(self, number: int = 1):
            """Counts."""

    async def function(text: str):
        """Says it."""

    bare, threaded, called = described(Bare), described(Threaded), described(function)
    assert (bare["executor"], bare["description"]) == ("process", None)
    assert bare["parameters"]["additionalProperties"] is False
    assert (threaded["executor"], threaded["description"]) == ("thread", "Counts.")
    assert (called["executor"], called["description"]) == ("coroutine", "Says it.")
    assert called["parameters"]["required"] == ["text"]


def test_a_job_that_cannot_be_run_is_told_at_once():
    class NeedsMore(Job):
        def process(self, path, /):
            raise AssertionError

    with pytest.raises(InvalidJobError, match="positional-only parameter 'path'"):
        JobTypes({"NeedsMore": NeedsMore})


@pytest.mark.parametrize("text", ["report", "REPORT", "Report"])
def test_names_are_matched_in_any_case(text):
    assert JobTypes({"Report": Report}).find(text) == "Report"


@pytest.mark.parametrize(
    "text",
    ["os.system", "__class__", "jobs", "", " Report", "report\0", "Report.run", "x" * 999, None, 7],
)
def test_nothing_else_is_looked_up(text):
    with pytest.raises(UnknownJobError, match=r"there is no job type .* known are Report") as told:
        JobTypes({"Report": Report}).find(text)
    assert len(str(told.value)) < 300


def test_the_nearest_name_is_told_and_the_known_ones():
    with pytest.raises(UnknownJobError) as told:
        find_job_types([]).find("Email-Notifikation")
    assert str(told.value) == (
        "there is no job type 'Email-Notifikation'; did you mean 'email_notification'? "
        "known are data_processing, email_notification"
    )
    many = JobTypes({f"Job{number:02}": Report for number in range(30)})
    with pytest.raises(UnknownJobError, match="Job19 and 10 more"):
        many.find("other")


@pytest.fixture
def write_jobs(tmp_path, monkeypatch):
    """Writes a folder of jobs, of a name that no other test has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(folder, **files):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
        for name, code in files.items():
            head = "from job_scheduler import Job\n"
            (tmp_path / folder / f"{name}.py").write_text(head + textwrap.dedent(code))
        return str(tmp_path / folder)

    return write


JOB = """
    class {0}(Job):
        def process(self, number: int = 1): pass
"""


def test_a_class_in_a_folder_is_a_job_type_more(write_jobs):
    place = write_jobs("jobs_found_here", mine=JOB.format("TidyUp"))
    types = find_job_types([place])
    assert set(types.jobs) == {"email_notification", "data_processing", "TidyUp"}
    assert types.find("tidyup") == "TidyUp"
    assert [each["name"] for each in types.describe()] == sorted(types.jobs)


def test_the_default_folder_need_not_be_there_and_any_other_must(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_job_types().jobs == built_in()
    with pytest.raises(JobImportError, match="jobs 'no/such': there is no such folder"):
        find_job_types(["no/such"])


def test_names_that_differ_in_case_alone_are_told_with_both_places(write_jobs):
    place = write_jobs("jobs_of_two_cases", one=JOB.format("TidyUp"), two=JOB.format("TidyUP"))
    with pytest.raises(DuplicateJobError, match=r"'TidyU.' in .*\.py and 'TidyU.' in .*\.py"):
        find_job_types([place])


def test_a_job_of_the_user_takes_the_place_of_one_that_ships(write_jobs, caplog):
    place = write_jobs("jobs_in_place", mine=JOB.format("Email_Notification"))
    with caplog.at_level(logging.INFO, "job_scheduler"):
        types = find_job_types([place])
    assert set(types.jobs) == {"Email_Notification", "data_processing"}
    assert types.find("email_notification") == "Email_Notification"
    assert "takes the place of the one that ships" in caplog.text


def test_the_jobs_of_this_project_are_described():
    types = find_job_types([str(ROOT / "jobs")])
    space = next(each for each in types.describe() if each["name"] == "CheckDiskSpace")
    assert space["parameters"]["properties"] == {
        "path": {"type": "string", "default": "/", "description": "a file or folder on the disk."},
        "at_least": {
            "type": "number",
            "default": 10.0,
            "description": "how much has to be free, in per cent.",
        },
    }


def test_the_space_on_a_disk(capfd):
    jobs = find_job_types([str(ROOT / "jobs")]).jobs
    with JobScheduler(jobs) as scheduler:
        enough = scheduler.run("CheckDiskSpace", path=str(ROOT), at_least=0)
        too_little = scheduler.run("CheckDiskSpace", at_least=101)
        assert enough.wait(60)
        assert too_little.wait(60)
    assert enough.result["path"] == str(ROOT)
    assert 0 <= enough.result["free_percent"] <= 100
    assert " % free, " in capfd.readouterr().out
    assert "; at least 101 % must be" in str(too_little.error)


def test_processes_of_the_jobs_load_nothing_of_the_service():
    code = (
        "import sys, job_scheduler.service.job_types as types\n"
        "assert not any('email' in name for name in sys.modules)\n"
        "types.built_in()\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.startswith("job_scheduler")}
    assert ours == {
        "job_scheduler",
        "job_scheduler.job",
        "job_scheduler.service",
        "job_scheduler.service.job_types",
        "job_scheduler.service.job_types.data_processing",
        "job_scheduler.service.job_types.email_notification",
        "job_scheduler.texts",
    }
    assert not loaded & {"fastapi", "pydantic", "asyncio", "logging", "threading"}


def test_the_default_folder_is_no_package_that_happens_to_be_called_so(tmp_path):
    """Without a folder here, the jobs of whoever is on the path are none of ours."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from job_scheduler.service.job_types.registry import find_job_types\n"
            "print(*find_job_types().jobs)",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.split() == ["email_notification", "data_processing"]
