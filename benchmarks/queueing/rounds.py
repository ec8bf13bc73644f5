"""Which peers and what of them is measured, round after round."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from queueing.measured import MEASUREMENTS, Figures, Sizes, command
from queueing.peer import Peer
from queueing.peers import PEERS, graphile
from queueing.server import database

Answer = dict[str, Any]
"""Either ``figures`` or an ``error``."""

_PATIENCE = 300  # seconds that one measurement may take
_UNWANTED = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
_FOLDER = Path(__file__).parents[1]
_USUAL = ("enqueueing", "drain, one worker", "drain, two workers", "latency", "statements")
HISTORY = "drain with history"
TRANSACTION = "drain beside a transaction"


class UnknownNameError(Exception):
    """A peer on the command line that does not exist."""


class NotInstalledError(Exception):
    """Something that a chosen peer needs is not installed."""


@dataclass
class Rounds:
    """What was measured, and what went wrong."""

    figures: dict[str, list[Figures]] = field(default_factory=dict)
    """Peer -> the figures of each round."""
    errors: list[str] = field(default_factory=list)


def choose(keys: Sequence[str]) -> tuple[list[type[Peer]], list[str]]:
    """The peers asked for, or all; and why some of them are left out.

    Raises if one does not exist or is not installed: a line that is silently missing would look
    like a smaller benchmark.
    """
    for key in keys:
        if key not in PEERS:
            raise UnknownNameError(f"there is no peer {key!r}; there are {', '.join(PEERS)}")
    chosen = {key: peer for key, peer in PEERS.items() if not keys or key in keys}
    remarks = []
    for key in list(chosen):
        if reason := _reason_to_leave_out(key):
            remarks.append(f"{chosen.pop(key).title} is left out: {reason}")
    _check_installed(chosen)
    return list(chosen.values()), remarks


def _reason_to_leave_out(key: str) -> str:
    if key == "graphile-worker" and not graphile.has_node():
        return "there is no node"
    if key in ("ours", "ours-sqlite"):
        try:
            from job_scheduler import Scheduler  # noqa: F401
        except ImportError as error:
            return f"{error}"
    return ""


def _check_installed(chosen: dict[str, type[Peer]]) -> None:
    needed = {name for peer in chosen.values() for name in peer.needs}
    missing = sorted(name for name in needed if importlib.util.find_spec(name) is None)
    if "graphile-worker" in chosen and not graphile.is_installed():
        missing.append("graphile-worker (npm)")
    if missing:
        raise NotInstalledError(
            f"not installed: {', '.join(missing)}. `make bench-queue` installs all"
        )


def measurements_of(peer: type[Peer], sizes: Sizes, long_transaction: bool) -> list[str]:
    chosen = [*_USUAL]
    if sizes.history and peer.key == "ours":
        chosen.append(HISTORY)
    if long_transaction and peer.store == "postgres":
        chosen.append(TRANSACTION)
    return chosen


def run_rounds(
    server: str,
    plan: dict[type[Peer], list[str]],
    count: int,
    sizes: Sizes,
    report: Callable[[str], None],
) -> Rounds:
    """Interleaved, so that a slow moment of the machine meets all; each round has another order."""
    rounds = Rounds({peer.key: [{} for _ in range(count)] for peer in plan})
    names = (f"bench_queue_{os.getpid()}_{number}" for number in itertools.count())
    for number in range(count):
        peers = rotated(list(plan), number)
        for what in MEASUREMENTS:
            for peer in (peer for peer in peers if what in plan[peer]):
                report(f"round {number + 1} of {count}: {what}, {peer.title}")
                answer = _measure(server, next(names), what, peer, sizes)
                rounds.figures[peer.key][number] |= answer.get("figures", {})
                if "error" in answer:
                    error = answer["error"]
                    rounds.errors.append(f"round {number + 1}: {what}, {peer.title}: {error}")
    return rounds


def rotated(peers: list[type[Peer]], shift: int) -> list[type[Peer]]:
    shift %= len(peers)
    return peers[shift:] + peers[:shift]


def _measure(server: str, name: str, what: str, peer: type[Peer], sizes: Sizes) -> Answer:
    with tempfile.TemporaryDirectory(prefix="bench-") as made, _place(server, name, peer) as place:
        folder = Path(made)
        given = place or str(folder / "jobs.db")
        log = folder / "measured.log"
        ended = _run(command(what, peer.key, given, folder, sizes), log)
        answer = folder / "answer.json"
        if not answer.exists():
            last = log.read_text(errors="replace").splitlines()[-3:]
            return {"error": f"{ended}: {' / '.join(last)}"}
        found: Answer = json.loads(answer.read_text())
        return found


def _run(words: list[str], log: Path) -> str:
    """Let a program come to its end, or end it, with all it has started; says how it ended."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # an interrupt by keyboard is the controller's alone
        )
        try:
            return f"ended with status {process.wait(_PATIENCE)}"
        except subprocess.TimeoutExpired:
            return f"not done after {_PATIENCE} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment() -> dict[str, str]:
    environment = {name: text for name, text in os.environ.items() if name not in _UNWANTED}
    path = (str(_FOLDER), environment.get("PYTHONPATH", ""))
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


@contextlib.contextmanager
def _place(server: str, name: str, peer: type[Peer]) -> Iterator[str]:
    """A database of its own, for those that need one."""
    if peer.store != "postgres":
        yield ""
        return
    with database(server, name) as dsn:
        yield dsn
