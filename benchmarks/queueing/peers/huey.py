"""Huey on SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from queueing import jobs
from queueing.peer import Peer

_PAUSE = 0.01


class Huey(Peer):
    """Results off, each commit synced, one worker thread, which looks every 10 ms."""

    key = "huey"
    title = "Huey, SQLite"
    needs = ("huey",)
    store = "sqlite"
    backlog = 5_000
    unfinished = "SELECT count(*) FROM task"
    bulk = "one by one"

    def _make(self) -> None:
        from huey import SqliteHuey  # type: ignore[import-untyped]

        self._huey = SqliteHuey(filename=self.place, results=False, fsync=True, timeout=30)
        self._noop = self._huey.task(name="noop")(jobs.note)

    async def create(self) -> None:
        self._make()
        await self.close()

    async def open(self) -> None:
        self._make()

    async def close(self) -> None:
        self._huey.storage.close()

    async def enqueue(self, number: int) -> None:
        self._noop(number)

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        await self.enqueue_each(numbers)

    async def work(self, stop: asyncio.Event) -> None:
        self._make()
        consumer = self._huey.create_consumer(
            workers=1, periodic=False, initial_delay=_PAUSE, max_delay=_PAUSE, backoff=1.0
        )
        consumer.start()
        await stop.wait()
        await asyncio.to_thread(consumer.stop, graceful=True)
        await self.close()
