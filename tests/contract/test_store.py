"""What every store promises; see ``stores/base.py``."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from job_scheduler.retry import RetryPolicy
from job_scheduler.run import Ending, RunError, RunState
from job_scheduler.schedule import ConflictResolution, Missed, Schedule, plan
from job_scheduler.stores.base import Advance, Again, Finish, Finished, NewRun, Worker
from job_scheduler.stores.memory import MemoryStore
from job_scheduler.triggers import Interval

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ANYBODY = Worker("anybody")
COMPLETED = Ending(RunState.COMPLETED, ended_at=1.0)
ENDED = Finished(again=False, failures=0)
AGAIN = Finished(again=True, failures=0)
FAILED = Ending(RunState.FAILED, RunError("E", "x"), ended_at=1.0)


def at(seconds):
    return START + seconds * SECOND


def schedule(name="s", **policies):
    return Schedule(id=name, job="j", trigger=Interval(10), **policies)


def new_run(name, seconds=0.0, **options):
    return NewRun(id=name, job="j", at=at(seconds), **options)


@pytest.fixture(params=[MemoryStore], ids=["memory"])
def store(request):
    return request.param()


@pytest.fixture
def run():
    with asyncio.Runner() as runner:
        yield runner.run


async def advance(store, now, limit=100):
    await store.advance(decide(await store.due(now, limit), now), now)


def decide(due, now):
    return [Advance(each, plan(each.schedule, each.instant, each.active, now)) for each in due]


async def enqueue(store, *runs, on_conflict=ConflictResolution.RAISE):
    """Whether the runs are kept; they are not if one of their ids is taken."""
    return not await store.enqueue(runs, on_conflict)


async def claim_ids(store, seconds, limit=100):
    return [claim.run_id for claim in await store.claim(at(seconds), limit, ANYBODY)]


class TestSchedules:
    def test_are_kept_under_their_id(self, store, run):
        async def story():
            first = schedule("a")
            assert await store.add(first, at(0))
            assert not await store.add(schedule("a"), at(5))
            assert (await store.schedule("a")).schedule is first
            assert await store.schedule("b") is None
            await store.add(schedule("b"), None)
            assert [record.schedule.id for record in await store.schedules()] == ["a", "b"]

        run(story())

    def test_are_due_until_they_are_advanced(self, store, run):
        async def story():
            await store.add(schedule("late"), at(2))
            await store.add(schedule("early"), at(1))
            await store.add(schedule("never"), None)
            assert await store.due(at(0), 10) == []
            assert [due.schedule.id for due in await store.due(at(5), 10)] == ["early", "late"]
            assert [due.schedule.id for due in await store.due(at(5), 1)] == ["early"]
            await advance(store, at(5), limit=1)
            assert [due.schedule.id for due in await store.due(at(5), 10)] == ["late"]

        run(story())

    def test_advance_once_however_often_it_is_decided(self, store, run):
        async def story():
            await store.add(schedule(), at(0))
            decisions = decide(await store.due(at(1), 10), at(1))
            await store.advance(decisions, at(1))
            await store.advance(decisions, at(1))  # another worker had decided the same
            assert len(await store.claim(at(1), 10, ANYBODY)) == 1
            assert (await store.schedule("s")).next_at == at(10)

        run(story())

    def test_do_not_advance_once_they_are_gone_or_changed(self, store, run):
        async def story():
            await store.add(schedule("gone"), at(0))
            await store.add(schedule("changed"), at(0))
            await store.add(schedule("paused"), at(0))
            decisions = decide(await store.due(at(1), 10), at(1))
            await store.remove("gone")
            await store.change(schedule("changed", generation=1), at(0))
            await store.advance(decisions, at(1))
            assert await claim_ids(store, 1) == [schedule("paused").run_id(at(0))]
            assert [due.schedule.id for due in await store.due(at(1), 10)] == ["changed"]

        run(story())

    def test_leave_their_gaps_behind(self, store, run):
        async def story():
            await store.add(schedule(), at(0))
            await advance(store, at(35))
            record = await store.schedule("s")
            assert record.gaps == (Missed(at(0), at(20), 3, "coalesced"),)
            assert record.missed == 3

        run(story())

    def test_pause_and_go_on(self, store, run):
        async def story():
            await store.add(schedule(), at(0))
            assert await store.pause("s")
            assert (await store.schedule("s")).paused
            assert await store.due(at(100), 10) == []
            assert await store.next_instant(ANYBODY) is None
            gap = Missed(at(0), at(100), 11, "paused")
            assert await store.resume("s", at(105), gap)
            assert (await store.schedule("s")).gaps == (gap,)
            assert await store.next_instant(ANYBODY) == at(105)
            assert len(await store.due(at(105), 10)) == 1
            assert not await store.pause("unknown")
            assert not await store.resume("unknown", at(0), None)

        run(story())

    def test_that_pause_hold_what_waits(self, store, run):
        async def story():
            await store.add(schedule(), at(0))
            await advance(store, at(0))
            await store.pause("s")
            assert await store.claim(at(1), 10, ANYBODY) == []
            await store.resume("s", at(10), None)
            assert await claim_ids(store, 1) == [schedule().run_id(at(0))]

        run(story())

    def test_take_their_waiting_runs_with_them(self, store, run):
        async def story():
            await store.add(schedule(overlap=2), at(0))
            await advance(store, at(0))
            [going] = await store.claim(at(0), 10, ANYBODY)
            await advance(store, at(10))
            waiting = schedule().run_id(at(10))
            assert await store.remove("s") == [waiting]
            assert await store.remove("s") is None
            assert (await store.run(waiting)).state == "cancelled"
            assert await claim_ids(store, 100) == []
            assert await store.finish([Finish(going, COMPLETED)]) == [ENDED]
            assert (await store.run(going.run_id)).state == "completed"

        run(story())

    def test_that_are_gone_have_their_runs_not_tried_again(self, store, run):
        async def story():
            await store.add(schedule(retry=RetryPolicy(3)), at(0))
            await advance(store, at(0))
            [claim] = await store.claim(at(0), 10, ANYBODY)
            await store.remove("s")
            [held] = await store.finish([Finish(claim, FAILED, again=Again(at(1), "failure"))])
            assert not held.again
            assert await store.claim(at(100), 10, ANYBODY) == []
            assert (await store.run(claim.run_id)).state == "failed"

        run(story())

    def test_that_count_from_the_end_get_their_next_instant_then(self, store, run):
        async def story():
            await store.add(schedule(counts_from_end=True), at(0))
            await advance(store, at(0))
            [claim] = await store.claim(at(0), 10, ANYBODY)
            assert (await store.schedule("s")).next_at is None
            await store.finish([Finish(claim, COMPLETED, next_at=at(17))])
            assert (await store.schedule("s")).next_at == at(17)
            assert [due.instant for due in await store.due(at(17), 1)] == [at(17)]

        run(story())


class TestRuns:
    def test_wait_for_their_time(self, store, run):
        async def story():
            assert await enqueue(store, new_run("a", 5))
            assert not await enqueue(store, new_run("a", 1))
            assert await store.next_instant(ANYBODY) == at(5)
            assert await claim_ids(store, 4.9) == []
            assert await claim_ids(store, 5) == ["a"]
            assert await claim_ids(store, 5) == []

        run(story())

    def test_are_taken_by_priority_then_by_time(self, store, run):
        async def story():
            await enqueue(store, new_run("young", 2))
            await enqueue(store, new_run("old", 1))
            await enqueue(store, new_run("urgent", 3, priority=1))
            await enqueue(store, new_run("not yet", 9, priority=0))
            assert await claim_ids(store, 5, limit=2) == ["urgent", "old"]
            assert await claim_ids(store, 5) == ["young"]

        run(story())

    def test_carry_what_they_were_given(self, store, run):
        async def story():
            retry = RetryPolicy(2)
            await enqueue(
                store, new_run("a", args=(1, 2), kwargs={"b": 3}, retry=retry, timeout=7.0)
            )
            [claim] = await store.claim(at(0), 1, ANYBODY)
            assert (claim.job, claim.args, claim.kwargs) == ("j", (1, 2), {"b": 3})
            assert (claim.retry, claim.timeout, claim.attempt) == (retry, 7.0, 1)
            assert claim.schedule is None

        run(story())

    def test_of_one_schedule_go_on_as_many_as_may(self, store, run):
        async def story():
            await store.add(schedule(overlap="queue"), at(0))
            await store.add(schedule("other"), at(10))
            await advance(store, at(0))
            [first] = await store.claim(at(0), 10, ANYBODY)
            await advance(store, at(10))
            assert await claim_ids(store, 10) == [schedule("other").run_id(at(10))]
            await store.finish([Finish(first, COMPLETED)])
            assert await claim_ids(store, 11) == [schedule().run_id(at(10))]

        run(story())

    def test_that_are_cancelled_hold_up_no_other(self, store, run):
        async def story():
            await store.add(schedule(catch_up="all"), at(0))
            await advance(store, at(20))
            [first] = await store.claim(at(20), 10, ANYBODY)
            assert await store.cancel(schedule().run_id(at(10)))
            await store.finish([Finish(first, COMPLETED)])
            assert await claim_ids(store, 20) == [schedule().run_id(at(20))]

        run(story())

    def test_beside_a_schedule_count_for_it_and_hold_up_nothing(self, store, run):
        async def story():
            await store.add(schedule(), at(0))
            await advance(store, at(0))
            await enqueue(store, new_run("beside", schedule_id="s", beside=True))
            claims = await store.claim(at(0), 10, ANYBODY)
            assert len(claims) == 2
            assert (await store.schedule("s")).running == 1
            await store.finish([Finish(claim, COMPLETED) for claim in claims])
            record = await store.schedule("s")
            assert (record.completed, record.running, record.active) == (2, 0, 0)

        run(story())

    def test_end_as_they_ended(self, store, run):
        async def story():
            await enqueue(store, new_run("a"))
            [claim] = await store.claim(at(0), 1, ANYBODY)
            assert (await store.run("a")).state == "running"
            ending = Ending(RunState.FAILED, RunError("E", "x"), -9, 12.5, 1000, 0.5, "oh")
            assert await store.finish([Finish(claim, ending, 11.5)]) == [ENDED]
            record = await store.run("a")
            assert (record.state, record.exitcode) == ("failed", -9)
            assert record.error == RunError("E", "x")
            assert record.started_at == datetime.fromtimestamp(11.5, UTC)
            assert record.ended_at == datetime.fromtimestamp(12.5, UTC)
            assert (record.peak_memory, record.cpu_time, record.stderr) == (1000, 0.5, "oh")
            assert await store.finish([Finish(claim, COMPLETED)]) == [None]
            assert (await store.run("a")).state == "failed"

        run(story())

    def test_are_tried_again_with_their_attempt_counted(self, store, run):
        async def story():
            await enqueue(store, new_run("a"))
            [first] = await store.claim(at(0), 1, ANYBODY)
            assert await store.finish([Finish(first, FAILED, again=Again(at(8), "failure"))]) == [
                AGAIN
            ]
            record = await store.run("a")
            assert (record.state, record.attempt, record.ended_at) == ("pending", 1, None)
            assert str(record.error) == "E: x"
            assert await claim_ids(store, 7) == []
            [second] = await store.claim(at(8), 1, ANYBODY)
            assert second.attempt == 2
            assert await store.finish([Finish(first, COMPLETED)]) == [None]  # the old claim
            assert await store.finish([Finish(second, COMPLETED)]) == [ENDED]

        run(story())

    def test_that_wait_can_be_cancelled(self, store, run):
        async def story():
            await enqueue(store, new_run("a", 5))
            assert await store.cancel("a")
            assert not await store.cancel("a")
            assert not await store.cancel("unknown")
            assert await claim_ids(store, 10) == []
            assert (await store.run("a")).state == "cancelled"
            await enqueue(store, new_run("b"))
            await store.claim(at(0), 1, ANYBODY)
            assert not await store.cancel("b")

        run(story())

    def test_are_counted_by_their_schedule(self, store, run):
        async def story():
            await store.add(schedule(), at(0))
            failures = []
            for number, ending in enumerate([COMPLETED, FAILED, FAILED, COMPLETED, FAILED]):
                before = (await store.schedule("s")).last_run
                await advance(store, at(10 * number))
                assert (await store.schedule("s")).last_run == before  # it has not started
                [claim] = await store.claim(at(10 * number), 10, ANYBODY)
                assert (await store.schedule("s")).active == 1
                [held] = await store.finish([Finish(claim, ending)])
                failures.append(held.failures)
            assert failures == [0, 1, 2, 0, 1]
            record = await store.schedule("s")
            assert (record.completed, record.failed, record.active) == (2, 3, 0)
            assert record.last_run.state == "failed"
            assert record.last_run.id == claim.run_id

        run(story())

    def test_are_listed_the_newest_first(self, store, run):
        async def story():
            await store.add(schedule(), at(0))
            for number in range(5):
                await enqueue(store, new_run(str(number)))
            await advance(store, at(0))
            assert [record.id for record in await store.runs(limit=3)] == [
                schedule().run_id(at(0)),
                "4",
                "3",
            ]
            assert [record.schedule_id for record in await store.runs("s")] == ["s"]

        run(story())


def test_random_stories_keep_the_books_right(store, run, seeded):
    """Whatever happens in whatever order: every run is in one state, none is claimed twice."""

    async def story():
        claimed, going, ended = [], [], set()
        for step in range(3000):
            now = at(step)
            what = seeded.random()
            name = f"s{seeded.randint(0, 5)}"
            if what < 0.05:
                overlap = seeded.choice(["skip", "queue", 3])
                await store.add(schedule(name, overlap=overlap, generation=step), now)
            elif what < 0.07:
                await store.remove(name)
            elif what < 0.12:
                await enqueue(store, new_run(f"r{step}", step + seeded.randint(0, 20)))
            elif what < 0.2 and going:
                await store.cancel(seeded.choice(claimed))
            elif what < 0.5 and going:
                claim = going.pop(seeded.randrange(len(going)))
                again = Again(at(step + 5), "failure") if seeded.random() < 0.3 else None
                ending = seeded.choice([COMPLETED, FAILED])
                held = await store.finish([Finish(claim, ending, again=again)])
                assert held != [None]
                assert (await store.run(claim.run_id)).state.ended is not held[0].again
                if not held[0].again:
                    ended.add(claim.run_id)
            else:
                await advance(store, now)
                for claim in await store.claim(now, seeded.randint(0, 5), ANYBODY):
                    assert claim.run_id not in ended
                    assert claim.run_id not in {other.run_id for other in going}
                    going.append(claim)
                    claimed.append(claim.run_id)
            for record in await store.schedules():
                mine = [claim for claim in going if claim.schedule is record.schedule]
                assert len(mine) <= record.schedule.most_running
                assert record.active >= len(mine)
        assert len(claimed) > 300

    run(story())


def test_random_runs_are_claimed_by_priority_then_by_age(store, run, seeded):
    """Also where runs of other priorities come and go, and some are tried again."""

    async def story():
        waiting = {}
        for step in range(2000):
            if seeded.random() < 0.6:
                name, due = f"r{step}", step + seeded.choice([0, 0, 3, 7])
                priority = 5 if seeded.random() < 0.8 else seeded.randint(1, 9)
                await enqueue(store, new_run(name, due, priority=priority))
                waiting[name] = (priority, due, step)
            due_now = sorted((key, name) for name, key in waiting.items() if key[1] <= step)
            limit = seeded.randint(0, 2)
            claims = await store.claim(at(step), limit, ANYBODY)
            expected = [key[:2] for key, _ in due_now[:limit]]
            assert [waiting[claim.run_id][:2] for claim in claims] == expected
            for claim in claims:
                priority = waiting.pop(claim.run_id)[0]
                if seeded.random() < 0.3:
                    await store.finish(
                        [Finish(claim, FAILED, again=Again(at(step + 4), "failure"))]
                    )
                    waiting[claim.run_id] = (priority, step + 4, step)

    run(story())
