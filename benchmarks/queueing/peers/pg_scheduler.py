"""pg-scheduler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from queueing import jobs
from queueing.peer import Peer

if TYPE_CHECKING:
    import asyncpg  # type: ignore[import-untyped]
    from pg_scheduler import Scheduler  # type: ignore[import-untyped]

_CONCURRENCY = 500
_CONNECTIONS = 20


class PgScheduler(Peer):
    """500 jobs at a time, claimed 500 at a time, and the shortest pauses that make sense."""

    key = "pg-scheduler"
    title = "pg-scheduler"
    needs = ("pg_scheduler", "asyncpg")
    backlog = 3_000
    unfinished = "SELECT count(*) FROM scheduled_jobs WHERE status <> 'completed'"
    bulk = "schedule_bulk"

    def _make(self, pool: asyncpg.Pool[Any]) -> Scheduler:
        from pg_scheduler import PollingConfig, Scheduler

        logging.getLogger("pg_scheduler").setLevel(logging.WARNING)
        polling = PollingConfig(
            min_interval=0.001,
            idle_start_interval=0.02,
            max_interval=0.02,
            semaphore_full_interval=0.001,
        )
        return Scheduler(
            pool,
            max_concurrent_jobs=_CONCURRENCY,
            batch_claim_limit=_CONCURRENCY,
            misfire_grace_time=None,
            polling_config=polling,
        )

    async def create(self) -> None:
        await self.open()
        await self._client.initialize_db()
        await self.close()

    async def open(self) -> None:
        import asyncpg

        self._pool = await asyncpg.create_pool(self.place, min_size=1, max_size=1)
        self._client = self._make(self._pool)

    async def close(self) -> None:
        await self._pool.close()

    async def enqueue(self, number: int) -> None:
        now = datetime.now(UTC)
        await self._client.schedule(jobs.noop, execution_time=now, kwargs={"number": number})

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        from pg_scheduler import JobSpec

        now = datetime.now(UTC)
        specs = [JobSpec(jobs.noop, now, kwargs={"number": number}) for number in numbers]
        await self._client.schedule_bulk(specs)

    async def work(self, stop: asyncio.Event) -> None:
        import asyncpg

        async with asyncpg.create_pool(self.place, min_size=2, max_size=_CONNECTIONS) as pool:
            worker = self._make(pool)
            worker.task_map["noop"] = jobs.noop
            await worker.start()
            await stop.wait()
            await worker.shutdown()
