"""The engine, on a clock that passes when nothing is left to do."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from job_scheduler.errors import LaunchError
from job_scheduler.retry import RetryPolicy
from job_scheduler.schedule import Schedule, plan
from job_scheduler.stores.base import Advance, NewRun, RunQuery
from job_scheduler.target import Target
from job_scheduler.triggers import Cron, Interval, Once, Trigger
from tests.postgres import emptied
from tests.simulation import START, Simulation, in_a_file, in_postgres

DAY = 86_400

OF_A_CLOCK_OF_ITS_OWN = pytest.mark.parametrize("simulate", ["memory", "sqlite"], indirect=True)
"""PostgreSQL's clock is the server's, and nobody here sets it."""


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def simulate(request, tmp_path):
    """Makes simulations over one kind of store."""
    if request.param == "memory":
        return Simulation
    if request.param == "sqlite":
        return partial(Simulation, partial(in_a_file, tmp_path / "jobs.db"))
    dsn = emptied(request.getfixturevalue("worn_database"))
    return partial(Simulation, partial(in_postgres, dsn))


@pytest.fixture
def simulation(simulate):
    simulation = simulate()
    yield simulation
    simulation.loop.close()  # of a test that was skipped


def schedule(name, trigger, **policies):
    return Schedule(id=name, job=name, trigger=trigger, **policies)


def every(name, seconds, **policies):
    return schedule(name, Interval(seconds), **policies)


async def add(simulation, planned, first=None, **job):
    first = None if first is None else START + timedelta(seconds=first)
    assert await simulation.engine.add(planned, simulation.job(planned.id, **job), first)


async def record(simulation, name):
    return await simulation.store.schedule(name)


class TestRedefinition:
    def test_with_the_same_instants_goes_on_where_it_is(self, simulation):
        async def story():
            await add(simulation, every("a", 10), first=3)
            await asyncio.sleep(15)
            before = await record(simulation, "a")
            assert await simulation.engine.redefine(every("a", 10, priority=2, generation=7))
            after = await record(simulation, "a")
            assert (after.schedule.priority, after.schedule.generation) == (2, 7)
            assert (after.next_at, after.number) == (before.next_at, before.number)
            await asyncio.sleep(20)

        simulation.run(story)
        assert simulation.starts("a") == [3, 13, 23, 33]

    def test_with_others_is_planned_anew_from_now_on(self, simulation):
        async def story():
            await add(simulation, every("a", 10))
            await asyncio.sleep(25)
            assert await simulation.engine.redefine(every("a", 7, generation=7))
            after = await record(simulation, "a")
            assert after.next_at == START + timedelta(seconds=32)
            assert after.schedule.generation == 7
            await asyncio.sleep(10)
            assert await simulation.engine.redefine(schedule("a", Cron("* * * * *")))
            assert (await record(simulation, "a")).schedule.generation == 8
            await asyncio.sleep(50)

        simulation.run(story)
        assert simulation.starts("a") == [10, 20, 32, 60]

    def test_leaves_a_paused_one_paused(self, simulation):
        async def story():
            await add(simulation, every("a", 10))
            await simulation.engine.pause("a")
            await asyncio.sleep(15)
            assert await simulation.engine.redefine(every("a", 10, priority=2))
            assert await simulation.engine.redefine(every("a", 20))
            found = await record(simulation, "a")
            assert (found.paused, found.next_at) == (True, START + timedelta(seconds=35))
            await asyncio.sleep(10)
            await simulation.engine.resume("a")
            await asyncio.sleep(20)

        simulation.run(story)
        assert simulation.starts("a") == [35]

    def test_of_what_was_seen_and_nothing_else(self, simulation):
        async def story():
            await add(simulation, every("a", 10))
            seen = (await record(simulation, "a")).schedule
            assert await simulation.engine.redefine(replace(seen, priority=2), seen)
            assert not await simulation.engine.redefine(replace(seen, timeout=5.0), seen)
            after = (await record(simulation, "a")).schedule
            assert (after.priority, after.timeout, after.generation) == (2, None, 1)
            assert await simulation.engine.redefine(replace(after, timeout=5.0), after)

        simulation.run(story)

    def test_of_what_is_not_there(self, simulation):
        async def story():
            assert not await simulation.engine.redefine(every("a", 10))
            assert await record(simulation, "a") is None

        simulation.run(story)

    @pytest.mark.parametrize("by", [every("a", 10, priority=2), schedule("a", Interval(5))])
    def test_while_another_worker_moves_it_on(self, simulation, by):
        """He is sooner, with the instant that is due just now; it runs once all the same."""
        store = simulation.store

        async def story():
            await add(simulation, every("a", 10))
            await asyncio.sleep(15)
            read, moved = store.schedule, []

            async def read_and_move(schedule_id):
                found = await read(schedule_id)
                if not moved:
                    moved.append(found.next_at)
                    due = await store.due(found.next_at, 1)
                    decided = plan(due[0].schedule, due[0].instant, 0, due[0].instant)
                    await store.advance([Advance(due[0], decided)], found.next_at)
                return found

            simulation.loop.block(4.98)  # a little before the next instant
            store.schedule = read_and_move
            assert await simulation.engine.redefine(by)
            store.schedule = read
            assert moved == [START + timedelta(seconds=20)]
            await asyncio.sleep(30)

        simulation.run(story)
        starts = [round(each) for each in simulation.starts("a")]
        period = round(by.trigger.period.total_seconds())
        assert starts == [10, 20, *range(20 + period, 50, period)]

    @pytest.mark.parametrize("by", [every("a", 10, priority=2), schedule("a", Cron("* * * * *"))])
    def test_of_what_is_overdue_loses_nothing(self, simulation, by):
        async def story():
            await add(simulation, every("a", 10))
            await asyncio.sleep(15)
            simulation.loop.block(6)  # the loop has not seen that it is due
            assert await simulation.engine.redefine(by)
            await asyncio.sleep(3)

        simulation.run(story)
        assert simulation.starts("a") == [10, 21]


class TestTime:
    def test_a_fixed_rate_does_not_drift(self, simulation):
        async def story():
            await add(simulation, every("a", 10), takes=3)
            await asyncio.sleep(99)

        simulation.run(story)
        assert simulation.starts("a") == list(range(10, 100, 10))

    def test_what_counts_from_the_end_does(self, simulation):
        async def story():
            await add(simulation, every("a", 10, counts_from_end=True), first=5, takes=3)
            await asyncio.sleep(60)

        simulation.run(story)
        assert simulation.starts("a") == [5, 18, 31, 44, 57]

    def test_once(self, simulation):
        async def story():
            await add(simulation, schedule("a", Once(START + timedelta(seconds=7))))
            await asyncio.sleep(DAY)
            assert (await record(simulation, "a")).next_at is None

        simulation.run(story)
        assert simulation.starts("a") == [7]

    def test_what_is_added_for_sooner_wakes_it(self, simulation):
        async def story():
            await add(simulation, every("late", 1000))
            await asyncio.sleep(500)
            await add(simulation, every("soon", 10))
            await asyncio.sleep(35)

        simulation.run(story)
        assert simulation.starts("soon") == [510, 520, 530]

    def test_a_decade_of_days(self, simulation):
        """Cron through all changes of the clock, and nothing is lost on the way."""

        async def story():
            await add(simulation, schedule("a", Cron("30 2 * * *", "Europe/Berlin")))
            await add(simulation, schedule("b", Cron("0 */6 * * *", "America/New_York")))
            await add(simulation, every("c", 8 * 3600))
            await asyncio.sleep(days * DAY - 1)

        days = 100 if simulation.store.durable else 3653
        simulation.run(story)
        assert len(simulation.starts("a")) == days
        assert len(simulation.starts("c")) == days * 3 - 1
        assert len(simulation.starts("b")) == days * 4

    def test_jitter_comes_later_and_skips_nothing(self, simulation):
        async def story():
            await add(simulation, every("a", 60, jitter="30s"))
            await asyncio.sleep(3630)

        simulation.run(story)
        starts = simulation.starts("a")
        assert len(starts) == 60
        late = [start - 60 * (number + 1) for number, start in enumerate(starts)]
        assert all(0 <= each <= 30 for each in late)
        assert len(set(late)) > 50


class TestOverlap:
    def test_is_skipped_counted_and_logged(self, simulation, caplog):
        async def story():
            await add(simulation, every("a", 10), takes=25)
            await asyncio.sleep(99)
            return await record(simulation, "a")

        with caplog.at_level(logging.WARNING, "job_scheduler"):
            found = simulation.run(story)
        assert simulation.starts("a") == [10, 40, 70]
        assert simulation.most_going["a"] == 1
        assert found.missed == 6
        assert {gap.reason for gap in found.gaps} == {"overlap"}
        assert "schedule 'a': the instant 2026-01-01 00:00:20+00:00 was skipped" in caplog.text

    def test_queues_one(self, simulation):
        async def story():
            await add(simulation, every("a", 10, overlap="queue"), takes=25)
            await asyncio.sleep(99)
            return await record(simulation, "a")

        found = simulation.run(story)
        assert simulation.starts("a") == [10, 35, 60, 85]
        assert simulation.most_going["a"] == 1
        # Of nine instants four have run, one waits, and four were skipped.
        assert (found.active, found.missed) == (2, 4)

    def test_allows_a_number(self, simulation):
        async def story():
            await add(simulation, every("a", 10, overlap=2), takes=25)
            await asyncio.sleep(99)

        simulation.run(story)
        assert simulation.starts("a") == [10, 20, 40, 50, 70, 80]
        assert simulation.most_going["a"] == 2

    def test_others_go_on_beside_it(self, simulation):
        async def story():
            await add(simulation, every("slow", 10), takes=1000)
            await add(simulation, every("quick", 10))
            await asyncio.sleep(99)

        simulation.run(story)
        assert simulation.starts("quick") == list(range(10, 100, 10))


class TestLateness:
    def test_a_blocked_program_makes_up_for_it_once(self, simulation):
        async def story():
            await add(simulation, every("a", 10))
            await asyncio.sleep(15)
            simulation.loop.block(60)
            await asyncio.sleep(30)
            return await record(simulation, "a")

        found = simulation.run(story)
        assert simulation.starts("a") == [10, 75, 80, 90, 100]
        assert [gap.number for gap in found.gaps] == [5]

    def test_a_suspended_machine_makes_up_for_it_once(self, simulation):
        """Only the clock on the wall goes on then."""

        async def story():
            await add(simulation, every("a", 10))
            await asyncio.sleep(15)
            simulation.offset += timedelta(hours=5)
            await asyncio.sleep(30)
            return await record(simulation, "a")

        found = simulation.run(story)
        # It looks up a little before the next instant: there the last missed one is made up for.
        assert simulation.starts("a") == [10, 19.95, 20, 30, 40]
        assert found.missed == 5 * 360 - 1

    def test_what_must_not_be_late_is_not_planned_ahead(self, simulation):
        async def story():
            await add(simulation, every("strict", 10, misfire_grace_time=1))
            await add(simulation, every("any", 10))
            await asyncio.sleep(9.97)
            simulation.loop.block(3)
            await asyncio.sleep(10)

        simulation.run(story)
        assert simulation.starts("strict") == [20]
        assert simulation.starts("any") == [12.97, 20]

    def test_all_are_made_up_for_one_after_another(self, simulation):
        async def story():
            await add(simulation, every("a", 10, catch_up="all"), takes=1)
            await asyncio.sleep(15)
            simulation.loop.block(60)
            await asyncio.sleep(30)

        simulation.run(story)
        assert simulation.starts("a") == [10, 75, 76, 77, 78, 79, 80, 90, 100]
        assert simulation.most_going["a"] == 1

    @OF_A_CLOCK_OF_ITS_OWN
    def test_a_clock_that_is_set_back_stops_nothing(self, simulation, caplog):
        async def story():
            await add(simulation, every("interval", 10))
            await add(simulation, schedule("minutely", Cron("* * * * *")))
            await add(simulation, schedule("fixed", Cron("0 1 * * *")))
            later = schedule("once", Once(START + timedelta(seconds=100)), relative=True)
            await add(simulation, later)
            await asyncio.sleep(65)
            simulation.offset -= timedelta(hours=1)
            await asyncio.sleep(65)

        simulation.engine._longest_sleep = 5.0
        with caplog.at_level(logging.WARNING, "job_scheduler"):
            simulation.run(story)
        assert simulation.starts("interval") == list(range(10, 130, 10))
        assert simulation.starts("minutely") == [60, 120]
        assert simulation.starts("fixed") == []
        assert simulation.starts("once") == [100]
        assert "the clock was set back by 1 hour" in caplog.text

    def test_a_clock_that_is_set_back_repeats_no_fixed_time(self, simulation):
        async def story():
            await add(simulation, schedule("a", Cron("0 12 * * *")))
            await asyncio.sleep(12.5 * 3600)
            simulation.offset -= timedelta(hours=1)  # half past eleven, again
            await asyncio.sleep(12 * 3600)

        simulation.engine._longest_sleep = 60.0
        simulation.run(story)
        assert simulation.starts("a") == [12 * 3600]

    @OF_A_CLOCK_OF_ITS_OWN
    def test_a_retry_waits_no_longer_when_the_clock_is_set_back(self, simulation):
        async def story():
            retry = RetryPolicy(1, delay=30, jitter=0)
            await add(simulation, every("a", 1000, retry=retry), first=1, fails=lambda _: OSError())
            await asyncio.sleep(5)
            simulation.offset -= timedelta(hours=1)
            await asyncio.sleep(40)

        simulation.engine._longest_sleep = 5.0
        simulation.run(story)
        assert simulation.starts("a") == [1, 31]


class TestFailures:
    def test_the_job_goes_on(self, simulation, caplog):
        async def story():
            await add(simulation, every("a", 10), fails=lambda _: ValueError("no"))
            await asyncio.sleep(35)
            return await record(simulation, "a")

        with caplog.at_level(logging.ERROR, "job_scheduler"):
            found = simulation.run(story)
        assert simulation.starts("a") == [10, 20, 30]
        assert (found.failed, found.failures) == (3, 3)
        assert caplog.text.count("ValueError: no") >= 3
        assert "Traceback" in caplog.text
        assert "(run a:0:2026-01-01T00:00:10+00:00" in caplog.text

    def test_retries_with_growing_delays_until_it_succeeds(self, simulation):
        async def story():
            retry = RetryPolicy(5, delay=2, jitter=0)
            failing = {"fails": lambda run: OSError() if run < 3 else None}
            await add(simulation, every("a", 1000, retry=retry), first=1, **failing)
            await asyncio.sleep(100)
            return await record(simulation, "a")

        found = simulation.run(story)
        assert simulation.starts("a") == [1, 3, 7, 15]
        assert (found.completed, found.failed, found.last_run.attempt) == (1, 0, 4)

    def test_gives_up_where_it_was_told_to(self, simulation):
        async def story():
            retry = RetryPolicy(5, delay=1, jitter=0, give_up_on=LookupError)
            await add(
                simulation, every("a", 1000, retry=retry), first=1, fails=lambda _: KeyError()
            )
            await add(simulation, every("b", 1000, retry=retry), first=1, fails=lambda _: OSError())
            await asyncio.sleep(100)

        simulation.run(story)
        assert len(simulation.starts("a")) == 1
        assert len(simulation.starts("b")) == 6

    def test_what_is_retried_overlaps_nothing(self, simulation):
        async def story():
            retry = RetryPolicy(1, delay=15, factor=1, jitter=0)
            await add(simulation, every("a", 10, retry=retry), fails=lambda _: OSError())
            await asyncio.sleep(55)

        simulation.run(story)
        assert simulation.starts("a") == [10, 25, 30, 45, 50]

    def test_pauses_after_so_many_in_a_row(self, simulation, caplog):
        async def story():
            outcomes = {"fails": lambda run: OSError() if run != 1 else None}
            await add(simulation, every("a", 10, pause_on_failures=3), **outcomes)
            await asyncio.sleep(200)
            assert (await record(simulation, "a")).paused
            before = simulation.starts("a")
            await simulation.engine.resume("a")
            await asyncio.sleep(15)
            return before

        with caplog.at_level(logging.WARNING, "job_scheduler"):
            before = simulation.run(story)
        assert before == [10, 20, 30, 40, 50]
        assert simulation.starts("a")[5:] == [210]
        assert "schedule 'a' is paused: 3 failed runs in a row" in caplog.text

    def test_what_an_executor_refuses_is_a_failed_run(self, simulation, caplog):
        class Refusing:
            def submit(self, *_):
                raise LaunchError("no more processes")

        async def story():
            simulation.engine._going.open_executor = lambda _: Refusing()
            await add(simulation, every("a", 10))
            await asyncio.sleep(15)
            return await record(simulation, "a")

        with caplog.at_level(logging.ERROR, "job_scheduler"):
            found = simulation.run(story)
        assert str(found.last_run.error) == "LaunchError: no more processes"
        assert "no more processes" in caplog.text


class Broken(Trigger):
    def next_after(self, instant):
        raise ZeroDivisionError("a broken trigger")

    def describe(self):
        return "never"


class TestTheLoop:
    def test_one_that_cannot_be_planned_is_paused_alone(self, simulation, caplog):
        if simulation.store.durable:
            pytest.skip("refuses triggers that it cannot write down")

        async def story():
            await add(simulation, schedule("broken", Broken()), first=10)
            await add(simulation, every("a", 10))
            await asyncio.sleep(35)
            return await record(simulation, "broken")

        with caplog.at_level(logging.ERROR, "job_scheduler"):
            found = simulation.run(story)
        assert simulation.starts("a") == [10, 20, 30]
        assert found.paused
        assert "schedule 'broken' cannot be planned" in caplog.text
        assert "a broken trigger" in caplog.text

    def test_goes_on_after_an_error(self, simulation, caplog):
        async def story():
            await add(simulation, every("a", 10))
            await asyncio.sleep(15)
            claim = simulation.store.claim

            async def broken(*_):
                simulation.store.claim = claim
                raise OSError("the store is away")

            simulation.store.claim = broken
            await asyncio.sleep(20)
            assert simulation.engine.healthy

        with caplog.at_level(logging.ERROR, "job_scheduler"):
            simulation.run(story)
        assert simulation.starts("a") == [10, 20.95, 30]
        assert "the store is away" in caplog.text

    def test_tells_whether_it_is_well(self, simulation, monkeypatch):
        engine = simulation.engine
        assert engine.last_turn_age is None
        assert not engine.healthy

        async def story():
            await asyncio.sleep(1)
            assert engine.healthy
            monkeypatch.setattr("time.monotonic", lambda: engine._last_turn + 31)
            assert not engine.healthy
            assert engine.last_turn_age == 31

        simulation.run(story)
        monkeypatch.undo()
        assert not engine.healthy

    def test_sleeps_when_nothing_is_due(self, simulation):
        turns = 0

        async def story():
            nonlocal turns
            turn = simulation.engine._turn

            async def counted():
                nonlocal turns
                turns += 1
                return await turn()

            simulation.engine._turn = counted
            for number in range(1000):
                await add(simulation, every(str(number), 10 * DAY))
            await asyncio.sleep(1)
            turns = 0
            await asyncio.sleep(5 * DAY)

        simulation.run(story)
        assert turns < 20

    def test_no_more_go_on_than_may(self, simulate):
        simulation = simulate(max_concurrent_jobs=3)

        async def story():
            for number in range(10):
                job = simulation.job("all", takes=10)
                await simulation.engine.add(every(str(number), 1000), job, START)
            await asyncio.sleep(45)

        simulation.run(story)
        assert simulation.most_going["all"] == 3
        assert simulation.starts("all") == [0] * 3 + [10] * 3 + [20] * 3 + [30]

    def test_what_is_urgent_goes_first(self, simulate):
        simulation = simulate(max_concurrent_jobs=1)

        async def story():
            soon = START + timedelta(seconds=1)
            for number, priority in enumerate([5, 5, 1, 9]):
                name = f"{priority}-{number}"
                new = NewRun(id=name, job=name, at=soon, priority=priority)
                await simulation.engine.enqueue(new, simulation.job(name, takes=1))
            await asyncio.sleep(10)

        simulation.run(story)
        assert [name for name, _ in simulation.log] == ["1-2", "5-0", "5-1", "9-3"]


class TestTheEnd:
    def test_waits_for_what_goes_on_and_starts_nothing(self, simulation):
        async def story():
            await add(simulation, every("a", 10), takes=25)
            await asyncio.sleep(12)
            await simulation.engine.shutdown()
            assert round(simulation.loop.time(), 3) == 35
            await asyncio.sleep(100)
            return await record(simulation, "a")

        found = simulation.run(story)
        assert simulation.starts("a") == [10]
        assert found.completed == 1

    def test_stops_the_rest_after_a_while(self, simulation):
        async def story():
            await add(simulation, every("a", 10), takes=1000)
            await asyncio.sleep(12)
            await simulation.engine.shutdown(5)
            assert round(simulation.loop.time(), 3) == 17
            await simulation.engine.shutdown(5)
            return await record(simulation, "a")

        assert simulation.run(story).cancelled == 1

    def test_it_can_be_started_again(self, simulation):
        async def story():
            await add(simulation, every("a", 10))
            await asyncio.sleep(12)
            await simulation.engine.shutdown()
            await asyncio.sleep(30)
            await simulation.engine.start()
            await simulation.engine.start()
            await asyncio.sleep(10)

        simulation.run(story)
        assert simulation.starts("a") == [10, 42, 50]

    def test_removing_lets_the_last_run_end(self, simulation):
        async def story():
            await add(simulation, every("a", 10), takes=5)
            await asyncio.sleep(12)
            assert await simulation.engine.remove("a") == []
            assert await simulation.engine.remove("a") is None
            await asyncio.sleep(100)
            runs = await simulation.store.runs(RunQuery("a"))
            assert [run.state for run in runs] == ["completed"]
            assert not simulation.engine._going.targets
            assert not simulation.engine._going.running

        simulation.run(story)
        assert simulation.starts("a") == [10]


@pytest.mark.parametrize("overlap", ["skip", "queue", 2, 3])
def test_random_histories_agree_with_a_naive_model(seeded, overlap):
    for _ in range(15):
        period, first = seeded.randint(1, 30), seeded.randint(1, 20)
        # No run ends at the instant of another: which is first then, is nobody's business.
        takes = [seeded.randint(0, 60) + seeded.uniform(0.01, 0.99) for _ in range(1000)]
        check_history(period, first, overlap, takes)


def check_history(period, first, overlap, takes):
    simulation = Simulation()

    async def story():
        planned = every("a", period, overlap=overlap)
        await add(simulation, planned, first=first, takes=takes.__getitem__)
        await asyncio.sleep(600.5)
        return await record(simulation, "a")

    found = simulation.run(story)
    starts, missed = model(period, first, overlap, takes)
    # Each number was rounded by itself: a start may be the next thousandth.
    assert simulation.starts("a") == pytest.approx(starts, abs=0.0015)
    assert found.missed == missed


def model(period, first, overlap, takes):
    """What runs when, and how many instants are skipped, until 600 s are over."""
    most_running = overlap if isinstance(overlap, int) else 1
    most_active = 2 if overlap == "queue" else most_running
    starts, ends, waiting, missed = [], [], 0, 0
    instants = list(range(first, 601, period))
    while instants or ends:
        if ends and (not instants or min(ends) < instants[0]):
            now = min(ends)
            ends.remove(now)
            if now > 600.5:
                break
        else:
            now = instants.pop(0)
            if len(ends) + waiting < most_active:
                waiting += 1
            else:
                missed += 1
        while waiting and len(ends) < most_running:
            ends.append(now + takes[len(starts)])
            starts.append(now)
            waiting -= 1
    return starts, missed


class TestRaces:
    """What happens between a turn's steps, forced."""

    def test_one_that_is_removed_while_it_is_started_harms_no_other(self, simulation):
        async def story():
            await add(simulation, every("victim", 10))
            await add(simulation, every("innocent", 10))
            claim = simulation.store.claim

            async def claim_and_remove(*arguments):
                claims = await claim(*arguments)
                if claims:
                    await simulation.engine.remove("victim")
                return claims

            simulation.store.claim = claim_and_remove
            await asyncio.sleep(35)
            assert not simulation.engine.busy

        simulation.run(story)
        assert simulation.starts("victim") == []
        assert simulation.starts("innocent") == [10, 20, 30]

    def test_an_end_that_is_told_twice(self, simulation):
        async def story():
            notice = simulation.engine._going.notice

            def twice(attempt):
                notice(attempt)
                if attempt.run.state.ended:
                    simulation.loop.call_later(1, notice, attempt)

            simulation.engine._going.notice = twice
            await add(simulation, every("a", 10))
            await asyncio.sleep(35)
            return await record(simulation, "a")

        found = simulation.run(story)
        assert simulation.starts("a") == [10, 20, 30]
        assert found.completed == 3

    def test_an_end_that_cannot_be_recorded_is_told_again(self, simulation, caplog):
        async def story():
            store = simulation.store
            finish, exchange = store.finish, store.exchange

            async def broken(ends, *rest):
                if ends:
                    store.finish, store.exchange = finish, exchange
                    raise OSError("the disk is full")
                return await exchange(ends, *rest) if rest else []

            store.finish = store.exchange = broken
            await add(simulation, every("a", 10))
            await asyncio.sleep(25)
            return await record(simulation, "a")

        with caplog.at_level(logging.ERROR, "job_scheduler"):
            found = simulation.run(story)
        assert "the disk is full" in caplog.text
        assert (found.completed, found.active) == (2, 0)

    def test_a_pause_that_fails_keeps_no_end_from_its_observer(self, simulation):
        told = []

        class Observer:
            def started(self, claim, run):
                told.append(("started", claim.schedule.id))

            def ended(self, claim, run, again):
                told.append(("ended", claim.job))

        async def broken(_):
            raise OSError("the store is away")

        async def story():
            observer = simulation.engine.observer = Observer()
            assert simulation.engine.observer is observer
            await add(simulation, every("a", 10, pause_on_failures=1), fails=lambda _: OSError())
            await add(simulation, every("b", 10))
            simulation.store.pause = broken
            await asyncio.sleep(15)

        simulation.run(story)
        assert sorted(told) == [("ended", "a"), ("ended", "b"), ("started", "a"), ("started", "b")]

    def test_a_job_that_cancels_all_tasks_does_not_end_the_loop(self, simulation, caplog):
        async def story():
            me = asyncio.current_task()

            async def vandal():
                for task in asyncio.all_tasks() - {asyncio.current_task(), me}:
                    task.cancel()

            target = Target.of_anything(vandal, "schedule")
            once = schedule("vandal", Once(START + timedelta(seconds=5)))
            await simulation.engine.add(once, target)
            await add(simulation, every("a", 10))
            await asyncio.sleep(35)

        with caplog.at_level(logging.ERROR, "job_scheduler"):
            simulation.run(story)
        assert simulation.starts("a") == [10, 20, 30]
        assert "the scheduler's loop was cancelled; it goes on" in caplog.text

    def test_what_has_taken_its_place_is_not_paused_by_its_failure(self, simulation):
        async def story():
            failing = {"takes": 5, "fails": lambda _: OSError()}
            await add(simulation, every("a", 10, pause_on_failures=1, generation=1), **failing)
            await asyncio.sleep(12)
            await simulation.engine.remove("a")
            await add(simulation, every("a", 10, pause_on_failures=1, generation=2))
            await asyncio.sleep(20)
            return await record(simulation, "a")

        assert not simulation.run(story).paused

    def test_what_does_not_stop_is_left_behind(self, simulation):
        async def stubborn():
            while True:
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    if simulation.loop.time() > 1000:
                        raise

        async def story():
            target = Target.of_anything(stubborn, "schedule")
            await simulation.engine.add(every("a", 10), target)
            await asyncio.sleep(12)
            await simulation.engine.shutdown(1)
            assert simulation.loop.time() < 30
            simulation.loop.block(1000)

        simulation.run(story)


class TestPauses:
    def test_what_comes_due_meanwhile_is_left_out_and_counted(self, simulation):
        async def story():
            await add(simulation, every("a", 10))
            await asyncio.sleep(15)
            await simulation.engine.pause("a")
            await asyncio.sleep(30)
            await simulation.engine.resume("a")
            await asyncio.sleep(19)
            return await record(simulation, "a")

        found = simulation.run(story)
        assert simulation.starts("a") == [10, 55]
        assert [(gap.number, gap.reason) for gap in found.gaps] == [(3, "paused")]

    def test_what_is_still_to_come_stays(self, simulation):
        async def story():
            await add(simulation, every("a", 3600), first=50)
            await simulation.engine.pause("a")
            await simulation.engine.resume("a")
            await asyncio.sleep(100)

        simulation.run(story)
        assert simulation.starts("a") == [50]

    def test_the_frequency_is_counted_from_the_end_all_the_same(self, simulation):
        async def story():
            await add(simulation, every("a", 10, counts_from_end=True), first=1, takes=8)
            await asyncio.sleep(5)
            await simulation.engine.pause("a")
            await simulation.engine.resume("a")
            await asyncio.sleep(20)

        simulation.run(story)
        assert simulation.starts("a") == [1, 19]
