"""Much work, and much going wrong meanwhile: a short form always, the long one in ``make soak``."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest

from tests.conftest import eventually, lines, spares_of
from tests.webhook_helpers import GUNICORN, Server, event, processes_with

COUNTING = """
from pathlib import Path
from tests.conftest import is_alive
def kilobytes(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_", "Swap:")))
def counts(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    zombies = [child for child in children if not is_alive(int(child))]
    threads = os.listdir(f"/proc/{pid}/task")
    return len(os.listdir(f"/proc/{pid}/fd")), len(threads), len(children), len(zombies)
"""


@pytest.mark.timeout(900)
def test_a_burst_waits_in_little_memory(start_caller, tmp_path, long):
    """None is lost, the bound is kept, and a waiting run costs less than 2 kB."""
    caller = start_caller(
        COUNTING
        + """
import itertools
count, gate, log = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.mkfifo(gate)
scheduler = JobScheduler(jobs=SAMPLES, max_processes=4, max_waiting=count + 10)
for job in ("Log", "Gate"):
    scheduler.run("Log", path=log + ".warm", tag="warm").wait()
gates = [scheduler.run("Gate", fifo=gate) for _ in range(4)]
eventually(lambda: all(run.pid for run in gates))
pids = os.getpid(), zygote_pid(scheduler)
before = sum(map(kilobytes, pids))
runs = [scheduler.run("Log", path=log, tag=n) for n in range(count)]
eventually(lambda: len(scheduler._dispatcher._launcher._books.waiting) == count)
scheduler.run("Noop").cancel()  # its report comes after the zygote has taken all
each = (sum(map(kilobytes, pids)) - before) * 1024 / count
print(f"{each:.0f} bytes each", file=sys.stderr)
assert each < 2048, each
def let_go():
    os.close(os.open(gate, os.O_RDWR | os.O_NONBLOCK))
    return all(run.wait(0.01) for run in gates)
eventually(let_go)
assert all(run.wait(60) for run in runs)
assert {str(run.state) for run in runs} == {"completed"}
tags = [int(line.split()[0]) for line in open(log)]
assert sorted(tags) == list(range(count))
starts = [(run.started_at, 1) for run in runs]
ends = [(run.ended_at, -1) for run in runs]
assert max(itertools.accumulate(step for _, step in sorted(starts + ends))) <= 4
print("done", flush=True)
""",
        10_000 if long else 3_000,
        tmp_path / "gate",
        tmp_path / "log",
        stderr=None,
    )
    assert caller.stdout.readline() == "done\n"


@pytest.mark.timeout(900)
def test_nothing_grows_with_the_number_of_jobs(start_caller, long):
    caller = start_caller(
        COUNTING
        + """
scheduler = JobScheduler(jobs=SAMPLES, max_processes=16)
def work(count):
    for _ in range(count // 500):
        runs = [scheduler.run("Noop") for _ in range(500)]
        assert all(run.wait(60) for run in runs)
        assert {str(run.state) for run in runs} == {"completed"}
    grow_spares(scheduler)
    time.sleep(0.3)
work(2000)
pids = os.getpid(), zygote_pid(scheduler)
before = [counts(pid) for pid in pids]
memory = [kilobytes(pid) for pid in pids]
work(int(sys.argv[1]))
assert zygote_pid(scheduler) == pids[1]
eventually(lambda: [counts(pid) for pid in pids] == before)
grown = [kilobytes(pid) - known for pid, known in zip(pids, memory)]
assert max(grown) < 1000, grown
print("done", grown, flush=True)
""",
        50_000 if long else 3_000,
        stderr=None,
    )
    assert caller.stdout.readline().startswith("done")


@pytest.mark.timeout(900)
def test_everything_is_killed_at_random(make_scheduler, tmp_path, seeded, long):
    """Every accepted run ends, and none runs twice."""
    scheduler = make_scheduler(max_processes=8)
    log = tmp_path / "log"
    runs = [scheduler.run("Log", path=str(log), tag="0")]
    assert runs[0].wait(20)
    stop = threading.Event()

    def submit():
        while not stop.is_set():
            runs.append(scheduler.run("Log", path=str(log), tag=str(len(runs))))
            time.sleep(0.001)

    submitter = threading.Thread(target=submit)
    submitter.start()
    deadline = time.monotonic() + (120 if long else 4)
    while time.monotonic() < deadline:
        time.sleep(seeded.random() * 0.03)
        kill_something(scheduler, runs, seeded)
    stop.set()
    submitter.join()
    assert all(run.wait(60) for run in runs)
    tags = [line.split()[0] for line in lines(log)]
    assert len(tags) == len(set(tags)), "a job ran twice"
    completed = {str(n) for n, run in enumerate(runs) if run.state == "completed"}
    assert completed <= set(tags)
    failed = {run.error.type for run in runs if run.error is not None}
    assert failed <= {"JobKilled", "JobLost"}
    assert len(completed) > len(runs) // 2


def kill_something(scheduler, runs, seeded):
    line = scheduler._dispatcher._launcher._line
    if line is None:
        return
    try:
        spares = spares_of(scheduler)
    except (AttributeError, FileNotFoundError):
        return  # the zygote has just died
    victims = [line.pid] if seeded.random() < 0.05 else [*spares, runs[-1].pid or 0]
    victim = seeded.choice(victims or [0])
    if victim:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return


@pytest.mark.timeout(900)
def test_gunicorn_workers_come_and_go(tmp_path, seeded, long):
    """Workers are recycled, and killed; what was accepted is done once."""
    count = 1000 if long else 60
    accepted = []

    def post(number):
        try:
            answer = server.post(event(f"pi_{number}"))
        except (OSError, HTTPException):
            return  # its worker was killed before it could answer
        if answer.status == 200:
            accepted.append(f"pi_{number}")

    command = (*GUNICORN, "--max-requests", "10", "--max-requests-jitter", "5")
    with Server(tmp_path, command) as server, ThreadPoolExecutor(4) as pool:
        for first in range(0, count, 20):
            for _ in pool.map(post, range(first, first + 20)):
                pass
            workers = [
                pid
                for pid in processes_with(f"RECEIPTS_DIR={server.receipts}")
                if parent_of(pid) == server.process.pid
            ]
            if workers:
                os.kill(seeded.choice(workers), signal.SIGKILL)
        eventually(lambda: {p.payment for p in server.printed()} >= set(accepted), timeout=60)
    payments = [each.payment for each in server.printed()]
    assert len(payments) == len(set(payments))
    assert len(accepted) > count // 2


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0
