"""What is rare, and was got wrong before: neighbours, doubles, silence, ends at the wrong time."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from job_scheduler import JobScheduler
from tests.conftest import ROOT, eventually, is_alive
from tests.fleet.conftest import (
    RedisServer,
    attempts_of,
    begun,
    ended_within,
    roll_of,
    wait_until_begun,
)
from tests.fleet.tasks import make_app

pytestmark = pytest.mark.usefixtures("quick_rounds")


@pytest.fixture
def other_server(tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()


class TestNeighbours:
    def test_what_is_heard_of_another_database_is_not_taken(
        self, stored, redis_server, start_worker, tmp_path
    ):
        start_worker()  # of database 0
        url = redis_server.url.removesuffix("0") + "1"
        store = f"sqlite:///{tmp_path / 'staging.db'}"
        staging = JobScheduler(make_app(url).jobs, store=store, wait_at_exit=False)
        mine, theirs = stored().options(key="today"), staging.options(key="today")
        waiting = theirs.run("add", a=100)
        eventually(lambda: waiting.state == "running")
        run = mine.run("add", a=1)
        assert run.id == waiting.id
        assert ended_within(run).result == 2
        time.sleep(1.5)  # more than until the next look
        assert waiting.state == "running"
        staging.shutdown(timeout=0)

    def test_what_others_publish_disturbs_nobody(self, scheduler, redis_server, start_worker):
        start_worker()
        run = scheduler.run("progress", key="a")
        wait_until_begun(redis_server, "a")
        for noise in (b"", b"\x80\x04.", b"[1]", b"{}", b'{"status": "SUCCESS"}'):
            for channel in (f"celery-task-meta-{run.id}:1", "celery-task-meta-\xff:1"):
                redis_server.client.publish(channel, noise)
        second = ended_within(scheduler.run("add", a=1))
        assert (second.result, run.state) == (2, "running")
        redis_server.client.set("go:a", 1)
        assert ended_within(run).result == "done"

    @pytest.mark.parametrize("record", [b"\x80\x04.", b"[1]", b"{}", b"null"])
    def test_a_record_that_nobody_can_read(self, scheduler, redis_server, record):
        run = scheduler.run("add", a=1)
        eventually(lambda: redis_server.client.llen("celery") == 1)
        redis_server.client.set(f"celery-task-meta-{run.id}:1", record)
        ended_within(run)
        assert (run.state, run.error.type) == ("failed", "NoResult")
        assert "its record in Redis cannot be read" in run.error.message

    def test_two_workers_of_one_name(self, stored, redis_server, start_worker):
        start_worker(concurrency=1)
        start_worker(concurrency=1)
        scheduler = stored()
        runs = [scheduler.run("count", key=f"{number}", seconds=4) for number in range(2)]
        assert [ended_within(run).state for run in runs] == ["completed"] * 2
        assert [attempts_of(scheduler, run) for run in runs] == [[], []]
        assert [len(begun(redis_server, f"{number}")) for number in range(2)] == [1, 1]


class TestTasksWithAMindOfTheirOwn:
    def test_one_that_tells_nothing_of_its_end_fails_once(self, stored, start_worker):
        start_worker()
        scheduler = stored()
        first = scheduler.run("progress", key="a")
        eventually(lambda: roll_of(scheduler)._pids)  # the worker is known
        run = ended_within(scheduler.run("leave"))
        assert (run.state, run.error.type) == ("failed", "NoResult")
        assert "has to set its state" in run.error.message
        assert attempts_of(scheduler, run) == []
        first.cancel()

    def test_one_that_has_another_do_its_work(self, stored, start_worker):
        start_worker()
        start_worker(name="other")
        scheduler = stored()
        runs = [scheduler.run("step_aside", a=number) for number in range(6)]
        assert [ended_within(run).result for run in runs] == [10, 11, 12, 13, 14, 15]

    def test_a_state_of_its_own_while_the_scheduler_changes_and_the_worker_dies(
        self, stored, redis_server, start_worker
    ):
        worker = start_worker()
        first = stored()
        run = first.run("progress", key="a")
        wait_until_begun(redis_server, "a")
        first.shutdown()
        second = stored()
        eventually(lambda: worker.name in roll_of(second)._answers)
        worker.kill()
        start_worker(name="other")
        redis_server.client.set("go:a", 1)
        found = ended_within(second.get_run(run.id), 60)
        assert (found.state, found.result) == ("completed", "done")
        assert attempts_of(second, found) == [(1, "crash", "JobLost")]


class TestMarks:
    def test_one_that_redis_has_thrown_out_sends_nothing_again(self, stored, redis_server, caplog):
        scheduler = stored()
        for _ in range(3):
            scheduler.run("add", a=1)
        [one, *_] = eventually(
            lambda: len(found := list(redis_server.client.scan_iter("*-sent-*"))) == 3 and found
        )
        redis_server.client.delete(one)
        eventually(lambda: redis_server.client.exists(one), what="another mark")
        assert redis_server.client.llen("celery") == 3
        assert "lost its memory" not in caplog.text

    def test_a_broker_of_its_own_keeps_what_the_results_have_lost(
        self, redis_server, other_server, stored, app, caplog
    ):
        app.conf.broker_url = app.conf.broker_write_url = other_server.url
        scheduler = stored()
        for _ in range(3):
            scheduler.run("add", a=1)
        eventually(lambda: len(list(redis_server.client.scan_iter("*-sent-*"))) == 3)
        redis_server.client.flushall()
        eventually(lambda: len(list(redis_server.client.scan_iter("*-sent-*"))) == 3)
        assert other_server.client.llen("celery") == 3
        assert "broker and results are not on one Redis" in caplog.text

    def test_short_memories_of_results(self, redis_server, make_scheduler, tmp_path, start_worker):
        app = make_app(redis_server.url, result_expires=4)
        options = {"store": f"sqlite:///{tmp_path / 'jobs.db'}", "wait_at_exit": False}
        first = JobScheduler(app.jobs, **options)
        run = first.run("count", key="a")
        eventually(lambda: redis_server.client.llen("celery") == 1)
        time.sleep(5)  # Redis counts in seconds, and forgets a result after four
        first.shutdown()
        with JobScheduler(app.jobs, **options) as second:
            start_worker(result_expires=4)
            assert ended_within(second.get_run(run.id)).state == "completed"
            assert redis_server.client.llen("celery") == 0
        assert len(begun(redis_server, "a")) == 1

    def test_nothing_is_left_of_what_has_ended(self, redis_server, app, start_worker):
        start_worker()
        with JobScheduler(app.jobs) as scheduler:
            for name, given in (("add", {"a": 1}), ("fail", {"message": "x"})):
                ended_within(scheduler.run(name, **given))
        eventually(lambda: not list(redis_server.client.scan_iter("*-sent-*")))


class TestEnds:
    def test_a_handler_may_run_and_wait(self, scheduler, start_worker):
        start_worker()
        told, come = threading.Event(), []

        class Handler(logging.Handler):
            def emit(self, record):
                if "missing" in record.getMessage():
                    asked = threading.Thread(target=lambda: come.append(scheduler.run("add", a=1)))
                    asked.start()
                    asked.join(20)
                    come[0].wait(20)
                    told.set()

        handler = Handler()
        logging.getLogger("job_scheduler").addHandler(handler)
        try:
            ended_within(scheduler.run("fail", message="missing"))
            assert told.wait(30)
            assert come[0].result == 2
        finally:
            logging.getLogger("job_scheduler").removeHandler(handler)

    def test_what_was_cancelled_at_the_end_of_a_program_is_revoked(
        self, redis_server, start_worker
    ):
        program = textwrap.dedent(f"""
            from job_scheduler import JobScheduler
            from tests.conftest import eventually
            from tests.fleet.tasks import make_app
            app = make_app({redis_server.url!r})
            scheduler = JobScheduler(jobs=app.jobs)
            run = scheduler.run("count", key="a", seconds=60)
            eventually(lambda: run.state == "running" and app.backend.client.llen("begun:a"))
            run.cancel()
        """)
        start_worker()
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False)
        assert done.returncode == 0
        [pid] = begun(redis_server, "a")
        eventually(lambda: not is_alive(pid))

    def test_cancelling_what_nobody_follows(self, stored, redis_server, start_worker):
        first = stored()
        run = first.run("count", key="a")
        eventually(lambda: list(redis_server.client.scan_iter("*-sent-*")))
        first.shutdown()
        start_worker(concurrency=1)
        eventually(lambda: redis_server.client.get("done:a"))  # before anybody is asked
        second = stored(workers=0)
        third = stored(name="other.db")
        blocked = third.run("progress", key="block")
        wait_until_begun(redis_server, "block")
        waiting = third.run("count", key="b")
        eventually(lambda: len(list(redis_server.client.scan_iter("*-sent-*"))) >= 3)
        third.shutdown()
        fourth = stored(name="other.db", workers=0)
        assert fourth.get_run(waiting.id).cancel()
        assert second.get_run(run.id).cancel()  # too late, but nobody has told
        eventually(lambda: not roll_of(fourth).has_unsaid)
        redis_server.client.set("go:block", 1)
        last = stored(name="third.db").run("count", key="c")
        ended_within(last)
        assert begun(redis_server, "b") == []
        assert blocked.id

    def test_cancelling_what_nobody_follows_while_redis_is_away(
        self, stored, redis_server, start_worker
    ):
        redis_server.kill()
        redis_server.start(keeps=True)
        first = stored()
        run = first.run("count", key="a")
        eventually(lambda: list(redis_server.client.scan_iter("*-sent-*")))
        first.shutdown()
        redis_server.kill()
        second = stored(workers=0)
        assert second.get_run(run.id).cancel()
        redis_server.start(keeps=True)
        eventually(lambda: not roll_of(second).has_unsaid)
        assert not list(redis_server.client.scan_iter("*-sent-*"))
        start_worker()
        assert ended_within(stored(name="other.db").run("count", key="b")).state == "completed"
        eventually(lambda: redis_server.client.llen("celery") == 0)

    def test_a_shutdown_that_waits_while_redis_loses_all(self, app, redis_server, start_worker):
        scheduler = JobScheduler(app.jobs, wait_at_exit=False)
        runs = [scheduler.run("count", key="a") for _ in range(3)]
        eventually(lambda: len(list(redis_server.client.scan_iter("*-sent-*"))) == 3)
        ending = threading.Thread(target=scheduler.shutdown)
        ending.start()
        redis_server.kill()
        redis_server.start()
        start_worker()
        ending.join(60)
        assert not ending.is_alive()
        assert [run.state for run in runs] == ["completed"] * 3

    def test_a_shutdown_while_celery_tries_again(self, app, start_worker):
        start_worker()
        scheduler = JobScheduler(app.jobs, wait_at_exit=False)
        run = scheduler.options(delay=0.01).run("flaky", times=2, countdown=0.5)
        eventually(lambda: run.state == "running")
        scheduler.shutdown()
        assert (run.state, run.result) == ("completed", 2)
