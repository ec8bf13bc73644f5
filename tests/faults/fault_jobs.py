"""Jobs that write their starts and ends to the file that the variable ``FAULT_LOG`` names."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from pathlib import Path

from job_scheduler import Job


def note(what, name, mark="-"):
    """Append one line: what, the run, the mark of the execution, the instant."""
    now = time.clock_gettime(time.CLOCK_REALTIME)  # also where time.time was replaced
    descriptor = os.open(os.environ["FAULT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{what} {name} {mark} {now:.6f}\n".encode())
    os.close(descriptor)


def _begin(name):
    mark = f"{os.getpid()}-{os.urandom(6).hex()}"
    note("start", name, mark)
    return mark


def _may_end(name, mark):
    """Whether the test lets all go on, or this run, or this execution of it."""
    log = os.environ["FAULT_LOG"]
    return any(Path(f"{log}.{each}").exists() for each in ("go", name, mark))


async def work(name, takes=0.0, hold=False, number=0):
    mark = _begin(name)
    await asyncio.sleep(takes)
    while hold and not _may_end(name, mark):
        await asyncio.sleep(0.01)
    note("end", name, mark)
    return [mark, number]


def think(name, takes=0.0, hold=False, number=0):
    """The same in a thread, or in a process."""
    mark = _begin(name)
    time.sleep(takes)
    while hold and not _may_end(name, mark):
        time.sleep(0.01)
    note("end", name, mark)
    return [mark, number]


class Work(Job):
    def process(self, **options):
        return think(**options)


class Poison(Job):
    def process(self, name):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        _begin(name)
        os.kill(os.getpid(), signal.SIGSEGV)


JOBS = (work, think, Work, Poison)
