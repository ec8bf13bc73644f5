"""What is measured, in which parents: a row for each way to start a job."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from launching import fork_in_c, parents
from launching.peers import PEERS
from launching.programs import run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from launching.peers.base import Peer

Raw = dict[str, Any]
"""What a measurement gives: lists of nanoseconds, and single figures."""


@dataclass(frozen=True)
class Row:
    """One line of the tables, and how to measure it."""

    key: str
    title: str
    group: str
    parents: tuple[str, ...]
    needs: tuple[str, ...]
    measure: Callable[[str, float], Raw]
    """Takes the parent and how many seconds each part may take."""


class UnknownNameError(Exception):
    """A row or parent on the command line that does not exist."""


class NotInstalledError(Exception):
    """Something that a chosen row needs is not installed."""


def _row_of(peer: type[Peer]) -> Row:
    def measure(parent: str, seconds: float) -> Raw:
        arguments = (peer.key, parent, "{folder}", str(seconds))
        return run_python("launching.measured", *arguments, what=f"{peer.title}, {parent}")

    return Row(peer.key, peer.title, peer.group, peer.parents, peer.needs, measure)


def _measure_c(_: str, seconds: float) -> Raw:
    return fork_in_c.measure(seconds)


def _measure_waiting(_parent: str, _seconds: float) -> Raw:
    return run_python("launching.waiting", "{folder}", what="waiting runs")


ROWS = {
    row.key: row
    for row in (
        *map(_row_of, PEERS.values()),
        Row(
            "c-fork",
            f"fork+_exit in C, {fork_in_c.MEGABYTES} MB",
            "limit",
            ("bare",),
            (),
            _measure_c,
        ),
        Row("ours-waiting", "waiting runs", "waiting", ("bare",), (), _measure_waiting),
    )
}


def choose(keys: Sequence[str], chosen_parents: Sequence[str]) -> dict[str, list[Row]]:
    """Parent -> rows to measure in it, of those asked for; none means all.

    Raises if one does not exist, or if something that they need is not installed: a line that is
    silently missing would look like a smaller benchmark.
    """
    _check_known("peer", keys, ROWS)
    _check_known("parent", chosen_parents, parents.PARENTS)
    rows = [row for row in ROWS.values() if not keys or row.key in keys]
    plan = {
        parent: [row for row in rows if parent in row.parents]
        for parent in parents.PARENTS
        if not chosen_parents or parent in chosen_parents
    }
    plan = {parent: chosen for parent, chosen in plan.items() if chosen}
    if not plan:
        raise UnknownNameError(f"none of {', '.join(keys)} is measured in these parents")
    _check_installed(plan)
    return plan


def _check_known(kind: str, given: Sequence[str], known: dict[str, Any]) -> None:
    for name in given:
        if name not in known:
            raise UnknownNameError(f"there is no {kind} {name!r}; there are {', '.join(known)}")


def _check_installed(plan: dict[str, list[Row]]) -> None:
    needed = {name for rows in plan.values() for row in rows for name in row.needs}
    needed |= {name for parent in plan for name in parents.NEEDS[parent]}
    missing = sorted(name for name in needed if importlib.util.find_spec(name) is None)
    if missing:
        raise NotInstalledError(
            f"not installed: {', '.join(missing)}. "
            f"`make bench-launch` installs all, or: pip install '.[bench]'"
        )
