"""What a scheduler adds to tasks of Celery that are sent by ``.delay()``; see README.md.

python benchmarks/fleet.py [--quick] [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import redis
from command_line import show_progress
from fleeting import servers, tables
from fleeting.client import QUICK, Sizes
from fleeting.rounds import SIDES, run_rounds
from fleeting.servers import FleetError
from launching.programs import leave_by_exception_on_signals
from machine import machine


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
    sizes = QUICK if options.quick else Sizes()
    sides = list(SIDES)
    leave_by_exception_on_signals()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-celery-")))
        url = stack.enter_context(servers.redis_server(folder))
        with redis.Redis.from_url(url) as client:
            facts["Redis"] = client.info("server")["redis_version"]
        facts["Celery"] = importlib.metadata.version("celery")
        rounds = run_rounds(sides, folder, url, count, sizes, show_progress)
    show_progress("")
    facts["took"] = f"{time.monotonic() - began:.0f} s"
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"Median of {count} rounds; x: how many times that of the first column\n")
    print(tables.table(rounds, sides))
    print(f"\n{tables.limits(rounds, sides)}")
    if options.json:
        found = {"machine": facts, "rounds": rounds.figures, "limits": rounds.limits}
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    try:
        main()
    except FleetError as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit(130)
