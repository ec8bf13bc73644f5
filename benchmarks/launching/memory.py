"""What a tree of processes occupies.

The measure is PSS plus page tables. PSS counts a page that n processes share as one n-th in each,
so the sum over all that share it is the page, once. Page tables are each process's own and in no
other figure, yet they are most of what a child of a large process costs.
"""

from __future__ import annotations

import os
import time

_PAUSE = 0.05
_SETTLED = 0.002
_PATIENCE = 10.0


def tree(root: int) -> list[int]:
    """``root`` and all its descendants, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            parent = _parent_of(int(entry))
            if parent is not None:
                children.setdefault(parent, []).append(int(entry))
    found = [root]
    for pid in found:  # grows while it is walked
        found += children.get(pid, ())
    return found


def occupied(root: int) -> int:
    """What the tree under ``root`` occupies in kB, ``root`` included."""
    return sum(_kilobytes(pid) for pid in tree(root))


def settled(root: int) -> int:
    """The same once it has stopped changing: helpers still tidy up for a moment."""
    end = time.monotonic() + _PATIENCE
    before = occupied(root)
    while time.monotonic() < end:
        time.sleep(_PAUSE)
        now = occupied(root)
        if abs(now - before) <= before * _SETTLED:
            return now
        before = now
    raise RuntimeError(f"the memory did not settle within {_PATIENCE:.0f} s")


def _parent_of(pid: int) -> int | None:
    stat = _read(f"/proc/{pid}/stat")
    # The name of the program stands in parentheses and may contain some itself.
    return int(stat.rpartition(")")[2].split()[1]) if stat else None


def _kilobytes(pid: int) -> int:
    return _field(_read(f"/proc/{pid}/smaps_rollup"), "Pss:") + _field(
        _read(f"/proc/{pid}/status"), "VmPTE:"
    )


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0  # a process that has just ended, or a zombie


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""
