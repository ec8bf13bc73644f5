"""What PostgreSQL alone has to keep to; the contract is in ``contract/test_store.py``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import asyncpg
import pytest

from job_scheduler import Scheduler
from job_scheduler.errors import InvalidOptionError, StoreError
from job_scheduler.run import Ending, RunError, RunState
from job_scheduler.schedule import ConflictResolution, Schedule, plan
from job_scheduler.stores.base import Advance, Again, Finish, NewRun, RunQuery, Worker
from job_scheduler.stores.postgres import PostgresStore
from job_scheduler.stores.postgres.link import Link
from job_scheduler.stores.postgres.lists import runs_asked
from job_scheduler.stores.postgres.marks import Mark, Marks
from job_scheduler.stores.postgres.rows import statement, statements
from job_scheduler.triggers import Interval
from tests.conftest import ROOT
from tests.postgres import Server, dsn_of

RAISE, IGNORE, REPLACE = ConflictResolution
ANYBODY = Worker("anybody", lease=30.0)
COMPLETED = Ending(RunState.COMPLETED, ended_at=1.0)

BY_HAND = """
CREATE TABLE scheduled_jobs (
    job_id TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text, job_name TEXT NOT NULL,
    execution_time TIMESTAMPTZ NOT NULL, status TEXT DEFAULT 'pending', task_data JSONB,
    created_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP, last_heartbeat TIMESTAMPTZ,
    lease_until TIMESTAMPTZ, priority INTEGER DEFAULT 5, retry_count INTEGER DEFAULT 0,
    max_retries INTEGER DEFAULT 0, worker_id TEXT, error_message TEXT
)
"""


@pytest.fixture
def run():
    with asyncio.Runner() as runner:
        yield runner.run


@contextlib.asynccontextmanager
async def opened(where, **options):
    store = PostgresStore(where, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def connected(dsn, **options):
    connection = await asyncpg.connect(dsn, **options)
    try:
        yield connection
    finally:
        await connection.close()


def new_run(store, name, **options):
    """A run that is due."""
    return NewRun(id=name, job="j", at=store.now() - timedelta(seconds=1), **options)


async def heard_by(store):
    """Set whenever the store hears from others, which it does from now on."""
    woken = asyncio.Event()
    await store.listen(woken.set, lambda: None)
    await store._listener.listening.wait()
    return woken


@contextlib.asynccontextmanager
async def answer_held_back(store, asked):
    """While this lasts, the server has done what it was asked, and the store does not know yet."""
    ask, answered, let_go = store._link.fetch_by_index, asyncio.Event(), asyncio.Event()

    async def held_back(*words):
        found = await ask(*words)
        answered.set()
        await let_go.wait()
        return found

    store._link.fetch_by_index = held_back
    asking = asyncio.create_task(asked)
    try:
        await answered.wait()
        store._link.fetch_by_index = ask
        yield
    finally:
        let_go.set()
        await asking


async def eventually(condition):
    """Wait until an awaitable condition holds."""
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.005)


class TestTables:
    def test_made_by_hand_are_taken_over_with_all_their_rows(self, database, run):
        async def story():
            async with connected(database) as connection:
                await connection.execute(BY_HAND)
                await connection.execute(
                    "INSERT INTO scheduled_jobs (job_id, job_name, execution_time, status, "
                    "task_data, priority, retry_count, max_retries, worker_id, error_message) "
                    "VALUES ('waits', 'j', now(), 'pending', '{\"n\": 1}', 1, 0, 2, NULL, NULL), "
                    "('plain', 'j', now(), 'pending', NULL, NULL, NULL, NULL, NULL, NULL), "
                    "('failed', 'j', now(), 'failed', '[1]', 5, 3, 3, 'w', 'it broke'), "
                    "('nothing', 'j', now(), NULL, NULL, 5, 0, 0, NULL, NULL)"
                )
            async with opened(database) as store, opened(database):
                waits, plain = await store.claim(store.now(), 10, ANYBODY)
                assert (waits.run_id, waits.kwargs, waits.retry.max_retries) == (
                    "waits",
                    {"n": 1},
                    2,
                )
                assert (plain.run_id, plain.args, plain.kwargs) == ("plain", (), {})
                failed = await store.run("failed")
                assert (failed.state, failed.retries, failed.args) == ("failed", 3, (1,))
                assert str(failed.error) == "Error: it broke"
                assert failed.ended_at is not None
                assert await store.run("nothing") is None
                assert len(await store.runs()) == 3

        run(story())

    def test_are_made_once_when_many_programs_start(self, database):
        code = (
            "import asyncio\n"
            "from job_scheduler.stores.postgres import PostgresStore\n"
            "async def main():\n"
            f"    stores = [PostgresStore({database!r}) for _ in range(3)]\n"
            "    await asyncio.gather(*(store.open() for store in stores))\n"
            "    await asyncio.gather(*(store.close() for store in stores))\n"
            "asyncio.run(main())"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started = [
            subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(4)
        ]
        assert [each.wait(60) for each in started] == [0] * 4

    def test_are_found_by_the_search_path(self, database, run):
        async def story():
            async with connected(database) as connection:
                await connection.execute("CREATE SCHEMA one; CREATE SCHEMA two")
            pools = [
                await asyncpg.create_pool(
                    database, min_size=1, max_size=2, server_settings={"search_path": schema}
                )
                for schema in ("one", "two")
            ]
            async with opened(pools[0]) as one, opened(pools[1]) as two:
                assert await one.enqueue([new_run(one, "a")], RAISE) == {}
                assert await two.enqueue([new_run(two, "a")], RAISE) == {}
                await one.cancel("a")
                assert (await two.run("a")).state == "pending"
            for pool in pools:
                await pool.close()

        run(story())

    def test_a_pool_that_was_ended_first_is_let_go_of(self, database, run):
        async def story():
            pool = await asyncpg.create_pool(database, min_size=1, max_size=5)
            scheduler = Scheduler(db_pool=pool)
            await scheduler.start()
            await asyncio.sleep(0.3)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pool.close(), 0.5)  # waits for what the scheduler has
            await scheduler.shutdown(timeout=0)

        run(story())

    def test_a_pool_that_is_in_use_is_told_of(self, database, run, monkeypatch):
        monkeypatch.setattr("job_scheduler.stores.postgres.link._TIMEOUT", 0.3)

        async def story():
            async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
                store = PostgresStore(pool)
                await store.open()
                async with pool.acquire():
                    with pytest.raises(StoreError, match="all connections of the pool are in use"):
                        await store.run("x")

        run(story())

    def test_an_address_that_cannot_be_used_is_told_so(self, database, run):
        async def story():
            separator = "&" if "?" in database else "?"
            with pytest.raises(StoreError, match=r"the address of the store .*sslmode"):
                await Scheduler(store=f"{database}{separator}sslmode=bogus").start()

        run(story())

    def test_infinity_harms_nothing_else(self, database, run):
        """What somebody has parked for ever, or put first, with the words of PostgreSQL."""

        async def story():
            async with opened(database) as store, connected(database) as connection:
                await store.enqueue([new_run(store, name) for name in "abc"], RAISE)
                by_hand = "UPDATE scheduled_jobs SET execution_time = $2 WHERE job_id = $1"
                await connection.execute(by_hand, "a", datetime.min)
                await connection.execute(by_hand, "b", datetime.max)
                claims = await store.claim(store.now(), 10, ANYBODY)
                assert (await store.run("b")).at > store.now()
                assert await store.next_instant(ANYBODY) > store.now()
                return [claim.run_id for claim in claims]

        assert run(story()) == ["a", "c"]

    def test_rows_by_hand_are_run_when_they_say(self, database, run):
        async def story():
            async with opened(database) as store, connected(database) as connection:
                insert = "INSERT INTO scheduled_jobs (job_name, execution_time, task_data) "
                await connection.execute(f"{insert} VALUES ('j', now() + '1 day', '[1, 2]')")
                assert await store.claim(store.now(), 10, ANYBODY) == []
                assert await store.next_instant(ANYBODY) > store.now() + timedelta(hours=23)
                # The store's reading of the server's clock may lag by what a question took.
                past = "UPDATE scheduled_jobs SET execution_time = now() - interval '1 minute'"
                await connection.execute(past)
                [claim] = await store.claim(store.now(), 10, ANYBODY)
                assert claim.args == (1, 2)

        run(story())

    def test_rows_that_nobody_can_read_fail_alone(self, database, run, caplog):
        async def story():
            async with opened(database) as store, connected(database) as connection:
                await store.enqueue([new_run(store, "good"), new_run(store, "bad")], RAISE)
                await connection.execute(
                    "UPDATE scheduled_jobs SET task_data = '{\"args\": 5}' WHERE job_id = 'bad'"
                )
                claims = await store.claim(store.now(), 10, ANYBODY)
                assert [claim.run_id for claim in claims] == ["good"]
                assert "cannot be read" in str((await store.run("bad")).error)

        run(story())
        assert "'bad' cannot be read" in caplog.text

    def test_schedules_that_nobody_can_read_are_paused_alone(self, database, run, caplog):
        async def story():
            async with opened(database) as store, connected(database) as connection:
                for name in ("good", "bad"):
                    schedule = Schedule(id=name, job="j", trigger=Interval(10))
                    await store.add(schedule, store.now())
                await connection.execute(
                    "UPDATE schedules SET trigger = 'tomorrow' WHERE schedule_id = 'bad'"
                )
                for _ in range(2):
                    due = await store.due(store.now() + timedelta(seconds=1), 10)
                    assert [each.schedule.id for each in due] == ["good"]

        run(story())
        assert caplog.text.count("schedule 'bad' cannot be read") == 1


class TestPools:
    async def _story(self, store):
        """A little of everything."""
        schedule = Schedule(id="s", job="j", trigger=Interval(10), kwargs={"n": 1})
        now = store.now()
        await store.add(schedule, now)
        due = await store.due(now, 10)
        await store.advance([Advance(each, plan(schedule, now, 0, now)) for each in due], now)
        await store.enqueue([new_run(store, "a", args=(1,)), new_run(store, "b")], RAISE)
        claims = await store.claim(store.now(), 10, ANYBODY)
        assert len(claims) == 3
        assert (await store.renew([claim.hold for claim in claims], ANYBODY)).lost == []
        ends = [Finish(claim, COMPLETED, result='{"x": 1}') for claim in claims]
        assert None not in await store.finish(ends)
        assert json.loads((await store.run("a")).result) == {"x": 1}
        assert (await store.schedule("s")).completed == 1
        assert await store.rescue(3) == []

    def test_of_one_connection_are_enough_and_stay_open(self, database, run):
        async def story():
            pool = await asyncpg.create_pool(database, min_size=1, max_size=1)
            async with opened(pool) as store:
                await store.listen(lambda: None, lambda: None)
                async with asyncio.timeout(30):
                    await self._story(store)
            assert await pool.fetchval("SELECT 1") == 1
            await pool.close()

        run(story())

    def test_may_have_codecs_of_their_own(self, database, run):
        async def set_codecs(connection):
            for kind in ("json", "jsonb"):
                await connection.set_type_codec(
                    kind, schema="pg_catalog", encoder=json.dumps, decoder=json.loads
                )

        async def story():
            pool = await asyncpg.create_pool(database, min_size=1, init=set_codecs)
            async with pool, opened(pool) as store:
                await self._story(store)

        run(story())

    def test_of_a_pooler_keep_no_statements(self, database, run):
        async def story():
            async with opened(database, listen=False) as store:
                await store.listen(lambda: None, lambda: None)
                await self._story(store)

        run(story())

    def test_must_be_pools(self):
        with pytest.raises(InvalidOptionError, match="give a pool of asyncpg"):
            PostgresStore(object())

    def test_are_not_used_after_a_fork(self, database, run):
        async def open_pool():
            return await asyncpg.create_pool(database, min_size=1, max_size=2)

        pool = run(open_pool())
        given, own = PostgresStore(pool), PostgresStore(database)
        for store in (given, own):
            run(store.open())
        run(own.listen(lambda: None, lambda: None))
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = asyncio.run(_after_fork(given, own))
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert run(own.run("from the child")).state == "pending"
        assert run(given.run("from the child")).state == "pending"
        for store in (given, own):
            run(store.close())
        run(pool.close())

    def test_need_asyncpg(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "asyncpg", None)
        with pytest.raises(StoreError, match=r'pip install "job_scheduler\[postgres\]"'):
            PostgresStore("postgresql://")

    def test_nobody_gets_a_connection_after_the_end(self, database, run):
        """Nobody would let go of it."""

        async def story():
            async with opened(database) as store:
                await store.close()
                with pytest.raises(StoreError, match="the store is closed"):
                    await store.run("a")
                await store.open()
                assert await store.run("a") is None

        run(story())

    def test_none_is_kept_after_the_end_of_a_pool_of_the_callers(self, database, run):
        async def story():
            async with asyncpg.create_pool(database, min_size=1, max_size=5) as pool:
                async with opened(pool) as store:
                    await store.enqueue([new_run(store, "a")], RAISE)
                with pytest.raises(StoreError, match="the store is closed"):
                    await store.claim(store.now(), 1, ANYBODY)
                await asyncio.wait_for(pool.close(), 10)

        run(story())

    @pytest.mark.parametrize("is_open", [True, False], ids=["asked", "opened"])
    def test_none_is_left_that_was_being_made_at_the_end(self, database, run, is_open):
        async def story(turns):
            store = PostgresStore(database)
            if is_open:
                await store.open()
                asked = [asyncio.create_task(store.run("a")) for _ in range(5)]
            else:
                asked = [asyncio.create_task(store.open()) for _ in range(2)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await store.close()
            for found in await asyncio.gather(*asked, return_exceptions=True):
                assert found is None or isinstance(found, StoreError)

        async def nothing_is_left():
            async with connected(database) as connection:
                return not await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

        for turns in range(1, 30, 3):
            run(story(turns))
            run(eventually(nothing_is_left))


async def _after_fork(given, own):
    with contextlib.suppress(StoreError):
        await given.run("a")
        return 2
    await own.enqueue([new_run(own, "from the child")], RAISE)
    await own.close()
    return 0


class TestPlans:
    """The statements that are said all the time look at nothing but what they are after."""

    @pytest.mark.parametrize("analyzed", [False, True])
    @pytest.mark.parametrize("levels", ["levels_known", "levels_all"])
    @pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
    def test_of_an_exchange_walk_the_index(self, database, run, analyzed, levels, mode):
        async def story():
            async with opened(database) as store, connected(database) as connection:
                await _fill(store, connection, analyzed)
                call = f"'w', now(), 500, 30, '{{j}}', '{{a}}', '{{1}}', '{{completed}}', {NULLS}"
                if levels == "levels_known":
                    call += ", '{5}', '{-infinity}', '{-infinity}'"
                found = await _explained(
                    connection, mode, statement("exchange", levels=levels), call
                )
                assert "scheduled_jobs_due" in found
                assert "Seq Scan on scheduled_jobs" not in found
                assert "scheduled_jobs_pkey" in found
                assert "scheduled_jobs_running" not in found

        run(story())

    @pytest.mark.parametrize("analyzed", [False, True])
    def test_of_the_others_read_no_whole_table(self, database, run, analyzed):
        calls = {
            "renew": "'w', '{a}', '{1}', NULL, 30",
            "lost": "NULL",
            "settle": f"'{{a}}', '{{1}}', '{{failed}}', {NULLS}, NULL, NULL, NULL, NULL, 20",
            "forget_old": "now(), '1 day'",
        }

        async def story():
            async with opened(database) as store, connected(database) as connection:
                await _fill(store, connection, analyzed)
                for name, call in calls.items():
                    found = await _explained(
                        connection, "force_generic_plan", statements()[name], call
                    )
                    assert "Seq Scan on scheduled_jobs" not in found, name
                asked = statement("next_instant", levels="levels_all")
                found = await _explained(connection, "force_generic_plan", asked, "NULL")
                assert "Seq Scan on scheduled_jobs" not in found

        run(story())

    @pytest.mark.parametrize("analyzed", [False, True])
    @pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
    def test_of_lists_walk_an_index(self, database, run, mode, analyzed):
        """Whatever is asked for, and however little there is of it."""
        queries = [
            RunQuery(schedule_id, job, state, before)
            for schedule_id in (None, "s")
            for job in (None, "rare")
            for state in (None, RunState.CANCELLED)
            for before in (None, "due7")
        ]

        async def story():
            async with opened(database) as store, connected(database) as connection:
                await _fill(store, connection, analyzed)
                for query in queries:
                    asked, values = runs_asked(query)
                    call = ", ".join(
                        f"'{{{','.join(value)}}}'" if isinstance(value, list) else f"'{value}'"
                        for value in values
                    )
                    found = await _explained(connection, mode, asked, call)
                    assert "Seq Scan on scheduled_jobs" not in found, query
                asked, call = statements()["outcomes"], "'{a,b}', 20, '{pending,failed}'"
                found = await _explained(connection, mode, asked, call)
                assert "Seq Scan on scheduled_jobs" not in found

        run(story())

    def test_heartbeats_touch_no_index(self, database, run):
        async def story():
            async with opened(database) as store, connected(database) as connection:
                await store.enqueue([new_run(store, f"r{number}") for number in range(20)], RAISE)
                claims = await store.claim(store.now(), 20, ANYBODY)
                ids, tokens = zip(*(claim.hold for claim in claims), strict=True)
                async with connection.transaction():
                    renew = statements()["renew"]
                    found = await connection.fetch(renew, "anybody", ids, tokens, None, 30.0)
                    assert len(found) == 20
                    [row] = await connection.fetch(
                        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables "
                        "WHERE relname = 'scheduled_jobs'"
                    )
                assert row["n_tup_upd"] == 20
                assert row["n_tup_hot_upd"] >= 18  # a page may be full

        run(story())


NULLS = "NULL, NULL, NULL, NULL, NULL, NULL"


async def _fill(store, connection, analyzed):
    """Many runs that have ended, many for later at a higher priority, and some that are due."""
    await connection.execute(
        "INSERT INTO scheduled_jobs (job_id, job_name, execution_time, status, ended_at) "
        "SELECT 'ended' || i, 'j', now(), 'completed', now() FROM generate_series(1, 30000) AS i;"
        "INSERT INTO scheduled_jobs (job_id, job_name, execution_time, priority) "
        "SELECT 'later' || i, 'j', now() + '1 day', 1 FROM generate_series(1, 3000) AS i"
    )
    await store.enqueue([new_run(store, f"due{number}") for number in range(1000)], RAISE)
    if analyzed:
        await connection.execute("ANALYZE scheduled_jobs")


async def _explained(connection, mode, asked, call):
    await connection.execute(f"SET plan_cache_mode = {mode}")
    await connection.execute(f"PREPARE asked AS {asked}")
    try:
        found = await connection.fetch(f"EXPLAIN EXECUTE asked ({call})")
    finally:
        await connection.execute("DEALLOCATE asked")
    return "\n".join(row[0] for row in found)


class TestConnectionsOfTheCaller:
    def test_keep_runs_with_his_transaction(self, database, run):
        async def story():
            async with opened(database) as store, connected(database) as connection:
                for ends in ("ROLLBACK", "COMMIT"):
                    await connection.execute("BEGIN")
                    runs = [new_run(store, "a"), new_run(store, "b")]
                    assert await store.enqueue(runs, RAISE, connection) == {}
                    assert await store.run("a") is None
                    await connection.execute(ends)
                assert (await store.run("a")).state == "pending"

        run(story())

    @pytest.mark.parametrize("how", [RAISE, IGNORE])
    def test_go_on_where_an_id_is_taken(self, database, run, how):
        async def story():
            async with opened(database) as store, connected(database) as connection:
                await store.enqueue([new_run(store, "a")], RAISE)
                async with connection.transaction():
                    runs = [new_run(store, "a"), new_run(store, "b")]
                    taken = await store.enqueue(runs, how, connection)
                    assert taken == {"a": RunState.PENDING}
                    assert await connection.fetchval("SELECT 1") == 1
                assert (await store.run("b") is not None) is (how is IGNORE)

        run(story())

    def test_may_come_from_a_pool_but_must_be_some(self, database, run):
        async def story():
            async with opened(database) as store, asyncpg.create_pool(database) as pool:
                async with pool.acquire() as connection:
                    assert await store.enqueue([new_run(store, "a")], RAISE, connection) == {}
                with pytest.raises(InvalidOptionError, match="give a connection of asyncpg"):
                    await store.enqueue([new_run(store, "b")], RAISE, object())

        run(story())


class TestHints:
    def test_are_few_and_the_last_is_never_left_out(self, database, run):
        async def story():
            heard = []
            async with opened(database) as store, connected(database) as connection:
                await connection.add_listener("job_scheduler", lambda *_: heard.append(1))
                began = time.monotonic()
                for number in range(200):
                    await store.enqueue([new_run(store, str(number))], RAISE)
                took = time.monotonic() - began
                await store.close()  # tells what was not told
                await connection.fetchval("SELECT 1")
                assert 2 <= len(heard) <= took / 0.005 + 3

        run(story())

    def test_come_after_what_they_are_about(self, database, run):
        """Whoever looks when he is told finds the run, however quickly one follows another."""

        async def story():
            async with opened(database) as store, opened(database) as other:
                woken = await heard_by(other)
                for number in range(30):
                    await store.enqueue([new_run(store, str(number))], RAISE)
                found = []
                async with asyncio.timeout(30):
                    while len(found) < 30:
                        await woken.wait()
                        woken.clear()
                        found += await other.claim(other.now(), 100, ANYBODY)

        run(story())

    def test_are_heard_again_after_the_connection_was_cut(self, database, run, caplog):
        caplog.set_level(logging.INFO)

        async def story():
            async with opened(database) as store, connected(database) as connection:
                woken = asyncio.Event()
                await store.listen(woken.set, lambda: None)
                listening = store._listener.listening
                await listening.wait()
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid() "
                    "AND query LIKE 'LISTEN%'"
                )
                async with asyncio.timeout(30):
                    while listening.is_set():
                        await asyncio.sleep(0.005)
                    woken.clear()
                    await listening.wait()
                    assert woken.is_set()  # something may have been missed
                    woken.clear()
                    await connection.execute("NOTIFY job_scheduler, 'due'")
                    await woken.wait()

        run(story())
        assert caplog.text.count("not heard any more") == 1
        assert caplog.text.count("heard again") == 1


class TestConflicts:
    @pytest.mark.parametrize("how", [RAISE, IGNORE])
    def test_of_many_at_one_time_have_one_winner(self, database, run, how):
        async def story():
            async with opened(database) as store:
                for number in range(20):
                    runs = [new_run(store, f"a{number}"), new_run(store, f"b{number}")]
                    told = await asyncio.gather(
                        *(store.enqueue(runs[:size], how) for size in (1, 2, 1, 2, 2, 1))
                    )
                    winners = [taken for taken in told if f"a{number}" not in taken]
                    assert len(winners) == 1
                    states = {state for taken in told for state in taken.values()}
                    assert states == {RunState.PENDING}

        run(story())

    def test_that_deadlock_are_tried_again(self, database, run):
        async def story():
            link = Link(database, direct=True)
            await link.open()
            tries = []

            async def work(connection):
                tries.append(connection)
                if len(tries) < 3:
                    raise asyncpg.DeadlockDetectedError("not this time")
                return await connection.fetchval("SELECT 7")

            assert await link.transaction(work) == 7

            async def hopeless(connection):
                raise asyncpg.SerializationError("never")

            with pytest.raises(StoreError, match="never"):
                await link.transaction(hopeless)
            await link.close()

        run(story())


class TestWhatIsRefused:
    def test_does_not_hold_up_the_rest(self, database, run, caplog):
        async def story():
            async with opened(database) as store:
                await store.enqueue([new_run(store, name) for name in "abcd"], RAISE)
                claims = {c.run_id: c for c in await store.claim(store.now(), 9, ANYBODY)}
                failed = Ending(RunState.FAILED, RunError("E", "no"), ended_at=1.0)
                again = Again(store.now() + timedelta(hours=1), "failure")
                told, more = await store.exchange(
                    [
                        Finish(claims["a"], COMPLETED, result='{"x": "\\u0000"}'),
                        Finish(claims["b"], COMPLETED, result='{"x": 1}'),
                        Finish(claims["c"], failed, again=again, result="no JSON"),
                        Finish(claims["d"], failed, again=again),
                    ],
                    store.now(),
                    9,
                    ANYBODY,
                )
                assert [each.again for each in told] == [False, False, True, True]
                assert more == []
                states = [(await store.run(name)).state for name in "abcd"]
                assert states == ["completed", "completed", "pending", "pending"]
                assert (await store.run("a")).result is None
                assert (await store.run("b")).result == '{"x": 1}'

        run(story())
        assert "'a' is kept without its words" in caplog.text

    def test_is_an_error_where_nothing_is_kept(self, database, run):
        async def story():
            async with opened(database) as store:
                with pytest.raises(StoreError, match="PostgreSQL"):
                    await store.enqueue([new_run(store, "a"), new_run(store, "b\0")], RAISE)
                assert await store.run("a") is None

        run(story())


class TestTheClock:
    def test_is_the_server_s_and_never_ahead_of_it(self, database, run):
        async def story():
            async with opened(database) as store, connected(database) as connection:
                for _ in range(20):
                    guessed = store.now()
                    real = await connection.fetchval("SELECT clock_timestamp()")
                    assert timedelta(0) <= real - guessed < timedelta(seconds=5)
                    await store.rescue(3)

        run(story())

    def test_follows_the_server_only_as_far_as_it_is_known_better(self, database):
        store = PostgresStore(database)
        read = datetime(2026, 1, 1, tzinfo=UTC)
        store._note_clock(read, time.monotonic())
        noted = store._read_at
        now = store.now()
        store._note_clock(now - timedelta(seconds=3), time.monotonic() - 5)  # a slow reply
        assert store._read_at == noted
        store._note_clock(now + timedelta(hours=1), time.monotonic())
        assert store.now() >= now + timedelta(hours=1)
        store._note_clock(now, time.monotonic())  # it was set back
        assert store.now() < now + timedelta(minutes=1)


@pytest.fixture
def standing_clock(monkeypatch):
    """However long the server takes, a look counts as quick and recent."""
    for module in ("marks", "exchange"):
        clock = SimpleNamespace(monotonic=lambda: 100.0)
        monkeypatch.setattr(f"job_scheduler.stores.postgres.{module}.time", clock)


class TestMarks:
    def test_suffice_while_they_find_enough_for_a_second(self, monkeypatch):
        seconds = [100.0]
        monkeypatch.setattr("time.monotonic", lambda: seconds[0])
        at = datetime(2026, 1, 1, tzinfo=UTC)
        marks, jobs = Marks(), frozenset({"j"})
        assert not marks.suffice(jobs)
        marks.look_at_all(jobs, [5, 1], 0.001, 0)
        marks.move({5: Mark(at, at)}, enough=True)
        assert marks.suffice(jobs)
        assert not marks.suffice(frozenset({"k"}))
        assert marks.arrays()[0] == [1, 5]
        seconds[0] += 0.9
        assert marks.suffice(jobs)
        seconds[0] += 0.2
        assert not marks.suffice(jobs)

    def test_are_not_trusted_when_something_comes_in(self):
        at = datetime(2026, 1, 1, tzinfo=UTC)
        marks = Marks()
        marks.look_at_all(None, [5], 0.001, 0)
        marks.move({5: Mark(at, at)}, enough=True)
        marks.lower(5, at + timedelta(seconds=1))
        assert marks.arrays()[1] == [at]
        marks.lower(5, at - timedelta(seconds=1))
        marks.lower(3, at)
        assert marks.arrays()[:2] == ([3, 5], [at, at - timedelta(seconds=1)])
        marks.doubt()
        assert not marks.suffice(None)

    def test_are_all_there_is_where_a_look_at_all_takes_long(self):
        marks = Marks()
        marks.look_at_all(None, [5], 0.5, 0)
        marks.move({}, enough=False)
        marks.doubt()
        assert marks.suffice(None)
        assert not marks.quick

    def test_hide_nothing_that_this_store_is_given(self, database, run):
        """Beside a transaction that keeps dead rows, and while there is more than is taken."""

        async def story():
            async with (
                opened(database) as store,
                connected(database) as connection,
                connection.transaction(isolation="repeatable_read"),
            ):
                await connection.fetch("SELECT FROM scheduled_jobs")
                await store.enqueue([new_run(store, str(n)) for n in range(50)], RAISE)
                assert len(await store.claim(store.now(), 10, ANYBODY)) == 10
                late = NewRun(id="late", job="j", at=store.now() - timedelta(days=1))
                await store.enqueue([late], RAISE)
                await store.enqueue([new_run(store, "urgent", priority=1)], RAISE)
                first = await store.claim(store.now(), 2, ANYBODY)
                assert [claim.run_id for claim in first] == ["urgent", "late"]
                rest = await store.claim(store.now(), 100, ANYBODY)
                assert len(rest) == 40

        run(story())

    @pytest.mark.usefixtures("standing_clock")
    @pytest.mark.parametrize("first", [True, False], ids=["at all", "from the marks"])
    def test_hide_nothing_that_comes_while_the_server_is_asked(self, database, run, first):
        """The answer tells of the queue as it was before."""

        async def story():
            async with opened(database) as store:
                await store.enqueue([new_run(store, str(number)) for number in range(9)], RAISE)
                if not first:
                    await store.claim(store.now(), 1, ANYBODY)
                assert store._exchange.marks.suffice(None) is not first
                async with answer_held_back(store, store.claim(store.now(), 1, ANYBODY)):
                    early = NewRun(id="early", job="j", at=store.now() - timedelta(days=1))
                    await store.enqueue([early], RAISE)
                    await store.enqueue([new_run(store, "urgent", priority=1)], RAISE)
                assert store._exchange.marks.suffice(None)
                claims = await store.claim(store.now(), 2, ANYBODY)
                assert [claim.run_id for claim in claims] == ["urgent", "early"]

        run(story())

    @pytest.mark.usefixtures("standing_clock")
    def test_hide_nothing_that_others_tell_of_while_the_server_is_asked(self, database, run):
        async def story():
            async with opened(database) as store, opened(database) as other:
                woken = await heard_by(store)
                await store.enqueue([new_run(store, str(number)) for number in range(9)], RAISE)
                await woken.wait()
                woken.clear()
                async with answer_held_back(store, store.claim(store.now(), 1, ANYBODY)):
                    await other.enqueue([new_run(other, "urgent", priority=1)], RAISE)
                    await woken.wait()
                [claim] = await store.claim(store.now(), 1, ANYBODY)
                assert claim.run_id == "urgent"

        run(story())

    @pytest.mark.usefixtures("standing_clock")
    def test_are_as_they_were_after_runs_have_only_ended(self, database, run):
        """Where nothing was asked for, nothing was found to be enough."""

        async def story():
            async with opened(database) as store:
                await store.enqueue([new_run(store, "a")], RAISE)
                claims = await store.claim(store.now(), 10, ANYBODY)
                assert not store._exchange.marks.suffice(None)
                await store.finish([Finish(claim, COMPLETED) for claim in claims])
                assert not store._exchange.marks.suffice(None)

        run(story())


def test_what_is_said_twice_holds_once(database, run):
    """The connection may be cut after a commit: then everything is said again."""

    async def story():
        async with opened(database) as store:
            await store.enqueue([new_run(store, "a"), new_run(store, "b")], RAISE)
            a, b = await store.claim(store.now(), 2, ANYBODY)
            told, _ = await store.exchange(
                [Finish(a, COMPLETED), Finish(a, COMPLETED), Finish(b, COMPLETED)],
                store.now(),
                2,
                ANYBODY,
            )
            assert [each is not None for each in told] == [True, False, True]
            assert await store.finish([Finish(a, COMPLETED), Finish(b, COMPLETED)]) == [None, None]
            assert await store.enqueue([new_run(store, "a")], IGNORE) == {"a": RunState.COMPLETED}

    run(story())


def test_many_workers_share_a_backlog_and_nothing_runs_twice(database, run):
    async def work(store, worker, mine):
        ends = []
        while True:
            told, claims = await store.exchange(ends, store.now(), 7, worker)
            assert None not in told
            mine += [claim.run_id for claim in claims]
            if not claims:
                return
            ends = [Finish(claim, COMPLETED) for claim in claims]

    async def story():
        async with contextlib.AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened(database)) for _ in range(4)]
            runs = [new_run(stores[0], str(number)) for number in range(500)]
            await stores[0].enqueue(runs, RAISE)
            done = []
            await asyncio.gather(
                *(work(store, Worker(f"w{n}", 30.0), done) for n, store in enumerate(stores))
            )
            assert sorted(done) == sorted(str(number) for number in range(500))

    run(story())


def test_a_server_that_stops_is_an_error_until_it_is_back(run):
    server = Server(fsync=True)
    try:
        server.start()

        async def story():
            async with opened(server.dsn) as store:
                await store.listen(lambda: None, lambda: None)
                await store.enqueue([new_run(store, "a")], RAISE)
                for mode in ("immediate", "fast"):
                    server.stop(mode)
                    for _ in range(2):
                        with pytest.raises(StoreError, match="PostgreSQL cannot"):
                            await store.claim(store.now(), 1, Worker("w"))
                    server.start()
                    assert (await store.run("a")).state == "pending"
                await asyncio.to_thread(server.kill_backends)

                async def works():
                    with contextlib.suppress(StoreError):
                        return await store.run("a") is not None
                    return False

                await eventually(works)
            with pytest.raises(StoreError, match=r"cannot be reached|cannot do it"):
                await PostgresStore(dsn_of(server.dsn, "none")).open()

        run(story())
    finally:
        server.remove()
