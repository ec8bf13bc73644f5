"""A served application over each store that is meant for it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from starlette.testclient import TestClient

from job_scheduler.service.app import Service
from job_scheduler.service.job_types import built_in
from job_scheduler.service.job_types.registry import JobTypes
from job_scheduler.service.settings import Settings
from tests.conftest import eventually
from tests.service import sample_types

CRON = "0 9 * * *"

SOON = "* * * * * *"


@pytest.fixture(params=["sqlite", "postgres"])
def address(request, tmp_path):
    """A database of its own."""
    if request.param == "postgres":
        return request.getfixturevalue("database")
    return f"sqlite:///{tmp_path}/scheduler.db"


@contextlib.contextmanager
def opened(address, **settings: Any):
    """A client of an application that is served as long as it is open."""
    types = JobTypes({**built_in(), **sample_types.JOBS})
    settings = {"shutdown_timeout": 0.0, "database_url": address, **settings}
    service = Service(Settings(**settings), types)
    with TestClient(service.app, base_url="http://localhost", client=("127.0.0.1", 1)) as client:
        client.service = service
        yield client


@pytest.fixture
def client(address):
    with opened(address) as client:
        yield client


def job(**fields: Any) -> dict[str, Any]:
    """What is posted for a job."""
    return {"name": "a job", "cron_expression": CRON, "job_type": "Note", **fields}


def made(client, **fields: Any) -> dict[str, Any]:
    """A job that was posted, as it came back."""
    answer = client.post("/jobs", json=job(**fields))
    assert answer.status_code == 201, answer.text
    return answer.json()


def ended(client, run_id: str, timeout: float = 20.0) -> dict[str, Any]:
    """A run once it has ended."""

    def run():
        found = client.get(f"/runs/{run_id}").json()
        return found if found["ended_at"] is not None else None

    return eventually(run, timeout, what=f"the end of run {run_id}")
