"""What starting a job in a process of its own costs, beside peers; see README.md.

python benchmarks/launch.py [--quick] [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from launch_peers import IN_FLIGHT, PARENTS, PEERS, Ours

Figures = dict[str, float]
"""Column -> figure."""

Rounds = dict[str, dict[str, list[Figures]]]
"""Parent -> peer -> what each round gave."""

COLUMNS = {
    "return": "return µs",
    "return_p99": "p99",
    "start": "start µs",
    "start_p99": "p99",
    "rate": "jobs/s",
}
_SECONDS = 1.2
_SECONDS_QUICK = 0.25
_PATIENCE = 180


def run_rounds(count: int, seconds: float) -> Rounds:
    """Measure every peer in every parent, round after round, beginning with another peer."""
    rounds: Rounds = {parent: {peer: [] for peer in PEERS} for parent in PARENTS}
    names = list(PEERS)
    with tempfile.TemporaryDirectory() as folder:
        fifo = os.path.join(folder, "stamps")
        os.mkfifo(fifo)
        for number in range(count):
            shift = number % len(names)
            for parent in PARENTS:
                for peer in names[shift:] + names[:shift]:
                    _show_progress(f"round {number + 1} of {count}: {parent}, {peer}")
                    rounds[parent][peer].append(measure(peer, parent, fifo, seconds))
    _show_progress("")
    return rounds


def measure(peer: str, parent: str, fifo: str, seconds: float) -> Figures:
    """Measure one peer in a fresh parent.

    The parent is started without a main file: multiprocessing would import that again in each
    child, which is not what is compared here.
    """
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start compiles all modules
    path = [str(Path(__file__).parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    code = "import launch_peers; launch_peers.main()"
    command = [sys.executable, "-c", code, peer, parent, fifo, str(seconds)]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, timeout=_PATIENCE, check=True
    )
    measured = json.loads(done.stdout)
    figures: Figures = {"rate": measured["rate"]}
    for column in ("return", "start"):
        if measured[column]:
            microseconds = sorted(nanoseconds / 1000 for nanoseconds in measured[column])
            figures[column] = statistics.median(microseconds)
            figures[f"{column}_p99"] = microseconds[int(len(microseconds) * 0.99)]
    return figures


def medians(rounds: list[Figures]) -> Figures:
    """The median over the rounds, column by column."""
    return {column: statistics.median(each[column] for each in rounds) for column in rounds[0]}


def table(parent: str, peers: dict[str, list[Figures]]) -> str:
    """One line per peer; beside each figure, how many times ours it is."""
    ours = medians(peers[Ours.name])
    header = [f"{parent} parent", *(c for title in COLUMNS.values() for c in (title, "x"))]
    lines = [header]
    for peer, rounds in peers.items():
        figures = medians(rounds)
        line = [peer]
        for column in COLUMNS:
            figure = figures.get(column)
            line += (
                ["-", ""] if figure is None else [f"{figure:,.0f}", _ratio(figure, ours[column])]
            )
        lines.append(line)
    return _align(lines)


def _ratio(figure: float, ours: float) -> str:
    ratio = figure / ours
    return f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.0f}"


def spread(rounds: list[Figures]) -> str:
    """How far the rounds lie apart."""
    parts = []
    for column in ("return", "start", "rate"):
        values = [each[column] for each in rounds]
        parts.append(f"{COLUMNS[column]} {min(values):,.0f} to {max(values):,.0f}")
    return ", ".join(parts)


def _align(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    )


def machine() -> dict[str, str]:
    """What the figures depend on."""
    cpu = platform.processor() or "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "CPU": cpu,
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _show_progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--quick", action="store_true", help="one short round: a rough look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rounds there")
    return parser.parse_args()


def main() -> None:
    options = _options()
    facts = machine()
    began = time.monotonic()
    count = 1 if options.quick else max(1, options.rounds)
    rounds = run_rounds(count, _SECONDS_QUICK if options.quick else _SECONDS)
    facts["took"] = f"{time.monotonic() - began:.0f} s"
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"Median of {count} rounds; x: how many times ours; jobs/s with {IN_FLIGHT} in flight")
    for parent, peers in rounds.items():
        print(f"\n{table(parent, peers)}\nOurs, all rounds: {spread(peers[Ours.name])}")
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
