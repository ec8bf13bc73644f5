"""What is measured of a peer, in a fresh process and a fresh database each."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import random
import sqlite3
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from queueing.crew import Crew, crew
from queueing.ours import add_history
from queueing.peer import BATCH, Peer
from queueing.peers import PEERS
from queueing.server import connected
from queueing.wire import counted

_WARM_UP = 5
_CALLS_AT_ONCE = 20
_FEWEST_LATENCIES = 20
_PAUSES = (0.005, 0.025)  # seconds between two jobs; at random, so that no polling keeps step
_SETTLING = 1.0
_FEWEST_JOBS = 2_000


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    share: float = 1.0
    """Of each peer's backlog."""
    seconds: float = 3.0
    """How long each way to enqueue is measured."""
    latencies: int = 200
    latency_seconds: float = 20.0
    """After which no more of them are taken."""
    counted_share: float = 0.2
    """Of the backlog, for the run in which statements are counted."""
    history: int = 0

    def backlog(self, peer: type[Peer]) -> int:
        """Never so few that the first batches, which nothing has to make way for, are most."""
        return max(_FEWEST_JOBS, round(peer.backlog * self.share))


QUICK = Sizes(share=0.1, seconds=0.5, latencies=40, latency_seconds=5)

Figures = dict[str, float]


class JobsError(Exception):
    """Jobs were lost, or run twice, or not noted as succeeded."""


@dataclass
class Measurement:
    """One peer, its place, and a folder for what else is written."""

    peer: Peer
    folder: Path
    sizes: Sizes

    def at(self, place: str) -> Measurement:
        return replace(self, peer=type(self.peer)(place))


# Enqueueing


async def measure_enqueueing(given: Measurement) -> Figures:
    peer = given.peer
    await peer.create()
    await peer.open()
    numbers = _Numbers()
    await peer.enqueue_each(numbers.next(_WARM_UP))
    one = await _rate(peer.enqueue_each, numbers, _CALLS_AT_ONCE, given.sizes.seconds)
    many = await _rate(peer.enqueue_many, numbers, BATCH, given.sizes.seconds)
    await peer.close()
    found = await _unfinished(peer)
    if found != numbers.given:
        raise JobsError(f"{numbers.given:,} jobs were enqueued, and {found:,} are there")
    return {"one": one, "many": many}


class _Numbers:
    """Job numbers, each given once."""

    def __init__(self) -> None:
        self.given = 0

    def next(self, count: int) -> range:
        self.given += count
        return range(self.given - count, self.given)


async def _rate(
    enqueue: Callable[[Sequence[int]], Awaitable[None]],
    numbers: _Numbers,
    batch: int,
    seconds: float,
) -> float:
    """Jobs per second, in calls with so many jobs each."""
    count = 0
    before = time.perf_counter()
    while (took := time.perf_counter() - before) < seconds:
        await enqueue(numbers.next(batch))
        count += batch
    return count / took


# Draining


async def measure_drain(given: Measurement, workers: int) -> Figures:
    """From the first line of the first job to that of the last."""
    await given.peer.create()
    notes = await _drain(given, range(given.sizes.backlog(type(given.peer))), workers)
    return {f"drain{workers}": _jobs_per_second(notes)}


async def measure_drain_with_history(given: Measurement) -> Figures:
    await given.peer.create()
    async with connected(given.peer.place) as connection:
        await add_history(connection, given.sizes.history)
    notes = await _drain(given, range(given.sizes.backlog(type(given.peer))), 1)
    return {"history": _jobs_per_second(notes)}


async def measure_drain_beside_a_transaction(given: Measurement) -> Figures:
    """One that was begun before a first backlog, and so keeps all that its drain has left."""
    await given.peer.create()
    count = given.sizes.backlog(type(given.peer))
    async with connected(given.peer.place) as connection:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT pg_current_xact_id()")
        await _drain(given, range(count), 1)
        notes = await _drain(given, range(count, 2 * count), 1)
        seconds, transactions = await _age(given.peer, connection.get_server_pid())
    return {
        "held": _jobs_per_second(notes),
        "held_seconds": seconds,
        "held_transactions": transactions,
    }


async def _age(peer: Peer, process: int) -> tuple[float, int]:
    """Of a transaction: in seconds, and in transactions since; asked from outside."""
    async with connected(peer.place) as connection:
        seconds, transactions = await connection.fetchrow(
            "SELECT extract(epoch FROM clock_timestamp() - xact_start)::float8, age(backend_xmin)"
            " FROM pg_stat_activity WHERE pid = $1",
            process,
        )
    return seconds, transactions


async def _drain(given: Measurement, numbers: range, workers: int) -> list[tuple[int, float]]:
    """Make a backlog, let workers run it, and check what became of it."""
    await _enqueue_all(given.peer, numbers)
    await _settle(given.peer)
    async with crew(given.peer, given.folder, workers, "sometimes") as people:
        notes = await _run_all(people, len(numbers))
    await _check(given.peer, numbers, notes)
    return notes


async def _enqueue_all(peer: Peer, numbers: range) -> None:
    await peer.open()
    for start in range(numbers.start, numbers.stop, BATCH):
        await peer.enqueue_many(range(start, min(start + BATCH, numbers.stop)))
    await peer.close()


async def _settle(peer: Peer) -> None:
    """The planner knows the backlog, and no checkpoint is under way: the same for all."""
    if peer.store == "postgres":
        async with connected(peer.place) as connection:
            await connection.execute("ANALYZE")
            await connection.execute("CHECKPOINT")


async def _run_all(people: Crew, count: int) -> list[tuple[int, float]]:
    await people.begin()
    await people.ran(count)
    return await people.leave()


def _jobs_per_second(notes: Sequence[tuple[int, float]]) -> float:
    times = [at for _, at in notes]
    return len(notes) / (max(times) - min(times))


async def _check(peer: Peer, numbers: range, notes: Sequence[tuple[int, float]]) -> None:
    """Each job ran once, and the peer says so as well."""
    runs = collections.Counter(number for number, _ in notes)
    lost = sum(number not in runs for number in numbers)
    again = sum(count - 1 for count in runs.values())
    if lost or again:
        raise JobsError(f"of {len(numbers):,} jobs {lost:,} were lost, {again:,} ran once more")
    if left := await _unfinished(peer):
        raise JobsError(f"{left:,} of {len(numbers):,} jobs ran and are not noted as succeeded")


async def _unfinished(peer: Peer) -> int:
    if peer.store == "postgres":
        async with connected(peer.place) as connection:
            return int(await connection.fetchval(peer.unfinished))
    with contextlib.closing(sqlite3.connect(peer.place)) as connection:
        return int(connection.execute(peer.unfinished).fetchone()[0])


# Statements


async def measure_statements(given: Measurement) -> Figures:
    """In a run of its own, since counting takes time; PostgreSQL only."""
    if given.peer.store != "postgres":
        return {}
    await given.peer.create()
    count = round(given.sizes.backlog(type(given.peer)) * given.sizes.counted_share)
    await _enqueue_all(given.peer, range(count))
    await _settle(given.peer)
    before = await _commits(given.peer)
    async with (
        counted(given.peer.place) as (place, counter),
        crew(given.at(place).peer, given.folder, 1, "sometimes") as people,
    ):
        notes = await _run_all(people, count)
    commits = await _commits(given.peer) - before
    await _check(given.peer, range(count), notes)
    return {"statements": counter.statements / count, "commits": commits / count}


async def _commits(peer: Peer) -> int:
    """Each process adds to this figure at its end at the latest."""
    await asyncio.sleep(_SETTLING)
    async with connected(peer.place) as connection:
        return int(
            await connection.fetchval(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            )
        )


# Latency


async def measure_latency(given: Measurement) -> Figures:
    """From just before the call to the job's first line, in an idle worker."""
    peer, sizes = given.peer, given.sizes
    chance = random.Random(0)
    await peer.create()
    await peer.open()
    called: dict[int, float] = {}
    async with crew(peer, given.folder, 1, "each") as people:
        await people.begin()
        await asyncio.sleep(_SETTLING)
        end = time.monotonic() + sizes.latency_seconds
        for number in range(_WARM_UP + sizes.latencies):
            called[number] = await peer.enqueue_now(number)
            await people.ran(number + 1)
            await asyncio.sleep(chance.uniform(*_PAUSES))
            if time.monotonic() > end and number >= _WARM_UP + _FEWEST_LATENCIES:
                break
        notes = await people.leave()
    await peer.close()
    await _check(peer, range(len(called)), notes)
    took = sorted((at - called[number]) * 1000 for number, at in notes if number >= _WARM_UP)
    return {"latency": statistics.median(took), "latency_p99": took[int(len(took) * 0.99)]}


MEASUREMENTS: dict[str, Callable[[Measurement], Coroutine[Any, Any, Figures]]] = {
    "enqueueing": measure_enqueueing,
    "drain, one worker": lambda given: measure_drain(given, 1),
    "drain, two workers": lambda given: measure_drain(given, 2),
    "latency": measure_latency,
    "statements": measure_statements,
    "drain with history": measure_drain_with_history,
    "drain beside a transaction": measure_drain_beside_a_transaction,
}


def command(what: str, peer: str, place: str, folder: Path, sizes: Sizes) -> list[str]:
    """Measures in a process of its own."""
    code = "from queueing.measured import main; main()"
    given = json.dumps([what, peer, place, str(folder), asdict(sizes)])
    return [sys.executable, "-c", code, given]


def main() -> None:
    """Prints the figures, or what is wrong with them."""
    what, key, place, folder, sizes = json.loads(sys.argv[1])
    given = Measurement(PEERS[key](place), Path(folder), Sizes(**sizes))
    answer: dict[str, Any]
    try:
        answer = {"figures": asyncio.run(MEASUREMENTS[what](given))}
    except Exception as error:  # whatever it is, the others are still measured
        answer = {"error": f"{type(error).__name__}: {error}"}
    Path(folder, "answer.json").write_text(json.dumps(answer))
