"""What the documents say of the service and of the small application works as typed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from job_scheduler.service import settings
from job_scheduler.service.job_types import email_notification
from job_scheduler.service.settings import Settings
from tests.conftest import ROOT, eventually
from tests.service.test_serve import Server

ADDRESS = "http://127.0.0.1:8000"


def section(file, title):
    """The text below a headline, up to the next."""
    text = f"\n{(ROOT / file).read_text()}\n"
    [found] = re.findall(rf"\n##? {re.escape(title)}\n(.*?)(?=\n##? )", f"{text}\n# ", re.DOTALL)
    return found


def commands(text):
    """The lines of a console that begin with ``$``, each with those that go on with it."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [each for block in blocks for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]


def typed(command, server, **replaced):
    """What a command of the README gives: JSON."""
    command = command.replace(ADDRESS, server.url)
    for old, new in replaced.items():
        command = command.replace(f"/{old} ", f"/{new} ")
    done = subprocess.run(
        ["bash", "-c", command.replace("curl ", "curl --silent --show-error --fail-with-body ")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return json.loads(done.stdout)


@pytest.fixture
def start():
    servers = []

    def start(kind, folder):
        servers.append(kind(folder))
        return servers[-1].ready()

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_curl
def test_the_commands(start, tmp_path):
    _install, serve, *curls = commands(section("README.md", "The service"))
    assert serve.startswith("job-scheduler serve ")
    server = start(Server, tmp_path)
    made, listed, now, runs, paused, fired, found = curls
    job = typed(made, server)
    assert (job["id"], job["schedule"]) == (1, "at 09:00 on Monday to Friday (Europe/Berlin)")
    assert [each["name"] for each in typed(listed, server)] == ["Daily report"]
    run = typed(now, server)
    assert [each["id"] for each in typed(runs, server)] == [run["id"]]
    assert not typed(paused, server)["is_active"]
    once = typed(fired, server)
    ended = eventually(
        lambda: (run := typed(found, server, ID=once["id"]))["ended_at"] and run, what="its end"
    )
    assert (ended["state"], ended["result"]["rows"]) == ("completed", 200)
    assert "user_events" in ended["output"]


@needs_curl
def test_the_commands_of_the_small_application(start, tmp_path):
    shutil.copytree(ROOT / "examples" / "microservice", tmp_path / "it")
    text = (tmp_path / "it" / "README.md").read_text()
    install, run, *curls = commands(text)
    assert install == "pip install -r requirements.txt\n"

    class Typed(Server):
        command = tuple(run.split()[1:])

    server = start(Typed, tmp_path / "it")
    made, looked, now, runs, fired = curls
    assert typed(made, server)["id"] == 1
    assert typed(looked, server)["job_type"] == "email_notification"
    assert typed(now, server)["job_id"] == 1
    assert len(typed(runs, server)) == 1
    assert typed(fired, server)["job_type"] == "data_processing"


def test_the_settings_are_those_that_are_read():
    text = section("docs/service.md", "Settings")
    rows = re.findall(r"^\|(.*?)\|(.*?)\|.*\|$", text, re.MULTILINE)
    table = {
        name: default.strip("` ")
        for names, default in rows
        for name in re.findall("`(.+?)`", names)
    }
    fields = {variable.name: field for field, variable in settings._VARIABLES.items()}
    of_mail = set(re.findall(r"\bSMTP_[A-Z]+", email_notification.__doc__))
    assert table.keys() == fields.keys() | of_mail
    for name, field in fields.items():
        assert f"\n{name} " in settings.__doc__
        if table[name]:
            assert Settings.read({name: table[name]}) == Settings()
        else:
            assert not getattr(Settings(), field)


def test_requirements_lead_to_this_package(tmp_path):
    folder = ROOT / "examples" / "microservice"
    lines = (folder / "requirements.txt").read_text().splitlines()
    [wanted] = [line for line in lines if line and not line.startswith("#")]
    path, extras = re.fullmatch(r"(.+)\[(.+)\]", wanted).groups()
    assert (folder / path).resolve() == ROOT
    setup = (ROOT / "setup.py").read_text()
    assert all(f'"{extra}":' in setup for extra in extras.split(","))
