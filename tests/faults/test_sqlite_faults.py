"""An SQLite store whose programs are killed, whose disk is full, and whose file is shared."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

from job_scheduler.errors import StoreError
from job_scheduler.run import RunState
from job_scheduler.schedule import ConflictResolution
from job_scheduler.stores.base import NewRun, RunQuery, Worker
from job_scheduler.stores.sqlite import SqliteStore
from job_scheduler.stores.sqlite import file as sqlite_file
from tests.conftest import ROOT, eventually

RAISE = ConflictResolution.RAISE

PROLOGUE = """
import asyncio, os, sys, time
from job_scheduler.errors import StoreError
from job_scheduler.run import Ending, RunState
from job_scheduler.schedule import ConflictResolution
from job_scheduler.stores.base import Finish, NewRun, RunQuery, Worker
from job_scheduler.stores.sqlite import SqliteStore

store = SqliteStore(sys.argv[1])
COMPLETED = Ending(RunState.COMPLETED, ended_at=1.0)

async def enqueue(*ids, **options):
    now = store.now()
    runs = [NewRun(id=each, job="j", at=now, **options) for each in ids]
    return await store.enqueue(runs, ConflictResolution.RAISE)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.db"


@pytest.fixture
def start(path):
    """Starts programs that have a store in the file."""
    started = []

    def start(code, *arguments, **options):
        process = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE + code, str(path), *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def use(path, story):
    """Run a coroutine function with a store in the file."""

    async def all_of_it():
        store = SqliteStore(path)
        try:
            return await story(store)
        finally:
            await store.close()

    return asyncio.run(all_of_it())


def new_runs(store, *ids, **options):
    now = store.now()
    return [NewRun(id=each, job="j", at=now, **options) for each in ids]


def rows_of(path, what):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(what).fetchall()
    finally:
        connection.close()


# Kills

WRITER = """
async def main():
    n = 0
    worker = Worker(sys.argv[2], 30.0)
    claims = []
    while True:
        ids = [f"{sys.argv[2]}-{n}-{each}" for each in range(3)]
        await asyncio.gather(*(enqueue(each, kwargs={"text": "x" * 2000}) for each in ids))
        os.write(1, f"{' '.join(ids)}\\n".encode())
        ends = [Finish(claim, COMPLETED) for claim in claims]
        finished, claims = await store.exchange(ends, store.now(), 2, worker)
        n += 1

asyncio.run(main())
"""


def kill_writers(path, start, kills, seeded):
    """Kill a program that writes, again and again: nothing that it was told is lost."""
    told = set()
    for number in range(kills):
        process = start(WRITER, f"w{number}")
        told.update(process.stdout.readline().split())
        time.sleep(seeded.uniform(0, 0.03))  # it writes meanwhile
        process.kill()
        text = process.stdout.read()
        process.wait()
        told.update(text[: text.rfind("\n") + 1].split())
        assert rows_of(path, "PRAGMA integrity_check") == [("ok",)]
        kept = {run_id for (run_id,) in rows_of(path, "SELECT job_id FROM scheduled_jobs")}
        assert told <= kept
    assert len(told) >= 3 * kills


def test_what_was_accepted_outlives_kills(path, start, seeded):
    kill_writers(path, start, 25, seeded)


# Room


async def fill(store):
    """Enqueue until there is no room; the ids that were kept, and the error."""
    kept = []
    for number in range(10_000):
        ids = [f"{number}-a", f"{number}-b"]
        try:
            await store.enqueue(new_runs(store, *ids, kwargs={"text": "x" * 5000}), RAISE)
        except StoreError as error:
            return kept, error
        kept += ids
    raise AssertionError("it was never full")


def test_a_full_database_takes_nothing_in_part_and_goes_on_when_there_is_room(path):
    async def story(store):
        await store.open()
        await asyncio.wrap_future(store.call(limit(60), writes=False))
        kept, error = await fill(store)
        assert str(error) == f"the store {path}: there is no room left"
        assert isinstance(error.__cause__, sqlite3.Error)
        ids = {record.id for record in await store.runs(RunQuery(limit=1000))}
        assert ids == set(kept)
        await asyncio.wrap_future(store.call(limit(10_000), writes=False))
        assert await store.enqueue(new_runs(store, "more", "less"), RAISE) == {}
        assert (await store.run("more")).state == "pending"

    use(path, story)
    assert rows_of(path, "PRAGMA integrity_check") == [("ok",)]


def limit(pages):
    return lambda db: db.execute(f"PRAGMA max_page_count={pages}").fetchall()


def test_one_that_is_too_large_harms_no_other_of_its_batch(path):
    async def story(store):
        await store.open()
        await asyncio.wrap_future(store.call(limit(60), writes=False))
        sizes = [10, 10, 1_000_000, 10]
        waits = [
            store.enqueue(new_runs(store, str(number), kwargs={"text": "x" * size}), RAISE)
            for number, size in enumerate(sizes)
        ]
        told = await asyncio.gather(*waits, return_exceptions=True)
        assert [isinstance(each, StoreError) for each in told] == [False, False, True, False]
        assert sorted(record.id for record in await store.runs()) == ["0", "1", "3"]

    use(path, story)


LIMITED = """
import resource
async def main():
    await store.open()
    size = 200_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    kept = []
    for number in range(10_000):
        ids = [f"{number}-a", f"{number}-b"]
        try:
            await enqueue(*ids, kwargs={"text": "x" * 5000})
        except StoreError as error:
            assert "room" in str(error), error
            break
        kept += ids
    else:
        raise AssertionError("it was never full")
    assert {each.id for each in await store.runs(RunQuery(limit=1000))} == set(kept)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await enqueue("more")
    await store.close()
    print(*kept, "more")

asyncio.run(main())
"""


def test_a_disk_that_takes_no_more_takes_nothing_in_part(path, start):
    process = start(LIMITED)
    kept = process.communicate(timeout=60)[0].split()
    assert process.returncode == 0
    assert {each for (each,) in rows_of(path, "SELECT job_id FROM scheduled_jobs")} == set(kept)
    assert rows_of(path, "PRAGMA integrity_check") == [("ok",)]


# Sharing

CLAIMER = """
async def main():
    worker = Worker(sys.argv[2], 30.0)
    claims, ids = [], []
    while True:
        ends = [Finish(claim, COMPLETED) for claim in claims]
        finished, claims = await store.exchange(ends, store.now(), 7, worker)
        assert all(finished), finished
        ids += [claim.run_id for claim in claims]
        if not claims and not await store.runs(RunQuery(state=RunState.PENDING, limit=1)):
            break
    await store.close()
    print(*ids)

asyncio.run(main())
"""


def test_several_programs_claim_each_run_once(path, start):
    async def fill_up(store):
        for number in range(10):
            ids = [f"{number}-{each}" for each in range(200)]
            await store.enqueue(new_runs(store, *ids), RAISE)

    use(path, fill_up)
    claimers = [start(CLAIMER, number) for number in range(4)]
    taken = [process.communicate(timeout=100)[0].split() for process in claimers]
    assert [process.returncode for process in claimers] == [0] * 4
    ids = [run_id for each in taken for run_id in each]
    assert len(ids) == len(set(ids)) == 2000
    assert rows_of(path, "SELECT DISTINCT status, token FROM scheduled_jobs") == [("completed", 1)]


def test_several_programs_start_on_an_empty_file(path, start):
    code = "asyncio.run(enqueue(sys.argv[2]))"
    starters = [start(code, number) for number in range(4)]
    for process in starters:
        process.communicate(timeout=60)
        assert process.returncode == 0
    ids = rows_of(path, "SELECT job_id FROM scheduled_jobs ORDER BY 1")
    assert ids == [("0",), ("1",), ("2",), ("3",)]


def test_a_program_that_keeps_the_file_is_waited_for(path):
    async def story(store):
        await store.open()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(store.enqueue(new_runs(store, "a"), RAISE))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        other.execute("COMMIT")
        other.close()
        assert await waiting == {}

    use(path, story)


def test_a_program_that_never_lets_go_is_named(path, monkeypatch):
    monkeypatch.setattr(sqlite_file, "_PATIENCE", 0.05)

    async def story(store):
        await store.open()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program has kept it"):
            await store.enqueue(new_runs(store, "a"), RAISE)
        other.close()
        assert await store.enqueue(new_runs(store, "a"), RAISE) == {}

    use(path, story)


def test_changes_of_another_program_are_noticed(path):
    async def story(store):
        woken, renewed = threading.Event(), threading.Event()
        await store.listen(woken.set, renewed.set)
        other = SqliteStore(path)
        eventually(woken.is_set)  # it looks once in any case
        woken.clear()
        await other.enqueue(new_runs(other, "a"), RAISE)
        assert await asyncio.to_thread(woken.wait, 20)
        assert not renewed.is_set()
        assert await store.claim(store.now(), 1, Worker("me"))
        await other.ask_to_stop("a")
        assert await asyncio.to_thread(renewed.wait, 20)
        await other.close()

    use(path, story)


def test_runs_of_a_transaction_are_there_once_it_is_committed(path):
    async def story(store):
        await store.open()
        for mode in ("DEFERRED", None):
            connection = sqlite3.connect(path, isolation_level=mode)
            for word in ("ROLLBACK", "COMMIT"):
                connection.execute("CREATE TABLE IF NOT EXISTS mine (x)")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO mine VALUES (1)")
                run_id = f"{mode}-{word}"
                assert await store.enqueue(new_runs(store, run_id), RAISE, connection) == {}
                assert await store.run(run_id) is None
                connection.execute(word)
                assert (await store.run(run_id) is None) is (word == "ROLLBACK")
            connection.close()

    use(path, story)


# Forks

FORKER = """
async def some(name):
    for number in range(20):
        await enqueue(f"{name}-{number}")

async def main():
    busy = asyncio.create_task(some("busy"))
    await enqueue("before")
    children = []
    for number in range(5):
        child = os.fork()
        if child == 0:
            try:
                asyncio._set_running_loop(None)
                asyncio.set_event_loop(None)
                asyncio.new_event_loop().run_until_complete(some(f"child{number}"))
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
        await some(f"parent{number}")
    await busy
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    await enqueue("after")
    await store.close()

asyncio.run(main())
"""


def test_a_forked_child_has_the_file_for_itself(path, start):
    process = start(FORKER)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert rows_of(path, "SELECT count(*) FROM scheduled_jobs") == [(20 * 11 + 2,)]
    assert rows_of(path, "PRAGMA integrity_check") == [("ok",)]


# The file


def test_only_its_owner_may_read_it(path):
    async def story(store):
        await store.enqueue(new_runs(store, "a"), RAISE)
        files = sorted(path.parent.iterdir())
        assert [file.name for file in files] == ["jobs.db", "jobs.db-shm", "jobs.db-wal"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}

    before = os.umask(0)
    try:
        use(path, story)
    finally:
        os.umask(before)


def refused(path):
    with pytest.raises(StoreError) as caught:
        use(path, SqliteStore.open)
    return str(caught.value)


def test_what_is_no_place_for_a_store_is_refused_with_the_reason(tmp_path, path):
    missing = tmp_path / "missing" / "jobs.db"
    assert refused(missing) == f"the store {missing}: there is no folder {tmp_path / 'missing'}"
    assert refused(tmp_path).startswith(f"the store {tmp_path}: this is a folder")
    path.write_text("a text of some length that is no database at all" * 100)
    assert refused(path) == f"the store {path}: it is no SQLite database"


def test_a_newer_version_is_refused_and_left_alone(path):
    use(path, SqliteStore.open)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    assert "a newer version of this package has made it (schema 99" in refused(path)


def test_a_store_that_was_closed_opens_again(path):
    async def story(store):
        for number in range(3):
            await store.enqueue(new_runs(store, str(number)), RAISE)
            await store.close()
            await store.close()
        assert len(await store.runs()) == 3

    use(path, story)


def test_any_thread_may_wait_for_a_step(path):
    store = SqliteStore(path)
    count = store.call(lambda db: db.execute("SELECT count(*) FROM scheduled_jobs").fetchone())
    assert count.result(20) == (0,)
    broken = store.call(lambda db: 1 // 0)
    assert isinstance(broken.exception(20), ZeroDivisionError)
    asyncio.run(store.close())


def test_what_fails_alone_is_undone_alone(path):
    """Of several steps in one transaction."""

    def insert(run_id, then):
        def step(db):
            db.execute("INSERT INTO scheduled_jobs (job_id, job_name, execution_time) "
                       "VALUES (?, 'j', 0)", (run_id,))  # fmt: skip
            return then()

        return step

    store = SqliteStore(path)
    gate = threading.Event()
    first = store.call(lambda _: gate.wait(20), writes=False)
    steps = [
        store.call(insert("a", lambda: 1)),
        store.call(insert("b", lambda: 1 // 0)),
        store.call(insert("a", lambda: 2)),
        store.call(insert("c", lambda: 3)),
    ]
    gate.set()
    assert first.result(20)
    assert steps[0].result(20) == 1
    assert isinstance(steps[1].exception(20), ZeroDivisionError)
    assert isinstance(steps[2].exception(20), StoreError)
    assert steps[3].result(20) == 3
    assert rows_of(path, "SELECT job_id FROM scheduled_jobs ORDER BY 1") == [("a",), ("c",)]
    asyncio.run(store.close())


# Clocks


class Clocks:
    """The two clocks of a machine."""

    def __init__(self, monkeypatch):
        self.wall = timedelta(0)
        self.boot = 10**12
        self.monkeypatch = monkeypatch
        monkeypatch.setattr("job_scheduler.stores.sqlite.store._since_boot", lambda: self.boot)
        self.start = SqliteStore("unused").now()

    def now(self):
        return self.start + timedelta(microseconds=self.boot - 10**12) + self.wall

    def store(self, path):
        store = SqliteStore(path)
        store.now = self.now
        return store

    def pass_by(self, seconds):
        self.boot += round(seconds * 1e6)


def test_leases_go_by_a_clock_that_nobody_sets(path, monkeypatch):
    clocks = Clocks(monkeypatch)

    async def story():
        store = clocks.store(path)
        await store.enqueue(new_runs(store, "a"), RAISE)
        assert await store.claim(store.now(), 1, Worker("me", 30.0))
        clocks.wall = timedelta(hours=2)
        assert await store.rescue(3) == []
        clocks.wall = timedelta(hours=-2)
        clocks.pass_by(29)
        assert await store.rescue(3) == []
        clocks.pass_by(2)
        assert [each.run_id for each in await store.rescue(3)] == ["a"]
        await store.close()

    asyncio.run(story())


def test_a_machine_that_was_started_anew_ends_all_leases(path, monkeypatch, tmp_path):
    clocks = Clocks(monkeypatch)
    boot_id = tmp_path / "boot_id"
    monkeypatch.setattr("job_scheduler.stores.sqlite.store._BOOT_ID", boot_id)

    async def story():
        boot_id.write_text("first")
        store = clocks.store(path)
        await store.enqueue(new_runs(store, "a"), RAISE)
        assert await store.claim(store.now(), 1, Worker("me", 30.0))
        await store.close()
        assert await store.rescue(3) == []
        await store.close()
        boot_id.write_text("second")
        clocks.boot = 10**6
        assert [each.run_id for each in await store.rescue(3)] == ["a"]
        await store.close()

    asyncio.run(story())


def test_only_one_of_several_handles_a_clock_that_was_set_back(path, monkeypatch):
    clocks = Clocks(monkeypatch)

    async def story():
        stores = [clocks.store(path) for _ in range(3)]
        for wall in (3600, 0, 3600, 0, -3600, -7200):
            before, clocks.wall = clocks.wall, timedelta(seconds=wall)
            for store in stores:
                await store.claim(store.now(), 0, Worker("me"))
            by = before - clocks.wall
            if by > timedelta(0):
                won = [await store.set_back(store.now(), by) for store in stores]
                assert sum(won) == 1
            clocks.pass_by(10)
        for store in stores:
            await store.close()

    asyncio.run(story())


# Plans


def plan_of(db, statement, values=()):
    return " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values))


def test_what_is_done_often_stays_on_one_index(path):
    """Whatever is in the tables: nothing is scanned, and nothing sorted."""
    from job_scheduler.stores.sqlite import lists, plans, runs

    def check(db):
        failed, _ = lists.listed_runs(RunQuery(state=RunState.FAILED, before="a"))
        of_job, _ = lists.listed_runs(RunQuery(job="j", before="a"))
        of_schedule, _ = lists.listed_runs(RunQuery("s", before="a", state=RunState.COMPLETED))
        often = {
            runs._PRIORITY: "runs_due",
            runs.DUE: "runs_due",
            runs.DUE_OF_KNOWN: "runs_due",
            runs._CLAIM_ANY: "runs_due",
            runs._CLAIM_KNOWN: "runs_due",
            runs._END_HELD: "sqlite_autoindex_scheduled_jobs_1",
            plans._DUE: "schedules_due",
            f"SELECT 1 FROM scheduled_jobs {failed}": "runs_not_completed",
            f"SELECT 1 FROM scheduled_jobs {of_job}": "runs_of_job",
            f"SELECT 1 FROM scheduled_jobs {of_schedule}": "runs_listed",
        }
        for statement, index in often.items():
            values = (0,) * statement.count("?")
            if "json_each" in statement:
                values = (*values[:-2], "[]", 0)
            plan = plan_of(db, statement, values)
            assert index in plan
            assert "TEMP B-TREE" not in plan, plan
            assert "SCAN scheduled_jobs" not in plan, plan
            assert "SCAN schedules" not in plan, plan

    async def story(store):
        await asyncio.wrap_future(store.call(check))

    use(path, story)


def test_many_urgent_runs_for_later_cost_a_claim_nothing(path):
    """Nor do ended ones: the claim takes as many steps in the index as without them."""

    async def story(store):
        now = store.now()
        for kind, at, priority in (("later", now + timedelta(days=1), 1), ("due", now, 9)):
            for start in range(0, 5000, 1000):
                ids = range(start, start + 1000)
                runs = [
                    NewRun(id=f"{kind}{each}", job="j", at=at, priority=priority) for each in ids
                ]
                await store.enqueue(runs, RAISE)
        steps = 0

        def count():
            nonlocal steps
            steps += 1

        def watch(db):
            db.set_progress_handler(count, 100)

        await asyncio.wrap_future(store.call(watch, writes=False))
        claims = await store.claim(store.now(), 10, Worker("me"))
        assert len(claims) == 10
        assert steps < 30

    use(path, story)


def test_a_row_that_cannot_be_read_fails_alone(path):
    async def story(store):
        await store.enqueue(new_runs(store, "good", "bad"), RAISE)
        connection = sqlite3.connect(path)
        connection.execute("UPDATE scheduled_jobs SET task_data='{' WHERE job_id='bad'")
        connection.execute(
            "INSERT INTO scheduled_jobs (job_name, execution_time, task_data) VALUES (?, 0, ?)",
            ("by hand", '{"x": 1}'),
        )
        connection.commit()
        connection.close()
        claims = await store.claim(store.now(), 10, Worker("me"))
        assert [(each.job, each.kwargs) for each in claims] == [("by hand", {"x": 1}), ("j", {})]
        record = await store.run("bad")
        assert (record.state, record.kwargs) == ("failed", {})
        assert "its row cannot be read" in record.error.message

    use(path, story)
