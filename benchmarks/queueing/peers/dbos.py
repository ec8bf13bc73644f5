"""DBOS."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from queueing import jobs
from queueing.peer import Peer

if TYPE_CHECKING:
    from dbos import DBOSConfig

_AT_ONCE = 20
_QUEUE = "bench"
_POLLING = 0.05
_PATIENCE = 20


class DBOS(Peer):
    """Workflows on a queue that is looked at every 50 ms."""

    key = "dbos"
    title = "DBOS"
    needs = ("dbos",)
    backlog = 3_000
    unfinished = "SELECT count(*) FROM dbos.workflow_status WHERE status <> 'SUCCESS'"
    bulk = f"enqueue in {_AT_ONCE} threads"

    def _config(self) -> DBOSConfig:
        return {
            "name": "bench",
            "system_database_url": self.place,
            "application_version": "bench",
            "log_level": "WARNING",
        }

    async def _launch(self) -> None:
        from dbos import DBOS as Library  # noqa: N811

        Library(config=self._config())
        Library.workflow(name="noop")(jobs.noop)
        Library.launch()
        await Library.register_queue_async(_QUEUE, polling_interval_sec=_POLLING)

    async def create(self) -> None:
        from dbos import DBOS as Library  # noqa: N811

        await self._launch()
        await asyncio.to_thread(Library.destroy, destroy_registry=True)

    async def open(self) -> None:
        from dbos import DBOSClient

        self._client = DBOSClient(
            system_database_url=self.place, system_database_pool_size=_AT_ONCE
        )

    async def close(self) -> None:
        self._client.destroy()

    def _enqueue(self, number: int) -> None:
        self._client.enqueue({"queue_name": _QUEUE, "workflow_name": "noop"}, number)

    async def enqueue(self, number: int) -> None:
        self._enqueue(number)

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._enqueue, numbers))

    async def work(self, stop: asyncio.Event) -> None:
        from dbos import DBOS as Library  # noqa: N811

        await self._launch()
        await stop.wait()
        await asyncio.to_thread(Library.destroy, workflow_completion_timeout_sec=_PATIENCE)
