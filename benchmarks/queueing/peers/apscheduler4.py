"""APScheduler 4, an alpha version: jobs without schedules, in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from queueing import jobs
from queueing.peer import Peer, in_flight

if TYPE_CHECKING:
    from apscheduler import AsyncScheduler, SchedulerRole

_AT_ONCE = 20


class APScheduler4(Peer):
    """The SQLAlchemy data store and the event broker, both over asyncpg."""

    key = "apscheduler4"
    title = "APScheduler 4"
    needs = ("apscheduler", "asyncpg", "sqlalchemy", "greenlet", "sniffio")
    backlog = 3_000
    unfinished = "SELECT count(*) FROM jobs"
    bulk = f"{_AT_ONCE} add_job at once"

    def _make(self, role: SchedulerRole) -> AsyncScheduler:
        from apscheduler import AsyncScheduler
        from apscheduler.datastores.sqlalchemy import SQLAlchemyDataStore
        from apscheduler.eventbrokers.asyncpg import AsyncpgEventBroker
        from sqlalchemy.ext.asyncio import create_async_engine

        url = self.place.replace("postgresql:", "postgresql+asyncpg:", 1)
        self._engine = create_async_engine(url, pool_size=_AT_ONCE)
        broker = AsyncpgEventBroker.from_async_sqla_engine(self._engine)
        return AsyncScheduler(SQLAlchemyDataStore(self._engine), broker, role=role)

    async def create(self) -> None:
        await self.open()
        await self.close()

    async def open(self) -> None:
        from apscheduler import SchedulerRole

        self._client = self._make(SchedulerRole.scheduler)
        await self._client.__aenter__()

    async def close(self) -> None:
        await self._client.__aexit__(None, None, None)
        await self._engine.dispose()

    async def enqueue(self, number: int) -> None:
        await self._client.add_job(jobs.noop, args=[number])

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        await in_flight(self, numbers, _AT_ONCE)

    async def work(self, stop: asyncio.Event) -> None:
        from apscheduler import SchedulerRole

        async with self._make(SchedulerRole.worker) as worker:
            await worker.start_in_background()
            await stop.wait()
            await worker.stop()
            await worker.wait_until_stopped()
        await self._engine.dispose()
