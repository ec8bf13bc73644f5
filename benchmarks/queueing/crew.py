"""Workers of one peer, seen from the measuring process."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from queueing.peer import Peer

_PATIENCE = 60.0  # seconds without any progress
_READY = b"ready"


class CrewError(Exception):
    """Workers did not do what they had to."""


class Crew:
    """Some workers that are ready, then working, then gone, with the notes of their runs."""

    def __init__(self, folder: Path, processes: list[asyncio.subprocess.Process]) -> None:
        self._folder = folder
        self._processes = processes
        self._counts = [0] * len(processes)
        self._changed = asyncio.Event()
        self._readers: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Let all begin at the same time, once all are ready."""
        for process in self._processes:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), _PATIENCE)
            if line.strip() != _READY:
                raise CrewError(f"a worker did not start: {self._last_words()}")
        for number, process in enumerate(self._processes):
            _write(process, b"go\n")
            self._readers.append(asyncio.create_task(self._read(number, process)))

    async def _read(self, number: int, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self._counts[number] = int(line)
            self._changed.set()

    async def ran(self, count: int) -> None:
        """Wait until so many runs have begun."""
        end = time.monotonic() + _PATIENCE
        before = 0
        while (now := sum(self._counts)) < count:
            if now != before:
                before, end = now, time.monotonic() + _PATIENCE
            if time.monotonic() > end or any(p.returncode is not None for p in self._processes):
                raise CrewError(f"{now:,} of {count:,} jobs have run: {self._last_words()}")
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 1)

    async def leave(self) -> list[tuple[int, float]]:
        """Let them finish and end; of each run, the number of its job and when it began."""
        for process in self._processes:
            _write(process, b"stop\n")
        notes: list[tuple[int, float]] = []
        for number, process in enumerate(self._processes):
            status = await asyncio.wait_for(process.wait(), _PATIENCE)
            if status != 0:
                raise CrewError(f"a worker ended with status {status}: {self._last_words()}")
            notes += [(job, at) for job, at in json.loads(_notes(self._folder, number).read_text())]
        await asyncio.gather(*self._readers)
        return notes

    def _last_words(self) -> str:
        lines = collections.deque(_log(self._folder).read_text().splitlines(), 3)
        return " / ".join(lines) or "no word"


@contextlib.asynccontextmanager
async def crew(peer: Peer, folder: Path, count: int, telling: str) -> AsyncIterator[Crew]:
    """So many workers, each a process; they tell ``each`` run at once or only ``sometimes``."""
    processes = []
    with _log(folder).open("a") as log:
        for number in range(count):
            command = peer.worker_command(str(_notes(folder, number)), telling)
            processes.append(
                await asyncio.create_subprocess_exec(
                    *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
                )
            )
    try:
        yield Crew(folder, processes)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _write(process: asyncio.subprocess.Process, line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)


def _notes(folder: Path, number: int) -> Path:
    return folder / f"worker-{number}.json"


def _log(folder: Path) -> Path:
    return folder / "workers.log"
