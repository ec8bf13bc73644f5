"""Counts the statements that clients send to PostgreSQL, by standing between them.

No extension and no log of the server is needed, so it is the same for every server and client: a
statement is an Execute message of the extended protocol or a Query message of the simple one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

_COUNTED = (b"E", b"Q")
_NO_ENCRYPTION = 80877103, 80877104  # asked for TLS, for GSSAPI
_BLOCK = 1 << 16


class Counter:
    statements = 0


@contextlib.asynccontextmanager
async def counted(dsn: str) -> AsyncIterator[tuple[str, Counter]]:
    """Another DSN of the same database, and what was sent by those who use it."""
    parts = urlsplit(dsn)
    counter = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection(parts.hostname, parts.port or 5432)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await asyncio.gather(_ask(reader, questions, counter), _answer(answers, writer))
        for each in (writer, questions):
            each.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = parts.netloc.rpartition("@")[0]
    try:
        yield parts._replace(netloc=f"{user}@127.0.0.1:{port}").geturl(), counter
    finally:
        server.close()


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: Counter
) -> None:
    await _greet(reader, writer)
    while head := await reader.read(1):
        size = await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(size) - 4)
        counter.statements += head in _COUNTED
        writer.write(head + size + body)
        await writer.drain()
    writer.write_eof()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The first messages have no type; one that asks for encryption is followed by another."""
    while True:
        size = await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(size) - 4)
        writer.write(size + body)
        if int.from_bytes(body[:4]) not in _NO_ENCRYPTION:
            return


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(_BLOCK):
        writer.write(block)
        await writer.drain()
    writer.close()
