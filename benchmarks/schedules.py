"""What many schedules cost, and how late their jobs are, beside other libraries; see README.md.

Each figure of each round is taken in a fresh process: this file again, with ``--measure``.

python benchmarks/schedules.py [--quick] [--long] [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from machine import machine

JOBS = 1_000
WARM_UP = 64
LEAD = 1.5  # seconds from when jobs are added until they are due
PATIENCE = 30.0  # seconds for jobs to run after they were due
HOUR = 3600

Figures = dict[str, float]
Rounds = dict[str, dict[str, list[float]]]  # row -> peer -> one figure for each round

noted: list[tuple[int, float]] = []
"""Of each run the number of its job, and when its first line was run."""


def note(number: int) -> None:
    noted.append((number, time.time()))


async def note_on_the_loop(number: int) -> None:
    noted.append((number, time.time()))


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    schedules: int = 100_000
    idle: float = 3
    instants: int = 10
    """Seconds for which jobs run once a second."""


QUICK = Sizes(schedules=10_000, idle=1, instants=3)
LONG = Sizes(idle=15, instants=60)


# The libraries


class Peer(Protocol):
    """Has a scheduler that was started, or is about to start with the first job."""

    def add_hourly(self, number: int) -> None: ...

    def add_at(self, instant: float, number: int) -> None: ...

    def add_every_second(self, first: float, number: int) -> float:
        """Returns the first instant as the library has understood it."""

    def serve_until(self, end: float) -> None:
        """Let jobs run; returns at that time."""

    def close(self) -> None: ...


def utc(instant: float) -> datetime:
    return datetime.fromtimestamp(instant, UTC)


class Ours:
    """Plain functions run in up to 32 threads."""

    job: Callable[[int], object] = staticmethod(note)

    def __init__(self) -> None:
        from job_scheduler import JobScheduler

        self.scheduler = JobScheduler()

    def add_hourly(self, number: int) -> None:
        self.scheduler.add_job(f"hourly-{number}", self.job, HOUR, [number])

    def add_at(self, instant: float, number: int) -> None:
        self.scheduler.add_job(f"at-{number}", self.job, at=utc(instant), args=[number])

    def add_every_second(self, first: float, number: int) -> float:
        # The first run comes one interval after the start.
        start = utc(first) - timedelta(seconds=1)
        job_id = self.scheduler.add_job(f"every-{number}", self.job, 1, [number], start=start)
        return self.scheduler.get_job_info(job_id)["next_run_time"].timestamp()

    def serve_until(self, end: float) -> None:
        time.sleep(max(0.0, end - time.time()))

    def close(self) -> None:
        self.scheduler.shutdown()


class OursOnTheLoop(Ours):
    """Coroutine functions run on the loop of the engine itself."""

    job = staticmethod(note_on_the_loop)


class APScheduler:
    """Version 3, with its default memory job store.

    It is not handicapped by two of its defaults: a job more than a second late would not run at
    all, and its pool has 10 threads where ours has 32.
    """

    def __init__(self) -> None:
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.schedulers.background import BackgroundScheduler

        self.scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={"default": ThreadPoolExecutor(32)},
            job_defaults={"misfire_grace_time": None},
        )
        self.scheduler.start()

    def add_hourly(self, number: int) -> None:
        self.scheduler.add_job(note, "interval", hours=1, args=[number], id=f"hourly-{number}")

    def add_at(self, instant: float, number: int) -> None:
        self.scheduler.add_job(
            note, "date", run_date=utc(instant), args=[number], id=f"at-{number}"
        )

    def add_every_second(self, first: float, number: int) -> float:
        job = self.scheduler.add_job(
            note,
            "interval",
            seconds=1,
            start_date=utc(first),
            args=[number],
            id=f"every-{number}",
        )
        return job.next_run_time.timestamp()

    def serve_until(self, end: float) -> None:
        time.sleep(max(0.0, end - time.time()))

    def close(self) -> None:
        self.scheduler.shutdown()


class Schedule:
    """Jobs run in the thread of the caller, who calls ``run_pending`` in a loop.

    Its documentation has two loops: one sleeps for a second, the other for ``idle_seconds()``.
    Here it is the shorter of both, so that jobs are on time, and what is added by others is seen
    in a while. There are no instants: a job has an interval, and ``next_run`` is set.
    """

    def __init__(self) -> None:
        from schedule import Scheduler

        self.scheduler = Scheduler()

    def add_hourly(self, number: int) -> None:
        self.scheduler.every(1).hours.do(note, number)

    def add_at(self, instant: float, number: int) -> None:
        job = self.scheduler.every(1).hours.do(note, number)
        job.next_run = datetime.fromtimestamp(instant)

    def add_every_second(self, first: float, number: int) -> float:
        job = self.scheduler.every(1).seconds.do(note, number)
        job.next_run = datetime.fromtimestamp(first)
        return job.next_run.timestamp()

    def serve_until(self, end: float) -> None:
        while time.time() < end:
            self.scheduler.run_pending()
            idle = self.scheduler.idle_seconds
            left = end - time.time()
            time.sleep(max(0.0, min(1.0, left, left if idle is None else idle)))

    def close(self) -> None:
        self.scheduler.clear()


PEERS: dict[str, Callable[[], Peer]] = {
    "job_scheduler": Ours,
    "APScheduler": APScheduler,
    "schedule": Schedule,
}


# What is measured


def measure_adding(peer: Peer, sizes: Sizes) -> Figures:
    """What it takes to add schedules, and what they cost while none is due."""
    before = time.perf_counter()
    for number in range(sizes.schedules):
        peer.add_hourly(number)
    took = time.perf_counter() - before
    gc.collect()
    peer.serve_until(time.time() + 0.5)
    each = f"{sizes.schedules:,} schedules"
    return {
        f"adding {each}, s": took,
        f"adding {each}, µs each": took / sizes.schedules * 1e6,
        f"idle with {each}, % CPU": cpu_per_cent(peer, time.time() + sizes.idle),
    }


def cpu_per_cent(peer: Peer, end: float) -> float:
    before, cpu_before = time.perf_counter(), time.process_time()
    peer.serve_until(end)
    return (time.process_time() - cpu_before) / (time.perf_counter() - before) * 100


def measure_together(peer: Peer, sizes: Sizes) -> Figures:
    return lateness(f"{JOBS:,} at one instant", late_by(peer, spread=0))


def measure_spread(peer: Peer, sizes: Sizes) -> Figures:
    return lateness(f"{JOBS:,} over one second", late_by(peer, spread=1))


def measure_together_on_the_loop(peer: Peer, sizes: Sizes) -> Figures:
    return lateness(f"{JOBS:,} at one instant, on the event loop", late_by(peer, spread=0))


def measure_spread_on_the_loop(peer: Peer, sizes: Sizes) -> Figures:
    return lateness(f"{JOBS:,} over one second, on the event loop", late_by(peer, spread=1))


def late_by(peer: Peer, spread: float) -> list[float]:
    """Seconds by which jobs were late that were due from one instant on."""
    first = time.time() + LEAD
    instants = [first + spread * number / JOBS for number in range(JOBS)]
    for number, instant in enumerate(instants):
        peer.add_at(instant, number)
    check_that_it_is_before(first)
    peer.serve_until(instants[-1] + 0.5)
    wait_for_runs(peer, JOBS)
    return [at - instants[number] for number, at in noted]


def measure_steady(peer: Peer, sizes: Sizes) -> Figures:
    """All are due together, once a second."""
    begin = time.time() + LEAD + 1
    firsts = [peer.add_every_second(begin, number) for number in range(JOBS)]
    check_that_it_is_before(begin - 0.1)
    peer.serve_until(begin - 0.1)
    cpu = cpu_per_cent(peer, begin - 0.1 + sizes.instants)
    happened, late = on_a_grid(noted, firsts, sizes.instants)
    what = f"{JOBS:,} each second for {sizes.instants} s"
    return {
        runs_row(sizes): happened,
        **lateness(what, late),
        f"{what}, % CPU": cpu,
    }


def runs_row(sizes: Sizes) -> str:
    return (
        f"{JOBS:,} each second for {sizes.instants} s, runs of {JOBS * sizes.instants:,} (fewest)"
    )


def on_a_grid(
    runs: Sequence[tuple[int, float]], firsts: Sequence[float], instants: int
) -> tuple[int, list[float]]:
    """How many of the instants, one each second from the first on, had a run, and how late.

    A run belongs to the instant that was last: one that is later than a second stands for the
    next, and the one it was meant for counts as lost. Two for one instant count once.
    """
    late: dict[tuple[int, int], float] = {}
    for number, at in runs:
        since = at - firsts[number]
        instant = math.floor(since)
        if 0 <= instant < instants:
            late.setdefault((number, instant), since - instant)
    return len(late), list(late.values())


def check_that_it_is_before(instant: float) -> None:
    if time.time() >= instant:
        sys.exit("jobs were due before all were added: the machine is too busy")


def wait_for_runs(peer: Peer, count: int) -> None:
    limit = time.time() + PATIENCE
    while len(noted) < count:
        if time.time() > limit:
            sys.exit(f"{len(noted)} of {count} jobs have run, and no more do")
        peer.serve_until(time.time() + 0.05)


def percentile(values: Sequence[float], per_cent: float) -> float:
    """The smallest value that so many of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * per_cent / 100) - 1)]


def lateness(what: str, seconds: Sequence[float]) -> Figures:
    if not seconds:
        return {}
    return {
        f"{what}, median ms late": statistics.median(seconds) * 1000,
        f"{what}, p99 ms late": percentile(seconds, 99) * 1000,
    }


MEASUREMENTS: dict[str, Callable[[Peer, Sizes], Figures]] = {
    "adding": measure_adding,
    "together": measure_together,
    "together on the loop": measure_together_on_the_loop,
    "spread": measure_spread,
    "spread on the loop": measure_spread_on_the_loop,
    "steady": measure_steady,
}


def measure_here(what: str, peer_name: str, sizes: Sizes) -> Figures:
    """Take figures in this process; some jobs run first, so that everything is loaded."""
    on_the_loop = what.endswith("on the loop")
    peer = OursOnTheLoop() if on_the_loop else PEERS[peer_name]()
    soon = time.time() + 0.2
    for number in range(WARM_UP):
        peer.add_at(soon, JOBS + number)
    peer.serve_until(soon + 0.1)
    wait_for_runs(peer, WARM_UP)
    noted.clear()
    gc.collect()
    figures = MEASUREMENTS[what](peer, sizes)
    peer.close()
    return figures


# Rounds


def measure_in_a_process(what: str, peer: str, sizes: Sizes) -> Figures:
    command = [sys.executable, __file__, "--measure", json.dumps([what, peer, asdict(sizes)])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"\n{what} of {peer} has failed")
    return json.loads(done.stdout)


def measure(rounds: int, sizes: Sizes, show_progress: Callable[[str], None]) -> Rounds:
    """Interleaved, so that a slow moment of the machine meets all; each round has another order."""
    figures: Rounds = {}
    names = list(PEERS)
    for number in range(rounds):
        shift = number % len(names)
        for what in MEASUREMENTS:
            for name in names[shift:] + names[:shift]:
                if what.endswith("on the loop") and name != "job_scheduler":
                    continue
                show_progress(f"round {number + 1} of {rounds}: {what}, {name}")
                for row, value in measure_in_a_process(what, name, sizes).items():
                    figures.setdefault(row, {}).setdefault(name, []).append(value)
    show_progress("")
    return figures


def figure(value: float) -> str:
    """Three digits that count, or all before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def cells(values: dict[str, float], are_counts: bool) -> str:
    mine = values.get("job_scheduler", 0)
    text = ""
    for name in PEERS:
        if name not in values:
            text += f"{'-':>15} {'':>7}"
            continue
        value = f"{values[name]:,.0f}" if are_counts else figure(values[name])
        ratio = f"{values[name] / mine:,.1f}" if mine > 0 and not are_counts else ""
        text += f"{value:>15} {ratio:>7}"
    return text


def table(figures: Rounds) -> str:
    """Medians; of the runs that happened the fewest, since none may be lost."""
    width = max(map(len, figures))
    lines = [" " * width + "".join(f"{name:>15} {'x':>7}" for name in PEERS)]
    for row, rounds in figures.items():
        counts = row.endswith("(fewest)")
        of_rounds = min if counts else statistics.median
        values = {name: float(of_rounds(each)) for name, each in rounds.items()}
        lines.append(f"{row:{width}}{cells(values, counts)}".rstrip())
    return "\n".join(lines)


NOTES = """
APScheduler has 32 threads and no grace time. schedule runs jobs in the thread of its caller; as it
has no instants, next_run was set, and as its intervals drift, it comes late to a fixed grid."""


def show_progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one short round: a rough look")
    size.add_argument("--long", action="store_true", help="idle for 15 s, run each second for 60 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rounds there")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, peer, given = json.loads(options.measure)
        print(json.dumps(measure_here(what, peer, Sizes(**given))))
        return
    facts = machine()
    began = time.monotonic()
    count = 1 if options.quick else max(1, options.rounds)
    sizes = QUICK if options.quick else LONG if options.long else Sizes()
    figures = measure(count, sizes, show_progress)
    facts["took"] = f"{time.monotonic() - began:.0f} s"
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"Median of {count} rounds; x: how many times ours")
    print(table(figures))
    print(NOTES)
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "rounds": figures}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
