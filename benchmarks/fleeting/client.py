"""Takes the figures of one measurement, in a process of its own.

python -m fleeting.client '["drain", "ours, SQLite", {...}]'
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

Figures = dict[str, float]

WARM_UP = 32
PATIENCE = 120.0
BETWEEN_LOOKS = 0.05  # seconds
AT_A_TIME = 500  # results that are looked for in one look
QUEUE = "celery"  # the list in Redis where tasks wait, as Celery calls it by default
MESSAGE = b"x" * 900  # about as much as Celery sends of a task


@dataclass(frozen=True)
class Sizes:
    """How much is measured, in tasks."""

    one_by_one: int = 300
    drained: int = 2_000
    together: int = 1_000
    lead: float = 4.0
    """Seconds from when these are first added until they are due."""


QUICK = Sizes(one_by_one=20, drained=100, together=50, lead=2.0)


# The sides


class Side(Protocol):
    """A way to send tasks."""

    def send(self, name: str, number: int) -> Any:
        """Returns a handle."""

    def outcome(self, handle: Any) -> Any:
        """Wait for what the task returns."""

    def wait_for_all(self, handles: list[Any]) -> None:
        """Wait for many, in the fastest way there is."""

    def note_at(self, instant: float, number: int) -> None:
        """Have a task note then how late it is."""


class Bare:
    """Celery by itself."""

    def __init__(self) -> None:
        from fleeting import tasks

        self.tasks = {"nothing": tasks.nothing, "first_line": tasks.first_line, "note": tasks.note}

    def send(self, name: str, number: int) -> Any:
        return self.tasks[name].delay(number)

    def outcome(self, handle: Any) -> Any:
        return handle.get(timeout=PATIENCE)

    def wait_for_all(self, handles: list[Any]) -> None:
        # By get() each is asked for, and a subscription to it ended: that takes longer.
        backend = self.tasks["nothing"].app.backend
        keys = [backend.get_key_for_task(handle.id) for handle in handles]
        limit = time.monotonic() + PATIENCE
        while keys:
            if time.monotonic() > limit:
                sys.exit(f"{len(keys)} tasks have not ended")
            time.sleep(BETWEEN_LOOKS)
            asked, keys = keys[:AT_A_TIME], keys[AT_A_TIME:]
            found = zip(asked, backend.client.mget(asked), strict=True)
            keys = [key for key, said in found if said is None or b"SUCCESS" not in said] + keys

    def note_at(self, instant: float, number: int) -> None:
        self.tasks["note"].apply_async((instant,), eta=datetime.fromtimestamp(instant, UTC))


class Ours(Bare):
    """A scheduler with no store, or with one that is a file."""

    def __init__(self, store: str | None = None) -> None:
        from job_scheduler import JobScheduler

        super().__init__()
        given: dict[str, Any] = {} if store is None else {"store": store}
        self.scheduler = JobScheduler(self.tasks, **given)

    def send(self, name: str, number: int) -> Any:
        return self.scheduler.run(name, number=number)

    def outcome(self, handle: Any) -> Any:
        if not handle.wait(PATIENCE) or handle.error is not None:
            sys.exit(f"a task has not succeeded: {handle.error or 'it has not ended'}")
        return handle.result

    def wait_for_all(self, handles: list[Any]) -> None:
        for handle in handles:
            self.outcome(handle)

    def note_at(self, instant: float, number: int) -> None:
        at = datetime.fromtimestamp(instant, UTC)
        self.scheduler.add_job(f"at-{number}", self.tasks["note"], at=at, args=[instant])


def open_side(name: str, folder: str) -> Side:
    if name.startswith("bare"):
        return Bare()
    return Ours(f"sqlite:///{folder}/runs.db" if name == "ours, SQLite" else None)


# What is measured


def measure_one_by_one(side: Side, sizes: Sizes) -> Figures:
    """Each is sent once the one before is known to have ended."""
    warm_up(side)
    calls, starts, results = [], [], []
    for number in range(sizes.one_by_one):
        at, before = time.time(), time.perf_counter()
        handle = side.send("first_line", number)
        calls.append(time.perf_counter() - before)
        begun = side.outcome(handle)
        results.append(time.perf_counter() - before)
        starts.append(begun - at)
    return {
        **spread("the call", calls, "µs", 1e6),
        **spread("until its first line", starts, "ms", 1e3),
        **spread("until its result is known", results, "ms", 1e3),
    }


def measure_drain(side: Side, sizes: Sizes) -> Figures:
    """All are sent as fast as it goes, to a worker that begins at once."""
    warm_up(side)
    before = time.perf_counter()
    handles = [side.send("nothing", number) for number in range(sizes.drained)]
    side.wait_for_all(handles)
    return {"tasks/s, to the last result": sizes.drained / (time.perf_counter() - before)}


def measure_drain_by_get(side: Side, sizes: Sizes) -> Figures:
    """The same as most programs do it with bare Celery."""
    warm_up(side)
    before = time.perf_counter()
    handles = [side.send("nothing", number) for number in range(sizes.drained)]
    for handle in handles:
        side.outcome(handle)
    return {"tasks/s, by get() of each": sizes.drained / (time.perf_counter() - before)}


def measure_publishing(side: Side, sizes: Sizes) -> Figures:
    """The same without a worker, until all are with the broker."""
    broker = redis_client()
    for number in range(WARM_UP):
        side.send("nothing", number)
    wait_for_length(broker, QUEUE, WARM_UP)
    before = time.perf_counter()
    for number in range(sizes.drained):
        side.send("nothing", number)
    called = time.perf_counter()
    wait_for_length(broker, QUEUE, WARM_UP + sizes.drained)
    return {
        "published/s, without a worker": sizes.drained / (time.perf_counter() - before),
        "calls/s meanwhile": sizes.drained / (called - before),
    }


def measure_together(side: Side, sizes: Sizes) -> Figures:
    """All are due at one instant; bare Celery is given it as ``eta``."""
    from fleeting.tasks import NOTED

    warm_up(side)
    broker = redis_client()
    broker.delete(NOTED)
    instant = time.time() + sizes.lead
    for number in range(sizes.together):
        side.note_at(instant, number)
    if time.time() >= instant:
        sys.exit("tasks were due before all were added: the machine is too busy")
    wait_for_length(broker, NOTED, sizes.together)
    time.sleep(0.5)  # what is run twice comes later
    late = [float(text) for text in broker.lrange(NOTED, 0, -1)]
    what = f"{sizes.together:,} due at one instant"
    return {**spread(f"{what}, late", late, "ms", 1e3), f"{what}, runs": len(late)}


def measure_redis(sizes: Sizes) -> Figures:
    """What a client of Redis can write that sends one task after another, by one connection."""
    client = redis_client()
    figures = {}
    for name, is_together in (("LPUSH, then SET", False), ("both in one request", True)):
        before = time.perf_counter()
        for number in range(sizes.drained):
            commands = client.pipeline(transaction=False) if is_together else client
            commands.lpush("fleet-limit", MESSAGE)
            commands.set(f"fleet-limit-{number}", "x")
            if is_together:
                commands.execute()
        figures[name] = sizes.drained / (time.perf_counter() - before)
    return figures


def warm_up(side: Side) -> None:
    for handle in [side.send("nothing", number) for number in range(WARM_UP)]:
        side.outcome(handle)


def redis_client() -> Any:
    import redis

    return redis.Redis.from_url(os.environ["FLEET_REDIS"])


def wait_for_length(broker: Any, key: str, length: int) -> None:
    limit = time.monotonic() + PATIENCE
    while (found := broker.llen(key)) < length:
        if time.monotonic() > limit:
            sys.exit(f"{found} of {length} tasks have arrived, and no more do")
        time.sleep(0.005)


def percentile(values: Sequence[float], per_cent: float) -> float:
    """The smallest value that so many of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * per_cent / 100) - 1)]


def spread(what: str, seconds: Sequence[float], unit: str, factor: float) -> Figures:
    return {
        f"{what}, median {unit}": statistics.median(seconds) * factor,
        f"{what}, p99 {unit}": percentile(seconds, 99) * factor,
    }


MEASUREMENTS: dict[str, Callable[[Side, Sizes], Figures]] = {
    "publishing": measure_publishing,
    "one by one": measure_one_by_one,
    "drain": measure_drain,
    "drain by get": measure_drain_by_get,
    "together": measure_together,
}


def main() -> None:
    what, side_name, given = json.loads(sys.argv[1])
    sizes = Sizes(**given)
    with tempfile.TemporaryDirectory(prefix="bench-celery-") as folder:
        if what == "redis":
            figures = measure_redis(sizes)
        else:
            figures = MEASUREMENTS[what](open_side(side_name, folder), sizes)
    print(json.dumps(figures), flush=True)
    os._exit(0)  # else the scheduler would wait for tasks that no worker is there for


if __name__ == "__main__":
    main()
