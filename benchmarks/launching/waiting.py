"""What runs that wait occupy: many accepted, one running; ours only."""

from __future__ import annotations

import os
import sys

from launching import memory
from launching.measured import write_figures
from launching.peers.base import expect

WAITING = 10_000


def main() -> None:
    folder = sys.argv[1]
    from job_scheduler import JobScheduler
    from launching.jobs.plain import JOBS

    tell, hold = (os.path.join(folder, name) for name in ("tell", "hold"))
    for fifo in (tell, hold):
        os.mkfifo(fifo)
    told, held = (os.open(fifo, os.O_RDWR) for fifo in (tell, hold))
    scheduler = JobScheduler(JOBS, max_processes=1, max_waiting=2 * WAITING)
    scheduler.run("nothing").wait()  # imports its class, as the others will not have to
    scheduler.run("idle", ready=tell, hold=hold)
    os.read(told, 1)
    before = memory.settled(os.getppid())
    runs = [scheduler.run("nothing") for _ in range(WAITING)]
    during = memory.settled(os.getppid())
    expect(all(run.state == "pending" for run in runs), "it should still wait")
    scheduler.shutdown(timeout=0)
    os.close(held)
    write_figures(folder, {"memory_waiting": (during - before) / WAITING})
