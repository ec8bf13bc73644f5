"""The application that the client and the worker share, and its tasks."""

from __future__ import annotations

import os
import time

from celery import Celery

from job_scheduler.celery import SETTINGS

URL = os.environ["FLEET_REDIS"]
NOTED = "fleet-noted"
"""The list in Redis of by how many seconds tasks were late."""

app = Celery("tasks", broker=URL, backend=URL)
if os.environ["FLEET_SETTINGS"] == "ours":
    app.conf.update(SETTINGS)


@app.task
def nothing(number: int) -> None: ...


@app.task
def first_line(number: int) -> float:
    """When it was begun, in seconds since 1970."""
    return time.time()


@app.task
def note(due: float) -> None:
    at = time.time()
    app.backend.client.rpush(NOTED, at - due)
