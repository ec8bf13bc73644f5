"""Several workers over one store, on a clock that passes at once, with everything going wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

from job_scheduler.engine import Engine
from job_scheduler.errors import StoreError
from job_scheduler.executors.coroutine import CoroutineExecutor
from job_scheduler.known import KnownJobs
from job_scheduler.launcher.base import Settings
from job_scheduler.leases import LeaseSettings
from job_scheduler.schedule import ConflictResolution
from job_scheduler.stores.base import NewRun
from job_scheduler.stores.memory import MemoryStore
from tests.simulation import START

LEASE = 3.0


class SharedStore(MemoryStore):
    """A store in memory that several engines share as if it were on disk; it keeps the books."""

    durable = True

    def __init__(self, clock):
        super().__init__(clock)
        self.claims = {}
        """Run -> worker and token of its last claim."""
        self.claimed = Counter()
        self.put_back = Counter()
        self.stale = []
        """Ends that were taken although another claim came later."""

    async def claim(self, now, limit, worker):
        claims = await super().claim(now, limit, worker)
        for claim in claims:
            self.claims[claim.run_id] = claim.worker, claim.token
            self.claimed[claim.run_id] += 1
        return claims

    def _finish(self, finish):
        finished = super()._finish(finish)
        claim = finish.claim
        if finished is not None:
            if self.claims[claim.run_id] != (claim.worker, claim.token):
                self.stale.append(claim)
            self.put_back[claim.run_id] += finished.again
        return finished

    async def rescue(self, most_crashes):
        rescued = await super().rescue(most_crashes)
        self.put_back.update(each.run_id for each in rescued)
        return rescued

    async def enqueue(self, runs, on_conflict, connection=None):
        taken = await super().enqueue(runs, on_conflict, connection)
        if on_conflict is ConflictResolution.REPLACE:
            self.put_back.update(taken.keys())
        return taken


class Line:
    """The way of one worker to the store: slow, cut before a call or after it, or frozen."""

    def __init__(self, store, loop, random):
        self._store, self._loop, self._random = store, loop, random
        self.durable, self.batch, self.now = True, store.batch, store.now
        self.slowness = 0.0
        self.failures = 0.0
        self.frozen_until = 0.0

    def __getattr__(self, verb):
        call = getattr(self._store, verb)

        async def over_the_line(*args):
            await self._delay()
            if self._random.random() < self.failures:
                raise StoreError("the line was cut before the call")
            result = await call(*args)
            if self._random.random() < self.failures:
                raise StoreError("the line was cut after the call")
            await self._delay()
            return result

        return over_the_line

    async def listen(self, wake, renew):
        """No word comes over this line: looking is the truth."""

    async def _delay(self):
        if self.slowness:
            await asyncio.sleep(self._random.random() * self.slowness)
        while self._loop.time() < self.frozen_until:
            await asyncio.sleep(self.frozen_until - self._loop.time())


class Cluster:
    """Workers that may be killed, frozen and cut off, and jobs that keep the books."""

    def __init__(self, loop, random, most_crashes=1_000):
        self.loop, self.random = loop, random
        self.began = loop.time()
        self.store = SharedStore(self.now)
        self.starts, self.ends = Counter(), Counter()
        self.accepted = set()
        self.workers = []
        self._most_crashes = most_crashes

    def now(self):
        return START + timedelta(seconds=self.loop.time() - self.began)

    async def work(self, name, takes=0.0, fails=0):
        self.starts[name] += 1
        await asyncio.sleep(takes)
        if self.starts[name] <= fails:
            raise OSError("it has failed")
        self.ends[name] += 1

    async def start(self, most=3, heartbeat=1.0):
        """Start one more worker."""
        line = Line(self.store, self.loop, self.random)
        executor = CoroutineExecutor(self.loop, Settings(wait_at_exit=False))
        engine = Engine(
            line,
            lambda _: executor,
            max_concurrent_jobs=most,
            known=KnownJobs({"work": self.work}),
            leases=LeaseSettings.of(LEASE, heartbeat, self._most_crashes, None, None),
            clock=self.loop.time,
            longest_sleep=0.5,
        )
        await engine.start()
        self.workers.append((engine, line))

    def kill(self, number):
        """End a worker as SIGKILL does: nothing more is told, nothing is written."""
        engine, line = self.workers.pop(number)
        line.frozen_until = float("inf")
        engine.stop_starting()
        engine._task.cancel()
        engine._keeper._stopped.set()
        for task in engine._keeper._tasks:
            task.cancel()
        if engine._coming is not None:
            engine._coming.task.cancel()
        for attempt in engine.attempts():
            attempt.give_up()

    async def accept(self, name, delay=0.0, on_conflict=ConflictResolution.RAISE, **kwargs):
        at = self.now() + timedelta(seconds=delay)
        run = NewRun(id=name, job="work", at=at, kwargs={"name": name, **kwargs})
        await self.store.enqueue([run], on_conflict)
        self.accepted.add(name)

    async def settle(self, seconds):
        """Let the faults end, and give the workers that are left so much time; the runs then."""
        for _, line in self.workers:
            line.slowness = line.failures = line.frozen_until = 0.0
        for _ in range(seconds):
            records = [await self.store.run(name) for name in sorted(self.accepted)]
            if all(record.state.ended for record in records):
                break
            await asyncio.sleep(1)
        await asyncio.sleep(0.1)
        return records

    async def end(self):
        for engine, line in self.workers:
            line.frozen_until = 0.0
            await engine.shutdown(0)
