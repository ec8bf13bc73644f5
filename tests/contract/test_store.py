"""What every store promises; see ``stores/base.py``."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from job_scheduler.errors import ArgumentsError
from job_scheduler.retry import RetryPolicy
from job_scheduler.run import Ending, RunError, RunState
from job_scheduler.schedule import ConflictResolution, Missed, Schedule, plan
from job_scheduler.stores.base import (
    LEASE_LOST,
    Advance,
    Again,
    Counts,
    Finish,
    Finished,
    NewRun,
    Outcome,
    Rescued,
    Retention,
    RunQuery,
    ScheduleQuery,
    Worker,
)
from job_scheduler.stores.memory import MemoryStore
from job_scheduler.stores.postgres import PostgresStore
from job_scheduler.stores.sqlite import SqliteStore
from job_scheduler.triggers import Cron, Interval, Once
from tests.postgres import emptied

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
ANYBODY = Worker("anybody")
ALICE, BOB = Worker("alice", lease=30.0), Worker("bob", lease=30.0)
RAISE, IGNORE, REPLACE = ConflictResolution
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


class Clock:
    """A clock that stands until it is set."""

    def __init__(self):
        self.instant = START

    def __call__(self):
        return self.instant

    def set(self, seconds):
        self.instant = at(seconds)


FACTORIES = {
    "memory": lambda request: MemoryStore(request.getfixturevalue("clock")),
    "sqlite": lambda request: SqliteStore(
        request.getfixturevalue("tmp_path") / "jobs.db", clock=request.getfixturevalue("clock")
    ),
    "postgres": lambda request: PostgresStore(
        emptied(request.getfixturevalue("worn_database")), clock=request.getfixturevalue("clock")
    ),
}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def run():
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(params=FACTORIES)
def store(request, run):
    store = FACTORIES[request.param](request)
    run(store.open())
    yield store
    run(store.close())


async def advance(store, now, limit=100):
    await store.advance(decide(await store.due(now, limit), now), now)


def decide(due, now):
    return [Advance(each, plan(each.schedule, each.instant, each.active, now)) for each in due]


async def enqueue(store, *runs, on_conflict=ConflictResolution.RAISE):
    """Whether the runs are kept; they are not if one of their ids is taken."""
    return not await store.enqueue(runs, on_conflict)


async def claim_ids(store, seconds, limit=100, worker=ANYBODY):
    return [claim.run_id for claim in await store.claim(at(seconds), limit, worker)]


async def claim_one(store, seconds=0, worker=ALICE):
    [claim] = await store.claim(at(seconds), 1, worker)
    return claim


async def finish(store, claim, ending=COMPLETED, **options):
    """What became of one end."""
    [finished] = await store.finish([Finish(claim, ending, **options)])
    return finished


async def state_of(store, run_id):
    return (await store.run(run_id)).state


def again(seconds, reason="failure"):
    return Again(at(seconds), reason)


class TestSchedules:
    def test_are_kept_under_their_id(self, store, run):
        async def story():
            first = schedule("a")
            assert await store.add(first, at(0))
            assert not await store.add(schedule("a"), at(5))
            assert (await store.schedule("a")).schedule == first
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
                store, new_run("a", args=(1, [2]), kwargs={"b": 3}, retry=retry, timeout=7.0)
            )
            [claim] = await store.claim(at(0), 1, ANYBODY)
            assert (claim.job, claim.args, claim.kwargs) == ("j", (1, [2]), {"b": 3})
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
            assert [record.id for record in await store.runs(RunQuery(limit=3))] == [
                schedule().run_id(at(0)),
                "4",
                "3",
            ]
            assert [record.schedule_id for record in await store.runs(RunQuery("s"))] == ["s"]

        run(story())


class TestLeases:
    def test_are_told_on_the_run(self, store, run, clock):
        async def story():
            await enqueue(store, new_run("a"))
            clock.set(1)
            await claim_one(store, 1)
            record = await store.run("a")
            assert (record.worker, record.heartbeat) == ("alice", at(1))
            assert record.lease_until == at(31)
            assert record.started_at == at(1)

        run(story())

    def test_that_end_have_the_run_rescued_with_the_crash_counted(self, store, run, clock):
        async def story():
            await enqueue(store, new_run("a"))
            first = await claim_one(store)
            clock.set(29)
            assert await store.rescue(3) == []
            clock.set(31)
            assert await store.rescue(3) == [Rescued("a", "j", RunState.PENDING, 1)]
            assert await store.rescue(3) == []
            record = await store.run("a")
            assert (record.state, record.worker, record.lease_until) == ("pending", None, None)
            assert (record.crashes, record.retries, record.attempt) == (1, 0, 1)
            assert record.error.type == LEASE_LOST
            [attempt] = record.attempts
            assert (attempt.number, attempt.reason, attempt.worker) == (1, "crash", "alice")
            assert attempt.error.type == LEASE_LOST
            second = await claim_one(store, 31, BOB)
            assert (second.attempt, second.crashes, second.retries) == (2, 1, 0)
            assert second.token != first.token

        run(story())

    def test_that_are_renewed_go_on(self, store, run, clock):
        async def story():
            await enqueue(store, new_run("a"))
            claim = await claim_one(store)
            for seconds in (20, 40, 60):
                clock.set(seconds)
                assert await store.renew([claim.hold], ALICE) == ([], [])
                assert await store.rescue(3) == []
            record = await store.run("a")
            assert (record.heartbeat, record.lease_until) == (at(60), at(90))
            clock.set(91)
            assert len(await store.rescue(3)) == 1

        run(story())

    def test_that_hold_for_ever_are_never_rescued(self, store, run, clock):
        async def story():
            await enqueue(store, new_run("a"))
            await claim_one(store, 0, ANYBODY)
            clock.set(10**9)
            assert await store.rescue(1) == []
            assert (await store.run("a")).lease_until is None

        run(story())

    def test_that_are_lost_are_told_when_they_are_renewed(self, store, run, clock):
        async def story():
            for name in ("kept", "rescued", "replaced"):
                await enqueue(store, new_run(name))
            holds = {each.run_id: each.hold for each in await store.claim(at(0), 3, ALICE)}
            clock.set(31)
            await store.renew([holds[name] for name in ("kept", "replaced")], ALICE)
            assert [each.run_id for each in await store.rescue(3)] == ["rescued"]
            await store.enqueue([new_run("replaced")], REPLACE)
            claims = await store.claim(at(31), 2, BOB)
            assert {each.run_id for each in claims} == {"rescued", "replaced"}
            lost, to_stop = await store.renew([*holds.values()], ALICE)
            assert {each.run_id for each in lost} == {"rescued", "replaced"}
            assert to_stop == []
            others = [each.hold for each in claims]
            assert (await store.renew(others, ALICE)).lost == others
            unknown = holds["kept"]._replace(run_id="unknown")
            assert (await store.renew([unknown], ALICE)).lost == [unknown]

        run(story())

    def test_that_end_too_often_fail_the_run_for_good(self, store, run, clock):
        async def story():
            await enqueue(store, new_run("poison", retry=RetryPolicy(9)))
            states = []
            for number in range(3):
                clock.set(100 * number)
                await claim_one(store, 100 * number)
                clock.set(100 * number + 31)
                [rescued] = await store.rescue(3)
                states.append((rescued.state, rescued.crashes))
            assert states == [("pending", 1), ("pending", 2), ("failed", 3)]
            record = await store.run("poison")
            assert (record.state, record.crashes, record.attempt) == ("failed", 3, 3)
            assert record.error.type == LEASE_LOST
            assert record.ended_at == at(231)
            assert await claim_ids(store, 1000) == []

        run(story())

    @pytest.mark.parametrize("of_schedule", [False, True])
    def test_the_crash_that_ends_a_run_is_counted_too(self, store, run, of_schedule):
        async def story():
            if of_schedule:
                await store.add(schedule(), at(0))
                await advance(store, at(0))
            else:
                await enqueue(store, new_run("a"))
            claim = await claim_one(store)
            assert await store.finish([Finish(claim, FAILED, is_crash=True)]) == [
                Finished(again=False, failures=int(of_schedule))
            ]
            record = await store.run(claim.run_id)
            assert (record.state, record.crashes, record.attempt) == ("failed", 1, 1)

        run(story())

    def test_of_long_ago_are_rescued_however_old(self, store, run, clock):
        async def story():
            await enqueue(store, new_run("a"))
            await claim_one(store)
            clock.set(365 * 86_400)
            assert [each.state for each in await store.rescue(3)] == ["pending"]
            assert await claim_ids(store, 365 * 86_400) == ["a"]

        run(story())

    def test_that_end_let_no_other_run_of_the_schedule_go_on(self, store, run, clock):
        async def story():
            await store.add(schedule(overlap="queue"), at(0))
            await advance(store, at(0))
            first = await claim_one(store)
            await advance(store, at(10))
            clock.set(31)
            await store.rescue(3)
            assert await claim_ids(store, 31) == [first.run_id]
            assert await claim_ids(store, 31) == []

        run(story())

    def test_that_end_for_good_let_the_next_go_on_and_plan_it(self, store, run, clock):
        async def story():
            await store.add(schedule("queue", overlap="queue"), at(0))
            await store.add(schedule("end", counts_from_end=True), at(0))
            await advance(store, at(0))
            assert len(await store.claim(at(0), 2, ALICE)) == 2
            await advance(store, at(10))
            clock.set(31)
            assert {each.state for each in await store.rescue(1)} == {"failed"}
            assert await claim_ids(store, 31) == [schedule("queue").run_id(at(10))]
            record = await store.schedule("end")
            assert (record.next_at, record.failed, record.failures) == (at(41), 1, 1)

        run(story())

    def test_of_a_removed_schedule_end_with_it(self, store, run, clock):
        async def story():
            await store.add(schedule(), at(0))
            await advance(store, at(0))
            claim = await claim_one(store)
            await store.remove("s")
            clock.set(31)
            assert [each.state for each in await store.rescue(3)] == ["failed"]
            assert await state_of(store, claim.run_id) == "failed"

        run(story())


class TestStops:
    def test_are_told_by_the_next_renewal(self, store, run):
        async def story():
            await enqueue(store, new_run("a"), new_run("b"))
            claims = await store.claim(at(0), 2, ALICE)
            assert await store.ask_to_stop("a")
            assert await store.ask_to_stop("a")
            lost, to_stop = await store.renew([claim.hold for claim in claims], ALICE)
            assert (lost, [hold.run_id for hold in to_stop]) == ([], ["a"])
            cancelled = Ending(RunState.CANCELLED, ended_at=1.0)
            assert await finish(store, claims[0], cancelled) == ENDED
            assert await state_of(store, "a") == "cancelled"

        run(story())

    def test_are_only_for_what_goes_on(self, store, run):
        async def story():
            await enqueue(store, new_run("a"))
            assert not await store.ask_to_stop("a")
            assert not await store.ask_to_stop("unknown")
            await finish(store, await claim_one(store))
            assert not await store.ask_to_stop("a")

        run(story())

    def test_end_what_is_rescued(self, store, run, clock):
        async def story():
            await store.add(schedule(), at(0))
            await advance(store, at(0))
            claim = await claim_one(store)
            await store.ask_to_stop(claim.run_id)
            clock.set(31)
            assert [each.state for each in await store.rescue(3)] == ["cancelled"]
            assert await state_of(store, claim.run_id) == "cancelled"
            record = await store.schedule("s")
            assert (record.cancelled, record.active) == (1, 0)

        run(story())


class TestFencing:
    async def check_that_nothing_changes(self, store, stale):
        before = await store.run(stale.run_id)
        for end in (COMPLETED, FAILED):
            assert await finish(store, stale, end) is None
            assert await finish(store, stale, end, again=again(1)) is None
        ends = [Finish(stale, COMPLETED, result="1", next_at=at(5))]
        assert (await store.exchange(ends, at(0), 0, ALICE))[0] == [None]
        assert await store.run(stale.run_id) == before

    def test_of_another_worker_and_another_token(self, store, run):
        async def story():
            await enqueue(store, new_run("a"))
            claim = await claim_one(store)
            await self.check_that_nothing_changes(store, claim._replace(worker="bob"))
            await self.check_that_nothing_changes(store, claim._replace(token=claim.token + 1))
            await self.check_that_nothing_changes(store, claim._replace(token=claim.token - 1))
            assert await finish(store, claim._replace(run_id="unknown")) is None
            assert await finish(store, claim) == ENDED
            await self.check_that_nothing_changes(store, claim)

        run(story())

    def test_after_a_rescue(self, store, run, clock):
        async def story():
            await store.add(schedule(), at(0))
            await advance(store, at(0))
            stale = await claim_one(store)
            clock.set(31)
            await store.rescue(3)
            await self.check_that_nothing_changes(store, stale)
            held = await claim_one(store, 31, ALICE)  # the same worker, once more
            await self.check_that_nothing_changes(store, stale)
            assert await finish(store, held) == ENDED
            assert (await store.schedule("s")).completed == 1

        run(story())

    def test_after_it_was_replaced(self, store, run):
        async def story():
            await enqueue(store, new_run("a"))
            stale = await claim_one(store)
            assert await store.enqueue([new_run("a", 5)], REPLACE) == {"a": "running"}
            await self.check_that_nothing_changes(store, stale)
            held = await claim_one(store, 5, ALICE)
            assert (held.token, held.attempt) == (stale.token + 1, 1)
            await self.check_that_nothing_changes(store, stale)
            assert await finish(store, held) == ENDED

        run(story())

    def test_after_it_was_put_back_and_cancelled(self, store, run):
        async def story():
            await enqueue(store, new_run("a"))
            stale = await claim_one(store)
            await finish(store, stale, FAILED, again=again(5))
            await self.check_that_nothing_changes(store, stale)
            await store.cancel("a")
            await self.check_that_nothing_changes(store, stale)

        run(story())

    def test_spares_the_other_ends_of_a_batch(self, store, run):
        async def story():
            await enqueue(store, *(new_run(str(number)) for number in range(5)))
            claims = await store.claim(at(0), 5, ALICE)
            claims[1] = claims[1]._replace(token=7)
            ends = [Finish(claim, COMPLETED) for claim in [*claims, claims[0]]]
            finished = await store.finish(ends)
            assert finished == [ENDED, None, ENDED, ENDED, ENDED, None]
            assert await state_of(store, claims[1].run_id) == "running"

        run(story())


class TestAgain:
    @pytest.mark.parametrize(
        ("reason", "attempt", "retries", "crashes"),
        [("failure", 1, 1, 0), ("crash", 1, 0, 1), ("release", 0, 0, 0)],
    )
    def test_counts_by_its_reason(self, store, run, reason, attempt, retries, crashes):
        async def story():
            await enqueue(store, new_run("a", retry=RetryPolicy(5)))
            claim = await claim_one(store)
            finished = await finish(store, claim, FAILED, again=again(8, reason), started_at=1.0)
            assert finished == AGAIN
            record = await store.run("a")
            assert (record.state, record.worker, record.lease_until) == ("pending", None, None)
            assert (record.attempt, record.retries, record.crashes) == (attempt, retries, crashes)
            assert (record.at, record.max_retries) == (at(8), 5)
            assert await claim_ids(store, 7.9) == []
            claim = await claim_one(store, 8, BOB)
            assert (claim.attempt, claim.retries, claim.crashes) == (attempt + 1, retries, crashes)
            assert claim.at == at(8)

        run(story())

    def test_remembers_the_attempts_but_not_what_was_handed_back(self, store, run):
        async def story():
            await enqueue(store, new_run("a"))
            for number, reason in enumerate(["failure", "release", "crash"]):
                claim = await claim_one(store, number)
                error = RunError("E", reason, "trace", ("Exception",))
                ending = Ending(RunState.FAILED, error, number, ended_at=number + 0.5)
                later = again(number + 1, reason)
                await finish(store, claim, ending, again=later, started_at=float(number))
            await finish(store, await claim_one(store, 9, BOB))
            record = await store.run("a")
            assert (record.state, record.attempt, record.error) == ("completed", 3, None)
            first, second = record.attempts
            assert (first.number, first.reason, first.worker) == (1, "failure", "alice")
            assert first.started_at == datetime.fromtimestamp(0.0, UTC)
            assert first.ended_at == datetime.fromtimestamp(0.5, UTC)
            assert (first.error, first.exitcode) == (
                RunError("E", "failure", "trace", ("Exception",)),
                0,
            )
            assert (second.number, second.reason, second.exitcode) == (2, "crash", 2)

        run(story())

    def test_remembers_the_last_twenty_attempts(self, store, run):
        async def story():
            await enqueue(store, new_run("a"))
            for _ in range(25):
                await finish(store, await claim_one(store), FAILED, again=again(0))
            numbers = [attempt.number for attempt in (await store.run("a")).attempts]
            assert numbers == list(range(6, 26))

        run(story())

    def test_keeps_the_place_of_the_run_in_its_schedule(self, store, run):
        async def story():
            await store.add(schedule(overlap="queue"), at(0))
            await advance(store, at(0))
            first = await claim_one(store)
            await advance(store, at(10))
            assert await finish(store, first, FAILED, again=again(20)) == AGAIN
            assert await claim_ids(store, 19) == []
            assert (await store.schedule("s")).active == 2
            assert await claim_ids(store, 20) == [first.run_id]

        run(story())


class TestExchange:
    def test_finishes_and_claims(self, store, run):
        async def story():
            await enqueue(store, *(new_run(str(number), number) for number in range(5)))
            claims = await store.claim(at(9), 2, ALICE)
            ends = [Finish(claim, COMPLETED) for claim in claims]
            finished, claims = await store.exchange(ends, at(9), 2, ALICE)
            assert finished == [ENDED, ENDED]
            assert [claim.run_id for claim in claims] == ["2", "3"]
            finished, claims = await store.exchange([], at(9), 9, BOB)
            assert (finished, [claim.run_id for claim in claims]) == ([], ["4"])
            assert await store.exchange([], at(9), 9, BOB) == ([], [])

        run(story())

    def test_lets_the_next_of_a_schedule_go_on(self, store, run):
        async def story():
            await store.add(schedule(overlap="queue"), at(0))
            await advance(store, at(0))
            first = await claim_one(store)
            await advance(store, at(10))
            finished, claims = await store.exchange([Finish(first, COMPLETED)], at(10), 5, ALICE)
            assert finished == [ENDED]
            claims += await store.claim(at(10), 5, ALICE)
            assert [claim.run_id for claim in claims] == [schedule().run_id(at(10))]

        run(story())

    def test_claims_what_was_put_back_now_or_the_next_time(self, store, run):
        async def story():
            await enqueue(store, new_run("a"))
            end = Finish(await claim_one(store), FAILED, again=again(0))
            finished, claims = await store.exchange([end], at(0), 5, ALICE)
            assert finished == [AGAIN]
            claims += await store.claim(at(0), 5, ALICE)
            assert [(claim.run_id, claim.attempt) for claim in claims] == [("a", 2)]

        run(story())


class TestWorkers:
    def test_take_only_jobs_that_they_know(self, store, run, clock):
        async def story():
            knows = Worker("one", jobs=frozenset({"known", "other"}))
            for number in range(4):
                job = "unknown" if number % 2 else "known"
                await enqueue(store, NewRun(id=str(number), job=job, at=at(number)))
            await enqueue(store, NewRun(id="later", job="unknown", at=at(50)))
            clock.set(9)
            assert await claim_ids(store, 9, 1, knows) == ["0"]
            assert await claim_ids(store, 9, 9, knows) == ["2"]
            assert await claim_ids(store, 9, 9, knows) == []
            assert await store.waiting_for_others(knows) == {"unknown": 2}
            assert await store.waiting_for_others(ANYBODY) == {}
            assert await store.next_instant(knows) is None
            await enqueue(store, NewRun(id="mine", job="known", at=at(70)))
            assert await store.next_instant(knows) == at(70)
            assert await claim_ids(store, 9) == ["1", "3"]

        run(story())

    def test_do_not_count_what_is_held_as_waiting_for_others(self, store, run, clock):
        async def story():
            knows = Worker("one", jobs=frozenset({"known"}))
            await store.add(schedule(overlap="queue"), at(0))
            await advance(store, at(0))
            await claim_one(store)
            await advance(store, at(10))
            clock.set(10)
            assert await store.waiting_for_others(knows) == {}

        run(story())

    def test_never_get_the_same_run(self, store, run):
        async def story():
            await enqueue(store, *(new_run(str(number)) for number in range(50)))
            workers = [Worker(str(number), 30.0) for number in range(5)]
            taken = await asyncio.gather(*(store.claim(at(0), 20, each) for each in workers))
            ids = [claim.run_id for claims in taken for claim in claims]
            assert sorted(ids) == sorted(map(str, range(50)))

        run(story())


class TestConflicts:
    async def prepare(self, store):
        """Runs in each state, each called by it."""
        await enqueue(store, new_run("completed"), new_run("running"))
        claims = await store.claim(at(0), 2, ALICE)
        await finish(store, next(claim for claim in claims if claim.run_id == "completed"))
        await enqueue(store, new_run("pending", 1))
        return {"completed": "completed", "running": "running", "pending": "pending"}

    def test_keep_all_or_none(self, store, run):
        async def story():
            states = await self.prepare(store)
            new = [new_run("new", 2), *map(new_run, states), new_run("newer", 2)]
            assert await store.enqueue(new, RAISE) == states
            assert await store.run("new") is None
            assert await claim_ids(store, 9) == ["pending"]

        run(story())

    def test_keep_the_others(self, store, run):
        async def story():
            states = await self.prepare(store)
            new = [new_run("new", 2), *map(new_run, states), new_run("newer", 3)]
            assert await store.enqueue(new, IGNORE) == states
            assert await claim_ids(store, 9) == ["pending", "new", "newer"]
            assert await state_of(store, "completed") == "completed"

        run(story())

    def test_put_all_in_the_place_of_what_was_there(self, store, run):
        async def story():
            states = await self.prepare(store)
            new = [new_run(name, 4, kwargs={"n": 1}) for name in [*states, "new"]]
            assert await store.enqueue(new, REPLACE) == states
            for name in [*states, "new"]:
                record = await store.run(name)
                assert (record.state, record.attempt, record.at) == ("pending", 0, at(4))
                assert record.kwargs == {"n": 1}
            assert await claim_ids(store, 3) == []
            assert sorted(await claim_ids(store, 4)) == sorted([*states, "new"])
            assert len(await store.runs()) == 4

        run(story())

    def test_that_replace_let_the_next_of_a_schedule_go_on(self, store, run):
        async def story():
            await store.add(schedule(overlap="queue"), at(0))
            await advance(store, at(0))
            first = await claim_one(store)
            await advance(store, at(10))
            await store.enqueue([new_run(first.run_id, 99)], REPLACE)
            assert await claim_ids(store, 10) == [schedule().run_id(at(10))]
            assert await finish(store, first) is None
            record = await store.schedule("s")
            assert (record.active, record.cancelled) == (1, 1)

        run(story())

    def test_of_no_runs_are_none(self, store, run):
        async def story():
            assert await store.enqueue([], RAISE) == {}

        run(story())

    def test_do_not_last_longer_than_the_id_is_kept(self, store, run, clock):
        async def story():
            await enqueue(store, new_run("key", keep_until=at(100)))
            clock.set(200)
            assert not await enqueue(store, new_run("key"))  # it waits, however late
            await finish(store, await claim_one(store, 200))
            assert await enqueue(store, new_run("key", 200, keep_until=at(300)))
            await finish(store, await claim_one(store, 200), FAILED)
            clock.set(299)
            assert await store.enqueue([new_run("key")], RAISE) == {"key": "failed"}
            assert await store.enqueue([new_run("key")], IGNORE) == {"key": "failed"}
            clock.set(300)
            assert await store.enqueue([new_run("key", 300)], IGNORE) == {}
            assert await claim_ids(store, 300) == ["key"]

        run(story())

    def test_last_for_ever_where_nothing_is_said(self, store, run, clock):
        async def story():
            await enqueue(store, new_run("a"))
            await finish(store, await claim_one(store))
            clock.set(10**9)
            assert not await enqueue(store, new_run("a"))

        run(story())


class TestAdmission:
    async def queue(self, store, *, overlap="queue", runs=4):
        """A schedule with some runs, of which the first may go on; their ids."""
        planned = schedule(overlap=overlap, catch_up="all")
        await store.add(planned, at(0))
        await advance(store, at(10 * (runs - 1)))
        return [planned.run_id(at(10 * number)) for number in range(runs)]

    def test_goes_in_order_through_ends_and_cancels(self, store, run):
        async def story():
            first, second, third, fourth = await self.queue(store)
            [claim] = await store.claim(at(99), 9, ALICE)
            assert claim.run_id == first
            assert await store.cancel(third)
            await finish(store, claim)
            [claim] = await store.claim(at(99), 9, ALICE)
            assert claim.run_id == second
            await finish(store, claim, Ending(RunState.CANCELLED, ended_at=1.0))
            assert await claim_ids(store, 99) == [fourth]

        run(story())

    def test_of_the_one_that_may_go_on_passes_to_the_next_when_it_is_cancelled(self, store, run):
        async def story():
            first, second, *_ = await self.queue(store)
            assert await store.cancel(first)
            assert await claim_ids(store, 99) == [second]

        run(story())

    def test_waits_for_the_end_of_a_pause(self, store, run):
        async def story():
            _, second, third, _ = await self.queue(store)
            claim = await claim_one(store, 99)
            await store.pause("s")
            await finish(store, claim)
            assert await claim_ids(store, 99) == []
            assert (await store.schedule("s")).active == 3
            await store.resume("s", at(100), None)
            [claim] = await store.claim(at(99), 9, ALICE)
            assert claim.run_id == second
            await store.pause("s")
            await finish(store, claim, FAILED, again=again(99))
            assert await claim_ids(store, 99) == []
            await store.resume("s", at(100), None)
            assert await claim_ids(store, 99) == [second]
            assert await store.cancel(third)

        run(story())

    def test_grows_and_shrinks_with_what_the_schedule_allows(self, store, run):
        async def story():
            first, second, third, fourth = await self.queue(store)
            [claim] = await store.claim(at(99), 9, ALICE)
            assert claim.run_id == first
            await store.change(schedule(overlap=3, generation=1), at(100))
            assert await claim_ids(store, 99) == [second, third]
            await store.change(schedule(overlap=1, generation=2), at(100))
            await finish(store, claim)
            assert await claim_ids(store, 99) == []
            assert fourth

        run(story())

    def test_is_not_for_what_goes_on_beside(self, store, run):
        async def story():
            first, *_ = await self.queue(store)
            await enqueue(store, new_run("beside", schedule_id="s", beside=True))
            assert sorted(await claim_ids(store, 99)) == sorted(["beside", first])
            await store.pause("s")
            await enqueue(store, new_run("another", schedule_id="s", beside=True))
            assert await claim_ids(store, 99) == ["another"]

        run(story())

    def test_is_for_asked_runs_of_a_schedule_too(self, store, run):
        async def story():
            await store.add(schedule(), None)
            await enqueue(store, new_run("a", schedule_id="s"), new_run("b", schedule_id="s"))
            claim = await claim_one(store)
            assert (claim.run_id, claim.schedule) == ("a", schedule())
            assert await claim_ids(store, 0) == []
            await finish(store, claim)
            assert await claim_ids(store, 0) == ["b"]

        run(story())


class TestRemoval:
    def test_cancels_all_that_waits(self, store, run):
        async def story():
            await store.add(schedule(overlap="queue", catch_up="all"), at(0))
            await advance(store, at(20))
            await enqueue(store, new_run("beside", 99, schedule_id="s", beside=True))
            going = await claim_one(store, 20)
            ids = [schedule().run_id(at(10)), schedule().run_id(at(20)), "beside"]
            assert sorted(await store.remove("s")) == sorted(ids)
            assert {await state_of(store, each) for each in ids} == {"cancelled"}
            assert await store.schedule("s") is None
            assert await claim_ids(store, 999) == []
            assert await state_of(store, going.run_id) == "running"

        run(story())

    def test_leaves_nothing_to_one_of_the_same_id(self, store, run):
        async def story():
            await store.add(schedule(), at(0))
            await advance(store, at(0))
            going = await claim_one(store)
            await store.remove("s")
            await store.add(schedule(generation=1), at(5))
            assert (await store.schedule("s")).active == 0
            await advance(store, at(5))
            assert len(await store.claim(at(5), 9, ALICE)) == 1
            await finish(store, going, FAILED, next_at=at(77))
            record = await store.schedule("s")
            assert (record.failed, record.failures, record.running) == (0, 0, 1)
            assert record.next_at == at(15)

        run(story())


class TestCountingFromTheEnd:
    def test_goes_on_after_a_rescue(self, store, run, clock):
        async def story():
            await store.add(schedule(counts_from_end=True), at(0))
            await advance(store, at(0))
            await claim_one(store)
            clock.set(31)
            await store.rescue(3)
            assert (await store.schedule("s")).next_at is None
            claim = await claim_one(store, 31)
            await finish(store, claim, COMPLETED, next_at=at(45))
            assert (await store.schedule("s")).next_at == at(45)

        run(story())

    def test_goes_on_when_the_waiting_run_is_cancelled_or_replaced(self, store, run, clock):
        async def story():
            for name in ("a", "b"):
                await store.add(schedule(name, counts_from_end=True), at(0))
            await advance(store, at(0))
            clock.set(3)
            assert await store.cancel(schedule("a").run_id(at(0)))
            await store.enqueue([new_run(schedule("b").run_id(at(0)), 99)], REPLACE)
            assert [each.next_at for each in await store.schedules()] == [at(13), at(13)]

        run(story())

    def test_takes_no_end_of_what_goes_on_beside(self, store, run):
        async def story():
            await store.add(schedule(counts_from_end=True), at(0))
            await advance(store, at(0))
            await enqueue(store, new_run("beside", schedule_id="s", beside=True))
            claims = {claim.run_id: claim for claim in await store.claim(at(0), 2, ALICE)}
            await finish(store, claims["beside"], next_at=at(5))
            assert (await store.schedule("s")).next_at is None

        run(story())


class TestRecords:
    def test_of_a_run_tell_what_was_given(self, store, run, clock):
        async def story():
            clock.set(3)
            options = {"retry": RetryPolicy(4), "priority": 2, "kwargs": {"n": [1, {"m": None}]}}
            await enqueue(store, new_run("a", 7, args=("x", 2.5), timeout=1.5, **options))
            await enqueue(store, new_run("b"))
            assert (await store.run("b")).timeout is None
            record = await store.run("a")
            assert record.timeout == 1.5
            assert (record.id, record.job, record.schedule_id) == ("a", "j", None)
            assert (record.at, record.created_at) == (at(7), at(3))
            assert (record.priority, record.max_retries, record.attempt) == (2, 4, 0)
            assert (record.args, record.kwargs) == (("x", 2.5), options["kwargs"])
            assert (record.started_at, record.ended_at, record.worker) == (None, None, None)
            assert record.attempts == ()
            assert await store.run("unknown") is None

        run(story())

    def test_of_an_ended_run_tell_how_it_ended(self, store, run):
        async def story():
            await enqueue(store, new_run("a", kwargs={"n": 1}))
            await finish(store, await claim_one(store), result='{"x":1}', started_at=0.5)
            record = await store.run("a")
            assert (record.state, record.worker) == ("completed", "alice")
            assert record.lease_until is None
            if store.durable:
                assert (json.loads(record.result), record.kwargs) == ({"x": 1}, {"n": 1})

        run(story())

    def test_are_exact_to_the_microsecond(self, store, run):
        async def story():
            instant = at(7) + MICROSECOND
            await store.add(schedule(), instant)
            await enqueue(store, NewRun(id="a", job="j", at=instant))
            assert await store.claim(instant - MICROSECOND, 1, ANYBODY) == []
            assert await store.due(instant - MICROSECOND, 1) == []
            assert (await store.due(instant, 1))[0].instant == instant
            assert (await store.claim(instant, 1, ANYBODY))[0].at == instant

        run(story())

    def test_are_listed_by_state(self, store, run):
        async def story():
            await store.add(schedule(overlap="queue", catch_up="all"), at(0))
            await advance(store, at(10))
            await enqueue(store, *(new_run(str(number)) for number in range(4)))
            claims = [await claim_one(store) for _ in range(4)]
            await finish(store, claims[0], FAILED)
            await finish(store, claims[1])
            listed = {}
            for state in RunState:
                listed[state] = [record.id for record in await store.runs(RunQuery(state=state))]
            ids = [claim.run_id for claim in claims]
            assert listed["failed"] == ids[:1]
            assert listed["completed"] == ids[1:2]
            assert sorted(listed["running"]) == sorted(ids[2:])
            assert sorted([*listed["pending"], *ids]) == sorted(
                [schedule().run_id(at(0)), schedule().run_id(at(10)), "0", "1", "2", "3"]
            )
            assert listed["cancelled"] == []
            of_schedule = await store.runs(RunQuery("s", state=RunState.PENDING))
            assert schedule().run_id(at(10)) in [record.id for record in of_schedule]
            assert await store.runs(RunQuery("unknown")) == []
            assert len(await store.runs(RunQuery(limit=2))) == 2

        run(story())

    def test_of_a_schedule_tell_its_definition(self, store, run):
        async def story():
            given = [
                schedule("a", args=(1,), kwargs={"b": [2]}, retry=RetryPolicy(2), priority=3),
                Schedule(id="b", job="j", trigger=Cron("0 9 * * 1", timezone="Europe/Berlin")),
                Schedule(id="c", job="k", trigger=Once(at(5)), jitter=None, timeout=2.5),
                schedule("d", jitter="5s", misfire_grace_time=3, start=at(1), end=at(99)),
            ]
            for each in given:
                assert await store.add(each, at(5))
            assert [record.schedule for record in await store.schedules()] == given
            [due] = await store.due(at(5), 1)
            assert due.schedule == given[0]

        run(story())

    def test_take_texts_of_all_kinds(self, store, run):
        async def story():
            text = "\x00 \ud800 ü 🎉 'quoted' \" \\"
            error = RunError("E", text, text)
            await enqueue(store, new_run("ü 🎉 '", kwargs={"ü": "🎉"}))
            claim = await claim_one(store)
            ending = Ending(RunState.FAILED, error, ended_at=1.0, stderr=text * 1000)
            assert await finish(store, claim, ending) == ENDED
            record = await store.run("ü 🎉 '")
            assert "ü 🎉 'quoted'" in record.error.message
            assert len(record.stderr) == 1000 * len(text)

        run(story())


class TestChanges:
    """Another definition in the place of one."""

    def test_hold_only_where_it_was_seen(self, store, run):
        async def story():
            await store.add(schedule(generation=3), at(0))
            seen = await store.schedule("s")
            await advance(store, at(0))
            assert not await store.change(schedule(priority=1), at(20), seen)
            assert (await store.schedule("s")).next_at == at(10)
            seen = await store.schedule("s")
            assert await store.change(schedule(priority=1, generation=4), None, seen)
            assert not await store.change(schedule(), at(20), seen)
            seen = await store.schedule("s")
            assert (seen.schedule.priority, seen.next_at) == (1, None)
            assert await store.change(schedule(generation=4), at(30), seen)
            assert (await store.schedule("s")).next_at == at(30)
            await store.remove("s")
            assert not await store.change(schedule(), at(20), seen)

        run(story())

    def test_undo_decisions_also_of_the_same_generation(self, store, run):
        async def story():
            await store.add(schedule(args=(1,)), at(0))
            decisions = decide(await store.due(at(0), 1), at(0))
            assert await store.change(schedule(args=(2,)), at(0), await store.schedule("s"))
            await store.advance(decisions, at(0))
            assert await store.claim(at(0), 1, ALICE) == []
            await advance(store, at(0))
            assert list((await claim_one(store)).args) == [2]

        run(story())


class TestPausedFromTheBeginning:
    def test_is_never_due_before_it_is_resumed(self, store, run):
        async def story():
            assert await store.add(schedule("a"), at(10), paused=True) == 1
            assert await store.due(at(100), 10) == []
            assert (await store.schedule("a")).paused
            assert await store.resume("a", at(110), None)
            assert [each.instant for each in await store.due(at(110), 10)] == [at(110)]

        run(story())


class TestQueries:
    """Pages of lists."""

    def test_number_schedules_in_the_order_in_which_they_came(self, store, run):
        async def story():
            assert [await store.add(schedule(name), at(0)) for name in "cab"] == [1, 2, 3]
            assert await store.add(schedule("a"), at(0)) is None
            await store.remove("b")
            again, new = await store.add(schedule("b"), None), await store.add(schedule("d"), None)
            assert (again, new) == (4, 5)
            await store.change(schedule("c", priority=1), at(1))
            found = {record.schedule.id: record.number for record in await store.schedules()}
            assert list(found.items()) == [("c", 1), ("a", 2), ("b", 4), ("d", 5)]
            assert (await store.schedule("d")).number == 5

        run(story())

    def test_select_schedules(self, store, run):
        async def ids(**query):
            return [each.schedule.id for each in await store.schedules(ScheduleQuery(**query))]

        async def story():
            for number in range(1, 8):
                about = {"name": f"Mail {number}"} if number % 2 else {}
                await store.add(schedule(f"s{number}", about=about), at(0))
            await store.add(Schedule(id="other", job="k", trigger=Interval(10)), at(0))
            await store.pause("s3")
            await store.pause("other")
            assert await ids(limit=3) == ["s1", "s2", "s3"]
            assert await ids(limit=3, after=3) == ["s4", "s5", "s6"]
            assert await ids(after=8) == []
            assert await ids(numbers=(4,)) == ["s4"]
            assert await ids(numbers=(5, 2, 99)) == ["s2", "s5"]
            assert await ids(numbers=(99,)) == []
            assert await ids(ids=("s5", "unknown", "s2")) == ["s2", "s5"]
            assert await ids(ids=()) == []
            assert await ids(job="k") == ["other"]
            assert await ids(paused=True) == ["s3", "other"]
            assert await ids(paused=False, limit=2, after=1) == ["s2", "s4"]
            assert await ids(text="mail", paused=False) == ["s1", "s5", "s7"]
            assert await ids(job="j", paused=True, text="3", ids=("s3",), numbers=(3,)) == ["s3"]

        run(story())

    def test_look_for_a_text_in_names(self, store, run):
        names = {
            "a": "Größe ÄNDERN", "b": "100% of_it", "c": "1000 often", "d": "\\ and \"quotes'",
        }  # fmt: skip

        async def ids(text):
            return [each.schedule.id for each in await store.schedules(ScheduleQuery(text=text))]

        async def story():
            for name, called in names.items():
                await store.add(schedule(name, about={"name": called}), None)
            await store.add(schedule("An-ID", about={"name": "", "description": "mail"}), None)
            await store.add(schedule("number", about={"name": 7}), None)
            assert await ids("ändern") == ["a"]
            assert await ids("GRÖSSE") == ["a"]
            assert await ids("0%") == ["b"]
            assert await ids("f_i") == ["b"]
            assert await ids("%") == ["b"]
            assert await ids("\\") == ["d"]
            assert await ids("\"QUOTES'") == ["d"]
            assert await ids("an-id") == ["An-ID"]
            assert await ids("NUMB") == ["number"]
            assert await ids("mail") == []
            assert len(await ids("")) == 6
            await store.change(schedule("a", about={"name": "renamed"}), None)
            assert await ids("ändern") == []
            assert await ids("RENAMED") == ["a"]

        run(story())

    def test_give_runs_page_by_page(self, store, run, clock):
        async def pages(size, **query):
            before, found = None, []
            while page := await store.runs(RunQuery(**query, before=before, limit=size)):
                found += [record.id for record in page]
                before = page[-1].id
            return found

        async def story():
            await store.add(schedule(overlap=30, catch_up="all"), at(0))
            for step in range(5):  # at one time each: nothing but the order of their ids differs
                clock.set(step)
                for number in (4, 1, 3):
                    job = "k" if number == 3 else "j"
                    await enqueue(store, NewRun(id=f"{step}{number}", job=job, at=at(0)))
            await advance(store, at(60))
            claims = await store.claim(at(60), 8, ALICE)
            await store.finish([Finish(claim, FAILED) for claim in claims[:4]])
            everything = await pages(100)
            assert len(everything) == len(set(everything)) == 15 + 7
            assert [run_id[0] for run_id in everything[7:]] == [*"444333222111000"]
            for size in (1, 2, 5, 21, 22):
                assert await pages(size) == everything
            for query in (
                {"job": "k"},
                {"schedule_id": "s"},
                {"state": RunState.FAILED},
                {"state": RunState.PENDING},
                {"job": "j", "state": RunState.RUNNING},
                {"job": "j", "schedule_id": "s", "state": RunState.PENDING},
            ):
                found = [record.id for record in await store.runs(RunQuery(**query))]
                assert found == [run_id for run_id in everything if run_id in found]
                assert found
                assert await pages(2, **query) == found
            assert len(await store.runs(RunQuery(job="k"))) == 5
            assert await store.runs(RunQuery(job="unknown")) == []
            assert await store.runs(RunQuery(before="unknown")) == []

        run(story())

    def test_go_on_behind_what_has_come_meanwhile(self, store, run, clock):
        async def story():
            await enqueue(store, *(new_run(str(number)) for number in range(4)))
            first = await store.runs(RunQuery(limit=2))
            clock.set(1)
            await enqueue(store, new_run("new"))
            second = await store.runs(RunQuery(limit=2, before=first[-1].id))
            assert sorted(record.id for record in first + second) == ["0", "1", "2", "3"]

        run(story())

    def test_give_the_outcomes_of_each_schedule(self, store, run, clock):
        async def story():
            for name in ("a", "b", "none"):
                await store.add(schedule(name, overlap="queue"), None if name == "none" else at(0))
            for step in range(3):
                clock.set(10 * step)
                await advance(store, at(10 * step))
                claims = await store.claim(at(10 * step), 2, ALICE)
                for claim in claims[: 2 - step // 2]:
                    ending = FAILED if claim.schedule.id == "a" else COMPLETED
                    await finish(store, claim, ending, started_at=0.5)
            await enqueue(store, new_run("beside", schedule_id="a", beside=True), new_run("alone"))
            found = await store.outcomes(["a", "b", "none", "unknown"], 3)
            assert list(found) == ["a", "b", "none", "unknown"]
            assert [each.state for each in found["a"]][1:] in (
                ["failed", "failed"], ["running", "failed"],
            )  # fmt: skip
            assert found["a"][0] == Outcome("beside", RunState.PENDING, at(0), None, None)
            assert [each.at for each in found["b"]] == [at(20), at(10), at(0)]
            oldest = found["b"][-1]
            assert (oldest.run_id, oldest.state) == (schedule("b").run_id(at(0)), "completed")
            times = datetime.fromtimestamp(0.5, UTC), datetime.fromtimestamp(1.0, UTC)
            assert (oldest.started_at, oldest.ended_at) == times
            assert found["none"] == found["unknown"] == []
            assert [len(each) for each in (await store.outcomes(["b", "a"], 1)).values()] == [1, 1]
            assert await store.outcomes([], 5) == {}

        run(story())

    def test_count_what_there_is_to_do(self, store, run):
        async def story():
            assert await store.counts(at(0)) == Counts(0, None, 0, 0, None)
            await store.add(schedule(overlap="queue", catch_up="all"), at(0))
            await advance(store, at(10))  # two, of which one is held
            await enqueue(store, new_run("later", 50), new_run("soon", 5), new_run("now", -5))
            assert await store.counts(at(20)) == Counts(3, at(-5), 0, 1, at(20))
            claims = await store.claim(at(0), 1, ALICE)
            assert await store.counts(at(20)) == Counts(2, at(0), 1, 1, at(20))
            await finish(store, claims[0])
            await store.pause("s")
            assert await store.counts(at(60)) == Counts(2, at(5), 0, 1, None)

        run(story())

    def test_tell_when_a_schedule_ran_last_also_once_that_run_is_gone(self, store, run, clock):
        async def last():
            record = await store.schedule("s")
            return record.last_run and record.last_run.id, record.last_run_at

        async def story():
            await store.add(schedule(overlap=2), at(0))
            assert await last() == (None, None)
            await advance(store, at(0))
            first = await claim_one(store, 1)
            assert await last() == (first.run_id, at(1))
            await advance(store, at(10))
            second = await claim_one(store, 11)
            assert await last() == (second.run_id, at(11))
            started_at = at(12).timestamp()
            await finish(store, second, started_at=started_at)
            assert await last() == (second.run_id, at(12))
            await finish(store, first, started_at=at(2).timestamp())
            assert await last() == (second.run_id, at(12))
            clock.set(1000)
            await store.forget(Retention(timedelta(0), 0))
            assert (await last())[1] == at(12)
            assert (await store.schedules())[0].last_run_at == at(12)
            await store.change(schedule(generation=5), at(2000))
            assert (await last())[1] == at(12)

        run(story())

    def test_keep_what_is_about_a_schedule(self, store, run):
        async def story():
            about = {"name": "ü 🎉 '", "n": [1, 2.5, None, 1e20], "at": {"created": "2026"}}
            await store.add(schedule(about=about, priority=3), at(0))
            kept = (await store.schedule("s")).schedule
            assert (kept.about, kept.priority) == (about, 3)
            assert isinstance(kept.about["n"][3], float)
            [due] = await store.due(at(0), 1)
            assert due.schedule == kept
            await advance(store, at(0))
            assert (await claim_one(store)).schedule.about == about
            await store.change(schedule(), at(10))
            assert (await store.schedule("s")).schedule.about == {}

        run(story())


class TestDurableStores:
    @pytest.fixture(autouse=True)
    def only_durable(self, store):
        if not store.durable:
            pytest.skip("takes any values, and keeps what memory holds")

    def test_give_lists_for_tuples(self, store, run):
        async def story():
            await enqueue(store, new_run("a", args=((1, 2),), kwargs={"b": (3,)}))
            claim = await claim_one(store)
            assert (claim.args, claim.kwargs) == (([1, 2],), {"b": [3]})

        run(story())

    def test_refuse_what_is_not_json(self, store, run):
        async def story():
            with pytest.raises(ArgumentsError, match=r"kwargs\['when'\]"):
                await enqueue(store, new_run("good"), new_run("a", kwargs={"when": START}))
            assert await store.run("good") is None
            with pytest.raises(ArgumentsError):
                await store.add(schedule(args=(object(),)), at(0))
            assert await store.schedules() == []

        run(story())

    @pytest.mark.parametrize(
        ("about", "path"),
        [
            ({"name": "a\0b"}, r"about\['name'\]"),
            ({"name": "\ud800"}, r"about\['name'\]"),
            ({"x": [{"y": START}]}, r"about\['x'\]\[0\]\['y'\]"),
            ({"a\0b": 1}, "key"),
        ],
    )
    def test_refuse_what_is_not_json_about_a_schedule(self, store, run, about, path):
        async def story():
            with pytest.raises(ArgumentsError, match=path):
                await store.add(schedule(about=about), at(0))
            assert await store.schedules() == []
            assert await store.add(schedule(), at(0)) == 1
            with pytest.raises(ArgumentsError, match=path):
                await store.change(schedule(about=about), at(0))
            assert (await store.schedule("s")).schedule == schedule()

        run(story())

    def test_forget_what_is_old(self, store, run, clock):
        async def story():
            for number in range(10):
                clock.set(number * 100)
                keep = at(5000) if number == 3 else None
                await enqueue(store, new_run(str(number), keep_until=keep))
                ending = Ending(RunState.COMPLETED, ended_at=at(number * 100).timestamp())
                await finish(store, await claim_one(store, number * 100), ending)
            await enqueue(store, new_run("waits", 9999))
            by_age = Retention(timedelta(seconds=400), None)
            clock.set(900)
            assert await store.forget(by_age) == 5
            assert await store.forget(by_age) == 0
            left = [record.id for record in await store.runs()]
            assert left == ["waits", "9", "8", "7", "6", "3"]
            assert await store.forget(Retention(None, 2)) == 2
            assert await store.forget(Retention(None, None)) == 0
            assert [record.id for record in await store.runs()] == ["waits", "9", "8", "3"]
            clock.set(5000)
            assert await store.forget(Retention(timedelta(seconds=400), 100)) == 3
            assert [record.id for record in await store.runs()] == ["waits"]

        run(story())

    def test_forget_a_thousand_at_one_time(self, store, run):
        async def story():
            for start in range(0, 2500, 500):
                runs = [new_run(str(start + number)) for number in range(500)]
                await store.enqueue(runs, RAISE)
                claims = await store.claim(at(0), 500, ALICE)
                await store.finish([Finish(claim, COMPLETED) for claim in claims])
            counts = [await store.forget(Retention(None, 300)) for _ in range(4)]
            assert sum(counts) == 2200
            assert max(counts) <= 1000
            assert counts[-1] == 0

        run(story())


class TestClocks:
    def test_that_are_set_back_take_what_waits_with_them(self, store, run):
        async def story():
            await store.add(schedule(), at(3600))
            await enqueue(store, new_run("a", 3610), new_run("b", 3700))
            await claim_one(store, 3610)
            if not await store.set_back(at(5), timedelta(hours=1)):
                pytest.skip("it goes by a clock that others set")
            assert (await store.run("b")).at == at(100)
            assert (await store.schedule("s")).next_at == at(3600)  # the engine decides that
            assert await claim_ids(store, 99) == []
            assert await claim_ids(store, 100) == ["b"]

        run(story())


def test_hints_come_from_any_change(store, run):
    """Only from a store that others share; one in memory is its engine's own."""

    async def story():
        if not store.durable:
            pytest.skip("nobody else changes it")
        woken, renewed = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        await store.listen(
            lambda: loop.call_soon_threadsafe(woken.set),
            lambda: loop.call_soon_threadsafe(renewed.set),
        )
        await enqueue(store, new_run("a"))
        await asyncio.wait_for(woken.wait(), 20)
        await claim_one(store)
        await store.ask_to_stop("a")
        await asyncio.wait_for(renewed.wait(), 20)

    run(story())


class Model:
    """What a store of plain runs does, as a dict."""

    LEASE = 30
    MOST_CRASHES = 3

    def __init__(self):
        self.runs = {}

    def enqueue(self, name, due, priority):
        token = self.runs[name]["token"] if name in self.runs else 0
        self.runs[name] = {
            "state": "pending", "at": due, "priority": priority, "token": token, "worker": None,
            "attempt": 0, "retries": 0, "crashes": 0, "ends": None, "stop": False,
        }  # fmt: skip

    def claimable(self, now):
        """Priorities and instants of what is due, in the order in which it is to be claimed."""
        due = [run for run in self.runs.values() if run["state"] == "pending" and run["at"] <= now]
        return sorted((run["priority"], run["at"]) for run in due)

    def claim(self, name, now, worker):
        run = self.runs[name]
        assert run["state"] == "pending"
        run.update(state="running", worker=worker, ends=now + self.LEASE)
        run["token"] += 1
        run["attempt"] += 1

    def holds(self, name, worker, token):
        run = self.runs[name]
        return (run["state"], run["worker"], run["token"]) == ("running", worker, token)

    def put_back(self, name, at_, reason):
        run = self.runs[name]
        run.update(state="pending", worker=None, ends=None, at=at_)
        run["attempt"] -= reason == "release"
        run["retries"] += reason == "failure"
        run["crashes"] += reason == "crash"

    def end(self, name, state):
        self.runs[name].update(state=state, ends=None)

    def rescue(self, now):
        """The ids and new states of runs whose lease has ended."""
        found = {}
        for name, run in self.runs.items():
            if run["state"] == "running" and run["ends"] < now:
                if run["stop"] or run["crashes"] + 1 >= self.MOST_CRASHES:
                    run["crashes"] += 1
                    self.end(name, "cancelled" if run["stop"] else "failed")
                else:
                    self.put_back(name, now, "crash")
                found[name] = run["state"]
        return found


class RandomStory:
    """Two workers over one store, and a model that is told the same."""

    def __init__(self, store, clock, seeded):
        self.store, self.clock, self.random = store, clock, seeded
        self.model = Model()
        self.claims = []
        """Also those that do not hold any more."""
        self.now = 0
        self.claimed = 0

    async def step(self, number):
        self.now += self.random.choice([0, 0, 1, 5])
        self.clock.set(self.now)
        steps = [self.add, self.add, self.claim, self.claim, self.finish, self.finish, self.renew]
        await self.random.choice([*steps, self.replace, self.stop, self.cancel, self.rescue])(
            number
        )
        for name in self.random.sample(sorted(self.model.runs), min(3, len(self.model.runs))):
            await self.compare(name)

    async def compare(self, name):
        record, run = await self.store.run(name), self.model.runs[name]
        assert record.state == run["state"]
        assert (record.attempt, record.retries) == (run["attempt"], run["retries"])
        assert record.crashes == run["crashes"]
        if run["state"] in ("pending", "running"):
            assert (record.at, record.worker) == (at(run["at"]), run["worker"])
        assert record.lease_until == (None if run["ends"] is None else at(run["ends"]))

    async def add(self, number):
        name = f"r{number}"
        due, priority = (
            self.now + self.random.choice([0, 0, 9]),
            self.random.choice([5, 5, 5, 1, 9]),
        )
        self.model.enqueue(name, due, priority)
        assert await enqueue(self.store, new_run(name, due, priority=priority))

    async def replace(self, _):
        names = self.random.sample(sorted(self.model.runs), min(2, len(self.model.runs)))
        taken = {name: self.model.runs[name]["state"] for name in names}
        runs = [new_run(name, self.now) for name in names]
        if self.random.random() < 0.5:
            assert await self.store.enqueue(runs, RAISE) == taken
            return
        for name in names:
            self.model.enqueue(name, self.now, 5)
        assert await self.store.enqueue(runs, REPLACE) == taken

    async def claim(self, _):
        worker, limit = self.random.choice([ALICE, BOB]), self.random.randint(0, 4)
        expected = self.model.claimable(self.now)[:limit]
        claims = await self.store.claim(at(self.now), limit, worker)
        runs = [self.model.runs[claim.run_id] for claim in claims]
        assert [(run["priority"], run["at"]) for run in runs] == expected
        for claim in claims:
            self.model.claim(claim.run_id, self.now, worker.id)
            run = self.model.runs[claim.run_id]
            assert (claim.token, claim.attempt) == (run["token"], run["attempt"])
        self.claims += claims
        self.claimed += len(claims)

    async def finish(self, _):
        if not self.claims:
            return
        claim = self.claims.pop(self.random.randrange(len(self.claims)))
        reason = self.random.choice([None, None, None, "failure", "crash", "release"])
        later = None if reason is None else again(self.now + 2, reason)
        holds = self.model.holds(claim.run_id, claim.worker, claim.token)
        finished = await finish(self.store, claim, FAILED if reason else COMPLETED, again=later)
        assert finished == (Finished(reason is not None, 0) if holds else None)
        if holds and reason is None:
            self.model.end(claim.run_id, "completed")
        elif holds:
            self.model.put_back(claim.run_id, self.now + 2, reason)

    async def renew(self, _):
        worker = self.random.choice([ALICE, BOB])
        holds = [claim.hold for claim in self.claims if claim.worker == worker.id]
        lost, to_stop = await self.store.renew(holds, worker)
        held = [hold for hold in holds if self.model.holds(hold.run_id, worker.id, hold.token)]
        assert sorted(lost) == sorted(set(holds) - set(held))
        assert sorted(to_stop) == sorted(
            hold for hold in held if self.model.runs[hold.run_id]["stop"]
        )
        for hold in held:
            self.model.runs[hold.run_id]["ends"] = self.now + Model.LEASE

    async def stop(self, _):
        for name in self.random.sample(sorted(self.model.runs), min(1, len(self.model.runs))):
            runs = self.model.runs[name]["state"] == "running"
            assert await self.store.ask_to_stop(name) is runs
            self.model.runs[name]["stop"] |= runs

    async def cancel(self, _):
        for name in self.random.sample(sorted(self.model.runs), min(1, len(self.model.runs))):
            waits = self.model.runs[name]["state"] == "pending"
            assert await self.store.cancel(name) is waits
            if waits:
                self.model.end(name, "cancelled")

    async def rescue(self, _):
        if self.random.random() < 0.3:  # both workers are away for a while
            self.now += Model.LEASE + 1
            self.clock.set(self.now)
        found = await self.store.rescue(Model.MOST_CRASHES)
        assert {each.run_id: each.state for each in found} == self.model.rescue(self.now)


def test_random_stories_of_two_workers_agree_with_a_naive_model(store, run, clock, seeded):
    """Leases, rescues, replacements, stops and stale ends, in any order."""

    async def story():
        steps = 400 if store.durable else 4000
        told = RandomStory(store, clock, seeded)
        for number in range(steps):
            await told.step(number)
        for name in told.model.runs:
            await told.compare(name)
        assert told.claimed > steps / 20

    run(story())


def test_random_stories_keep_the_books_right(store, run, seeded):
    """Whatever happens in whatever order: every run is in one state, none is claimed twice."""

    async def story():
        claimed, going, ended = [], [], set()
        steps = 500 if store.durable else 3000
        for step in range(steps):
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
                later = again(step + 5) if seeded.random() < 0.3 else None
                ending = seeded.choice([COMPLETED, FAILED])
                held = await store.finish([Finish(claim, ending, again=later)])
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
                mine = [claim for claim in going if claim.schedule == record.schedule]
                assert len(mine) <= record.schedule.most_running
                assert record.active >= len(mine)
        assert len(claimed) > steps / 10

    run(story())


def test_random_runs_are_claimed_by_priority_then_by_age(store, run, seeded):
    """Also where runs of other priorities come and go, and some are tried again."""

    async def story():
        waiting = {}
        for step in range(400 if store.durable else 2000):
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
