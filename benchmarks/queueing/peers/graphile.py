"""graphile-worker, which is a library for node; its side of this is ``graphile.mjs``."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from queueing.peer import Peer

FOLDER = Path(sys.prefix)
"""Where npm has put it: beside the Python packages."""
_SCRIPT = Path(__file__).with_suffix(".mjs")


def has_node() -> bool:
    return shutil.which("node") is not None


def is_installed() -> bool:
    return Path(FOLDER, "node_modules", "graphile-worker").is_dir()


class GraphileWorker(Peer):
    """24 jobs at a time, of 500 that are fetched at once; ended ones are noted in batches."""

    key = "graphile-worker"
    title = "graphile-worker (node)"
    unfinished = "SELECT count(*) FROM graphile_worker.jobs"
    bulk = "addJobs"

    def _command(self, *arguments: str) -> list[str]:
        return ["node", str(_SCRIPT), str(FOLDER), self.place, *arguments]

    def worker_command(self, *arguments: str) -> list[str]:
        return self._command("work", *arguments)

    async def create(self) -> None:
        process = await asyncio.create_subprocess_exec(*self._command("create"))
        if await process.wait() != 0:
            raise RuntimeError("graphile-worker has not made its tables")

    async def open(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command("enqueue"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        await self._answer()

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def _answer(self) -> str:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the client of graphile-worker has ended")
        return line.decode().strip()

    async def _ask(self, how: str, numbers: Sequence[int]) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{how} {numbers[0]} {len(numbers)}\n".encode())
        return float(await self._answer())

    async def enqueue(self, number: int) -> None:
        await self._ask("each", [number])

    async def enqueue_each(self, numbers: Sequence[int]) -> None:
        await self._ask("each", numbers)

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        await self._ask("many", numbers)

    async def enqueue_now(self, number: int) -> float:
        return await self._ask("each", [number])

    async def work(self, stop: asyncio.Event) -> None:
        raise NotImplementedError("its workers are programs of node")
