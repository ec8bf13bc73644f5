"""The limit: what asyncpg and PostgreSQL can do at all, with nothing of a library around it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from queueing import jobs
from queueing.peer import Peer

if TYPE_CHECKING:
    import asyncpg  # type: ignore[import-untyped]

_TABLE = """
CREATE TABLE bench_jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    state smallint NOT NULL DEFAULT 0,
    priority integer NOT NULL DEFAULT 5,
    due timestamptz NOT NULL DEFAULT now(),
    arguments jsonb NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    created timestamptz NOT NULL DEFAULT now(),
    started timestamptz,
    finished timestamptz,
    worker text
);
CREATE INDEX bench_jobs_waiting ON bench_jobs (priority, due, id) WHERE state = 0;
"""
_INSERT = "INSERT INTO bench_jobs (name, arguments) VALUES ('noop', $1)"
_INSERT_MANY = """
INSERT INTO bench_jobs (name, arguments) SELECT 'noop', given FROM unnest($1::jsonb[]) AS given
"""
_INSERT_AND_NOTIFY = f"WITH added AS ({_INSERT}) SELECT pg_notify('bench_jobs', '')"
_COMPLETE_AND_CLAIM = """
WITH completed AS (
    UPDATE bench_jobs SET state = 2, finished = now()
    FROM unnest($1::bigint[]) AS ended (ended_id) WHERE id = ended_id
), waiting AS (
    SELECT id FROM bench_jobs WHERE state = 0 AND due <= now()
    ORDER BY priority, due, id LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE bench_jobs SET state = 1, started = now(), attempts = attempts + 1, worker = $3
WHERE id = ANY (ARRAY(SELECT id FROM waiting))
RETURNING id, arguments
"""


class AsyncpgLimit(Peer):
    """One table with one partial index; completing a batch and claiming the next is one call."""

    key = "asyncpg"
    title = "asyncpg, batches of 100"
    needs = ("asyncpg",)
    group = "limits"
    unfinished = "SELECT count(*) FROM bench_jobs WHERE state <> 2"
    bulk = "unnest"
    batch = 100

    async def create(self) -> None:
        connection = await self._connect()
        await connection.execute(_TABLE)
        await connection.close()

    async def _connect(self) -> asyncpg.Connection[Any]:
        import asyncpg

        return await asyncpg.connect(self.place)

    async def open(self) -> None:
        self._client = await self._connect()
        self._insert = await self._client.prepare(_INSERT)
        self._insert_and_notify = await self._client.prepare(_INSERT_AND_NOTIFY)

    async def close(self) -> None:
        await self._client.close()

    async def enqueue(self, number: int) -> None:
        await self._insert.fetch(json.dumps({"number": number}))

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        given = [json.dumps({"number": number}) for number in numbers]
        await self._client.execute(_INSERT_MANY, given)

    async def enqueue_now(self, number: int) -> float:
        before = time.monotonic()
        await self._insert_and_notify.fetch(json.dumps({"number": number}))
        return before

    async def work(self, stop: asyncio.Event) -> None:
        connection = await self._connect()
        wake = asyncio.Event()
        await connection.add_listener("bench_jobs", lambda *_: wake.set())
        stopping = asyncio.create_task(_wake_when(stop, wake))
        claim = await connection.prepare(_COMPLETE_AND_CLAIM)
        ended: list[int] = []
        while not stop.is_set():
            wake.clear()
            rows = await claim.fetch(ended, self.batch, str(os.getpid()))
            ended = await _run(rows)
            if not rows and not stop.is_set():
                await wake.wait()
        await claim.fetch(ended, 0, str(os.getpid()))
        await stopping
        await connection.close()


class AsyncpgLimit500(AsyncpgLimit):
    key = "asyncpg-500"
    title = "asyncpg, batches of 500"
    batch = 500


async def _run(rows: Sequence[Any]) -> list[int]:
    for row in rows:
        await jobs.noop(**json.loads(row["arguments"]))
    return [row["id"] for row in rows]


async def _wake_when(stop: asyncio.Event, wake: asyncio.Event) -> None:
    await stop.wait()
    wake.set()
