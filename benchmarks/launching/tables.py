"""The figures as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launching import parents
from launching.measured import BURST
from launching.rounds import Figures, Rounds, medians
from launching.rows import ROWS
from launching.waiting import WAITING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OURS = "ours"
_COLUMNS = {
    "return": "return µs",
    "return_p99": "p99",
    "start": "start µs",
    "start_p99": "p99",
    "rate": "jobs/s",
    "memory": "kB",
    "memory_collected": "kB, gc",
}
_COMPARED = ("return", "start", "rate", "memory", "memory_collected")
"""The columns that also tell how many times ours a figure is."""
_SPREAD = ("return", "start", "rate", "memory")
_GROUPS = {
    "process per job": "",
    "reference": "for reference, no process of its own per job:",
    "limit": "limits:",
}


def all_tables(rounds: Rounds) -> str:
    """Everything that was measured."""
    found = [_parent_table(parent, rows) for parent, rows in rounds.items()]
    bare = rounds.get("bare", {})
    found += [_job_sets_table(bare), _burst_table(rounds), _waiting_line(bare)]
    return "\n\n".join(filter(None, found))


def _parent_table(parent: str, rows: dict[str, list[Figures]]) -> str:
    """A line per row, the groups apart; beside each figure, how many times ours it is."""
    ours = medians(rows[OURS]) if OURS in rows else {}
    lines = [[parents.TITLES[parent], *_header()]]
    for group, heading in _GROUPS.items():
        keys = [key for key in rows if ROWS[key].group == group]
        if keys and heading:
            lines.append([heading])
        indent = "  " if heading else ""
        lines += [_line(indent + ROWS[key].title, medians(rows[key]), ours) for key in keys]
    if len(lines) == 1:
        return ""
    text = align(lines)
    return f"{text}\nOurs, all rounds: {spread(rows[OURS])}" if ours else text


def _job_sets_table(rows: dict[str, list[Figures]]) -> str:
    """Ours only: what the imports of a job's module cost."""
    ours = medians(rows[OURS]) if OURS in rows else {}
    keys = [key for key in rows if ROWS[key].group == "job sets"]
    if not keys:
        return ""
    lines = [["ours, the job's module imports", *_header()]]
    if ours:
        lines.append(_line("nothing else", ours, ours))
    lines += [_line(ROWS[key].title, medians(rows[key]), ours) for key in keys]
    return align(lines)


def _burst_table(rounds: Rounds) -> str:
    lines = []
    for parent, rows in rounds.items():
        for key, measured in rows.items():
            figures = medians(measured)
            if "burst" in figures:
                times = (figures["burst"] / 1000, figures["burst_ended"] / 1000)
                title = f"{ROWS[key].title}, {parent}"
                lines.append([title, *(f"{milliseconds:,.2f}" for milliseconds in times)])
    header = [f"burst of {BURST} calls, ms until all are", "accepted", "over"]
    return align([header, *lines]) if lines else ""


def _waiting_line(rows: dict[str, list[Figures]]) -> str:
    measured = [figures for key in rows if ROWS[key].group == "waiting" for figures in rows[key]]
    if not measured:
        return ""
    kilobytes = medians(measured)["memory_waiting"]
    return f"{WAITING:,} waiting runs: {kilobytes:.2f} kB each, caller and zygote together"


def spread(rounds: list[Figures]) -> str:
    """How far the rounds lie apart."""
    parts = []
    for column in filter(rounds[0].__contains__, _SPREAD):
        values = [each[column] for each in rounds]
        parts.append(f"{_COLUMNS[column]} {min(values):,.0f} to {max(values):,.0f}")
    return ", ".join(parts)


def _header() -> Iterable[str]:
    return _per_column(lambda column: _COLUMNS[column], lambda _: "x")


def _line(title: str, figures: Figures, ours: Figures) -> list[str]:
    if not figures:  # only the row that has to be compiled can be without any
        return [f"{title}: no C compiler"]

    def figure(column: str) -> str:
        return f"{figures[column]:,.0f}" if column in figures else "-"

    def compared(column: str) -> str:
        both = column in figures and column in ours
        return ratio(figures[column], ours[column]) if both else ""

    return [title, *_per_column(figure, compared)]


def _per_column(of_column: Callable[[str], str], compared: Callable[[str], str]) -> Iterable[str]:
    for column in _COLUMNS:
        yield of_column(column)
        if column in _COMPARED:
            yield compared(column)


def ratio(figure: float, ours: float) -> str:
    """How many times ours a figure is, in about three digits."""
    if not ours:
        return ""
    times = figure / ours
    return f"{times:.2f}" if times < 9.995 else f"{times:.0f}"


def align(lines: list[list[str]]) -> str:
    """The first column to the left, the others to the right; a line of one cell is a heading."""
    full = [line for line in lines if len(line) > 1]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=False)]
        ).rstrip()
        for line in lines
    )
