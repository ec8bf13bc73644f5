"""``job_scheduler`` itself, on PostgreSQL and on SQLite."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from queueing import jobs
from queueing.peer import Peer

if TYPE_CHECKING:
    from job_scheduler import Scheduler

_CONCURRENCY = 500
_CONNECTIONS = 10


class OursBase(Peer):
    """500 jobs at a time; a client enqueues with a scheduler that was not started."""

    unfinished = "SELECT count(*) FROM scheduled_jobs WHERE status <> 'completed'"
    bulk = "schedule_many"

    @abc.abstractmethod
    async def _make(self, connections: int) -> Scheduler:
        """A scheduler that is not started."""

    async def _unmake(self) -> None:
        """Let go of what the scheduler was given."""

    async def create(self) -> None:
        scheduler = await self._make(_CONNECTIONS)
        await scheduler.start()
        await scheduler.shutdown()
        await self._unmake()

    async def open(self) -> None:
        self._client = await self._make(1)

    async def close(self) -> None:
        await self._client.shutdown()
        await self._unmake()

    async def enqueue(self, number: int) -> None:
        await self._client.schedule(
            jobs.noop, execution_time=datetime.now(UTC), kwargs={"number": number}
        )

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        arguments = [{"number": number} for number in numbers]
        await self._client.schedule_many(jobs.noop, arguments, execution_time=datetime.now(UTC))

    async def work(self, stop: asyncio.Event) -> None:
        scheduler = await self._make(_CONNECTIONS)
        await scheduler.start()
        await stop.wait()
        await scheduler.shutdown()
        await self._unmake()


class Ours(OursBase):
    key = "ours"
    title = "job_scheduler"
    needs = ("asyncpg",)
    _pool: Any

    async def _make(self, connections: int) -> Scheduler:
        import asyncpg  # type: ignore[import-untyped]

        from job_scheduler import Scheduler

        self._pool = await asyncpg.create_pool(self.place, min_size=1, max_size=connections)
        return Scheduler(db_pool=self._pool, max_concurrent_jobs=_CONCURRENCY, jobs=[jobs.noop])

    async def _unmake(self) -> None:
        await self._pool.close()


class OursSqlite(OursBase):
    key = "ours-sqlite"
    title = "job_scheduler, SQLite"
    store = "sqlite"

    async def _make(self, connections: int) -> Scheduler:
        from job_scheduler import Scheduler

        store = f"sqlite:///{self.place}"
        return Scheduler(store=store, max_concurrent_jobs=_CONCURRENCY, jobs=[jobs.noop])


async def add_history(connection: Any, count: int) -> None:
    """Put so many finished jobs into its table, by the columns that the table promises to have."""
    await connection.execute(
        """
        INSERT INTO scheduled_jobs (job_name, execution_time, status, task_data)
        SELECT 'noop', now() - interval '1 hour', 'completed', '{"kwargs": {"number": 0}}'
        FROM generate_series(1, $1::integer)
        """,
        count,
    )
