"""Chancy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from queueing.peer import Peer

if TYPE_CHECKING:
    from chancy import Chancy as Client  # type: ignore[import-untyped]
    from chancy import Job

_CONCURRENCY = 500
_QUEUE = "bench"


class Chancy(Peer):
    """The async executor with 500 jobs at a time, and eager polling."""

    key = "chancy"
    title = "Chancy"
    needs = ("chancy",)
    unfinished = "SELECT count(*) FROM chancy_jobs WHERE state <> 'succeeded'"
    bulk = "push_many"

    def _make(self) -> Client:
        from chancy import Chancy as Client

        return Client(self.place, log=logging.getLogger("chancy"))

    async def create(self) -> None:
        from chancy import Queue

        async with self._make() as client:
            await client.migrate()
            await client.declare(
                Queue(
                    name=_QUEUE,
                    executor=client.Executor.Async,
                    concurrency=_CONCURRENCY,
                    polling_interval=1,
                    eager_polling=True,
                )
            )

    async def open(self) -> None:
        self._client = self._make()
        await self._client.pool.open()

    async def close(self) -> None:
        await self._client.pool.close()

    def _job(self, number: int) -> Job:
        from chancy import Job

        return Job(func="queueing.jobs.noop", queue=_QUEUE, kwargs={"number": number})

    async def enqueue(self, number: int) -> None:
        await self._client.push(self._job(number))

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        async for _ in self._client.push_many([self._job(number) for number in numbers]):
            pass

    async def work(self, stop: asyncio.Event) -> None:
        from chancy import Worker

        async with self._make() as client:
            worker = Worker(client, register_signal_handlers=False)
            await worker.start()
            await stop.wait()
            await worker.stop()
