"""A schedule here, its work on a Celery worker: one task a second, for a few seconds.

Redis and a worker (``celery --app tasks worker``, in this folder) have to be there; ``make celery``
brings both.
"""

import argparse
import sys
import time

import tasks
from kombu.exceptions import OperationalError

from job_scheduler import JobScheduler


def main(seconds: float) -> int:
    problem = why_unreachable()
    if problem:
        print(
            f"Redis cannot be reached: {problem} Start it, or say in REDIS_URL where it is; "
            f"'make celery' brings one of its own.",
            file=sys.stderr,
        )
        return 1
    scheduler = JobScheduler()
    scheduler.add_job("job1", tasks.sample_task, interval=1, args=["Hello, world!"])
    print(f"job1 is on the plan, for {seconds:g} seconds", flush=True)
    time.sleep(seconds)
    info = scheduler.get_job_info("job1")
    for what in ("trigger", "completed", "failed", "missed", "next_run_time"):
        print(f"    {what}: {info[what]}", flush=True)
    scheduler.remove_job("job1")
    print("job1 is off the plan", flush=True)
    scheduler.shutdown()
    return 0


def why_unreachable() -> str:
    """What is wrong with Celery's broker, or nothing; each task would try for a long time."""
    with tasks.app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=5)
        except OperationalError as error:
            return str(error)
    return ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long; default: %(default)s")
    sys.exit(main(parser.parse_args().seconds))
