"""What starting a job in a process of its own costs, beside peers; see README.md.

python benchmarks/launch.py [--quick] [--rounds 5] [--json FILE]
                            [--peers ours,fork] [--parents bare,heavy]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from command_line import names, show_progress
from launching import tables
from launching.parents import PARENTS
from launching.peers.base import IN_FLIGHT
from launching.programs import MeasurementError, adopt_orphans, leave_by_exception_on_signals
from launching.rounds import run_rounds
from launching.rows import ROWS, NotInstalledError, UnknownNameError, choose
from machine import machine

_SECONDS = 0.4
_SECONDS_QUICK = 0.1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--quick", action="store_true", help="one short round: a rough look")
    parser.add_argument(
        "--peers", type=names, default=[], metavar="NAMES", help=f"only these of {', '.join(ROWS)}"
    )
    parser.add_argument(
        "--parents",
        type=names,
        default=[],
        metavar="NAMES",
        help=f"only these of {', '.join(PARENTS)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rounds there")
    return parser.parse_args()


def main() -> None:
    options = _options()
    plan = choose(options.peers, options.parents)
    facts = machine()
    began = time.monotonic()
    count = 1 if options.quick else max(1, options.rounds)
    adopt_orphans()
    leave_by_exception_on_signals()
    rounds = run_rounds(plan, count, _SECONDS_QUICK if options.quick else _SECONDS, show_progress)
    show_progress("")
    facts["took"] = f"{time.monotonic() - began:.0f} s"
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"Median of {count} rounds; x: how many times ours; jobs/s with {IN_FLIGHT} in flight\n")
    print(tables.all_tables(rounds))
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except (MeasurementError, NotInstalledError, UnknownNameError) as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit(130)
