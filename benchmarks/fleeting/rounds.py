"""What is measured of which side, round after round."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import redis

from fleeting import servers
from fleeting.client import Figures, Sizes
from fleeting.servers import FleetError

SIDES = {
    "bare": "ours",
    "bare, defaults": "default",
    "ours": "ours",
    "ours, SQLite": "ours",
}
"""Ways to send tasks, and which settings their application has; the first is compared with."""

WITH_A_WORKER = ("one by one", "drain", "drain by get", "together")
ONLY_BARE = "drain by get"

_PATIENCE = 300.0


@dataclass
class Rounds:
    """What was found, one figure for each round."""

    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """row -> side -> figures."""
    limits: dict[str, list[float]] = field(default_factory=dict)
    """What is asked of Redis -> tasks/s."""

    def add(self, side: str, figures: Figures) -> None:
        for row, value in figures.items():
            self.figures.setdefault(row, {}).setdefault(side, []).append(value)

    def add_limits(self, figures: Figures) -> None:
        for name, value in figures.items():
            self.limits.setdefault(name, []).append(value)


def run_rounds(
    sides: list[str],
    folder: Path,
    url: str,
    count: int,
    sizes: Sizes,
    show_progress: Callable[[str], None],
) -> Rounds:
    """Interleaved, so that a slow moment of the machine meets all; each has another order.

    Sides with the same settings share a worker, since two beside each other would share the
    machine.
    """
    rounds = Rounds()
    with redis.Redis.from_url(url) as broker:
        for number in range(count):
            shift = number % len(sides)
            order = sides[shift:] + sides[:shift]

            def ask(what: str, side: str, number: int = number) -> Figures:
                show_progress(f"round {number + 1} of {count}: {what}, {side}")
                return _measure(what, side, url, sizes)

            for side in order:
                broker.flushall()
                rounds.add(side, ask("publishing", side))
            broker.flushall()
            rounds.add_limits(ask("redis", ""))
            for settings in dict.fromkeys(SIDES[side] for side in order):
                broker.flushall()
                with servers.worker(folder, url, settings):
                    for what in WITH_A_WORKER:
                        for side in order:
                            is_for_it = what != ONLY_BARE or side.startswith("bare")
                            if SIDES[side] == settings and is_for_it:
                                rounds.add(side, ask(what, side))
    return rounds


def _measure(what: str, side: str, url: str, sizes: Sizes) -> Figures:
    spec = json.dumps([what, side, asdict(sizes)])
    done = subprocess.run(
        [sys.executable, "-m", "fleeting.client", spec],
        env=servers.environment(url, SIDES.get(side, "ours")),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=_PATIENCE,
    )
    if done.returncode:
        raise FleetError(f"{what} of {side} has failed")
    figures: Figures = json.loads(done.stdout)
    return figures
