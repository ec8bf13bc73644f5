"""The figures as text."""

from __future__ import annotations

import statistics

from serving.rounds import CEILING, CEILING_ROWS, EMPTY_ROWS, FULL_ROWS, Figures, Rounds, Row

_COLUMNS = ("/s", "x", "p50 ms", "p99 ms", "CPU ms")
_WIDTH = 8


def medians(rounds: list[Figures]) -> Figures:
    """Each figure by itself."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def table(rounds: Rounds) -> str:
    """A line for each row, a block of columns for each subject; x: how many times the first."""
    subjects = [name for name in rounds.figures if name != CEILING]
    block = (_WIDTH + 1) * len(_COLUMNS)
    width = max(len(row.name) for row in [*EMPTY_ROWS, *FULL_ROWS])
    lines = [
        f"{'':{width}}" + "".join(f"{name:>{block}}" for name in subjects),
        f"{'request, clients':{width}}" + _cells(_COLUMNS) * len(subjects),
    ]
    for row in [*EMPTY_ROWS, *FULL_ROWS]:
        found = [_found(rounds, name, row) for name in subjects]
        lines.append(f"{row.name:{width}}" + "".join(_figures(each, found[0]) for each in found))
    lines += ["", f"{CEILING}: what it reaches with the client, without a service"]
    for row in CEILING_ROWS:
        found = [_found(rounds, CEILING, row)]
        lines.append(f"{row.name:{width}}" + _figures(found[0], None))
    return "\n".join(line.rstrip() for line in lines)


def more(rounds: Rounds) -> str:
    """What else there is to know: how many runs keep up, and how large the answers are."""
    lines = []
    for name in rounds.figures:
        if name == CEILING:
            continue
        runs = [_found(rounds, name, row) for row in EMPTY_ROWS]
        rates = ", ".join(f"{each['run rate']:,.0f}" for each in runs if each)
        lines.append(f"{name}: runs/s until all that were accepted had ended: {rates}")
        sizes = [(row, _found(rounds, name, row)) for row in FULL_ROWS if row.clients == 1]
        told = ", ".join(f"{row.path} {each['bytes'] / 1000:,.1f}" for row, each in sizes if each)
        lines.append(f"{name}: kB of an answer: {told}")
    return "\n".join([*lines, *rounds.remarks])


def _found(rounds: Rounds, subject: str, row: Row) -> Figures | None:
    found = rounds.figures.get(subject, {}).get(row.name)
    return medians(found) if found else None


def _figures(found: Figures | None, first: Figures | None) -> str:
    if found is None:
        return _cells("-" * len(_COLUMNS))
    times = (figure(found[name]) for name in ("p50", "p99", "cpu"))
    ratio = "" if first is None else f"{found['rate'] / first['rate']:.2f}"
    return _cells((figure(found["rate"]), ratio, *times))


def _cells(texts: tuple[str, ...] | str) -> str:
    return "".join(f"{text:>{_WIDTH + 1}}" for text in texts)


def figure(value: float) -> str:
    """Three digits that count, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"
