"""Job types for the tests; importable, as a job's own process needs it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

from job_scheduler import Job


class Note(Job):
    """Takes anything, and gives it back."""

    async def run(self, **anything):
        return anything


class Strict(Job):
    """Wants to know how much of what."""

    async def run(self, *, what: str, number: int = 1):
        return [what] * number


class Prints(Job):
    def process(self, **anything):
        print("printed")
        print("complained", file=sys.stderr)
        return {"pid": os.getpid()}


class Fails(Job):
    def process(self, **anything):
        print("about to fail")
        raise ValueError("as it was meant to <b>be</b>")


class Dies(Job):
    def process(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Sleeps(Job):
    def process(self, seconds: float = 60.0):
        time.sleep(seconds)


class Waits(Job):
    async def run(self, seconds: float = 60.0):
        await asyncio.sleep(seconds)


JOBS = {each.__name__: each for each in (Note, Strict, Prints, Fails, Dies, Sleeps, Waits)}
