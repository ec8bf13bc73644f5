"""A Celery application for tests: ``celery --app tests.fleet.tasks worker`` at ``$FLEET_URL``."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import time

from celery import Celery
from celery.exceptions import Ignore

from job_scheduler import Job
from job_scheduler.celery import SETTINGS, register


class OwnError(Exception):
    """One of the program's own."""


def add(a, b=1):
    return a + b


def count(self, key, seconds=0.0):
    """Note the process at the start, and once more at the end."""
    note = self.app.backend.client
    note.rpush(f"begun:{key}", os.getpid())
    time.sleep(seconds)
    return note.incr(f"done:{key}")


def fail(message, kind="KeyError"):
    raise {"KeyError": KeyError, "OwnError": OwnError}[kind](message)


def flaky(self, times, countdown=0):
    if self.request.retries < times:
        raise self.retry(countdown=countdown, exc=OSError(f"try {self.request.retries}"))
    return self.request.retries


def die(self, key, times):
    """Take the process down, the first times."""
    if self.app.backend.client.incr(f"deaths:{key}") <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def progress(self, key):
    self.update_state(state="PROGRESS", meta={"done": 1})
    note = self.app.backend.client
    note.rpush(f"begun:{key}", os.getpid())
    while not note.get(f"go:{key}"):
        time.sleep(0.01)
    return "done"


def told():
    return "told all the same"


def untyped(*args, **kwargs):
    return [list(args), kwargs]


def leave():
    raise Ignore


def step_aside(self, a):
    """Have another task do the work, under the id of this one."""
    raise self.replace(self.app.tasks["add"].s(a, b=10))


TASKS = [
    (add, {}),
    (count, {"bind": True}),
    (fail, {}),
    (flaky, {"bind": True, "max_retries": 5}),
    (die, {"bind": True}),
    (progress, {"bind": True}),
    (told, {"ignore_result": True}),
    (untyped, {"typing": False}),
    (leave, {}),
    (step_aside, {"bind": True}),
]


def make_app(url, name="fleet", **settings):
    """An application with these tasks, each time a new one."""
    app = Celery(name, broker=url, backend=url, set_as_current=False)
    app.conf.update(SETTINGS)
    app.conf.update(settings)
    app.jobs = {}
    for function, options in TASKS:
        task = app.task(name=function.__name__, shared=False, **options)(function)
        app.jobs[function.__name__] = task

    class Report(Job):
        """Adds, on whatever machine."""

        timeout = 20

        def process(self, a, b=2):
            return [type(self).__name__, a + b]

    class AsyncReport(Job):
        async def run(self, a):
            await asyncio.sleep(0)
            return a

    for job_class in (Report, AsyncReport):
        register(app, job_class, name=job_class.__name__)
        app.jobs[job_class.__name__] = job_class
    return app


if "FLEET_URL" in os.environ:  # in a worker
    given = ast.literal_eval(os.environ.get("FLEET_SETTINGS", "{}"))
    app = make_app(os.environ["FLEET_URL"], **given)
