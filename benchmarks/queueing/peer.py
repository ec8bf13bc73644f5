"""What the benchmark asks of a queue."""

from __future__ import annotations

import abc
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

BATCH = 1_000
"""How many jobs one call of ``enqueue_many`` is given."""


class Peer(abc.ABC):
    """A queue and its client; in a worker process, the worker.

    Everything that is particular to a library is in its own subclass, and is imported there only
    when it is used.
    """

    key: str
    """Its name on the command line."""
    title: str
    """Its name in the table."""
    needs: tuple[str, ...] = ()
    """The modules that have to be installed."""
    store = "postgres"
    """Where it keeps its jobs: in ``postgres`` or in a ``sqlite`` file."""
    group = "queues"
    """The part of the table where it belongs: ``queues`` or ``limits``."""
    backlog = 50_000
    """How many jobs it is to drain."""
    unfinished = ""
    """Counts the jobs that it has not yet noted as succeeded, in SQL."""
    bulk = "its bulk call"
    """The best way it has to enqueue many jobs."""
    uses_uvloop = False

    def __init__(self, place: str) -> None:
        self.place = place
        """The DSN of a database of its own, or the path of its SQLite file."""

    @abc.abstractmethod
    async def create(self) -> None:
        """Make its tables."""

    @abc.abstractmethod
    async def open(self) -> None:
        """Become a client that can enqueue."""

    async def close(self) -> None:  # noqa: B027 - some have nothing to close
        """Let go of what ``open`` made."""

    @abc.abstractmethod
    async def enqueue(self, number: int) -> None:
        """Enqueue one job; it is on disk when this returns."""

    async def enqueue_each(self, numbers: Sequence[int]) -> None:
        """Enqueue them one after another, each in a call of its own."""
        for number in numbers:
            await self.enqueue(number)

    @abc.abstractmethod
    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        """Enqueue them in the fastest way there is."""

    async def enqueue_now(self, number: int) -> float:
        """Enqueue one for an idle worker; returns when the call began."""
        before = time.monotonic()
        await self.enqueue(number)
        return before

    def worker_command(self, *arguments: str) -> list[str]:
        """Starts a worker; see ``worker``."""
        code = "from queueing.worker import main; main()"
        return [sys.executable, "-c", code, self.key, self.place, *arguments]

    @abc.abstractmethod
    async def work(self, stop: asyncio.Event) -> None:
        """Run jobs until told to stop, and then finish what is begun."""


async def in_flight(peer: Peer, numbers: Sequence[int], count: int) -> None:
    """For peers without a bulk call: enqueue with so many calls under way at once."""
    import asyncio

    left = iter(numbers)

    async def client() -> None:
        for number in left:
            await peer.enqueue(number)

    await asyncio.gather(*(client() for _ in range(count)))
