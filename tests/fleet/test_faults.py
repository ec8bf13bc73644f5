"""What happens to runs when workers, Redis, or the scheduler itself are gone for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from job_scheduler import engine
from tests.conftest import ROOT, eventually, is_alive
from tests.fleet.conftest import LEASE, attempts_of, begun, ended_within, roll_of, wait_until_begun

pytestmark = pytest.mark.usefixtures("quick_rounds")


class TestLostWorkers:
    @pytest.mark.parametrize("settings", [{}, {"task_acks_late": False}], ids=["late", "early"])
    def test_a_killed_process_is_a_crash_and_started_again(self, stored, start_worker, settings):
        start_worker(**settings)
        scheduler = stored()
        run = ended_within(scheduler.run("die", key="a", times=1))
        assert run.result == "alive", run.error
        assert attempts_of(scheduler, run) == [(1, "crash", "JobLost")]

    def test_it_fails_for_good_after_so_many(self, stored, start_worker, redis_server):
        start_worker()
        run = ended_within(stored(most_crashes=2).run("die", key="a", times=9))
        assert (run.state, run.error.type) == ("failed", "JobLost")
        assert redis_server.client.get("deaths:a") == b"2"

    def test_what_celery_starts_again_by_itself_is_a_crash_too(self, stored, start_worker):
        start_worker(task_reject_on_worker_lost=True)
        scheduler = stored(most_crashes=2)
        run = ended_within(scheduler.run("die", key="a", times=99), 60)
        assert (run.state, run.error.type) == ("failed", "JobLost")

    def test_in_memory_it_is_a_failure(self, scheduler, start_worker):
        start_worker()
        run = ended_within(scheduler.run("die", key="a", times=1))
        assert (run.state, run.error.type) == ("failed", "JobLost")
        run = ended_within(scheduler.options(max_retries=1).run("die", key="b", times=1))
        assert run.result == "alive"

    def test_a_killed_worker_is_missed(self, stored, start_worker, redis_server):
        worker = start_worker()
        scheduler = stored()
        run = scheduler.run("count", key="a", seconds=1.5)
        wait_until_begun(redis_server, "a")
        eventually(lambda: worker.name in roll_of(scheduler)._answers)
        worker.kill()
        start_worker(name="other")
        assert ended_within(run, 60).state == "completed", run.error
        assert attempts_of(scheduler, run) == [(1, "crash", "JobLost")]
        assert len(begun(redis_server, "a")) == 2
        assert redis_server.client.get("done:a") == b"1"

    def test_a_worker_that_stands_still_is_missed_and_stopped_when_it_goes_on(
        self, stored, start_worker, redis_server
    ):
        worker = start_worker()
        scheduler = stored()
        run = scheduler.run("progress", key="a")
        [pid] = wait_until_begun(redis_server, "a")
        eventually(lambda: worker.name in roll_of(scheduler)._answers)
        worker.freeze()
        start_worker(name="other")
        wait_until_begun(redis_server, "a", 2)
        worker.thaw()
        eventually(lambda: not is_alive(pid), 30)
        redis_server.client.set("go:a", 1)
        assert ended_within(run, 60).result == "done"
        assert attempts_of(scheduler, run) == [(1, "crash", "JobLost")]

    def test_a_solo_worker_is_missed_once_one_of_its_name_is_back(
        self, stored, start_worker, redis_server
    ):
        worker = start_worker("solo")
        scheduler = stored()
        run = scheduler.run("count", key="a", seconds=1)
        wait_until_begun(redis_server, "a")
        worker.kill()
        start_worker("solo")
        assert ended_within(run, 60).state == "completed", run.error
        assert attempts_of(scheduler, run) == [(1, "crash", "JobLost")]

    def test_a_busy_solo_worker_is_not_missed(self, stored, start_worker, redis_server):
        start_worker("solo")
        scheduler = stored()
        run = scheduler.run("count", key="a", seconds=4)  # ten rounds
        ended_within(run)
        assert (run.state, attempts_of(scheduler, run)) == ("completed", [])
        assert len(begun(redis_server, "a")) == 1


class TestCancelling:
    def test_one_that_nobody_was_there_to_be_told_of_is_stopped(
        self, scheduler, start_worker, redis_server
    ):
        run = scheduler.run("count", key="a", seconds=60)
        eventually(lambda: redis_server.client.llen("celery") == 1)
        assert run.cancel()
        assert (run.wait(5), run.state, run.started_at) == (True, "cancelled", None)
        start_worker()
        eventually(lambda: redis_server.client.llen("celery") == 0)
        assert ended_within(scheduler.run("count", key="b")).result == 1
        # It may have begun before it was told again.
        eventually(lambda: not any(is_alive(pid) for pid in begun(redis_server, "a")))
        eventually(lambda: redis_server.client.hlen("unacked") == 0)
        assert not redis_server.client.get("done:a")
        assert run.state == "cancelled"

    def test_one_behind_others_never_starts(self, scheduler, start_worker, redis_server):
        start_worker(concurrency=1)
        first = scheduler.run("count", key="a", seconds=1)
        wait_until_begun(redis_server, "a")
        second, third = scheduler.run("count", key="b"), scheduler.run("count", key="c")
        assert second.cancel()
        assert second.wait(5)
        assert ended_within(third).state == ended_within(first).state == "completed"
        assert (second.state, begun(redis_server, "b")) == ("cancelled", [])

    def test_one_of_a_store_from_another_program(self, stored, start_worker, redis_server):
        start_worker()
        run = stored().run("count", key="a", seconds=60)
        wait_until_begun(redis_server, "a")
        other = stored(workers=0)
        assert other.get_run(run.id).cancel()
        assert ended_within(run).state == "cancelled"
        assert not redis_server.client.get("done:a")


class TestWithoutRedis:
    def test_due_instants_wait_for_it(self, scheduler, app, start_worker, redis_server, caplog):
        caplog.set_level("INFO", "job_scheduler")
        redis_server.kill()
        at = datetime.now(UTC) + timedelta(seconds=0.1)
        for number in range(20):
            scheduler.add_job(f"j{number}", app.jobs["count"], at=at, args=[f"{number}"])
        scheduler.add_job("each", app.jobs["count"], interval=0.2, args=["each"])
        eventually(lambda: "nothing is sent to Celery's workers" in caplog.text)
        eventually(lambda: scheduler.get_job_info("each")["missed"] > 2)
        waiting = [scheduler.get_job_info(f"j{number}")["last_run"] for number in range(20)]
        assert [run["state"] for run in waiting] == ["pending"] * 20
        redis_server.start()
        start_worker()
        eventually(lambda: all(begun(redis_server, f"{number}") for number in range(20)), 30)
        eventually(lambda: len(begun(redis_server, "each")) > 2)
        eventually(lambda: "what has waited is sent" in caplog.text)
        infos = [scheduler.get_job_info(f"j{number}") for number in range(20)]
        eventually(lambda: all(scheduler.get_job_info(i["id"])["completed"] == 1 for i in infos))
        assert [len(begun(redis_server, f"{number}")) for number in range(20)] == [1] * 20

    def test_run_is_back_at_once_and_is_sent_later(self, stored, start_worker, redis_server):
        redis_server.kill()
        scheduler = stored()
        started = time.monotonic()
        runs = [scheduler.run("count", key=f"{number}") for number in range(5)]
        assert runs[4].cancel()
        assert runs[4].wait(5)
        assert time.monotonic() - started < 5
        redis_server.start()
        start_worker()
        assert [ended_within(run).state for run in runs] == ["completed"] * 4 + ["cancelled"]

    @pytest.mark.parametrize("keeps", [True, False], ids=["it kept all", "it lost all"])
    def test_what_was_in_its_queue_is_run_once(
        self, stored, start_worker, redis_server, keeps, caplog
    ):
        redis_server.kill()
        redis_server.start(keeps=keeps)
        scheduler = stored()
        runs = [scheduler.run("count", key=f"{number}") for number in range(50)]
        eventually(lambda: redis_server.client.llen("celery") == 50)  # more than run here at once
        eventually(lambda: len(list(redis_server.client.scan_iter("*-sent-*"))) == 50)
        redis_server.kill()
        redis_server.start(keeps=keeps)
        start_worker()
        assert [ended_within(run, 60).state for run in runs] == ["completed"] * 50
        assert [len(begun(redis_server, f"{number}")) for number in range(50)] == [1] * 50
        assert ("Redis has lost its memory" in caplog.text) is not keeps

    def test_what_goes_on_meanwhile_is_heard_of(self, stored, start_worker, redis_server):
        redis_server.kill()
        redis_server.start(keeps=True)
        start_worker()
        scheduler = stored()
        run = scheduler.run("count", key="a", seconds=2)
        wait_until_begun(redis_server, "a")
        redis_server.kill()
        time.sleep(1)  # the time in which it is away
        redis_server.start(keeps=True)
        assert ended_within(run, 60).state == "completed", run.error
        assert attempts_of(scheduler, run) == []

    def test_nobody_is_held_up_while_it_hangs(self, stored, app, start_worker, redis_server):
        start_worker()
        scheduler = stored()
        run = scheduler.run("count", key="a", seconds=60)
        wait_until_begun(redis_server, "a")
        redis_server.freeze()
        started = time.monotonic()
        second = scheduler.run("count", key="b")
        assert run.cancel()
        assert second.cancel()
        here = scheduler.add_job("here", time.time, interval=0.1)
        eventually(lambda: scheduler.get_job_info(here)["completed"] > 1)
        assert time.monotonic() - started < 10
        redis_server.thaw()
        assert ended_within(run, 60).state == "cancelled"

    def test_shutdown_is_not_held_up_while_it_hangs(self, stored, start_worker, redis_server):
        start_worker()
        scheduler = stored()
        run = scheduler.run("count", key="a", seconds=2)
        wait_until_begun(redis_server, "a")
        redis_server.freeze()
        started = time.monotonic()
        scheduler.shutdown()
        assert time.monotonic() - started < 10
        redis_server.thaw()
        assert ended_within(stored().get_run(run.id), 60).state == "completed"
        assert len(begun(redis_server, "a")) == 1


class TestRestarts:
    @pytest.mark.parametrize("when", ["while it waits", "while it runs", "after its end"])
    def test_who_comes_next_finds_what_was_sent(self, stored, start_worker, redis_server, when):
        first = stored()
        run = first.run("count", key="a", seconds=2 if when == "while it runs" else 0)
        eventually(lambda: list(redis_server.client.scan_iter("*-sent-*")))
        if when == "while it runs":
            start_worker()
            wait_until_begun(redis_server, "a")
        first.shutdown()
        assert not redis_server.client.get("done:a")  # nobody waits for what goes on elsewhere
        if when == "after its end":
            start_worker()
            eventually(lambda: redis_server.client.get("done:a"))
        second = stored()
        if when == "while it waits":
            start_worker()
        found = ended_within(second.get_run(run.id))
        assert (found.state, found.result, found.error) == ("completed", 1, None)
        record = second._dispatcher.stored().look_up(run.id)
        assert (record.attempt, record.crashes) == (1, 0)
        assert len(begun(redis_server, "a")) == 1

    @pytest.mark.parametrize("when", ["while it waits", "while it runs", "after its failure"])
    def test_who_comes_after_a_crash_does_too(
        self, stored, start_program, start_worker, redis_server, when
    ):
        if when == "after its failure":
            program = start_program("fail", message="x")
        else:
            program = start_program("count", key="a", seconds=4)
        if when == "while it runs":
            start_worker()
            wait_until_begun(redis_server, "a")
        program.kill()
        if when != "while it runs":
            start_worker()
        if when == "after its failure":
            eventually(lambda: redis_server.client.llen("celery") == 0)
        scheduler = stored()
        run = ended_within(scheduler.get_run(program.run_id))
        expected = ("failed", "KeyError: 'x'") if "failure" in when else ("completed", "None")
        assert (run.state, str(run.error)) == expected
        assert attempts_of(scheduler, run) == [(1, "crash", "LeaseLost")]
        if when != "after its failure":
            assert len(begun(redis_server, "a")) == 1

    def test_a_crash_between_sending_and_noting_it_may_repeat_it(
        self, stored, start_program, start_worker, redis_server
    ):
        program = start_program("count", key="a", crash_before_mark=True)
        program.wait(20)
        assert redis_server.client.llen("celery") == 1
        start_worker()
        scheduler = stored()
        run = ended_within(scheduler.get_run(program.run_id))
        assert run.state == "completed"
        assert attempts_of(scheduler, run) == [(1, "crash", "LeaseLost")]
        eventually(lambda: len(begun(redis_server, "a")) == 2)

    def test_what_celery_tries_again_is_an_attempt_of_ours(self, stored, start_worker):
        start_worker()
        scheduler = stored()
        run = ended_within(scheduler.run("flaky", times=2, countdown=0.3))
        assert run.result == 2
        failures = [(1, "failure", "OSError"), (2, "failure", "OSError")]
        assert attempts_of(scheduler, run) == failures

    def test_what_is_due_later_stays_in_the_store(self, stored, redis_server, app):
        scheduler = stored()
        run = scheduler.options(delay="1h").run("count", key="a")
        scheduler.add_job("daily", app.jobs["count"], cron="0 0 1 1 *", args=["a"])
        ended_by_now = scheduler.options(delay="0.2s").run("count", key="b")
        eventually(lambda: redis_server.client.llen("celery") == 1)
        assert redis_server.client.llen("celery") == 1
        assert (run.state, ended_by_now.state) == ("pending", "running")
        assert not [key for key in redis_server.client.scan_iter() if b"unacked" in key]

    def test_enough_are_on_their_way_and_others_are_not_held_up(
        self, stored, start_worker, redis_server, monkeypatch
    ):
        monkeypatch.setattr(engine, "_MOST_ELSEWHERE", 5)
        scheduler = stored(workers=4)
        runs = [scheduler.run("count", key="a") for _ in range(60)]
        eventually(lambda: redis_server.client.llen("celery") >= 5)
        here = scheduler.run("TestJob")
        assert ended_within(here).state == "completed"
        assert redis_server.client.llen("celery") < 10  # and a batch
        start_worker()
        assert {ended_within(run, 60).state for run in runs} == {"completed"}
        assert len(begun(redis_server, "a")) == 60

    def test_postgresql_keeps_them_as_well(self, database, make_scheduler, start_worker, app):
        options = {"store": database, "lease": LEASE}
        first = make_scheduler(**options)
        runs = [first.run("count", key=f"{number}", seconds=0.2) for number in range(5)]
        start_worker()
        eventually(lambda: runs[0].state != "pending")
        first.shutdown()
        second = make_scheduler(**options)
        found = [ended_within(second.get_run(run.id)) for run in runs]
        assert [(run.state, run.result) for run in found] == [("completed", 1)] * 5

    def test_a_thousand_from_a_store(self, stored, start_worker, redis_server):
        start_worker()
        scheduler = stored()
        runs = [scheduler.options(delay=0.5).run("count", key="a") for _ in range(1_000)]
        assert {ended_within(run, 60).state for run in runs} == {"completed"}
        assert len(begun(redis_server, "a")) == 1_000


class Program(subprocess.Popen):
    """Another program with the same store, which accepts one run and goes on."""

    def __init__(self, store, url, name, crash_before_mark, **kwargs):
        code = PROGRAM.format(
            store=store,
            url=url,
            name=name,
            kwargs=kwargs,
            lease=LEASE,
            crash="os.kill(os.getpid(), 9)" if crash_before_mark else "real(self, flight)",
        )
        super().__init__(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.run_id = self.stdout.readline().strip()


PROGRAM = """
import os, threading, time
from job_scheduler import JobScheduler
from job_scheduler.executors.celery.records import Marker
from tests.fleet.tasks import make_app

real = Marker.mark
def mark(self, flight):
    {crash}
    print("marked", flush=True)
Marker.mark = mark
scheduler = JobScheduler(make_app({url!r}).jobs, store={store!r}, lease={lease})
run = scheduler.options(delay=0.2).run({name!r}, **{kwargs})
print(run.id, flush=True)
time.sleep(60)
"""


@pytest.fixture
def start_program(redis_server, tmp_path):
    programs = []

    def start(name, *, crash_before_mark=False, **kwargs):
        store = f"sqlite:///{tmp_path / 'jobs.db'}"
        program = Program(store, redis_server.url, name, crash_before_mark, **kwargs)
        programs.append(program)
        if not crash_before_mark:
            assert program.stdout.readline() == "marked\n"
        return program

    yield start
    for program in programs:
        program.send_signal(signal.SIGKILL)
        program.wait()
        program.stdout.close()
