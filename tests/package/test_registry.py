from __future__ import annotations

import sys

import pytest

from job_scheduler import Job, JobScheduler
from job_scheduler.errors import (
    DuplicateJobError,
    InvalidJobError,
    JobImportError,
    UnknownJobError,
)
from job_scheduler.registry import discover, lookup
from tests.conftest import ROOT
from tests.sample_jobs import Echo, Noop


class TestLookup:
    def test_finds_the_class(self):
        assert lookup({"Echo": Echo}, "Echo") is Echo

    @pytest.mark.parametrize("kind", [ValueError, LookupError, UnknownJobError])
    def test_an_unknown_name_is_told_with_the_nearest(self, kind):
        with pytest.raises(kind, match="registered as 'Ecko'; did you mean 'Echo'"):
            lookup({"Echo": Echo, "Noop": Noop}, "Ecko")

    def test_without_a_near_one_the_known_are_listed(self):
        with pytest.raises(UnknownJobError, match="'xyz'; known jobs: 'Echo', 'Noop'"):
            lookup({"Noop": Noop, "Echo": Echo}, "xyz")
        with pytest.raises(UnknownJobError, match="known jobs: none"):
            lookup({}, "xyz")

    def test_a_name_that_is_no_string(self):
        for wrong in (["Echo"], 5, None):
            with pytest.raises(UnknownJobError, match="takes the name of a job, a string, not"):
                lookup({"Echo": Echo, 5: Noop}, wrong)

    @pytest.mark.parametrize("wrong", [Echo, Echo()])
    def test_a_class_instead_of_its_name(self, wrong):
        with pytest.raises(UnknownJobError, match=r"not .*Echo.*; write run\('Repeat'\)"):
            lookup({"Noop": Noop, "Repeat": Echo}, wrong)
        with pytest.raises(UnknownJobError, match=r"; write run\('Echo'\), once it is registered"):
            lookup({"Noop": Noop}, wrong)

    def test_a_name_that_is_too_long(self):
        longest = "x" * 1000
        assert lookup({longest: Noop}, longest) is Noop
        with pytest.raises(InvalidJobError) as caught:
            lookup({longest + "x": Noop}, longest + "x")
        assert str(caught.value) == (
            "a job's name may have 1,000 characters; the one that begins with "
            "'xxxxxxxxxxxxxxxxxxxx' has 1,001"
        )

    def test_an_unknown_name_that_is_too_long(self):
        with pytest.raises(InvalidJobError, match="has 10,000,000"):
            lookup({"Noop": Noop}, "x" * 10_000_000)

    @pytest.mark.parametrize(
        ("value", "hint"),
        [
            (Noop(), "register the class Noop, not an object"),
            (print, "derive it from job_scheduler.Job"),
            (dict, "derive it from job_scheduler.Job"),
            (None, "derive it from job_scheduler.Job"),
        ],
    )
    def test_what_is_no_job_class_is_told(self, value, hint):
        with pytest.raises(InvalidJobError, match=hint) as caught:
            lookup({"Bad": value}, "Bad")
        assert isinstance(caught.value, TypeError)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of jobs whose name no other test uses."""
    name = f"found_{abs(hash(tmp_path))}"
    (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / name
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]


JOB = "from job_scheduler import Job\nclass {}(Job):\n    def process(self): return __name__\n"


class TestDiscover:
    def test_one_class_per_file(self, folder):
        (folder / "one.py").write_text(JOB.format("One"))
        (folder / "two.py").write_text(JOB.format("Two") + JOB.format("Three"))
        assert set(discover(folder)) == {"One", "Two", "Three"}

    def test_they_run(self, folder):
        (folder / "one.py").write_text(JOB.format("One"))
        with JobScheduler(jobs=discover(folder)) as scheduler:
            run = scheduler.run("One")
        assert run.result == f"{folder.name}.one"

    def test_a_relative_folder_is_in_the_working_directory(self, folder, monkeypatch):
        (folder / "one.py").write_text(JOB.format("One"))
        monkeypatch.chdir(folder.parent)
        assert set(discover(folder.name)) == {"One"}

    def test_what_is_passed_over(self, folder):
        (folder / "_private.py").write_text("raise RuntimeError")
        (folder / "__init__.py").write_text("")
        (folder / "notes.txt").write_text("")
        (folder / "base.py").write_text(
            "from job_scheduler import Job\nfrom tests.sample_jobs import Echo\n"
            "class Base(Job):\n    pass\nvalue = 1\n"
        )
        assert discover(folder) == {}

    def test_two_of_one_name(self, folder):
        (folder / "one.py").write_text(JOB.format("Same"))
        (folder / "two.py").write_text(JOB.format("Same"))
        with pytest.raises(DuplicateJobError, match=r"'Same'.*one\.py.*two\.py"):
            discover(folder)

    def test_a_file_that_raises(self, folder):
        (folder / "bad.py").write_text("\n\nimport does_not_exist\n")
        with pytest.raises(
            JobImportError, match=r"bad\.py cannot.*does_not_exist.*bad\.py, line 3"
        ):
            discover(folder)

    def test_a_file_that_does_not_parse(self, folder):
        (folder / "bad.py").write_text("x = 1\nclass :\n")
        with pytest.raises(JobImportError, match=r"SyntaxError.*bad\.py, line 2"):
            discover(folder)

    def test_a_file_that_exits(self, folder):
        (folder / "bad.py").write_text("raise SystemExit(1)\n")
        with pytest.raises(JobImportError, match=r"SystemExit.*line 1"):
            discover(folder)

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no folder .*/nowhere"):
            discover(tmp_path / "nowhere")

    def test_a_name_that_another_package_has(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "path", list(sys.path))
        (tmp_path / "json").mkdir()
        (tmp_path / "json" / "decoder.py").write_text(JOB.format("Decoder"))
        with pytest.raises(JobImportError, match=r"'json\.decoder', because 'json' is .*rename"):
            discover(tmp_path / "json")

    @pytest.fixture
    def namesake(self, folder, tmp_path, monkeypatch):
        """Another package of the folder's name, which Python finds first."""
        package = tmp_path / "elsewhere" / folder.name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(package.parent))
        return package

    def test_a_folder_that_another_package_hides(self, folder, namesake):
        (folder / "one.py").write_text(JOB.format("One"))
        with pytest.raises(JobImportError) as caught:
            discover(folder)
        assert str(caught.value) == (
            f"{folder}/one.py cannot be imported as '{folder.name}.one', because "
            f"'{folder.name}' is {namesake}/__init__.py: rename the folder, or give it an "
            f"__init__.py and put its parent {folder.parent} first on sys.path"
        )

    def test_a_hidden_folder_that_is_a_package_itself(self, folder, namesake):
        (folder / "__init__.py").touch()
        (folder / "one.py").write_text(JOB.format("One"))
        (namesake / "one.py").touch()  # also if the other one has such a file
        with pytest.raises(JobImportError, match="rename the folder, or put its parent"):
            discover(folder)

    def test_what_its_error_says_is_a_way_out(self, folder, namesake, monkeypatch):
        (folder / "one.py").write_text(JOB.format("One"))
        (folder / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(folder.parent))
        assert set(discover(folder)) == {"One"}

    def test_a_file_that_one_of_a_folder_without_init_hides(self, folder, namesake):
        (namesake / "__init__.py").unlink()
        (namesake / "one.py").touch()
        (folder / "one.py").write_text(JOB.format("One"))
        with pytest.raises(JobImportError, match=rf"because that is {namesake}/one\.py: "):
            discover(folder)

    def test_a_name_that_is_built_into_python(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "path", list(sys.path))
        (tmp_path / "time").mkdir()
        (tmp_path / "time" / "one.py").write_text(JOB.format("One"))
        with pytest.raises(
            JobImportError, match=r"'time' is built into Python: rename the folder$"
        ):
            discover(tmp_path / "time")

    def test_a_folder_that_a_module_hides(self, folder, tmp_path, monkeypatch):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / f"{folder.name}.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
        (folder / "one.py").write_text(JOB.format("One"))
        with pytest.raises(JobImportError, match=rf"is \S+/elsewhere/{folder.name}\.py: rename"):
            discover(folder)

    def test_the_starter_folder(self):
        found = discover(ROOT / "jobs")
        assert all(issubclass(each, Job) for each in found.values())
        assert found
