"""The rules that hold across the package: what may import what, and what is loaded when."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import job_scheduler
from tests.conftest import ROOT

PACKAGE = ROOT / "job_scheduler"

TIERS = [
    {"errors", "durations", "instants", "log", "options", "signals", "texts", "waiting"},
    {"job", "registry", "retry", "triggers"},
    {"run", "schedule", "target"},
    {"launcher"},
    {"celery", "executors", "stores"},
    {"attempt", "engine", "engine_log", "finding", "going", "known", "leases"},
    {"dispatch", "planner", "planning", "plans", "stored_plans", "stored_run"},
    {"job_scheduler", "scheduler"},
    {"config"},
    {"cli", "service", "__main__"},
]

PUBLIC = {
    "ConflictResolution",
    "Cron",
    "CronScheduler",
    "Interval",
    "Job",
    "JobPriority",
    "JobScheduler",
    "Once",
    "RetryPolicy",
    "Run",
    "Scheduler",
    "load_jobs",
}

ALIASES = {"CronScheduler": "JobScheduler"}

LIGHT_IMPORT = {"job_scheduler"}

ZYGOTE = {
    "__future__",
    "_collections",
    "_socket",
    "_functools",
    "faulthandler",
    "gc",
    "select",
    "job_scheduler",
    "job_scheduler.errors",
    "job_scheduler.job",
    "job_scheduler.launcher",
    "job_scheduler.launcher.child",
    "job_scheduler.launcher.children",
    "job_scheduler.launcher.importing",
    "job_scheduler.launcher.main_module",
    "job_scheduler.launcher.naming",
    "job_scheduler.launcher.nursery",
    "job_scheduler.launcher.outbox",
    "job_scheduler.launcher.queue",
    "job_scheduler.launcher.stderr",
    "job_scheduler.launcher.wire",
    "job_scheduler.launcher.work",
    "job_scheduler.launcher.works",
    "job_scheduler.launcher.zygote",
}
"""What the zygote loads beyond a bare interpreter: C modules and our own, nothing with hooks."""

FACE = {
    "__future__",
    "job_scheduler",
    "job_scheduler.job",
    "job_scheduler.job_scheduler",
    "job_scheduler.errors",
    "job_scheduler.options",
}
"""What a program loads that defines a job and a scheduler, before its first run."""


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    """The tier's name for a file: its module, or its folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path):
    """The parts of the package that a file imports anywhere, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "job_scheduler" and rest:
                yield rest.partition(".")[0]


def tier_of(part):
    [tier] = [number for number, parts in enumerate(TIERS) if part in parts]
    return tier


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_from_tiers_below_or_its_own(path):
    part = part_of(path)
    if part == "__init__":
        return
    for imported in imported_parts(path):
        known = {name for parts in TIERS for name in parts}
        if imported in known:
            assert tier_of(imported) <= tier_of(part), f"{path.name} imports {imported}"


def test_the_public_names():
    assert set(job_scheduler.__all__) == PUBLIC
    assert set(dir(job_scheduler)) >= PUBLIC
    for name in PUBLIC:
        assert getattr(job_scheduler, name).__name__ == ALIASES.get(name, name)
    with pytest.raises(AttributeError, match="no attribute 'Jobs'"):
        job_scheduler.Jobs  # noqa: B018


def loaded_by(code):
    """The modules that a fresh interpreter loads for this code, beyond its own."""
    script = (
        "import sys; before = set(sys.modules)\n"
        f"{code}\n"
        "names = sorted(set(sys.modules) - before)\n"
        "import json; print(json.dumps(names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    return set(json.loads(done.stdout))


def test_the_import_is_light():
    assert loaded_by("import job_scheduler") == LIGHT_IMPORT


def test_a_job_and_a_scheduler_are_light_until_the_first_run():
    code = "from job_scheduler import Job, JobScheduler; JobScheduler()"
    assert loaded_by(code) == FACE


def test_the_zygote_loads_no_more_than_listed():
    assert loaded_by("import job_scheduler.launcher.zygote") == ZYGOTE


def test_the_package_alone_is_installed(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", str(tmp_path), str(copy_of_project(tmp_path))],
        check=True,
    )  # fmt: skip
    installed = {
        path.name for path in tmp_path.iterdir() if not path.name.endswith((".dist-info", "-src"))
    }
    assert installed == {"job_scheduler", "bin"}
    assert (tmp_path / "bin" / "job-scheduler").exists()
    assert (tmp_path / "job_scheduler" / "py.typed").exists()
    assert (tmp_path / "job_scheduler" / "launcher" / "zygote.py").exists()
    assert (tmp_path / "job_scheduler" / "stores" / "sqlite" / "schema.sql").exists()
    assert (tmp_path / "job_scheduler" / "stores" / "postgres" / "statements.sql").exists()
    assert (tmp_path / "job_scheduler" / "service" / "data" / "user_events.csv").exists()


def copy_of_project(tmp_path):
    """The files that packaging reads, so that no build folder is left in the checkout."""
    import shutil

    target = tmp_path / "project-src"
    target.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    for folder in ("job_scheduler", "jobs", "tests"):
        shutil.copytree(ROOT / folder, target / folder)
    return target


def test_nothing_names_its_makers_or_machines():
    """The project speaks of itself alone."""
    texts = [
        path
        for pattern in ("*.md", "*.py", "*.toml", "Makefile", "*.txt")
        for path in ROOT.rglob(pattern)
        if not {".venv", ".venv-queue", "build", ".git"} & set(path.relative_to(ROOT).parts)
    ]
    assert Path(__file__) in texts
    for path in texts:
        assert "/home/" not in path.read_text().replace('"/home/"', ""), path
