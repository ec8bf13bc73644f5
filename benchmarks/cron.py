"""What it costs to find the next instant of a cron expression, beside other libraries.

Each is asked as its users ask it: the expression is read once, then fires are taken one after
another from a start; and, apart, what it costs to read the expression. Then whether they run jobs
as often as they should where clocks change. See README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import clock_changes
from machine import machine

START = datetime(2026, 1, 1, 12, 34, 56, tzinfo=UTC)
ENOUGH = 0.05  # seconds for one figure of one round
MOMENT = timedelta(milliseconds=1)

EXPRESSIONS = {
    "every minute": "* * * * *",
    "every 5 minutes": "*/5 * * * *",
    "hourly": "0 * * * *",
    "daily": "30 4 * * *",
    "on weekdays, at work": "*/15 9-17 * * 1-5",
    "weekly": "0 9 * * 1",
    "monthly": "0 0 1 * *",
    "yearly": "0 0 1 1 *",
    "29 February": "0 0 29 2 *",
    "29 February on a Monday": "0 0 */28 2 1",
}

ZONES = ("UTC", "Europe/Berlin")

Fires = Callable[[], Iterator[datetime]]


def ours(expression: str, zone: str, start: datetime = START) -> Fires:
    from job_scheduler import Cron

    trigger = Cron(expression, zone)

    def fires() -> Iterator[datetime]:
        instant: datetime | None = start
        while (instant := trigger.next_after(instant)) is not None:
            yield instant

    return fires


def cronsim(expression: str, zone: str, start: datetime = START) -> Fires:
    from cronsim import CronSim

    start = start.astimezone(ZoneInfo(zone))
    return lambda: CronSim(expression, start)


def croniter(expression: str, zone: str, start: datetime = START) -> Fires:
    from croniter import croniter

    start = start.astimezone(ZoneInfo(zone))

    def fires() -> Iterator[datetime]:
        # implement_cron_bug: Debian's rule for day fields that begin with a star.
        return croniter(expression, start, datetime, implement_cron_bug=True)

    return fires


def apscheduler(expression: str, zone: str, start: datetime = START) -> Fires:
    from apscheduler.triggers.cron import CronTrigger

    trigger = CronTrigger.from_crontab(weekdays_from_monday(expression), ZoneInfo(zone))

    def fires() -> Iterator[datetime]:
        before, now = None, start
        while (instant := trigger.get_next_fire_time(before, now)) is not None:
            yield instant
            # As its scheduler asks: once the last has run, so that now is later than that.
            before, now = instant, instant.astimezone(UTC) + MOMENT

    return fires


def weekdays_from_monday(expression: str) -> str:
    """APScheduler counts weekdays from 0 for Monday; its names mean the same everywhere."""
    *others, weekday = expression.split()
    return " ".join([*others, {"1": "mon", "1-5": "mon-fri"}.get(weekday, weekday)])


PEERS = {
    "job_scheduler": ours,
    "cronsim": cronsim,
    "croniter": croniter,
    "APScheduler": apscheduler,
}


def microseconds_per_fire(fires: Fires) -> float:
    """The mean, over as many as are found in a while: a rare one is found from its last again."""
    count = 0
    found = iter(fires())
    before = time.perf_counter()
    while (took := time.perf_counter() - before) < ENOUGH:
        for _ in range(8):
            next(found)
            count += 1
        if count % 64 == 0:
            found = iter(fires())
    return took / count * 1e6


def microseconds_to_read(peer: Callable[..., Fires], expression: str, zone: str) -> float:
    """What it takes until the first fire is known, the reading of the expression included."""
    count = 0
    before = time.perf_counter()
    while (took := time.perf_counter() - before) < ENOUGH:
        next(iter(peer(expression, zone)()))
        count += 1
    return took / count * 1e6


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Interleaved, so that a slow moment of the machine meets all."""
    figures: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for zone in ZONES:
            for what, expression in EXPRESSIONS.items():
                row = figures.setdefault(f"{what}, {zone}", {})
                for name, peer in PEERS.items():
                    row.setdefault(name, []).append(microseconds_per_fire(peer(expression, zone)))
        row = figures.setdefault("read '*/15 9-17 * * 1-5' and find the first, UTC", {})
        for name, peer in PEERS.items():
            took = microseconds_to_read(peer, EXPRESSIONS["on weekdays, at work"], "UTC")
            row.setdefault(name, []).append(took)
    return figures


def check_that_all_agree() -> None:
    """Speed counts only where the answers are the same."""
    for zone in ZONES:
        for what, expression in EXPRESSIONS.items():
            answers = {}
            for name, peer in PEERS.items():
                found = iter(peer(expression, zone)())
                answers[name] = [next(found).astimezone(UTC) for _ in range(5)]
            expected = answers["job_scheduler"]
            wrong = [name for name, answer in answers.items() if answer != expected]
            if wrong:
                print(f"{what}, {zone}: another answer from {', '.join(wrong)}")


def print_table(figures: dict[str, dict[str, list[float]]]) -> None:
    width = max(map(len, figures))
    print(f"{'µs per next fire':{width}}" + "".join(f"{name:>15}      x" for name in PEERS))
    for what, row in figures.items():
        medians = {name: statistics.median(values) for name, values in row.items()}
        mine = medians["job_scheduler"]
        cells = "".join(f"{value:>15,.2f} {value / mine:>6,.1f}" for value in medians.values())
        print(f"{what:{width}}{cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rounds there")
    options = parser.parse_args()
    facts = machine()
    check_that_all_agree()
    began = time.monotonic()
    figures = measure(options.rounds)
    facts["took"] = f"{time.monotonic() - began:.0f} s"
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"Median of {options.rounds} rounds; x: how many times ours")
    print_table(figures)
    changes = [change for zone in clock_changes.ZONES for change in clock_changes.changes_of(zone)]
    print("\n" + clock_changes.summary(changes))
    print(clock_changes.table(clock_changes.compare(PEERS, changes)))
    if options.json:
        options.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
