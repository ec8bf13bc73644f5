"""How fast the service answers, on both stores; see README.md.

python benchmarks/service.py [--quick] [--rounds 3] [--json FILE] [--stores SQLite,PostgreSQL]
                             [--beside FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from command_line import names, show_progress
from launching.programs import leave_by_exception_on_signals
from machine import machine
from queueing import server
from serving import tables
from serving.rounds import QUICK, RequestError, Sizes, Stores, Subject, run_rounds
from serving.servers import ServerError

STORES = ("SQLite", "PostgreSQL")


def _stores(text: str) -> list[str]:
    chosen = names(text)
    for name in chosen:
        if name not in STORES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(STORES)}")
    return chosen


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of")
    parser.add_argument("--quick", action="store_true", help="one short round: a rough look")
    parser.add_argument(
        "--stores",
        type=_stores,
        default=list(STORES),
        metavar="NAMES",
        help=f"only these of {', '.join(STORES)}",
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="FOLDER",
        help="also measure another checkout of this project, in the same rounds",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rounds there")
    return parser.parse_args()


def subjects_of(stores: list[str], beside: Path | None) -> list[Subject]:
    """The service on each store, and right after it that of the other checkout."""
    subjects = []
    for store in stores:
        subjects.append(Subject(store, store))
        if beside is not None:
            subjects.append(Subject(f"{store}, beside", store, beside))
    return subjects


def main() -> None:
    options = _options()
    facts = machine()
    began = time.monotonic()
    count = 1 if options.quick else max(1, options.rounds)
    sizes = QUICK if options.quick else Sizes()
    subjects = subjects_of(options.stores, options.beside)
    leave_by_exception_on_signals()
    with ExitStack() as stack:
        dsn = None
        if "PostgreSQL" in options.stores:
            dsn = stack.enter_context(server.postgres())
            facts |= server.facts(dsn)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-service-"))
        stores = stack.enter_context(Stores(Path(folder), dsn))
        rounds = run_rounds(subjects, stores, count, sizes, show_progress)
    show_progress("")
    facts["took"] = f"{time.monotonic() - began:.0f} s"
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"Median of {count} rounds; {sizes.jobs:,} jobs and {sizes.runs:,} runs in the store,")
    print("none where runs are started; x: how many times as many as in the first column\n")
    print(tables.table(rounds))
    print(f"\n{tables.more(rounds)}")
    if options.json:
        found = {"machine": facts, "rounds": rounds.figures, "remarks": rounds.remarks}
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    try:
        main()
    except (RequestError, ServerError) as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit(130)
