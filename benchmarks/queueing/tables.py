"""The figures as text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from launching.tables import align, ratio

from queueing.measured import Figures, Sizes
from queueing.peers import PEERS
from queueing.rounds import Rounds

OURS = {"postgres": "ours", "sqlite": "ours-sqlite"}
"""Which line of ours one is compared with, by where it keeps its jobs."""
_COLUMNS = {
    "one": "one by one/s",
    "many": "in bulk/s",
    "drain1": "1 worker/s",
    "drain2": "2 workers/s",
    "latency": "latency ms",
    "latency_p99": "p99",
    "statements": "statements",
    "commits": "commits",
}
_COMPARED = ("one", "many", "drain1", "drain2", "latency")
_GROUPS = {"queues": "", "limits": "limits:"}


def table(rounds: Rounds) -> str:
    """A line for each peer; beside each figure, how many times ours it is."""
    figures = {key: medians(found) for key, found in rounds.figures.items()}
    lines = [["", *_cells(dict(_COLUMNS), dict.fromkeys(_COMPARED, "x"))]]
    for group, heading in _GROUPS.items():
        keys = [key for key in figures if PEERS[key].group == group]
        if keys and heading:
            lines.append([heading])
        indent = "  " if heading else ""
        for key in keys:
            ours = figures.get(OURS[PEERS[key].store], {})
            lines.append([indent + PEERS[key].title, *_line(figures[key], ours)])
    return align(lines)


def medians(rounds: Sequence[Figures]) -> Figures:
    """Column by column, over the rounds that have it."""
    columns = dict.fromkeys(column for each in rounds for column in each)
    return {
        column: statistics.median(each[column] for each in rounds if column in each)
        for column in columns
    }


def _line(figures: Figures, ours: Figures) -> list[str]:
    shown = {column: _figure(figures[column]) for column in _COLUMNS if column in figures}
    compared = {
        column: ratio(figures[column], ours[column])
        for column in _COMPARED
        if column in figures and column in ours
    }
    return _cells(shown, compared)


def _cells(shown: dict[str, str], compared: dict[str, str]) -> list[str]:
    cells = []
    for column in _COLUMNS:
        cells.append(shown.get(column, "-"))
        if column in _COMPARED:
            cells.append(compared.get(column, ""))
    return cells


def _figure(value: float) -> str:
    """Three digits that count, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def ways(rounds: Rounds, sizes: Sizes) -> str:
    """What differs from line to line: how bulk was enqueued, and how much was drained."""
    told = (
        f"{PEERS[key].title}: {PEERS[key].bulk}, {sizes.backlog(PEERS[key]):,} jobs"
        for key in rounds.figures
    )
    return "In bulk by, and drained: " + "; ".join(told)


def more(rounds: Rounds, history: int) -> str:
    """The figures of the other options."""
    lines = []
    for key, found in rounds.figures.items():
        figures = medians(found)
        title = PEERS[key].title
        if "history" in figures:
            rate = _figure(figures["history"])
            lines.append(f"{title}, with {history:,} finished jobs in its table: {rate}/s")
        if "held" in figures:
            lines.append(
                f"{title}, beside a transaction open for {figures['held_seconds']:.0f} s and "
                f"{figures['held_transactions']:,.0f} transactions, after a drain as large: "
                f"{_figure(figures['held'])}/s"
            )
    return "\n".join(lines)
