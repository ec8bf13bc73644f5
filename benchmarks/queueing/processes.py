"""Jobs in processes of their own: what the launcher does alone, and from a store.

No store is the bound there, but the start of a process. Both lines are no-op jobs with as many at
one time, in a fresh program each, counted until the last has ended.

python benchmarks/queueing/processes.py [SQLITE OR POSTGRESQL ADDRESS]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from job_scheduler import Job, JobScheduler

JOBS = 3_000
AT_ONE_TIME = 16
PAUSE = 0.01


class Noop(Job):
    def process(self) -> None: ...


def alone() -> float:
    """Jobs per second of the launcher, without any store."""
    scheduler = JobScheduler({"Noop": Noop}, max_processes=AT_ONE_TIME)
    scheduler.run("Noop").wait()
    began = time.perf_counter()
    runs = [scheduler.run("Noop") for _ in range(JOBS)]
    runs[-1].wait()
    while any(not run.state.ended for run in runs):
        time.sleep(PAUSE)
    took = time.perf_counter() - began
    scheduler.shutdown()
    return JOBS / took


def from_store(address: str) -> float:
    """Jobs per second of one worker that takes them from a store, where all were before."""
    accepting = JobScheduler({"Noop": Noop}, store=address, workers=0)
    for _ in range(JOBS):
        last = accepting.options(priority=9).run("Noop")
    began = time.perf_counter()
    scheduler = JobScheduler({"Noop": Noop}, store=address, workers=AT_ONE_TIME)
    last.wait()
    took = time.perf_counter() - began
    scheduler.shutdown()
    accepting.shutdown()
    return JOBS / took


def main() -> None:
    if len(sys.argv) > 2:
        print(alone() if sys.argv[1] == "alone" else from_store(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        addresses = sys.argv[1:] or [f"sqlite:///{Path(folder) / 'jobs.db'}"]
        for what, address in (("alone", "-"), ("from a store", addresses[0])):
            command = [sys.executable, __file__, what, address]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            print(f"{what:14} {float(done.stdout):8,.0f} jobs/s", flush=True)


if __name__ == "__main__":
    main()
