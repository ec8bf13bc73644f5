"""The job of all peers, and what is noted of its runs in a worker process."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

noted: list[tuple[int, float]] = []
"""Of each run the number of its job, and when its first line was run (CLOCK_MONOTONIC)."""

tell_to: int | None = None
"""Where each run tells at once that it has started, while latencies are taken; else nowhere."""


async def noop(number: int) -> None:
    note(number)


def note(number: int) -> None:
    noted.append((number, time.monotonic()))
    if tell_to is not None:
        tell(tell_to)


def tell(descriptor: int) -> None:
    """Say how many have run so far."""
    os.write(descriptor, f"{len(noted)}\n".encode())


def write(path: Path) -> None:
    path.write_text(json.dumps(noted))
