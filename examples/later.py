"""Later and repeatedly, in one program: ``python examples/later.py``; Ctrl-C ends it."""

import logging
from datetime import UTC, datetime, timedelta

from job_scheduler import Job, JobScheduler


def greet(name: str) -> None:
    """A plain function: it runs in a thread of this program."""
    print(f"Hello, {name}!", flush=True)


async def breathe() -> None:
    """A coroutine function: it runs on an event loop of this program."""
    print("in, and out", flush=True)


class Report(Job):
    """An object of a job class: it keeps what it needs, and runs in a thread."""

    def __init__(self) -> None:
        self.number = 0

    def run(self) -> None:
        self.number += 1
        print(f"report {self.number}", flush=True)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    scheduler = JobScheduler()
    scheduler.add_job("greeting", greet, interval=1, args=["world"])
    scheduler.add_job("breath", breathe, cron="*/2 * * * * *")  # six fields: seconds in front
    scheduler.add_job("once", greet, at=datetime.now(UTC) + timedelta(seconds=3), args=["you"])
    scheduler.schedule("0s", "1s", Report())  # a second after each end
    scheduler.schedule_once("2s", "TestJob")  # by name: in a process of its own
    scheduler.wait()


if __name__ == "__main__":
    main()
