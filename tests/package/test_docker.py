"""The image and the services of ``docker-compose.yml``, as far as that can be told without Docker.

Its linters say whether both files can be read; the rest is what they do not look at. Where there is
a Docker with its compose plugin, that reads the file too.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, eventually
from tests.service.test_serve import BARE, Server

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
BUILT = [name for name, service in SERVICES.items() if "build" in service]

has_compose = (
    shutil.which("docker") is not None
    and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
)


def instructions():
    """The instructions of the Dockerfile, one line each, as (name, rest)."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def final_stage():
    found = instructions()
    return found[max(at for at, (name, _) in enumerate(found) if name == "FROM") :]


def of(name, stage):
    return [rest for each, rest in stage if each == name]


def environment_of_image():
    """What ENV says, without PATH."""
    parts = [part for rest in of("ENV", final_stage()) for part in shlex.split(rest)]
    return dict(part.split("=", 1) for part in parts if not part.startswith("PATH="))


def copied():
    """The paths of the build's context that are copied, in either stage, and where to."""
    for rest in of("COPY", instructions()):
        *sources, target = rest.split()
        if not sources[0].startswith("--from="):
            yield from ((source, target) for source in sources)


def as_expression(pattern):
    """A pattern of .dockerignore: ``*`` is within one folder, ``**/`` any number of them."""
    parts = re.split(r"(\*\*/|\*|\[[^]]*\])", pattern)
    known = {"**/": "(?:.*/)?", "*": "[^/]*"}
    text = "".join(
        known.get(part, part if part.startswith("[") else re.escape(part)) for part in parts
    )
    return re.compile(f"{text}(?:/.*)?")


RULES = [
    (as_expression(line.removeprefix("!")), line.startswith("!"))
    for line in (ROOT / ".dockerignore").read_text().splitlines()
    if line and not line.startswith("#")
]


def is_let_through(path):
    """Whether Docker would send a file: what the last pattern says that fits."""
    allowed = True
    for expression, allows in RULES:
        if expression.fullmatch(path):
            allowed = allows
    return allowed


def context():
    """The files that Docker would send, of those that are in the project."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    names = done.stdout.splitlines()
    if done.returncode != 0:  # a copy of the project, without its history
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    return [name for name in names if is_let_through(name) and (ROOT / name).is_file()]


def copy_of(names, folder):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


@pytest.fixture
def app(tmp_path):
    """The folder /app of the image, and the package as it is installed from what is sent."""
    source, app, installed = tmp_path / "src", tmp_path / "app", tmp_path / "installed"
    names = context()
    copy_of([name for name in names if not name.startswith("tests/")], source)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", str(installed), str(source)],
        check=True,
    )  # fmt: skip
    for path in of("COPY", final_stage())[1:]:
        copy_of([name for name in names if name.startswith(f"{path.split()[0]}/")], app)
    return app, installed


# What linters say


def test_the_linter_of_dockerfiles_has_nothing_to_say():
    done = subprocess.run(
        [tool("hadolint"), "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_compose_file_fits_the_schema():
    done = subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "https_proxy": "http://127.0.0.1:9"},  # the schema comes with the tool
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not has_compose, reason="no docker with its compose plugin is here")
def test_docker_itself_reads_the_compose_file():
    done = subprocess.run(
        ["docker", "compose", "config", "--quiet"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def tool(name):
    """A program that is installed beside the interpreter."""
    return str(Path(sys.executable).with_name(name))


# What they do not look at


def test_images_are_pinned():
    images = [rest.split()[0] for rest in of("FROM", instructions())]
    images += [service["image"] for service in SERVICES.values() if "image" in service]
    assert len(images) >= 3
    for image in images:
        assert re.fullmatch(r"[a-z]+:\d+\.\d+(-[a-z]+)?", image), image


def test_ports_are_published_for_this_machine_alone():
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert published == {"web": ["127.0.0.1:8000:8000"], "worker": [], "redis": []}
    assert not [name for name, service in SERVICES.items() if "network_mode" in service]
    # Without a key nobody else may reach it; so the image by itself demands one.
    assert "JOB_SCHEDULER_ALLOW_UNAUTHENTICATED" not in environment_of_image()
    assert SERVICES["web"]["environment"]["JOB_SCHEDULER_ALLOW_UNAUTHENTICATED"] == "1"


def test_nothing_runs_as_root_nor_may_become_it():
    user = of("USER", final_stage())[-1]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert f"--uid {user.partition(':')[0]} " in of("RUN", final_stage())[0]
    for name, service in SERVICES.items():
        assert "user" not in service if name in BUILT else service["user"] == "redis"
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert not service.get("privileged")


def test_what_is_written_is_on_volumes():
    database = environment_of_image()["DATABASE_URL"]
    assert database.startswith("sqlite:////data/")
    assert of("VOLUME", final_stage()) == ["/data"]
    for name in ("web", "redis"):
        [volume] = SERVICES[name]["volumes"]
        source, _, target = volume.partition(":")
        assert target == "/data"
        assert source in COMPOSE["volumes"]


def test_all_that_is_copied_is_there_and_is_let_through():
    names = context()
    for source, _ in copied():
        assert [name for name in names if name == source or name.startswith(f"{source}/")], source


@pytest.mark.parametrize(
    ("path", "is_sent"),
    [
        ("setup.py", True),
        ("job_scheduler/service/pages/static/app.css", True),
        ("job_scheduler/launcher/__pycache__/zygote.cpython-313.pyc", False),
        ("examples/celery_cron/tasks.py", True),
        ("tests/test_quick_start.py", True),
        ("tests/__init__.py", True),
        ("tests/conftest.py", False),
        ("tests/package/test_docker.py", False),
        (".env", False),
        ("examples/.env", False),
        (".git/config", False),
        (".venv/bin/python", False),
        ("scheduler.db", False),
        ("jobs/scheduler.db-wal", False),
        ("docker-compose.yml", False),
    ],
)
def test_what_is_sent_to_docker(path, is_sent):
    assert is_let_through(path) is is_sent


def test_what_services_run_is_there():
    names = context()
    for name in BUILT:
        service = SERVICES[name]
        program, *arguments = service["command"]
        folder = service.get("working_dir", "/app").removeprefix("/app").strip("/")
        if program == "python":
            assert arguments[0] in names
        else:
            assert arguments[:2] == ["--app", "tasks"]
            assert f"{folder}/{arguments[1]}.py" in names
    path = SERVICES["web"]["environment"]["PYTHONPATH"]
    assert f"{path.removeprefix('/app/')}/tasks.py" in names


def test_each_service_waits_for_redis_and_is_looked_after():
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped"
        if name == "redis":
            assert "PONG" in service["healthcheck"]["test"][1]
            continue
        assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}
        assert service["environment"]["REDIS_URL"] == "redis://redis:6379/0"
    assert SERVICES["redis"]["command"][1:] == ["--appendonly", "yes"]


# The image without Docker: its files, and this interpreter in place of its own


def test_the_quick_start_passes_in_the_image(app):
    folder, installed = app
    done = subprocess.run(
        ["sh", "-c", f"{shlex.quote(sys.executable)} -m unittest tests/test*.py"],
        cwd=folder,
        env={**BARE, **environment_of_image(), "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"Ran \d\d tests", done.stderr)


class InImage(Server):
    command = ("-m", *("job_scheduler", "serve"))


def test_the_service_starts_in_the_image_and_its_health_check_knows(app, tmp_path):
    folder, installed = app
    [start] = of("CMD", final_stage())
    assert json.loads(start) == ["job-scheduler", "serve"]
    environment = {
        **environment_of_image(),
        "PYTHONPATH": str(installed),
        "DATABASE_URL": f"sqlite:///{tmp_path}/scheduler.db",
        "JOB_SCHEDULER_HOST": "127.0.0.1",
        "JOB_SCHEDULER_PORT": "0",
    }
    refused = InImage(folder, **{**environment, "JOB_SCHEDULER_HOST": "0.0.0.0"})
    assert refused.process.wait(60) == 1
    assert "JOB_SCHEDULER_API_KEY" in refused.text

    server = InImage(folder, **environment, JOB_SCHEDULER_API_KEY="only-for-this-test-1234")
    found = eventually(lambda: re.search(r"http://\S+:(\d+)", server.text), what="its address")
    eventually(lambda: health(found[1]) == 0, what="its health")
    assert server.end() == 0
    assert health(found[1]) != 0


def health(port):
    """The exit code of the image's health check."""
    [check] = of("HEALTHCHECK", final_stage())
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert program == "python"
    environment = {**BARE, "JOB_SCHEDULER_PORT": port, "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, timeout=20
    ).returncode
