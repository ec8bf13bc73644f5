"""The jobs as plain functions, for the peers; ``launch_jobs`` holds the same as ours."""

from __future__ import annotations

import os
import time


def stamp(fifo: str) -> None:
    """Tell when the first line of the job ran."""
    now = time.monotonic_ns()
    descriptor = os.open(fifo, os.O_WRONLY)
    os.write(descriptor, now.to_bytes(8, "little"))


def nothing() -> None:
    """Be over at once."""
