"""An event loop whose time is not the world's: it passes at once, when nothing is left to do.

A store on disk does its work on a thread of its own: as long as it is at something, no time passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import selectors
from collections import Counter
from datetime import UTC, datetime, timedelta

import asyncpg

from job_scheduler.engine import Engine
from job_scheduler.executors.coroutine import CoroutineExecutor
from job_scheduler.launcher.base import Settings
from job_scheduler.stores.memory import MemoryStore
from job_scheduler.stores.postgres import PostgresStore
from job_scheduler.stores.postgres.hints import Announcer
from job_scheduler.stores.sqlite import SqliteStore
from job_scheduler.target import Target

START = datetime(2026, 1, 1, tzinfo=UTC)


_LONGEST_STEP = 60.0
"""Seconds that a store may really take for one step."""


class _Skipping(selectors.SelectSelector):
    """Instead of waiting it lets the time pass."""

    def __init__(self):
        super().__init__()
        self.passed = 0.0
        self.under_way = 0
        """Steps of a store that somebody on this loop waits for."""

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and self.under_way:
            if timeout == 0:
                return ready
            ready = super().select(_LONGEST_STEP)
            assert ready, "the store does not answer"
        elif not ready:
            assert timeout is not None, "nothing will ever happen"
            # A step that is too small for the sum would be no step at all.
            self.passed = max(self.passed + timeout, math.nextafter(self.passed, math.inf))
        return ready


class WaitedFor:
    """A store on disk that tells the loop when it is at something; made when it is first used."""

    durable = True
    batch = 500

    def __init__(self, make, clock, loop):
        self.now = clock
        self._make = make
        self._loop = loop
        self._store = None

    def __getattr__(self, verb):
        async def do(*arguments):
            with self._loop.at_something():
                if self._store is None:
                    self._store = await self._make(self.now)
                    await self._store.open()
                return await getattr(self._store, verb)(*arguments)

        return do


async def in_a_file(path, clock):
    return SqliteStore(path, clock=clock)


async def in_postgres(dsn, clock):
    async def say_nothing():
        """Nobody listens, and no time must pass while it is said."""

    # No timeouts: they would go by a time that passes at once.
    pool = asyncpg.create_pool(dsn, min_size=1, max_size=2, max_inactive_connection_lifetime=0)
    store = PostgresStore(await pool, listen=False, clock=clock)
    store._announcer = store._plan_announcer = Announcer(say_nothing)
    close = store.close

    async def close_all():
        await close()
        await pool.close()

    store.close = close_all
    return store


class SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self):
        return self._skipping.passed

    @contextlib.contextmanager
    def at_something(self):
        """No time passes as long as this lasts."""
        self._skipping.under_way += 1
        try:
            yield
        finally:
            self._skipping.under_way -= 1

    def block(self, seconds):
        """Let time pass as if something had held the loop up."""
        self._skipping.passed += seconds


class Simulation:
    """An engine over a store, with coroutine jobs that take their time.

    Args:
        make: a coroutine function that makes a store with this clock; None: it is in memory.
        options: of the engine.
    """

    def __init__(self, make=None, **options):
        self.loop = SimulatedLoop()
        self.offset = timedelta(0)
        """How much the clock on the wall was set."""
        self.log = []
        """(job, the seconds since the start at which a run began)."""
        self.counts = Counter()
        self.going = Counter()
        self.most_going = Counter()
        executor = CoroutineExecutor(self.loop, Settings(wait_at_exit=False))
        self.store = MemoryStore(self.now)
        if make is not None:
            self.store = WaitedFor(make, self.now, self.loop)
        options.setdefault("longest_sleep", 86_400.0)
        self.engine = Engine(self.store, lambda _: executor, **options)

    def now(self):
        return START + timedelta(seconds=self.loop.time()) + self.offset

    def job(self, name, takes=0.0, fails=lambda _run: None):
        """A coroutine function that notes its starts, takes a while, and perhaps fails."""

        async def job():
            run = self.counts[name]
            self.counts[name] += 1
            self.log.append((name, round(self.loop.time(), 3)))
            self.going[name] += 1
            self.most_going[name] = max(self.most_going[name], self.going[name])
            try:
                await asyncio.sleep(takes(run) if callable(takes) else takes)
                error = fails(run)
                if error is not None:
                    raise error
            finally:
                self.going[name] -= 1

        return Target.of_anything(job, "schedule")

    def starts(self, name):
        """When the runs of a job began, in seconds since the start."""
        return [seconds for each, seconds in self.log if each == name]

    def run(self, story):
        """Run a coroutine function with the engine started, then end everything."""

        async def all_of_it():
            await self.engine.start()
            try:
                return await story()
            finally:
                await self.engine.shutdown(0)
                await self.store.close()

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            return runner.run(all_of_it())
