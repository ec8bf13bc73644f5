"""Workers that share a store, and die, stand still, or are cut off; see also tests/cluster.py."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from job_scheduler.errors import InvalidOptionError
from job_scheduler.leases import LeaseSettings
from job_scheduler.schedule import ConflictResolution, Schedule
from job_scheduler.triggers import Interval
from tests.cluster import LEASE, Cluster
from tests.simulation import SimulatedLoop


@pytest.fixture
def cluster():
    loop = SimulatedLoop()
    yield Cluster(loop, random.Random(1))
    loop.close()


def play(cluster, story):
    async def all_of_it():
        try:
            return await story()
        finally:
            await cluster.end()

    return cluster.loop.run_until_complete(all_of_it())


async def record(cluster, name):
    return await cluster.store.run(name)


class TestAWorkerThatDies:
    def test_leaves_its_runs_to_another(self, cluster, caplog):
        async def story():
            await cluster.start()
            await cluster.accept("a", takes=1.0)
            await asyncio.sleep(0.5)
            cluster.kill(0)
            await cluster.start()
            await asyncio.sleep(2 * LEASE + 2)
            return await record(cluster, "a")

        with caplog.at_level(logging.WARNING, "job_scheduler"):
            found = play(cluster, story)
        assert (found.state, found.attempt, found.crashes) == ("completed", 2, 1)
        assert (cluster.starts["a"], cluster.ends["a"]) == (2, 1)
        assert found.attempts[0].reason == "crash"
        assert "crash 1 of 1000: it is started again" in caplog.text

    def test_is_not_taken_for_dead_while_it_lives(self, cluster):
        async def story():
            await cluster.start()
            await cluster.start()
            await cluster.accept("a", takes=20 * LEASE)
            await asyncio.sleep(21 * LEASE)
            return await record(cluster, "a")

        assert play(cluster, story).state == "completed"
        assert cluster.starts["a"] == 1

    def test_again_and_again_with_one_run_makes_it_poison(self, caplog):
        loop = SimulatedLoop()
        cluster = Cluster(loop, random.Random(1), most_crashes=3)

        async def story():
            await cluster.accept("a", takes=10.0)
            for _ in range(3):
                await cluster.start()
                await asyncio.sleep(1.5)  # the one before is found within a heartbeat
                cluster.kill(0)
                await asyncio.sleep(LEASE + 1)
            await cluster.start()
            await asyncio.sleep(LEASE + 2)
            return await record(cluster, "a")

        with caplog.at_level(logging.ERROR, "job_scheduler"):
            found = play(cluster, story)
        loop.close()
        assert (found.state, found.crashes, found.error.type) == ("failed", 3, "LeaseLost")
        assert cluster.starts["a"] == 3
        assert "crash 3 of 3: it has failed for good" in caplog.text


class TestAWorkerThatIsCutOff:
    def test_stops_its_jobs_before_its_leases_end(self, cluster, caplog):
        async def story():
            await cluster.start()
            await cluster.accept("a", takes=100.0)
            await asyncio.sleep(0.5)
            cluster.workers[0][1].frozen_until = float("inf")
            await asyncio.sleep(LEASE - 0.5)
            [attempt] = cluster.workers[0][0].attempts()
            engine = cluster.workers[0][0]
            engine._keeper._watch_once()
            await asyncio.sleep(0)
            given_up = attempt.given_up
            cluster.workers[0][1].frozen_until = 0.0
            return given_up

        with caplog.at_level(logging.WARNING, "job_scheduler"):
            assert play(cluster, story)
        assert "its lease could not be renewed in time, so it is stopped here" in caplog.text

    def test_for_too_long_can_end_nothing_any_more(self, cluster):
        async def story():
            await cluster.start()
            await cluster.accept("a", takes=1.0)
            await asyncio.sleep(0.5)
            cluster.workers[0][1].frozen_until = cluster.loop.time() + 3 * LEASE
            await cluster.start()
            await asyncio.sleep(4 * LEASE)
            return await record(cluster, "a")

        found = play(cluster, story)
        assert (found.state, found.crashes) == ("completed", 1)
        assert cluster.store.stale == []
        assert cluster.ends["a"] == 2  # the effects of the first cannot be taken back

    def test_learns_that_its_run_was_replaced_and_stops_it(self, cluster, caplog):
        async def story():
            await cluster.start()
            await cluster.accept("a", takes=100.0)
            await asyncio.sleep(0.5)
            await cluster.accept("a", delay=50.0, on_conflict=ConflictResolution.REPLACE)
            await asyncio.sleep(2)
            waiting = await record(cluster, "a")
            await asyncio.sleep(50)
            return waiting, await record(cluster, "a")

        with caplog.at_level(logging.WARNING, "job_scheduler"):
            waiting, found = play(cluster, story)
        assert waiting.state == "pending"
        assert (found.state, found.attempt) == ("completed", 1)
        assert (cluster.starts["a"], cluster.ends["a"]) == (2, 1)
        assert "another worker may have started it, so it is stopped here" in caplog.text


def test_a_run_is_cancelled_where_it_goes_on(cluster):
    async def story():
        await cluster.start()
        await cluster.accept("a", takes=100.0)
        await asyncio.sleep(0.5)
        await cluster.start()
        assert await cluster.workers[1][0].cancel("a")
        await asyncio.sleep(2)
        assert not await cluster.workers[1][0].cancel("a")
        return await record(cluster, "a")

    assert play(cluster, story).state == "cancelled"
    assert cluster.ends["a"] == 0


def test_a_shutdown_hands_back_without_an_attempt(cluster):
    async def story():
        await cluster.start()
        await cluster.accept("a", takes=5.0)
        await asyncio.sleep(0.5)
        await cluster.workers.pop()[0].shutdown(1)
        back = await record(cluster, "a")
        await cluster.start()
        await asyncio.sleep(10)
        return back, await record(cluster, "a")

    back, found = play(cluster, story)
    assert (back.state, back.attempt, back.crashes) == ("pending", 0, 0)
    assert (found.state, found.attempt, found.attempts) == ("completed", 1, ())


def test_a_shutdown_waits_for_what_ends_in_time(cluster):
    async def story():
        await cluster.start()
        await cluster.accept("a", takes=5.0)
        await asyncio.sleep(0.5)
        await cluster.workers.pop()[0].shutdown(10)
        return await record(cluster, "a")

    assert play(cluster, story).state == "completed"


def test_a_shutdown_waits_not_for_ever_for_a_store_that_is_away(cluster):
    async def story():
        await cluster.start()
        await cluster.accept("a", takes=1.0)
        await asyncio.sleep(0.5)
        engine, line = cluster.workers.pop()
        line.failures = 1.0
        began = cluster.loop.time()
        await engine.shutdown()
        return cluster.loop.time() - began

    assert 1 < play(cluster, story) < 20


def test_an_unknown_job_is_left_alone_and_told_of(cluster, caplog):
    async def story():
        from job_scheduler.stores.base import NewRun

        await cluster.start()
        run = NewRun(id="x", job="of_tomorrow", at=cluster.now())
        await cluster.store.enqueue([run], ConflictResolution.RAISE)
        await asyncio.sleep(5)
        return await record(cluster, "x"), cluster.workers[0][0].unknown

    with caplog.at_level(logging.WARNING, "job_scheduler"):
        found, unknown = play(cluster, story)
    assert (found.state, found.attempt) == ("pending", 0)
    assert unknown == {"of_tomorrow": 1}
    assert caplog.text.count("1 run is of job 'of_tomorrow' due") == 1


def test_a_schedule_of_many_workers_runs_each_instant_once(cluster):
    async def story():
        for _ in range(4):
            await cluster.start()
        schedule = Schedule(
            id="s", job="work", trigger=Interval(1), kwargs={"name": "s"}, overlap=10
        )
        for engine, _ in cluster.workers:
            await engine.declare(schedule, None, ConflictResolution.RAISE)
        await asyncio.sleep(30.5)
        return await cluster.store.schedule("s")

    found = play(cluster, story)
    assert (found.completed, found.missed) == (30, 0)
    assert cluster.starts["s"] == 30


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lease": 0}, "lease"),
        ({"lease": 10, "heartbeat": 6}, "at least two heartbeats"),
        ({"most_crashes": 0}, "most_crashes is 0"),
        ({"keep": 0}, "keep"),
        ({"keep_most": -1}, "keep_most is -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, said):
    with pytest.raises(InvalidOptionError, match=said):
        LeaseSettings.of(**given)


async def disturb(cluster, chance, step):
    """One event: a run, a worker, a fault."""
    what = chance.random()
    if what < 0.45:
        takes = chance.choice([0, 0.2, LEASE, 2 * LEASE])
        await cluster.accept(f"r{step}", chance.choice([0, 0, 1]), takes=takes)
    elif what < 0.55 and cluster.workers:
        cluster.kill(chance.randrange(len(cluster.workers)))
    elif what < 0.65:
        await cluster.start()
    elif what < 0.9 and cluster.workers:
        _, line = chance.choice(cluster.workers)
        line.slowness = chance.choice([0, 0.01, 1.0])
        line.failures = chance.choice([0, 0.1, 0.5])
        if chance.random() < 0.3:
            line.frozen_until = cluster.loop.time() + chance.random() * 3 * LEASE
    elif cluster.accepted:
        name = chance.choice(sorted(cluster.accepted))
        await cluster.accept(name, on_conflict=ConflictResolution.REPLACE)


def random_history(loop, seed):
    """Some runs, some workers, some faults, in whatever order; then what must hold."""
    chance = random.Random(seed)
    cluster = Cluster(loop, chance)

    async def story():
        for _ in range(chance.randint(1, 3)):
            await cluster.start()
        for step in range(chance.randint(3, 12)):
            await disturb(cluster, chance, step)
            await asyncio.sleep(chance.choice([0, 0.1, 1.0, LEASE]))
        if not cluster.workers:
            await cluster.start()
        return await cluster.settle(30 + 6 * len(cluster.accepted))

    records = play(cluster, story)
    lost = [found.id for found in records if found.state != "completed"]
    assert lost == [], f"seed {seed}: {records}"
    assert cluster.store.stale == [], f"seed {seed}"
    for name, starts in cluster.starts.items():
        claimed = cluster.store.claimed[name]
        assert starts <= claimed, f"seed {seed}: {name} was started twice for one claim"
        explained = 1 + cluster.store.put_back[name]
        assert claimed <= explained, f"seed {seed}: {name} was claimed again for no reason"


def random_histories(first, number):
    """So many, each from a seed of its own."""
    loop = SimulatedLoop()
    logging.disable()
    try:
        for seed in range(first, first + number):
            random_history(loop, seed)
    finally:
        logging.disable(logging.NOTSET)
        loop.close()


@pytest.mark.parametrize("part", range(4))
def test_random_histories_lose_nothing(part, seeded):
    random_histories(seeded.randrange(10**9), 750)
