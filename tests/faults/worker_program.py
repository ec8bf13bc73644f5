"""A worker as a process of its own: ``python -m tests.faults.worker_program DSN``.

It prints ``ready``, and goes on until it is killed, or whoever started it is no more.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import logging
import os
import sys
import threading
import time


def options_of(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("--most", type=int, default=4)
    parser.add_argument("--lease", type=float, default=1.0)
    parser.add_argument("--most-crashes", type=int, default=1_000)
    parser.add_argument("--without", action="append", default=[], metavar="JOB")
    parser.add_argument("--tick", action="store_true", help="declare the schedule of each second")
    parser.add_argument("--shift", type=float, default=0.0, help="seconds its clock is ahead")
    parser.add_argument("--at-word", action="store_true", help="begin when told a line")
    return parser.parse_args(arguments)


def shift_the_clock(seconds):
    """Have all of Python's wall clocks be ahead; the monotonic ones are left alone."""
    real, real_ns, plain = time.time, time.time_ns, datetime.datetime

    class AnyDatetime(type):
        def __instancecheck__(cls, value):
            return isinstance(value, plain)

    class Shifted(plain, metaclass=AnyDatetime):
        @classmethod
        def now(cls, tz=None):
            return plain.now(tz) + datetime.timedelta(seconds=seconds)

    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)
    datetime.datetime = Shifted


def end_with_the_test():
    """Whoever started this holds the other end of its input."""
    sys.stdin.read()
    os._exit(0)


async def main(options):
    from job_scheduler import Scheduler
    from job_scheduler.errors import StoreError
    from tests.faults.fault_jobs import JOBS, work

    scheduler = Scheduler(
        store=options.dsn,
        jobs=[job for job in JOBS if job.__name__ not in options.without],
        max_concurrent_jobs=options.most,
        lease=options.lease,
        most_crashes=options.most_crashes,
        poll=1.0,
        grace=0.5,
    )
    if options.at_word:
        print("ready", flush=True)
        sys.stdin.readline()
    threading.Thread(target=end_with_the_test, daemon=True).start()
    while True:
        try:
            await scheduler.start()
            if options.tick:
                kwargs = {"name": "tick", "takes": 0.3}
                await scheduler.schedule(work, every=1, job_id="tick", kwargs=kwargs)
            break
        except StoreError as error:
            logging.warning("not yet: %s", error)
            await asyncio.sleep(0.1)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    options = options_of(sys.argv[1:])
    if options.shift:
        shift_the_clock(options.shift)
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(options))
