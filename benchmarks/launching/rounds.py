"""Round after round, and what becomes of the measurements."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from launching.rows import Row

Figures = dict[str, float]
"""Column -> figure: microseconds, jobs per second, kB."""

Rounds = dict[str, dict[str, list[Figures]]]
"""Parent -> row -> what each round gave."""

_TIMES = ("return", "start", "burst", "burst_ended")
_WITH_P99 = ("return", "start")


def run_rounds(
    plan: Mapping[str, Sequence[Row]], count: int, seconds: float, report: Callable[[str], None]
) -> Rounds:
    """Measure every row in its parents, round after round, beginning with another row."""
    rounds: Rounds = {parent: {row.key: [] for row in rows} for parent, rows in plan.items()}
    for number in range(count):
        for parent, rows in plan.items():
            for row in rotated(rows, number):
                report(f"round {number + 1} of {count}: {parent}, {row.title}")
                rounds[parent][row.key].append(figures_of(row.measure(parent, seconds)))
    return rounds


def rotated(rows: Sequence[Row], shift: int) -> list[Row]:
    """The same rows, beginning ``shift`` further on."""
    shift %= len(rows)
    return [*rows[shift:], *rows[:shift]]


def figures_of(raw: Mapping[str, Any]) -> Figures:
    """What one measurement comes to: medians and 99th percentiles of its times."""
    figures: Figures = {}
    for column, value in raw.items():
        if column not in _TIMES:
            figures[column] = value
        elif value:
            microseconds = sorted(nanoseconds / 1000 for nanoseconds in value)
            figures[column] = statistics.median(microseconds)
            if column in _WITH_P99:
                figures[f"{column}_p99"] = microseconds[int(len(microseconds) * 0.99)]
    return figures


def medians(rounds: Sequence[Figures]) -> Figures:
    """The median over the rounds, column by column."""
    return {column: statistics.median(each[column] for each in rounds) for column in rounds[0]}
