"""What is run on each executor; with ``$FLEET_URL``, also the application of a Celery worker."""

from __future__ import annotations

import os
import time

from celery import Celery

from job_scheduler import Job
from job_scheduler.celery import SETTINGS, register


def echo(*args, **kwargs):
    return args, kwargs


def fail(message):
    raise KeyError(message)


def nap(seconds):
    time.sleep(seconds)


def leave():
    raise SystemExit(3)


class Both(Job):
    """Echoes, wherever it runs."""

    def __init__(self, core_lib=None, said="nothing"):
        super().__init__(core_lib)
        self.said = said

    def process(self, word="word"):
        return self.said, word

    def run(self, word="word"):
        return self.said, word


class BothAsync(Both):
    async def run(self, word="word"):
        return self.said, word


def make_app(url):
    """A Celery application that knows all of these."""
    app = Celery("contract", broker=url, backend=url, set_as_current=False)
    app.conf.update(SETTINGS)
    app.contract = {
        function: app.task(name=function.__name__, shared=False, typing=False)(function)
        for function in (echo, fail, leave, nap)
    }
    app.contract[Both] = register(app, Both, name="Both")
    Both.executor = None  # it goes elsewhere too
    return app


if "FLEET_URL" in os.environ:
    app = make_app(os.environ["FLEET_URL"])
