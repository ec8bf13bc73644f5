"""The asyncio face over a pool of the caller's, as a user types it, and what the rows show."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from job_scheduler import ConflictResolution, JobPriority, Scheduler
from job_scheduler.errors import InvalidOptionError

SECOND = timedelta(seconds=1)

BY_HAND = """
    CREATE TABLE scheduled_jobs (
        job_id TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
        job_name TEXT NOT NULL,
        execution_time TIMESTAMPTZ NOT NULL,
        status TEXT DEFAULT 'pending',
        task_data JSONB,
        created_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP,
        last_heartbeat TIMESTAMPTZ,
        lease_until TIMESTAMPTZ,
        priority INTEGER DEFAULT 5,
        retry_count INTEGER DEFAULT 0,
        max_retries INTEGER DEFAULT 0,
        worker_id TEXT,
        error_message TEXT
    )
"""

sent = []
gates = []
"""What a job waits at; one for each loop."""


async def send_email(address, subject):
    sent.append((address, subject))


async def wait_at_the_gate():
    sent.append("waits")
    await gates[-1].wait()


async def fail():
    raise OSError("no network")


def play(story, dsn, **options):
    async def all_of_it():
        gates.append(asyncio.Event())
        sent.clear()
        options.setdefault("min_size", 1)
        options.setdefault("max_size", 5)
        async with asyncpg.create_pool(dsn, **options) as db_pool:
            return await asyncio.wait_for(story(db_pool), 30)

    return asyncio.run(all_of_it())


async def eventually(condition):
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        await asyncio.sleep(0.005)


async def row_of(db_pool, job_id):
    return await db_pool.fetchrow("SELECT * FROM scheduled_jobs WHERE job_id = $1", job_id)


def test_the_quick_start(database):
    async def story(db_pool):
        scheduler = Scheduler(db_pool=db_pool, max_concurrent_jobs=10)
        await scheduler.start()
        job_id = await scheduler.schedule(
            send_email,
            execution_time=datetime.now(UTC) + timedelta(minutes=5),
            args=("user@example.com", "Welcome!"),
        )
        row = await row_of(db_pool, job_id)
        assert (row["status"], row["priority"], row["retry_count"]) == ("pending", 5, 0)
        assert json.loads(row["task_data"]) == {"args": ["user@example.com", "Welcome!"]}
        monthly = await scheduler.schedule(
            send_email,
            execution_time=datetime.now(UTC) + timedelta(minutes=5),
            args=("boss@example.com", "Report"),
            job_id="monthly-report-2024-08",
            priority=JobPriority.CRITICAL,
            max_retries=3,
        )
        assert monthly == "monthly-report-2024-08"
        before = await row_of(db_pool, monthly)
        assert (before["priority"], before["max_retries"]) == (1, 3)
        with pytest.raises(ValueError, match=r"'monthly-report-2024-08'.*pending"):
            await scheduler.schedule(fail, job_id="monthly-report-2024-08")
        same = await scheduler.schedule(
            fail,
            job_id="monthly-report-2024-08",
            conflict_resolution=ConflictResolution.IGNORE,
        )
        assert same == monthly
        assert await row_of(db_pool, monthly) == before
        await scheduler.schedule(
            send_email,
            args=("new@example.com", "New"),
            job_id="monthly-report-2024-08",
            conflict_resolution=ConflictResolution.REPLACE,
        )
        await eventually(lambda: sent)
        assert await scheduler.cancel_job(job_id)
        assert not await scheduler.cancel_job(job_id)
        assert not await scheduler.cancel_job("unknown")
        await scheduler.shutdown()
        await scheduler.shutdown()
        assert await db_pool.fetchval("SELECT 1") == 1  # the pool is still there
        await scheduler.start()
        await scheduler.schedule(send_email, args=("again@example.com", "Again"))
        await eventually(lambda: len(sent) == 2)
        await scheduler.shutdown()

    play(story, database)
    assert sent == [("new@example.com", "New"), ("again@example.com", "Again")]


@pytest.mark.parametrize("connections", [1, 2, 5])
def test_a_pool_of_any_size_suffices(database, connections):
    async def story(db_pool):
        async with Scheduler(db_pool=db_pool, max_concurrent_jobs=10) as scheduler:

            @scheduler.job(name="parent")
            async def parent(number):
                await scheduler.schedule(send_email, args=[str(number), "child"])

            await scheduler.schedule_many("parent", [[n] for n in range(50)])
            await eventually(lambda: len(sent) == 50)
        assert db_pool.get_idle_size() == db_pool.get_size()  # all of it was given back

    play(story, database, max_size=connections)
    assert sorted(int(number) for number, _ in sent) == list(range(50))


def test_rows_show_who_runs_them_and_what_came_of_it(database):
    async def story(db_pool):
        async with Scheduler(db_pool=db_pool, lease=0.6) as scheduler:
            running = await scheduler.schedule(wait_at_the_gate)
            failed = await scheduler.schedule(fail, max_retries=0)
            await eventually(lambda: sent)
            first = await row_of(db_pool, running)
            assert first["status"] == "running"
            assert first["worker_id"]
            assert first["lease_until"] > first["last_heartbeat"] >= first["execution_time"]

            async def beaten():
                row = await row_of(db_pool, running)
                return row["last_heartbeat"] > first["last_heartbeat"] and row

            row = await eventually(beaten)
            assert row["lease_until"] > first["lease_until"]
            gates[-1].set()

            async def is_over():
                return (await row_of(db_pool, running))["status"] == "completed"

            await eventually(is_over)
            row = await row_of(db_pool, failed)
            assert (row["status"], row["retry_count"]) == ("failed", 0)
            assert row["error_message"] == "OSError: no network"

    play(story, database)


def test_a_table_made_by_hand_serves_and_rows_by_hand_run(database):
    async def story(db_pool):
        await db_pool.execute(BY_HAND)
        name = "tests.package.test_asyncio_quick_start:send_email"
        insert = (
            "INSERT INTO scheduled_jobs (job_name, execution_time, task_data) "
            "VALUES ($1, $2, $3) RETURNING job_id"
        )
        now = datetime.now(UTC)
        data = '{"args": ["by@hand", "Hello"]}'
        await db_pool.execute(insert, name, now - SECOND, data)
        later = await db_pool.fetchval(insert, name, now + 3600 * SECOND, data)
        async with Scheduler(db_pool=db_pool, jobs=[send_email], poll=0.2):
            await eventually(lambda: len(sent) == 1)
            moved = "UPDATE scheduled_jobs SET execution_time = now() WHERE job_id = $1"
            await db_pool.execute(moved, later)
            await eventually(lambda: len(sent) == 2)

    play(story, database)
    assert sent == [("by@hand", "Hello")] * 2


@pytest.mark.parametrize("commits", [True, False])
def test_in_a_transaction_of_the_callers_it_is_there_once_that_commits(database, commits):
    async def story(db_pool):
        async with Scheduler(db_pool=db_pool) as scheduler, db_pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            job_id = await scheduler.schedule(
                send_email, args=("in@transaction", "x"), connection=connection
            )
            assert await scheduler.get_job(job_id) is None
            await (transaction.commit() if commits else transaction.rollback())
            after = await scheduler.schedule(send_email, args=("after", "x"))

            async def is_over():
                return (await scheduler.get_job(after)).state == "completed"

            await eventually(is_over)
            if commits:
                await eventually(lambda: len(sent) == 2)
            with pytest.raises(InvalidOptionError, match="give a connection of asyncpg"):
                await scheduler.schedule(send_email, args=("a", "b"), connection=5)
            return await scheduler.get_job(job_id)

    found = play(story, database)
    assert (found is not None) is commits
    assert ("in@transaction", "x") in sent or not commits
    assert len(sent) == 1 + commits


def test_the_host_is_left_as_it_was(database):
    import logging
    import signal

    async def story(db_pool):
        loop = asyncio.get_running_loop()
        before = (
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            logging.getLogger().handlers[:],
            logging.getLogger().level,
            loop.get_exception_handler(),
            loop.get_debug(),
        )
        async with Scheduler(db_pool=db_pool) as scheduler:
            await scheduler.schedule(send_email, args=("a", "b"))
            await eventually(lambda: sent)
            during = (
                [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
                logging.getLogger().handlers[:],
                logging.getLogger().level,
                loop.get_exception_handler(),
                loop.get_debug(),
            )
        assert during == before
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in left if "job_scheduler" in repr(task)]

    play(story, database)
