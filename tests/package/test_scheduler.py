"""The asyncio face, over each store."""

from __future__ import annotations

import asyncio
import functools
import threading
from datetime import UTC, datetime, timedelta

import pytest

from job_scheduler import (
    ConflictResolution,
    Job,
    JobPriority,
    JobScheduler,
    RetryPolicy,
    Scheduler,
)
from job_scheduler.errors import (
    ArgumentsError,
    DuplicateIdError,
    DuplicateJobError,
    InvalidJobError,
    InvalidOptionError,
    StoreError,
    UnknownIdError,
    UnknownJobError,
)
from job_scheduler.executors.loop_thread import LoopThread
from job_scheduler.stores.sqlite import SqliteStore

SECOND = timedelta(seconds=1)
log = []
"""What the jobs of these tests note."""


async def note(*args, **kwargs):
    log.append((args, kwargs))


def note_in_a_thread(what):
    log.append((what, threading.current_thread() is not threading.main_thread()))


async def wait_for_ever():
    log.append("started")
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        log.append("cancelled")
        raise


async def sleep_so_long(seconds):
    await asyncio.sleep(seconds)


async def fail():
    log.append("failed")
    raise OSError("no network")


async def give():
    return {"answer": [42]}


class Add(Job):
    def process(self, first, second):
        return first + second


class Sleep(Job):
    def process(self, seconds):
        import time

        time.sleep(seconds)


class KillsItself(Job):
    def process(self):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(autouse=True)
def _empty_log():
    log.clear()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store_of(request, tmp_path):
    """What a scheduler is given to have a store; each call names the same one."""
    if request.param == "sqlite":
        return lambda: {"store": f"sqlite:///{tmp_path}/jobs.db"}
    if request.param == "postgres":
        dsn = request.getfixturevalue("database")
        return lambda: {"store": dsn}
    store = None

    def memory():
        from job_scheduler.stores.memory import MemoryStore

        nonlocal store
        store = store or MemoryStore()
        return {"store": store}

    return memory


made = []


@pytest.fixture
def make(store_of):
    def make(**options):
        options.setdefault("lease", 1.0)
        scheduler = Scheduler(**store_of(), **options)
        made.append(scheduler)
        return scheduler

    return make


def play(story):
    async def all_of_it():
        try:
            return await asyncio.wait_for(story(), 30)
        finally:
            while made:
                await made.pop().shutdown(timeout=0)

    return asyncio.run(all_of_it())


async def eventually(condition):
    """Wait until the condition holds; its value. It may be a coroutine function."""
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        await asyncio.sleep(0.005)


async def ended(scheduler, job_id):
    async def look():
        record = await scheduler.get_job(job_id)
        return record if record.state.ended else None

    return await eventually(look)


class TestScheduling:
    def test_runs_at_its_time_and_gives_an_id(self, make):
        async def story():
            async with make() as scheduler:
                soon = datetime.now(UTC) + 0.1 * SECOND
                first = await scheduler.schedule(note, execution_time=soon, args=("a", [1]))
                second = await scheduler.schedule(note, kwargs={"b": {"c": None}})
                record = await ended(scheduler, first)
                await ended(scheduler, second)
                return first, second, record, soon

        first, second, record, soon = play(story)
        assert isinstance(first, str)
        assert first != second
        assert sorted(log, key=repr) == [(("a", [1]), {}), ((), {"b": {"c": None}})]
        assert record.state == "completed"
        assert record.started_at >= soon
        assert record.job == "tests.package.test_scheduler:note"

    def test_what_is_past_runs_at_once_and_naive_times_are_local(self, make):
        async def story():
            async with make() as scheduler:
                long_ago = datetime(2001, 1, 1, tzinfo=UTC)
                naive = datetime.now() + 0.05 * SECOND
                for instant in (long_ago, naive):
                    await ended(scheduler, await scheduler.schedule(note, execution_time=instant))

        play(story)
        assert len(log) == 2

    def test_a_plain_function_runs_in_a_thread_and_a_job_in_a_process(self, make):
        async def story():
            async with make(jobs=[Add]) as scheduler:
                in_thread = await scheduler.schedule(note_in_a_thread, args=["x"])
                in_process = await scheduler.schedule("Add", kwargs={"first": 1, "second": 2})
                await ended(scheduler, in_thread)
                return await ended(scheduler, in_process)

        record = play(story)
        assert log == [("x", True)]
        assert (record.state, record.exitcode) == ("completed", 0)

    def test_a_name_of_its_own(self, make):
        async def story():
            scheduler = make()

            @scheduler.job
            async def first():
                log.append("first")

            @scheduler.job(name="the second")
            async def second():
                log.append("second")

            async with scheduler:
                await ended(scheduler, await scheduler.schedule(first))
                await ended(scheduler, await scheduler.schedule("the second"))
                return (await scheduler.list_jobs())[0].job

        assert play(story) == "the second"
        assert log == ["first", "second"]

    def test_by_priority_and_never_more_than_may(self, make):
        going, most = 0, 0

        async def story():
            scheduler = make(max_concurrent_jobs=2)
            both_are_here = asyncio.Barrier(2)

            @scheduler.job(name="work")
            async def work(name):
                nonlocal going, most
                going += 1
                most = max(most, going)
                log.append(name)
                await both_are_here.wait()
                await asyncio.sleep(0.02)  # a third would be seen
                going -= 1

            ids = []
            for number, priority in enumerate(
                [JobPriority.LOW, JobPriority.NORMAL, JobPriority.CRITICAL, 2]
            ):
                ids.append(await scheduler.schedule("work", args=[number], priority=priority))
            async with scheduler:
                for job_id in ids:
                    await ended(scheduler, job_id)

        play(story)
        assert log == [2, 3, 1, 0]
        assert most == 2

    def test_many_at_one_time(self, make):
        async def story():
            async with make(max_concurrent_jobs=50) as scheduler:
                ids = await scheduler.schedule_many(note, [[n] for n in range(1000)])
                assert await scheduler.schedule_many(note, []) == []
                await eventually(lambda: len(log) == 1000)
                return ids

        ids = play(story)
        assert len(set(ids)) == 1000
        assert sorted(args[0] for args, _ in log) == list(range(1000))

    def test_what_was_accepted_before_the_start_runs_after_it(self, make, store_of):
        async def story():
            job_id = await make().schedule(note)
            scheduler = make()
            async with scheduler:
                await asyncio.sleep(0.05)
                assert (await scheduler.get_job(job_id)).state == "pending"
                assert scheduler.unknown_jobs in ({}, {"tests.package.test_scheduler:note": 1})
                scheduler.job(note)
                second = await scheduler.schedule(note)
                assert (await ended(scheduler, job_id)).state == "completed"
                assert (await ended(scheduler, second)).state == "completed"

        play(story)
        assert len(log) == 2


class TestConflicts:
    def test_a_taken_id_is_refused_with_its_state_and_the_row_stays(self, make):
        async def story():
            scheduler = make()
            later = datetime.now(UTC) + 3600 * SECOND
            options = {"execution_time": later, "args": [1], "job_id": "monthly-report-2024-08"}
            await scheduler.schedule(note, priority=JobPriority.CRITICAL, max_retries=3, **options)
            before = await scheduler.get_job("monthly-report-2024-08")
            with pytest.raises(ValueError, match=r"'monthly-report-2024-08'.*pending") as refused:
                await scheduler.schedule(fail, job_id="monthly-report-2024-08")
            assert isinstance(refused.value, DuplicateIdError)
            ignored = await scheduler.schedule(
                fail,
                job_id="monthly-report-2024-08",
                conflict_resolution=ConflictResolution.IGNORE,
            )
            assert ignored == "monthly-report-2024-08"
            assert await scheduler.get_job("monthly-report-2024-08") == before
            return before

        before = play(story)
        assert (before.priority, before.max_retries, list(before.args)) == (1, 3, [1])

    def test_replace_puts_another_in_its_place(self, make):
        async def story():
            async with make() as scheduler:
                await scheduler.schedule(wait_for_ever, job_id="x")
                await eventually(lambda: log == ["started"])
                await scheduler.schedule(
                    note,
                    args=["new"],
                    job_id="x",
                    conflict_resolution=ConflictResolution.REPLACE,
                )
                record = await ended(scheduler, "x")
                await eventually(lambda: "cancelled" in log)
                return record

        record = play(story)
        assert (record.state, record.job) == ("completed", "tests.package.test_scheduler:note")
        assert (("new",), {}) in log


class TestCancelling:
    def test_what_waits_never_runs(self, make):
        async def story():
            async with make() as scheduler:
                soon = datetime.now(UTC) + 0.1 * SECOND
                job_id = await scheduler.schedule(note, execution_time=soon)
                assert await scheduler.cancel_job(job_id)
                assert not await scheduler.cancel_job(job_id)
                assert not await scheduler.cancel_job("unknown")
                after = await scheduler.schedule(note, args=["after"], execution_time=soon)
                await ended(scheduler, after)
                return await scheduler.get_job(job_id)

        assert play(story).state == "cancelled"
        assert log == [(("after",), {})]

    def test_a_coroutine_is_cancelled_and_a_process_stopped(self, make):
        async def story():
            async with make(jobs=[Sleeps]) as scheduler:
                coroutine = await scheduler.schedule(wait_for_ever)
                process = await scheduler.schedule(Sleeps)
                await eventually(lambda: log == ["started"])

                async def is_running():
                    return (await scheduler.get_job(process)).state == "running"

                await eventually(is_running)
                assert await scheduler.cancel_job(coroutine)
                assert await scheduler.cancel_job(process)
                return [await ended(scheduler, each) for each in (coroutine, process)]

        assert [record.state for record in play(story)] == ["cancelled", "cancelled"]
        assert log == ["started", "cancelled"]

    def test_what_goes_on_at_another_worker_is_cancelled_there(self, make):
        async def story():
            async with make(lease=0.6) as scheduler:
                job_id = await scheduler.schedule(wait_for_ever)
                await eventually(lambda: log == ["started"])
                assert await make().cancel_job(job_id)
                return await ended(scheduler, job_id)

        assert play(story).state == "cancelled"


class Sleeps(Job):
    def process(self):
        import time

        time.sleep(3600)


class TestFailing:
    def test_is_tried_again_and_leaves_its_history(self, make):
        async def story():
            async with make() as scheduler:
                retry = RetryPolicy(2, delay=0.01, jitter=0)
                return await ended(scheduler, await scheduler.schedule(fail, retry=retry))

        record = play(story)
        assert (record.state, record.attempt, record.retries) == ("failed", 3, 2)
        assert str(record.error) == "OSError: no network"
        assert "raise OSError" in record.error.traceback
        assert [attempt.reason for attempt in record.attempts] == ["failure", "failure"]
        assert log == ["failed"] * 3

    def test_by_a_signal_is_a_crash_and_three_are_too_many(self, make):
        async def story():
            async with make() as scheduler:
                return await ended(scheduler, await scheduler.schedule(KillsItself))

        record = play(story)
        assert (record.state, record.attempt, record.retries) == ("failed", 3, 0)
        assert (record.exitcode, record.crashes) == (-9, 3)
        assert "SIGKILL" in record.error.message
        assert [attempt.reason for attempt in record.attempts] == ["crash", "crash"]


class TestIds:
    @pytest.mark.parametrize("wrong", ["", "a\0b", "\ud800", None, 3])
    def test_what_is_none_is_refused_by_each_verb(self, make, wrong):
        async def story():
            async with make() as scheduler:
                for verb in (
                    scheduler.get_job,
                    scheduler.cancel_job,
                    scheduler.pause_job,
                    scheduler.resume_job,
                    scheduler.run_job_now,
                ):
                    with pytest.raises(InvalidOptionError, match="job_id is"):
                        await verb(wrong)

        play(story)


class TestRepeating:
    def test_every_so_often(self, make):
        async def story():
            async with make() as scheduler:
                job_id = await scheduler.schedule(note, every=0.05, job_id="tick", args=[1])
                await eventually(lambda: len(log) >= 3)
                assert await scheduler.cancel_job("tick")
                assert await scheduler.get_job("tick") is None
                return job_id

        assert play(story) == "tick"

    def test_saying_the_same_again_changes_nothing(self, make):
        async def story():
            first, second = make(), make()
            await first.schedule(note, cron="0 9 * * 1", timezone="Europe/Berlin")
            before = await first.get_job("tests.package.test_scheduler:note")
            await second.schedule(note, cron="0 9 * * 1", timezone="Europe/Berlin")
            assert await second.get_job("tests.package.test_scheduler:note") == before
            with pytest.raises(DuplicateIdError, match="is scheduled already, at 09:00"):
                await second.schedule(note, cron="0 10 * * 1")
            await second.schedule(note, cron="0 10 * * 1", conflict_resolution="replace")
            [record] = await first.list_schedules()
            assert record.schedule.trigger.expression == "0 10 * * 1"

        play(story)

    def test_pause_resume_and_run_now(self, make):
        async def story():
            async with make() as scheduler:
                await scheduler.schedule(note, every="1h", job_id="hourly", args=["now"])
                await scheduler.pause_job("hourly")
                assert (await scheduler.get_job("hourly")).paused
                await scheduler.resume_job("hourly")
                assert not (await scheduler.get_job("hourly")).paused
                await ended(scheduler, await scheduler.run_job_now("hourly"))
                for verb in (scheduler.pause_job, scheduler.resume_job, scheduler.run_job_now):
                    with pytest.raises(UnknownIdError, match="'unknown'"):
                        await verb("unknown")
                return await scheduler.get_job("hourly")

        assert play(story).completed == 1
        assert log == [(("now",), {})]

    def test_a_process_that_goes_on_can_be_replaced(self, make):
        async def story():
            async with make(jobs=[Add, Sleep], grace=0.2) as scheduler:
                await scheduler.schedule(Sleep, args=[60], job_id="one")

                async def runs():
                    return (await scheduler.get_job("one")).state == "running"

                await eventually(runs)
                await asyncio.sleep(0.3)
                await scheduler.schedule(
                    Add, args=[1, 2], job_id="one", conflict_resolution="replace"
                )
                return await ended(scheduler, "one")

        record = play(story)
        assert (record.state, record.error) == ("completed", None)

    def test_the_first_run_can_be_given(self, make):
        async def story():
            async with make() as scheduler:
                await scheduler.schedule(note, every="1h", execution_time=datetime.now(UTC))
                await eventually(lambda: log)

        play(story)


class TestTheEnd:
    def test_hands_back_what_does_not_end_in_time(self, make):
        async def story():
            scheduler = make()
            await scheduler.start()
            job_id = await scheduler.schedule(wait_for_ever)
            await eventually(lambda: log == ["started"])
            await scheduler.shutdown(timeout=0)
            await scheduler.shutdown()
            handed_back = await scheduler.get_job(job_id)
            await scheduler.start()
            await eventually(lambda: log.count("started") == 2)
            await scheduler.shutdown(timeout=0)
            return handed_back

        record = play(story)
        assert (record.state, record.attempt) == ("pending", 0)
        assert log == ["started", "cancelled"] * 2

    def test_starts_everything_again_after_the_next_start(self, make):
        async def story():
            scheduler = make(jobs=[Add])
            records = []
            for _ in range(2):
                async with scheduler:
                    for job, args in ((Add, (1, 2)), (note_in_a_thread, ("x",)), (note, ("y",))):
                        job_id = await scheduler.schedule(job, args=args)
                        records.append(await ended(scheduler, job_id))
            return records

        assert [record.state for record in play(story)] == ["completed"] * 6

    def test_starts_again_on_another_loop(self, store_of):
        scheduler = Scheduler(**store_of())

        async def story():
            async with scheduler:
                waiting = [ended(scheduler, await scheduler.schedule(note)) for _ in range(20)]
                return [record.state for record in await asyncio.gather(*waiting)]

        assert play(story) == ["completed"] * 20
        assert play(story) == ["completed"] * 20

    def test_hands_back_what_is_claimed_just_then(self, tmp_path):
        class Slow(SqliteStore):
            async def claim(self, *args):
                claims = await super().claim(*args)
                await asyncio.sleep(0.2)  # they are this worker's, but it does not know yet
                return claims

        async def story():
            scheduler = Scheduler(store=Slow(tmp_path / "jobs.db"), max_concurrent_jobs=8)
            await scheduler.start()
            ids = await scheduler.schedule_many(note, [()] * 20)
            engine = scheduler._engine
            while engine._coming is None or engine._turning.locked():
                await asyncio.sleep(0)
            assert engine.busy
            await scheduler.shutdown(timeout=0)
            records = [await scheduler.get_job(job_id) for job_id in ids]
            await scheduler._store.close()
            return [str(record.state) for record in records]

        assert set(play(story)) == {"completed", "pending"}

    def test_starts_and_ends_once_however_often_that_is_said_at_one_time(self, make):
        def ours():
            return [task for task in asyncio.all_tasks() if task.get_name() == "job_scheduler"]

        async def story():
            scheduler = make()
            await asyncio.gather(*[scheduler.start() for _ in range(3)])
            numbers = [len(ours())]
            await scheduler.schedule(wait_for_ever)
            await eventually(lambda: log == ["started"])
            impatient = asyncio.create_task(scheduler.shutdown())
            await asyncio.sleep(0.1)
            impatient.cancel()
            patient = asyncio.create_task(scheduler.shutdown(timeout=None))
            await asyncio.gather(*[scheduler.shutdown(timeout=0) for _ in range(2)])
            await asyncio.wait_for(patient, 5)
            return [*numbers, len(ours())]

        started, left = play(story)
        assert started in (4, 5)  # with one that listens to PostgreSQL
        assert left == 0

    def test_a_start_on_another_loop_without_an_end_is_refused(self, tmp_path):
        scheduler = Scheduler(store=f"sqlite:///{tmp_path}/jobs.db")
        first = asyncio.new_event_loop()
        first.run_until_complete(scheduler.start())
        with pytest.raises(RuntimeError, match="on another event loop"):
            asyncio.run(scheduler.start())
        first.run_until_complete(scheduler.shutdown())
        first.close()

    def test_waits_for_what_ends(self, make):
        async def story():
            async with make() as scheduler:
                job_id = await scheduler.schedule(sleep_a_little)
                await eventually(lambda: log == ["started"])
            return await scheduler.get_job(job_id)

        assert play(story).state == "completed"
        assert log == ["started", "ended"]

    def test_is_not_brought_by_a_job_that_cancels_all_tasks(self, make):
        def ours():
            return [task for task in asyncio.all_tasks() if task.get_name() == "job_scheduler"]

        async def story():
            async with make() as scheduler:
                before = ours()
                for task in before:
                    task.cancel()
                await asyncio.sleep(0.1)
                assert len(ours()) == len(before)
                job_id = await scheduler.schedule(sleep_so_long, args=[2])
                return await ended(scheduler, job_id)

        record = play(story)
        assert (record.state, record.attempt) == ("completed", 1)

    def test_of_the_loop_that_a_job_runs_on_is_no_failure_of_it(self, make):
        async def story():
            scheduler = make()
            await scheduler.start()
            job_id = await scheduler.schedule(wait_for_ever)
            await eventually(lambda: log == ["started"])
            for task in asyncio.all_tasks():
                if "CoroutineExecutor" in repr(task.get_coro()):
                    task.cancel()
            await eventually(lambda: log.count("started") == 2)
            return await scheduler.get_job(job_id)

        record = play(story)
        assert (record.state, record.crashes, record.retries) == ("running", 1, 0)

    def test_healthy_while_it_turns(self, make):
        async def story():
            scheduler = make()
            assert not scheduler.healthy
            assert scheduler.last_tick_age is None
            async with scheduler:
                await eventually(lambda: scheduler.healthy)
                assert scheduler.last_tick_age < 5
            assert not scheduler.healthy

        play(story)


async def sleep_a_little():
    log.append("started")
    await asyncio.sleep(0.1)
    log.append("ended")


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "error", "said"),
        [
            ({"job_id": ""}, InvalidOptionError, "job_id is ''"),
            ({"args": "abc"}, ArgumentsError, "args is 'abc'"),
            ({"priority": "high"}, InvalidOptionError, "priority is 'high'"),
            ({"execution_time": "now"}, InvalidOptionError, "execution_time is 'now'"),
            ({"every": 1, "cron": "* * * * *"}, InvalidOptionError, "every and cron, not both"),
            ({"every": 1, "timezone": "UTC"}, InvalidOptionError, "belongs to cron"),
            ({"overlap": "skip"}, InvalidOptionError, "'overlap' is only for what runs again"),
            ({"every": 1, "overlp": 1}, InvalidOptionError, "did you mean 'overlap'"),
            ({"retry": 1, "max_retries": 1}, InvalidOptionError, "not both"),
            ({"conflict_resolution": "x"}, InvalidOptionError, "conflict_resolution is 'x'"),
            ({"executor": "thread"}, InvalidJobError, "a coroutine function"),
            ({"every": 1, "connection": object()}, InvalidOptionError, "only for what runs once"),
        ],
        ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
    )
    def test_options(self, make, options, error, said):
        async def story():
            with pytest.raises(error, match=said):
                await make().schedule(note, **options)

        play(story)

    def test_arguments_that_are_not_json_are_refused_and_nothing_is_kept(self, tmp_path):
        async def story():
            scheduler = Scheduler(store=f"sqlite:///{tmp_path}/jobs.db")
            made.append(scheduler)
            with pytest.raises(ArgumentsError, match=r"kwargs\['when'\].*send value.isoformat"):
                await scheduler.schedule(note, kwargs={"when": datetime.now(UTC)})
            with pytest.raises(ArgumentsError, match=r"args\[0\]\['x'\]"):
                await scheduler.schedule_many(note, [[1], [{"x": b""}]])
            assert await scheduler.list_jobs() == []

        play(story)

    def test_arguments_that_do_not_fit(self, make):
        async def story():
            scheduler = make(jobs=[Add])
            with pytest.raises(ArgumentsError, match="missing: second"):
                await scheduler.schedule(Add, kwargs={"first": 1})
            with pytest.raises(ArgumentsError, match=r"arguments\[1\] is 'x'"):
                await scheduler.schedule_many(note, [[1], "x"])

        play(story)

    def test_of_lists(self, make):
        async def story():
            for limit in (None, -1, "a", 10**30):
                with pytest.raises(InvalidOptionError, match="limit is"):
                    await make().list_jobs(limit=limit)
            with pytest.raises(InvalidOptionError, match="state is 'done'"):
                await make().list_jobs("done")
            with pytest.raises(ArgumentsError, match="arguments is 5"):
                await make().schedule_many(note, 5)

        play(story)

    def test_of_an_address(self):
        async def story():
            scheduler = Scheduler(store="postgresql://me@host:port/database")
            with pytest.raises(StoreError, match="address of the store cannot be used"):
                await scheduler.start()

        play(story)

    def test_what_has_no_name(self, make):
        captured = 1

        async def closure():
            return captured

        async def story():
            scheduler = make()
            for what, said in [
                (lambda: None, "a lambda has no name"),
                (closure, "uses captured of the function around it"),
                (functools.partial(note, 1), "keeps names"),
                (Add(), "give the class Add"),
                (5, "cannot be run"),
                (note(), "without the"),
            ]:
                with pytest.raises(InvalidJobError, match=said):
                    await scheduler.schedule(what)
                if asyncio.iscoroutine(what):
                    what.close()
            scheduler.job(Add)
            with pytest.raises(UnknownJobError, match="did you mean 'Add'"):
                await scheduler.schedule("Ad")
            with pytest.raises(DuplicateJobError, match="'Add' is registered already"):
                scheduler.job(name="Add")(note)

        play(story)

    def test_of_making_one(self, tmp_path):
        for options, said in [
            ({}, "give one of db_pool and store"),
            ({"db_pool": 1}, "db_pool is 1"),
            ({"store": "mysql://x"}, "'mysql://x'"),
            ({"store": "sqlite://jobs.db"}, "three slashes"),
            ({"store": "memory://", "max_concurrent_jobs": 0}, "max_concurrent_jobs is 0"),
            ({"store": "memory://", "lease": 1, "heartbeat": 1}, "two heartbeats"),
            ({"store": "memory://", "max_procs": 1}, "'max_procs' is no option"),
        ]:
            with pytest.raises(InvalidOptionError, match=said):
                Scheduler(**options)

    def test_the_clock_here_does_not_matter(self, tmp_path):
        class Late(SqliteStore):
            """Only when it is open, it knows the time."""

            def __init__(self, path):
                super().__init__(path)
                self.now = lambda: datetime.now(UTC) + timedelta(hours=1)

            async def open(self):
                await super().open()
                self.now = lambda: datetime.now(UTC)

        async def story():
            scheduler = Scheduler(store=Late(tmp_path / "jobs.db"))
            [job_id] = await scheduler.schedule_many(note, [()])
            record = await scheduler.get_job(job_id)
            await scheduler._store.close()
            return record

        assert play(story).at <= datetime.now(UTC)
        other = JobScheduler({"Add": Add}, store=Late(tmp_path / "jobs.db"), workers=0)
        run = other.run("Add", first=1, second=2)
        assert other._dispatcher.stored().look_up(run.id).at <= datetime.now(UTC)
        other.shutdown()

    def test_of_ids_and_priorities_that_no_store_can_keep(self, make):
        async def story():
            scheduler = make()
            for job_id in ("a\0b", "\ud800"):
                for more in ({}, {"every": "1h"}):
                    with pytest.raises(InvalidOptionError, match="no store can keep"):
                        await scheduler.schedule(note, job_id=job_id, **more)
            with pytest.raises(InvalidOptionError, match="priority is 1000000000000"):
                await scheduler.schedule(note, priority=10**12)
            await scheduler.schedule(note, job_id="\n\u00fc'%s\U0001f600")

        play(story)

    def test_a_password_is_not_shown(self):
        with pytest.raises(InvalidOptionError) as refused:
            Scheduler(store="mysql://me:secret@host/db")
        assert "secret" not in str(refused.value)
        assert "me:***@host" in str(refused.value)


def test_a_result_is_kept_as_json(tmp_path):
    async def story():
        async with Scheduler(store=f"sqlite:///{tmp_path}/jobs.db") as scheduler:
            return await ended(scheduler, await scheduler.schedule(give))

    assert play(story).result == '{"answer":[42]}'


def test_a_loop_in_a_thread_ends_what_is_asked_for_at_the_last_moment():
    loop_thread, futures = LoopThread(), []

    async def wait():
        await asyncio.sleep(3600)

    async def ask_at_the_end():
        try:
            await wait()
        finally:
            futures.append(asyncio.run_coroutine_threadsafe(wait(), loop_thread.loop))
            await asyncio.sleep(0.05)

    asyncio.run_coroutine_threadsafe(ask_at_the_end(), loop_thread.loop)
    loop_thread.stop_once(lambda: True)
    loop_thread._thread.join(5)
    assert futures[0].cancelled()
