"""The jobs as ours; the module imports nothing that the launching process has not loaded."""

from __future__ import annotations

import gc
import os
import time

from job_scheduler import Job


class Stamp(Job):
    """Tells when the first line of the job ran."""

    def process(self, fifo: str) -> None:
        now = time.monotonic_ns()
        descriptor = os.open(fifo, os.O_WRONLY)
        os.write(descriptor, now.to_bytes(8, "little"))
        os.close(descriptor)


class Nothing(Job):
    """Is over at once."""

    def process(self) -> None:
        pass


class Idle(Job):
    """Tells that it runs, and waits for a byte, or for the end of whoever would send it."""

    def process(self, ready: str, hold: str) -> None:
        held = os.open(hold, os.O_RDONLY)
        telling = os.open(ready, os.O_WRONLY)
        os.write(telling, b"r")
        os.close(telling)
        os.read(held, 1)


class IdleCollected(Idle):
    """The same, after what a long job does sooner or later: a garbage collection."""

    def process(self, ready: str, hold: str) -> None:
        gc.collect()
        super().process(ready, hold)


JOBS = {"stamp": Stamp, "nothing": Nothing, "idle": Idle, "idle_collected": IdleCollected}
