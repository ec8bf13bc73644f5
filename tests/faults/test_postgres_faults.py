"""Worker processes over a real PostgreSQL, with everything going wrong; see ``checker``.

The long forms are in ``tests/soak/test_postgres_soak.py``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from job_scheduler import JobScheduler
from job_scheduler.errors import DuplicateIdError, StoreError
from job_scheduler.stores.postgres.rows import MIGRATIONS
from tests.conftest import eventually, freeze, is_alive, lines
from tests.faults.checker import keep_journal, read_log
from tests.faults.crew import LEASE, Adder, Crew, Proxy, make_tables, named
from tests.faults.fault_jobs import Poison, Work, think, work
from tests.postgres import Server


@pytest.fixture
def crew(database, tmp_path):
    """Workers over a database with tables and a journal; none is started yet."""
    make_tables(database)
    crew = Crew(database, tmp_path)
    yield crew
    crew.end()


@pytest.fixture
def server():
    """A server of our own, which keeps what it has accepted."""
    server = Server(fsync=True)
    try:
        server.start()
        yield server
    finally:
        server.remove()


# Workers that die, or stand still


def kill_workers(crew, kills, seeded):
    """Kill a worker and start another, again and again, while runs are added."""
    crew.start_ready(2)
    with Adder(crew, seeded):
        for _ in range(kills):
            [new] = crew.start_ready(1)
            time.sleep(seeded.random() * 0.3)  # it works meanwhile
            crew.kill(seeded.choice([each for each in crew.workers if each is not new]))
    crew.settle()
    crew.check()
    assert crew.say("SELECT count(*) FROM journal WHERE what = 'crash'")[0][0] >= kills // 2


def test_nothing_is_lost_when_workers_are_killed(crew, seeded):
    kill_workers(crew, 10, seeded)


def pid_of(mark):
    return int(mark.split("-")[0])


def stop_a_worker(crew, number=0):
    """Stop one for three leases; what it does once it goes on counts for nothing."""
    names = killed, ended, cancelled = [f"{what}{number}" for what in ("killed", "ended", "cut")]
    [old] = crew.start_ready(1)
    crew.add(killed, ended, job=Work, hold=True)
    crew.add(cancelled, hold=True)
    first = {name: crew.wait_for_start(name) for name in names}
    began = time.monotonic()
    freeze(old.pid)
    [new] = crew.start_ready(1)
    for name in names:
        crew.wait_for_start(name, 2)
    crew.go(first[ended])
    eventually(lambda: crew.ends(ended), what="the end of the first")
    time.sleep(max(0.0, began + 3 * LEASE - time.monotonic()))
    assert is_alive(pid_of(first[killed]))
    os.kill(old.pid, signal.SIGCONT)
    eventually(lambda: not is_alive(pid_of(first[killed])), what="the end of its child")
    said = "that end does not count"
    eventually(lambda: old.errors.read_text().count(said) == 3, what="that it was refused")
    for name in names:
        crew.go(name)
    crew.settle()
    crew.check()
    mine = crew.name_of(old)
    for name in names:
        assert [what for what, who in crew.journal(name) if who == mine] == ["claim"]
        assert crew.row(name)["crashes"] >= 1
    assert first[killed] not in crew.ends(killed)
    assert first[cancelled] not in crew.ends(cancelled)
    for worker in (old, new):
        crew.kill(worker)


def test_a_stopped_worker_writes_nothing_and_kills_its_own(crew):
    stop_a_worker(crew)


# A server that dies


def crash_the_server(server, folder, times, seeded):
    """Stop it as a crash does, and start it, while runs are added and done."""
    make_tables(server.dsn)
    crew = Crew(server.dsn, folder)
    try:
        crew.start_ready(2)
        with Adder(crew, seeded) as adder:
            for _ in range(times):
                time.sleep(0.3 + seeded.random() * 0.5)  # they work meanwhile
                server.stop("immediate")
                refused = len(adder.refusals)
                eventually(lambda: len(adder.refusals) > refused, what="a refusal")  # noqa: B023
                time.sleep(seeded.choice([0.0, 2 * LEASE]))
                server.start()
                done = len(lines(crew.log))
                eventually(lambda: len(lines(crew.log)) > done + 20, what="work")  # noqa: B023
            assert all(each.poll() is None for each in crew.workers)
        crew.settle()
        crew.check()
        assert max(adder.refusals) < 5.0
    finally:
        crew.end()


def test_what_was_accepted_outlives_crashes_of_the_server(server, tmp_path, seeded):
    crash_the_server(server, tmp_path, 2, seeded)


def end_connections(crew, seconds, seeded):
    """End one connection after the other, whoever's it is."""
    crew.start_ready(2)
    ended = 0
    with Adder(crew, seeded):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended += len(
                crew.say(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid() "
                    f"ORDER BY (pid * {seeded.randrange(1, 1000)}) % 1009 LIMIT 1"
                )
            )
            time.sleep(seeded.random() * 0.1)
    crew.settle()
    crew.check()
    assert ended > 2 * seconds


def test_connections_are_ended_at_random(crew, seeded):
    end_connections(crew, 3.0, seeded)


# Replies that never come


@pytest.fixture
def proxy(database, tmp_path):
    """Between a program and the server; its folder is short, as the path of a socket must be."""
    folder = re.search(r"host=([^&]+)", database)
    if folder is None:
        pytest.skip("the server of TEST_POSTGRES_DSN has no socket that is known")
    with tempfile.TemporaryDirectory() as own, Proxy(Path(folder[1]), Path(own)) as proxy:
        proxy.dsn = database.replace(folder[0], f"host={own}")
        yield proxy


@pytest.mark.parametrize("mode", ["raise", "ignore", "replace"])
def test_adding_again_what_may_have_been_added_gives_one_row(crew, proxy, mode):
    """The reply was lost after the commit: the caller cannot know, and says it again."""

    async def add(client):
        await client.schedule(work, job_id="before", kwargs={"name": "before"})
        proxy.cut(request=b"COMMIT" if mode == "replace" else b"twice")
        call = {"job_id": "twice", "kwargs": {"name": "twice"}, "conflict_resolution": mode}
        with pytest.raises(StoreError, match="PostgreSQL"):
            await client.schedule(work, **call)
        assert (await client.get_job("twice")).state == "pending"
        if mode == "raise":
            with pytest.raises(DuplicateIdError, match="'twice' is there already, and pending"):
                await client.schedule(work, **call)
        else:
            assert await client.schedule(work, **call) == "twice"

    crew.as_client(add, dsn=proxy.dsn)
    assert proxy.cuts == 1
    crew.accept("twice")
    crew.start_ready(1)
    crew.settle()
    crew.check()
    assert [len(crew.starts(name)) for name in ("before", "twice")] == [1, 1]


def test_running_again_with_the_same_key_gives_one_row(crew, proxy):
    scheduler = JobScheduler(jobs={"Work": Work}, store=proxy.dsn, workers=0)
    keyed = scheduler.options(key="paid")
    scheduler.options(key="before").run("Work", name="Work:before")
    proxy.cut(request=b"Work:paid")
    with pytest.raises(StoreError, match="PostgreSQL"):
        keyed.run("Work", name="Work:paid")
    assert keyed.run("Work", name="Work:paid").state == "pending"
    scheduler.shutdown(timeout=0)
    crew.accept("Work:paid")
    assert proxy.cuts == 1
    crew.start_ready(1)
    crew.settle()
    crew.check()
    assert len(crew.starts("Work:paid")) == 1


CUTS = {
    "before an end": {"unheard": b"completed"},
    "after an end": {"request": b"completed"},
    "after a claim": {"answer": b"after"},
}


@pytest.mark.parametrize("when", CUTS)
def test_a_worker_whose_connection_is_cut_loses_nothing(crew, proxy, when):
    """It does not know whether it has claimed, or whether it has told the end."""
    worker = crew.start("--most", "1", dsn=proxy.dsn)
    crew.wait_until_ready(worker)
    crew.add("before")
    eventually(lambda: crew.row("before")["status"] == "completed")
    proxy.cut(**CUTS[when])
    crew.add("after", "next")
    eventually(lambda: proxy.cuts)
    crew.settle()
    crew.check()
    told = [each for each, _ in crew.journal("after")]
    claim = ["claim", "crash", "claim"] if when == "after a claim" else ["claim"]
    assert told == ["add", *claim, "end"]
    assert len(crew.starts("after")) == 1


# Clocks


def instant_of(run_id):
    """The instant of a run of the schedule; its row tells when it was last to start."""
    return datetime.fromisoformat(run_id.split(":", 2)[2])


def instants_of_ticks(crew):
    """For each completed run of the schedule: its instant, and when it was started."""
    executions = read_log(crew.log)[1]
    found = crew.say(
        "SELECT job_id, result->>0 AS mark FROM scheduled_jobs "
        "WHERE schedule_id = 'tick' AND status = 'completed'"
    )
    return [
        (instant_of(row["job_id"]).timestamp(), executions[row["mark"]].started_at) for row in found
    ]


def end_ticks(crew):
    """Take the schedule off the plan, and account for each of its instants: run, or missed."""
    [(next_at,)] = crew.say(
        "WITH old AS (SELECT next_at FROM schedules FOR UPDATE) "
        "UPDATE schedules SET next_at = NULL FROM old RETURNING old.next_at"
    )
    crew.settle()
    crew.check()
    [schedule] = crew.say("SELECT * FROM schedules")
    rows = crew.say("SELECT * FROM scheduled_jobs WHERE schedule_id = 'tick'")
    instants = [instant_of(row["job_id"]) for row in rows]
    assert len(set(instants)) == len(instants)
    first = min([*instants, *(datetime.fromisoformat(gap[0]) for gap in gaps_of(schedule))])
    passed = (next_at - first) / timedelta(seconds=1)
    assert passed == len(instants) + schedule["missed"]
    assert Counter(row["status"] for row in rows) == {"completed": schedule["completed"]}
    return schedule


def gaps_of(schedule):
    return json.loads(schedule["gaps"])


@pytest.mark.parametrize("shift", [3600, -3600])
def test_a_clock_that_is_wrong_by_an_hour_moves_nothing(crew, shift):
    crew.start_ready(1, "--tick", "--lease", "10", "--shift", shift)
    crew.start_ready(1, "--tick", "--lease", "10")
    held = [f"held{number}" for number in range(5)]  # more than one of them can have
    crew.add(*held, hold=True)
    for name in held:
        crew.wait_for_start(name)
    deadline = time.monotonic() + 4.5
    in_two = datetime.now(UTC) + timedelta(seconds=2)
    crew.add("later", at=in_two)
    time.sleep(max(0.0, deadline - time.monotonic()))
    crew.go()
    schedule = end_ticks(crew)
    ticks = instants_of_ticks(crew)
    assert len(ticks) >= 2
    for instant, started_at in [*ticks, (in_two.timestamp(), started(crew, "later"))]:
        assert -0.001 <= started_at - instant < 5.0
    assert schedule["missed"] < 3  # on a busy machine
    assert crew.say("SELECT count(*) FROM journal WHERE what = 'crash'")[0][0] == 0


def started(crew, name):
    [mark] = crew.starts(name)
    return read_log(crew.log)[1][mark].started_at


# Many at one time


def tick_while_killed(crew, nodes, seconds, seeded):
    """So many workers declare the same schedule, and are killed and started at random."""
    crew.start_ready(nodes, "--tick")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(seeded.random())
        crew.kill(seeded.choice(crew.workers))
        crew.start("--tick")
    crew.start_ready(1, "--tick")
    end_ticks(crew)
    assert len(crew.ends("tick")) >= seconds // 3


def test_several_nodes_run_each_instant_once(crew, seeded):
    tick_while_killed(crew, 4, 6, seeded)


RACER = """
import asyncio, sys
from job_scheduler import Scheduler
from job_scheduler.errors import DuplicateIdError
from tests.faults.fault_jobs import JOBS, work

async def main(dsn, number):
    client = Scheduler(store=dsn, jobs=JOBS)
    await client.list_jobs()
    print("ready", flush=True)
    for line in sys.stdin:
        mode, name = line.split()
        try:
            await client.schedule(
                work,
                job_id=name,
                kwargs={"name": name, "number": number, "takes": 0.02},
                conflict_resolution=mode,
            )
        except DuplicateIdError:
            print("lost", flush=True)
        else:
            print("won", flush=True)
    await client.shutdown()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


MODES = ("raise", "ignore", "replace")


def race(crew, number, rounds):
    """So many programs add runs of the same ids at one time, in each mode."""
    crew.start_ready(2)
    racers = [crew.run("-c", RACER, named(crew.dsn, "racer"), each) for each in range(number)]
    for racer in racers:
        crew.wait_until_ready(racer)
    one, all_of_them = {"won": 1, "lost": number - 1}, {"won": number}
    for name in (f"{mode}-{each}" for each in range(rounds) for mode in MODES):
        mode = name.split("-")[0]
        for racer in racers:
            racer.stdin.write(f"{mode} {name}\n")
            racer.stdin.flush()
        told = Counter(racer.stdout.readline().strip() for racer in racers)
        assert told == (one if mode == "raise" else all_of_them)
        crew.accept(name)
    crew.settle()
    crew.check()
    for row in crew.say("SELECT * FROM scheduled_jobs"):
        asked = json.loads(row["task_data"])
        assert json.loads(row["result"])[1] == asked["kwargs"]["number"]
        replaced = [what for what, _ in crew.journal(row["job_id"])].count("replace")
        assert replaced == (number - 1 if row["job_id"].startswith("replace") else 0)


def test_one_of_many_that_add_the_same_id_wins(crew):
    race(crew, 16, 1)


def test_a_replaced_run_that_cannot_be_stopped_ends_nothing(crew):
    [old] = crew.start_ready(1, "--most", "1")
    crew.add("a", job=think, hold=True, number=1)
    first = crew.wait_for_start("a")
    [new] = crew.start_ready(1)
    crew.add("a", job=think, hold=True, number=2, mode="replace")
    second = crew.wait_for_start("a", 2)
    crew.go(first)
    said = "that end does not count"
    eventually(lambda: said in old.errors.read_text(), what="that it was refused")
    crew.go()
    crew.settle()
    crew.check()
    assert crew.ends("a")[:2] == [first, second]
    assert json.loads(crew.row("a")["result"]) == [crew.ends("a")[-1], 2]
    assert ("end", crew.name_of(old)) not in crew.journal("a")
    assert new.poll() is None


def test_many_workers_start_at_one_time_on_an_empty_database(database, tmp_path):
    crew = Crew(database, tmp_path)
    try:
        workers = [crew.start("--tick", "--at-word") for _ in range(6)]
        for worker in workers:
            crew.wait_until_ready(worker)
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            crew.wait_until_ready(worker)
        assert len(crew.say("SELECT * FROM job_scheduler_versions")) == len(MIGRATIONS)
        assert len(crew.say("SELECT * FROM schedules")) == 1
        crew.say("UPDATE schedules SET paused = true")
        keep_journal(database)
        names = [f"r{number}" for number in range(30)]
        crew.add(*names)
        crew.settle()
        assert [len(crew.ends(name)) for name in names] == [1] * 30
        assert not any(re.search("ERROR|not yet", each.errors.read_text()) for each in workers)
    finally:
        crew.end()


# Jobs


def test_a_job_that_kills_its_process_fails_while_others_run(crew):
    crew.start_ready(2, "--most-crashes", "3")
    crew.add("poison", job=Poison)
    names = [f"good{number}" for number in range(20)]
    crew.add(*names, job=Work, takes=0.05)
    crew.settle()
    crew.check(doomed=["poison"])
    row = crew.row("poison")
    assert (row["status"], row["attempt"]) == ("failed", 3)
    assert "SIGSEGV" in row["error_message"]
    assert len(crew.starts("poison")) == 3


def test_a_job_of_tomorrow_is_left_to_a_worker_of_tomorrow(crew):
    [old] = crew.start_ready(1, "--without", "Work")
    crew.add("new", "newer", job=Work)
    crew.add("known")
    eventually(lambda: "2 runs are of job 'Work' due" in old.errors.read_text())
    eventually(lambda: crew.row("known")["status"] == "completed")
    assert (crew.row("new")["status"], crew.row("new")["token"]) == ("pending", 0)
    [new] = crew.start_ready(1)
    crew.settle()
    crew.check()
    assert {who for _, who in crew.journal("new")[1:]} == {crew.name_of(new)}


# The end of a worker


def start_command(crew, *options):
    where = named(crew.dsn, f"w{len(crew._started)}")
    command = ("-m", "job_scheduler", "worker", "--store", where)
    return crew.run(*command, "--jobs", "tests.faults.fault_jobs", *options)


def test_a_worker_that_is_told_to_end_hands_back(crew):
    """What ends in time is recorded, the rest is handed back, and ended by the next worker."""
    worker = start_command(crew, "--timeout", "1")
    held = {"process": Work, "coroutine": work, "thread": think}
    for name, job in held.items():
        crew.add(name, job=job, hold=True)
    crew.add("quick", job=work, takes=0.5)
    marks = {name: crew.wait_for_start(name) for name in (*held, "quick")}
    crew.add("late", job=work)  # it may be claimed, and must not be stranded
    worker.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert worker.wait(15) == 0, worker.errors.read_text()
    assert time.monotonic() - began < 8
    assert not is_alive(pid_of(marks["process"]))
    assert crew.row("quick")["status"] == "completed"
    for name in held:
        row = crew.row(name)
        assert (row["status"], row["attempt"], row["crashes"]) == ("pending", 0, 0)
        assert row["worker_id"] is None
    crew.go()
    assert start_command(crew, "--one-shot").wait(30) == 0
    crew.check()
    assert {crew.row(name)["attempt"] for name in held} == {1}


def pending_signals(pid):
    """The signals that a process was sent and has not seen."""
    [shared] = re.findall(r"ShdPnd:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    return int(shared, 16)


def test_a_worker_that_is_told_twice_ends_at_once(crew):
    worker = start_command(crew, "--timeout", "60")
    crew.add("held", job=Work, hold=True)
    crew.wait_for_start("held")
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: not pending_signals(worker.pid))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert crew.row("held")["status"] == "pending"
