"""PgQueuer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from queueing import jobs
from queueing.peer import Peer

_BATCH = 100


class PgQueuer(Peer):
    """Batches of 100; under uvloop, as its own command runs it."""

    key = "pgqueuer"
    title = "PgQueuer"
    needs = ("pgqueuer", "asyncpg", "uvloop")
    unfinished = "SELECT count(*) FROM pgqueuer"
    bulk = "enqueue with lists"
    uses_uvloop = True

    async def create(self) -> None:
        await self.open()
        await self._queries.install()
        await self.close()

    async def open(self) -> None:
        import asyncpg  # type: ignore[import-untyped]
        from pgqueuer.db import AsyncpgDriver
        from pgqueuer.queries import Queries

        self._connection = await asyncpg.connect(self.place)
        self._queries = Queries(AsyncpgDriver(self._connection))

    async def close(self) -> None:
        await self._connection.close()

    async def enqueue(self, number: int) -> None:
        await self._queries.enqueue("noop", str(number).encode())

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        payloads: list[bytes | None] = [str(number).encode() for number in numbers]
        await self._queries.enqueue(["noop"] * len(payloads), payloads, [0] * len(payloads))

    async def work(self, stop: asyncio.Event) -> None:
        import asyncpg
        from pgqueuer import PgQueuer as Worker

        async with asyncpg.create_pool(self.place, min_size=2, max_size=10) as pool:
            worker = Worker.from_asyncpg_pool(pool)

            @worker.entrypoint("noop")
            async def noop(job: Any) -> None:
                await jobs.noop(int(job.payload))

            running = asyncio.create_task(worker.run(batch_size=_BATCH))
            await stop.wait()
            worker.shutdown.set()
            await running
