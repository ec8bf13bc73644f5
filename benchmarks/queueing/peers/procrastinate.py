"""Procrastinate."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from queueing import jobs
from queueing.peer import Peer

if TYPE_CHECKING:
    from procrastinate import App

_CONCURRENCY = 100
_CONNECTIONS = 20


class Procrastinate(Peer):
    """100 jobs at a time."""

    key = "procrastinate"
    title = "Procrastinate"
    needs = ("procrastinate",)
    backlog = 5_000
    unfinished = "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'"
    bulk = "batch_defer_async"

    def _app(self, connections: int) -> App:
        from procrastinate import App, PsycopgConnector

        connector = PsycopgConnector(
            conninfo=self.place, min_size=connections, max_size=connections
        )
        app = App(connector=connector)
        self._noop = app.task(name="noop")(jobs.noop)
        return app

    async def create(self) -> None:
        async with self._app(1).open_async() as app:
            await app.schema_manager.apply_schema_async()

    async def open(self) -> None:
        self._client = self._app(1)
        await self._client.open_async()

    async def close(self) -> None:
        await self._client.close_async()

    async def enqueue(self, number: int) -> None:
        await self._noop.defer_async(number=number)

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        arguments: list[dict[str, Any]] = [{"number": number} for number in numbers]
        await self._noop.batch_defer_async(*arguments)

    async def work(self, stop: asyncio.Event) -> None:
        async with self._app(_CONNECTIONS).open_async() as app:
            running = asyncio.create_task(
                app.run_worker_async(concurrency=_CONCURRENCY, install_signal_handlers=False)
            )
            await stop.wait()
            running.cancel()  # finishes what is begun
            with contextlib.suppress(asyncio.CancelledError):
                await running
