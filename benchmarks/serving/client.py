"""Asks a server for one thing again and again, over connections that are kept.

python client.py '{"port": 8000, "method": "GET", "path": "/jobs", "clients": 8, "seconds": 2}'

Each of so many clients has a connection of its own, and asks anew as soon as it is answered. What
is read of an answer is its status and its length, no more: the client is to cost less than any
server.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

WARM_UP = 3
"""Requests of each client that are not measured."""

_LENGTH = b"content-length:"


class Client(asyncio.Protocol):
    """One connection; its requests and answers."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: Any = None
        self._seen = bytearray()
        self._missing: int | None = None
        """Bytes that the answer is yet to have; None until its head was read."""
        self._asked_at = 0
        self._asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self) -> None:
        self._asked += 1
        self._missing = None
        self._seen.clear()
        self._asked_at = time.perf_counter_ns()
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        if self._missing is None:
            self._seen += data
            end = self._seen.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _length(bytes(self._seen[:end]))
            self._missing = length - (len(self._seen) - end - 4)
        else:
            self._missing -= len(data)
        if self._missing <= 0:
            took = time.perf_counter_ns() - self._asked_at
            self._load.answered(self, bytes(self._seen), took, is_warm=self._asked > WARM_UP)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost()

    def close(self) -> None:
        self._transport.close()


def _length(head: bytes) -> int:
    lowered = head.lower()
    begin = lowered.find(_LENGTH)
    if begin < 0:
        sys.exit(f"an answer does not say its length: {head!r}")
    return int(lowered[begin + len(_LENGTH) :].split(b"\r\n", 1)[0])


class Load:
    """All clients, and what they were answered."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        body = given.get("body", "").encode()
        head = [
            f"{given['method']} {given['path']} HTTP/1.1",
            f"Host: 127.0.0.1:{given['port']}",
            f"Accept: {given.get('accept', '*/*')}",
        ]
        if given["method"] == "POST":
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self.request = "\r\n".join([*head, "", ""]).encode() + body
        self._took: list[int] = []
        self._statuses: Counter[str] = Counter()
        self._size = 0
        self._working = given["clients"]
        self._ends_at = 0
        self._is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        clients = []
        for _ in range(self._given["clients"]):
            _, client = await loop.create_connection(
                lambda: Client(self), "127.0.0.1", self._given["port"]
            )
            clients.append(client)
        gc.collect()
        gc.disable()
        began = time.perf_counter_ns()
        self._ends_at = began + int(self._given["seconds"] * 1e9)
        for client in clients:
            client.ask()
        await self._is_over
        seconds = (time.perf_counter_ns() - began) / 1e9
        took = self._took
        answered = self._statuses.total()
        return {
            "rate": answered / seconds,
            "p50": percentile(took, 50) / 1e6,
            "p99": percentile(took, 99) / 1e6,
            "answered": answered,
            "bytes": self._size,
            "statuses": self._statuses,
        }

    def answered(self, client: Client, seen: bytes, took: int, *, is_warm: bool) -> None:
        """Ask anew, until the time is over and each client has been measured once."""
        self._statuses[seen[9:12].decode()] += 1
        if not self._size:
            self._size = _length(seen[: seen.find(b"\r\n\r\n")])
        if is_warm:
            self._took.append(took)
        if not is_warm or time.perf_counter_ns() < self._ends_at:
            client.ask()
            return
        client.close()

    def lost(self) -> None:
        """A connection is closed; by us, or else there are fewer answers than were asked for."""
        self._working -= 1
        if not self._working and not self._is_over.done():
            self._is_over.set_result(None)


def percentile(values: Sequence[int], per_cent: float) -> int:
    """The smallest value that so many of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * per_cent / 100) - 1)]


async def main(given: dict[str, Any]) -> None:
    print(json.dumps(await Load(given).run()))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
