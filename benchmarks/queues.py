"""What durable job queues do, side by side; see README.md.

It is not ``queue.py``, which would stand here before the module that Python itself needs.

python benchmarks/queues.py [--quick] [--rounds 3] [--json FILE] [--peers ours,pgqueuer]
                            [--history 1000000] [--long-transaction]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from command_line import names, show_progress
from launching.programs import leave_by_exception_on_signals
from machine import machine
from queueing import server, tables
from queueing.measured import QUICK, Sizes
from queueing.peers import PEERS
from queueing.rounds import (
    NotInstalledError,
    UnknownNameError,
    choose,
    measurements_of,
    run_rounds,
)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of")
    parser.add_argument("--quick", action="store_true", help="one short round: a rough look")
    parser.add_argument(
        "--peers",
        type=names,
        default=[],
        metavar="NAMES",
        help=f"only these of {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--history", type=int, default=0, metavar="N", help="also drain ours beside N finished jobs"
    )
    parser.add_argument(
        "--long-transaction", action="store_true", help="also drain beside an open transaction"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rounds there")
    return parser.parse_args()


def main() -> None:
    options = _options()
    peers, remarks = choose(options.peers)
    for remark in remarks:
        print(remark, flush=True)
    facts = machine()
    began = time.monotonic()
    count = 1 if options.quick else max(1, options.rounds)
    usual = QUICK if options.quick else Sizes()
    sizes = Sizes(**{**vars(usual), "history": options.history})
    plan = {peer: measurements_of(peer, sizes, options.long_transaction) for peer in peers}
    leave_by_exception_on_signals()
    with server.postgres() as dsn:
        facts |= server.facts(dsn)
        rounds = run_rounds(dsn, plan, count, sizes, show_progress)
    show_progress("")
    facts["took"] = f"{time.monotonic() - began:.0f} s"
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"Median of {count} rounds; x: how many times ours, of the same store\n")
    print(tables.table(rounds))
    for text in (tables.more(rounds, sizes.history), tables.ways(rounds, sizes)):
        if text:
            print(f"\n{text}")
    if options.json:
        found = {"machine": facts, "rounds": rounds.figures, "errors": rounds.errors}
        options.json.write_text(json.dumps(found, indent=1))
    if rounds.errors:
        sys.exit("\nNot measured:\n" + "\n".join(rounds.errors))


if __name__ == "__main__":
    try:
        main()
    except (NotInstalledError, UnknownNameError) as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit(130)
