"""The jobs as plain functions, for the peers; ``jobs.plain`` holds the same as ours."""

from __future__ import annotations

import gc
import os
import time


def stamp(fifo: str) -> None:
    """Tell when the first line of the job ran."""
    now = time.monotonic_ns()
    descriptor = os.open(fifo, os.O_WRONLY)
    os.write(descriptor, now.to_bytes(8, "little"))
    os.close(descriptor)  # the reference peers run this in one process many times


def nothing() -> None:
    """Be over at once."""


def idle(ready: str, hold: str) -> None:
    """Tell that the job runs, and wait for a byte, or for the end of whoever would send it."""
    held = os.open(hold, os.O_RDONLY)
    telling = os.open(ready, os.O_WRONLY)
    os.write(telling, b"r")
    os.close(telling)
    os.read(held, 1)


def idle_collected(ready: str, hold: str) -> None:
    """The same, after what a long job does sooner or later: a garbage collection."""
    gc.collect()
    idle(ready, hold)
