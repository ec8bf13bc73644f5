"""The limit of SQLite: the ``sqlite3`` module, with nothing of a library around it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence

from queueing import jobs
from queueing.peer import Peer

_TABLE = """
CREATE TABLE bench_jobs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 5,
    due REAL NOT NULL DEFAULT (julianday('now')),
    arguments TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL DEFAULT (julianday('now')),
    started REAL,
    finished REAL,
    worker TEXT
);
CREATE INDEX bench_jobs_waiting ON bench_jobs (priority, due, id) WHERE state = 0;
"""
_INSERT = "INSERT INTO bench_jobs (name, arguments) VALUES ('noop', ?)"
_COMPLETE = "UPDATE bench_jobs SET state = 2, finished = julianday('now') WHERE id = ?"
_CLAIM = """
UPDATE bench_jobs SET state = 1, started = julianday('now'), attempts = attempts + 1
WHERE id IN (
    SELECT id FROM bench_jobs WHERE state = 0 AND due <= julianday('now')
    ORDER BY priority, due, id LIMIT ?
)
RETURNING id, arguments
"""
_BATCH = 100
_PAUSE = 0.001
_BUSY = 30.0


class SqliteLimit(Peer):
    """The same table; completing a batch and claiming the next is one transaction."""

    key = "sqlite3"
    title = "sqlite3, batches of 100"
    store = "sqlite"
    group = "limits"
    unfinished = "SELECT count(*) FROM bench_jobs WHERE state <> 2"
    bulk = "executemany"

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.place, timeout=_BUSY, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    async def create(self) -> None:
        connection = self._connect()
        connection.executescript(_TABLE)
        connection.close()

    async def open(self) -> None:
        self._client = self._connect()

    async def close(self) -> None:
        self._client.close()

    async def enqueue(self, number: int) -> None:
        self._client.execute(_INSERT, [json.dumps({"number": number})])

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        given = [[json.dumps({"number": number})] for number in numbers]
        self._client.execute("BEGIN IMMEDIATE")
        self._client.executemany(_INSERT, given)
        self._client.execute("COMMIT")

    async def work(self, stop: asyncio.Event) -> None:
        connection = self._connect()
        seen = -1
        ended: list[tuple[int]] = []
        while not stop.is_set():
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            if version == seen and not ended:
                await asyncio.sleep(_PAUSE)
                continue
            rows = _complete_and_claim(connection, ended, _BATCH)
            for _, arguments in rows:
                await jobs.noop(**json.loads(arguments))
            ended = [(row[0],) for row in rows]
            seen = -1 if rows else version
            await asyncio.sleep(0)
        _complete_and_claim(connection, ended, 0)
        connection.close()


def _complete_and_claim(
    connection: sqlite3.Connection, ended: list[tuple[int]], count: int
) -> list[tuple[int, str]]:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_COMPLETE, ended)
    rows = connection.execute(_CLAIM, [count]).fetchall()
    connection.execute("COMMIT")
    return rows
