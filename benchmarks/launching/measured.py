"""What happens inside a measured process: one peer in one parent.

``programs`` starts it; its figures go into a file, since the helpers of some peers keep what they
inherit of the standard output.
"""

from __future__ import annotations

import os
import select
import sys
import time

from launching import memory
from launching.parents import PARENTS
from launching.peers import PEERS
from launching.peers.base import IN_FLIGHT, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launching.peers.base import Peer

BURST = 100
_MOST_STAMPS = 500
_MOST_JOBS = 5000
_PATIENCE = 30_000  # milliseconds
_PARENTS_WITHOUT_THREADS = ("bare", "heavy")
"""Where bursts and memory are measured: the threads of the others only slow that down."""


class Meter:
    """Measures one peer; all times in nanoseconds, all memory in kB."""

    def __init__(self, peer: Peer, folder: str, seconds: float) -> None:
        self._peer = peer
        self._seconds = seconds
        self._fifo = os.path.join(folder, "tell")
        self._hold_fifo = os.path.join(folder, "hold")
        self._told = _open_fifo(self._fifo)
        self._hold = _open_fifo(self._hold_fifo)
        self._poll = select.poll()
        self._poll.register(self._told, select.POLLIN)

    def warm_up(self) -> None:
        """Let everything happen that happens once."""
        for _ in range(IN_FLIGHT):
            self._peer.submit("nothing")
        self._peer.wait_all()

    def calls(self) -> dict[str, list[int]]:
        """Until the call returned, and until the job's first line; one job after another."""
        peer = self._peer
        returns: list[int] = []
        starts: list[int] = []
        end = time.monotonic() + self._seconds
        while len(returns) < _MOST_STAMPS and time.monotonic() < end:
            before = time.monotonic_ns()
            peer.submit("stamp", fifo=self._fifo)
            after = time.monotonic_ns()
            returns.append(after - before)
            if peer.has_first_line:
                starts.append(int.from_bytes(self._await_told(8), "little") - before)
            peer.wait_all()
        return {"return": returns, "start": starts}

    def rate(self) -> float:
        """No-op jobs per second: as many as are likely done in ``seconds``."""
        count = 2 * IN_FLIGHT
        took = self._time_jobs(count)
        if took < self._seconds:
            count = max(count, min(_MOST_JOBS, int(count / took * self._seconds)))
            took = self._time_jobs(count)
        return count / took

    def _time_jobs(self, count: int) -> float:
        before = time.monotonic()
        for _ in range(count):
            self._peer.submit("nothing")
        self._peer.wait_all()
        return time.monotonic() - before

    def burst(self) -> dict[str, list[int]]:
        """Many calls at once: until all are accepted, and until all those jobs have ended."""
        self._peer.limit = BURST  # none of the calls shall wait for room
        before = time.monotonic_ns()
        for _ in range(BURST):
            self._peer.submit("nothing")
        accepted = time.monotonic_ns() - before
        self._peer.wait_all()
        ended = time.monotonic_ns() - before
        self._peer.limit = IN_FLIGHT
        return {"burst": [accepted], "burst_ended": [ended]}

    def memory_per_job(self, job: str) -> float:
        """What the whole tree of the benchmark occupies more while idle jobs run, per job."""
        root = os.getppid()
        count = self._peer.idle_jobs
        before = memory.settled(root)
        for _ in range(count):
            self._peer.submit(job, ready=self._fifo, hold=self._hold_fifo)
        for _ in range(count):
            self._await_told(1)
        during = memory.settled(root)
        os.write(self._hold, b"." * count)
        self._peer.wait_all()
        return (during - before) / count

    def _await_told(self, size: int) -> bytes:
        expect(bool(self._poll.poll(_PATIENCE)), "it never came to its first line")
        return os.read(self._told, size)


def _open_fifo(path: str) -> int:
    """Both ends, so that nobody who opens one end waits for the other."""
    os.mkfifo(path)
    return os.open(path, os.O_RDWR)


def write_figures(folder: str, figures: dict[str, Any]) -> None:
    """Hand the figures to the controller."""
    import json

    with open(os.path.join(folder, "figures.json"), "w", encoding="utf-8") as file:
        json.dump(figures, file)


def main() -> None:
    peer_key, parent_key, folder, seconds = sys.argv[1:]
    kept_alive = PARENTS[parent_key]()
    peer = PEERS[peer_key]()
    peer.start(folder)
    meter = Meter(peer, folder, float(seconds))
    meter.warm_up()
    figures: dict[str, Any] = meter.calls()
    figures["rate"] = meter.rate()
    all_parts = parent_key in _PARENTS_WITHOUT_THREADS
    if peer.takes_bursts and all_parts:
        figures |= meter.burst()
    if peer.idle_jobs and all_parts:
        figures["memory"] = meter.memory_per_job("idle")
        figures["memory_collected"] = meter.memory_per_job("idle_collected")
    peer.stop()
    del kept_alive
    write_figures(folder, figures)
