"""What comes of runs on the workers of Celery, of the prefork pool and of the solo one."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime, timedelta

import celery
import pytest

from job_scheduler import Job, RetryPolicy
from job_scheduler.errors import InvalidOptionError
from job_scheduler.run import RunState
from tests.conftest import eventually
from tests.fleet.conftest import begun, ended_within, wait_until_begun


def key():
    return uuid.uuid4().hex


def test_a_task_by_name(on_fleet, fleet):
    run = on_fleet.run("add", a=1)
    assert ended_within(run).state == "completed", run.error
    assert run.result == 2
    assert run.started_at <= run.ended_at
    assert (run.pid, run.exitcode, run.process) == (None, None, None)
    kept = fleet.app.AsyncResult(f"{run.id}:1")
    assert (kept.state, kept.result) == ("SUCCESS", 2)


def test_it_runs_elsewhere(on_fleet, fleet):
    name = key()
    ended_within(on_fleet.run("count", key=name))
    [pid] = begun(fleet, name)
    assert pid != os.getpid()


@pytest.mark.parametrize(
    ("name", "kwargs", "result"),
    [
        ("Report", {"a": 1}, ["Report", 3]),
        ("AsyncReport", {"a": {"b": None}}, {"b": None}),
        ("told", {}, "told all the same"),
        ("untyped", {"x": [1, "ä", 1.5]}, [[], {"x": [1, "ä", 1.5]}]),
    ],
)
def test_what_can_be_run(on_fleet, name, kwargs, result):
    if name == "told" and celery.VERSION < (5, 6):
        with pytest.raises(InvalidOptionError, match=r"or take Celery 5\.6"):
            on_fleet.run(name)
        return
    run = ended_within(on_fleet.run(name, **kwargs))
    assert (run.state, run.error, run.result) == ("completed", None, result)


def test_a_failure_is_told_with_what_it_is(on_fleet, caplog):
    run = ended_within(on_fleet.run("fail", message="missing"))
    assert run.state is RunState.FAILED
    assert str(run.error) == "KeyError: 'missing'"
    assert run.error.bases[:2] == ("LookupError", "Exception")
    assert "in fail" in run.error.traceback
    eventually(lambda: f"job 'fail' failed: KeyError: 'missing' (run {run.id}" in caplog.text)
    own = ended_within(on_fleet.run("fail", message="too bad", kind="OwnError"))
    assert str(own.error) == "OwnError: too bad"


def test_an_unknown_task_fails_without_having_started(on_fleet, fleet):
    @fleet.app.task(name=f"unknown-{key()}", shared=False)
    def unknown():
        """No worker knows it."""

    on_fleet.jobs["unknown"] = unknown
    run = ended_within(on_fleet.run("unknown"))
    assert (run.state, run.error.type, run.started_at) == ("failed", "NotRegistered", None)


def test_a_run_that_goes_on_is_running(on_fleet, fleet):
    name = key()
    run = on_fleet.run("progress", key=name)
    wait_until_begun(fleet, name)
    eventually(lambda: run.state is RunState.RUNNING)
    fleet.client.set(f"go:{name}", 1)
    assert ended_within(run).result == "done"


def test_cancelling_what_goes_on(on_fleet, fleet):
    name = key()
    run = on_fleet.run("count", key=name, seconds=60 if fleet.pool == "prefork" else 1)
    wait_until_begun(fleet, name)
    eventually(lambda: run.state is RunState.RUNNING)
    assert run.cancel()
    ended_within(run)
    if fleet.pool == "prefork":
        assert (run.state, run.error.message) == ("cancelled", "the run was cancelled")
        assert not fleet.client.get(f"done:{name}")
    else:  # nobody can stop it
        assert (run.state, run.result) == ("completed", 1)
    assert not run.cancel()


def test_a_timeout(on_fleet, fleet, monkeypatch):
    name = key()
    on_fleet = on_fleet.options(timeout=0.5)
    run = on_fleet.run("count", key=name, seconds=60 if fleet.pool == "prefork" else 9)
    ended_within(run)
    assert str(run.error) == "JobTimeout: not done after 0.5 s"
    if fleet.pool == "prefork":
        assert not fleet.client.get(f"done:{name}")
    else:  # it goes on, and holds up the worker
        eventually(lambda: fleet.client.get(f"done:{name}"), 30)


@pytest.mark.parametrize("later", [{}, {"delay": 0.05}], ids=["at once", "by the engine"])
def test_what_celery_tries_again(on_fleet, caplog, later):
    run = on_fleet.options(**later).run("flaky", times=2, countdown=0.3)
    assert ended_within(run).result == 2
    assert (run.state, run.error) == ("completed", None)
    assert "OSError: try 0" in caplog.text
    assert "OSError: try 1" in caplog.text


def test_what_celery_tries_again_at_once(on_fleet):
    """Its states may be over before anybody has looked at them; its end counts."""
    runs = [on_fleet.options(delay=0.01).run("flaky", times=5) for _ in range(10)]
    assert [ended_within(run).result for run in runs] == [5] * 10


def test_what_we_try_again(on_fleet, fleet):
    policy = RetryPolicy(max_retries=2, delay=0.01, retry_on="LookupError")

    class Failing(Job):
        executor = "celery"
        celery_task = fleet.app.tasks["fail"]
        retry = policy

        def process(self, message):
            """Its task does something else."""

    on_fleet.jobs["Failing"] = Failing
    run = ended_within(on_fleet.run("Failing", message="x"))
    assert run.state == "failed"
    attempts = [fleet.app.AsyncResult(f"{run.id}:{number}").state for number in (1, 2, 3, 4)]
    assert attempts == ["FAILURE", "FAILURE", "FAILURE", "PENDING"]


def test_a_task_at_an_interval(on_fleet, fleet):
    name = key()
    on_fleet.add_job("job1", fleet.app.tasks["count"], interval=0.1, args=[name])
    wait_until_begun(fleet, name, 5)
    eventually(lambda: on_fleet.get_job_info("job1")["completed"] >= 5)
    on_fleet.remove_job("job1")
    eventually(lambda: fleet.client.llen("celery") == 0)
    assert on_fleet.healthy


def test_where_the_caller_says(on_fleet, fleet):
    """A task is a function too, and a class may run in several places."""
    name = key()
    on_fleet.add_job("here", fleet.app.tasks["count"], at=datetime.now(UTC), executor="thread",
                     args=[name])  # fmt: skip
    assert wait_until_begun(fleet, name) == [os.getpid()]


def test_a_thousand_due_in_one_second(on_fleet, fleet):
    name = key()
    at = datetime.now(UTC) + timedelta(seconds=0.5)
    for number in range(1_000):
        on_fleet.add_job(f"one{number}", fleet.app.tasks["count"], at=at, args=[name])
    eventually(lambda: fleet.client.get(f"done:{name}") == b"1000", 60)
    infos = [on_fleet.get_job_info(f"one{number}") for number in range(1_000)]
    eventually(lambda: all(on_fleet.get_job_info(i["id"])["completed"] == 1 for i in infos))
    assert fleet.client.llen("celery") == 0
    assert len(begun(fleet, name)) == 1_000  # none twice
