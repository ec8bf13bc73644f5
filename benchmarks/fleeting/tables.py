"""The figures as text."""

from __future__ import annotations

import statistics

from fleeting.rounds import Rounds

PUBLISHED = "published/s, without a worker"


def table(rounds: Rounds, sides: list[str]) -> str:
    """A line for each row; x: how many times that of the first side."""
    width = max(map(len, rounds.figures))
    lines = [" " * width + "".join(f"{side:>16} {'x':>6}" for side in sides)]
    for row, found in rounds.figures.items():
        is_count = row.endswith("runs")
        # Of what may not be lost or come twice, a bad round must not be hidden by good ones.
        values = {side: (_oddest if is_count else statistics.median)(found[side]) for side in found}
        base = values.get(sides[0], 0)
        line = f"{row:{width}}"
        for side in sides:
            if side not in values:
                line += f"{'-':>16} {'':>6}"
                continue
            text = f"{values[side]:,.0f}" if is_count else figure(values[side])
            ratio = "" if is_count or base <= 0 else f"{values[side] / base:.2f}"
            line += f"{text:>16} {ratio:>6}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def limits(rounds: Rounds, sides: list[str]) -> str:
    """What Redis can take from one client, and how near each side comes to that."""
    lines = []
    for name, found in rounds.limits.items():
        limit = statistics.median(found)
        near = ", ".join(
            f"{side} {statistics.median(rounds.figures[PUBLISHED][side]) / limit:.0%}"
            for side in sides
        )
        lines.append(f"Redis alone, {name}: {limit:,.0f} tasks/s; of that are published: {near}")
    return "\n".join(lines)


def _oddest(counts: list[float]) -> float:
    usual = statistics.median_high(counts)
    return max(counts, key=lambda count: abs(count - usual))


def figure(value: float) -> str:
    """Three digits that count, or all before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
