"""What every executor promises; see ``executors/base.py``."""

from __future__ import annotations

import asyncio
import functools
import json
import threading

import pytest

from job_scheduler import Job
from job_scheduler.errors import InvalidJobError, InvalidOptionError
from job_scheduler.executors.celery.executor import CeleryExecutor
from job_scheduler.executors.coroutine import CoroutineExecutor
from job_scheduler.executors.loop_thread import LoopThread
from job_scheduler.executors.process import ProcessExecutor
from job_scheduler.executors.thread import ThreadExecutor
from job_scheduler.launcher.base import Settings
from job_scheduler.launcher.client import ZygoteLauncher
from job_scheduler.run import RunId, RunState
from job_scheduler.target import Target
from tests.conftest import eventually
from tests.contract.jobs import Both, BothAsync, echo, fail, leave, make_app, nap
from tests.fleet.conftest import CeleryWorker, RedisServer

SETTINGS = Settings(wait_at_exit=False, grace=0.3, max_processes=4)


class Place:
    """One executor, with what is run on it in its own way."""

    def __init__(self, kind, app=None):
        self.kind = kind
        self.app = app
        self.loop_thread = None
        if kind == "celery":
            self.executor = CeleryExecutor(SETTINGS)
        elif kind == "process":
            self.executor = ProcessExecutor(ZygoteLauncher(SETTINGS))
        elif kind == "thread":
            self.executor = ThreadExecutor(SETTINGS)
        else:
            self.loop_thread = LoopThread()
            self.executor = CoroutineExecutor(self.loop_thread.loop, SETTINGS)

    def target(self, what):
        if self.kind == "coroutine" and not isinstance(what, (type, Job)):
            what = as_coroutine(what)
        if self.kind == "celery":
            what = self.app.contract.get(what, what)
        return Target.of_anything(what, "schedule", self.kind)

    def submit(self, what, *args, timeout=None, run_id=None, **kwargs):
        return self.executor.submit("a job", self.target(what), args, kwargs, timeout, run_id)

    def close(self):
        for run in self.executor.pending():
            run.cancel()
        self.executor.close()
        if self.loop_thread is not None:
            self.loop_thread.stop_once(lambda: True)


def as_coroutine(function):
    @functools.wraps(function)
    async def coroutine(*args, **kwargs):
        if function is nap:
            return await asyncio.sleep(*args)
        return function(*args, **kwargs)

    return coroutine


@pytest.fixture(scope="module")
def celery_app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract")
    server = RedisServer(folder)
    server.start()
    worker = CeleryWorker(server.url, folder / "worker.log", module="tests.contract.jobs")
    worker.wait_until_ready()
    yield make_app(server.url)
    worker.kill()
    server.kill()


@pytest.fixture(params=["process", "thread", "coroutine", "celery"])
def place(request):
    is_celery = request.param == "celery"
    place = Place(request.param, request.getfixturevalue("celery_app") if is_celery else None)
    yield place
    place.close()


def as_json(value):
    """Without tuples, which come back as lists from another machine."""
    return json.loads(json.dumps(value))


def test_a_function_gets_its_arguments(place):
    run = place.submit(echo, 1, "two", three=[3])
    assert run.wait(20)
    assert (run.state, as_json(run.result)) == ("completed", [[1, "two"], {"three": [3]}])
    assert run.started_at is not None
    assert run.started_at <= run.ended_at


def test_a_class_gives_each_run_an_object(place):
    job_class = BothAsync if place.kind == "coroutine" else Both
    run = place.submit(job_class, word="hello")
    assert run.wait(20)
    assert tuple(run.result) == ("nothing", "hello")


def test_an_object_is_used_as_it_is(place):
    if place.kind == "celery":
        with pytest.raises(InvalidJobError, match="cannot be sent to another machine"):
            place.submit(Both(said="this"))
        return
    job_class = BothAsync if place.kind == "coroutine" else Both
    run = place.submit(job_class(said="this"), word="hello")
    assert run.wait(20)
    assert tuple(run.result) == ("this", "hello")


def test_a_failure_is_told_with_what_it_is(place, caplog):
    run = place.submit(fail, "missing", run_id=RunId("my-run"))
    assert run.wait(20)
    assert run.state is RunState.FAILED
    assert (run.error.type, run.error.message) == ("KeyError", "'missing'")
    assert run.error.bases[:2] == ("LookupError", "Exception")
    assert "raise KeyError(message)" in run.error.traceback
    eventually(lambda: "job 'a job' failed: KeyError: 'missing' (run my-run" in caplog.text)


def test_a_job_that_leaves_has_failed_or_ended_with_its_code(place):
    run = place.submit(leave)
    assert run.wait(20)
    assert run.state is RunState.FAILED
    assert run.exitcode == (3 if place.kind == "process" else None)
    assert place.kind != "celery" or run.error.type == "JobLost"


def test_many_at_one_time(place):
    runs = [place.submit(echo, number) for number in range(50)]
    assert all(run.wait(20) for run in runs)
    assert [run.result[0][0] for run in runs] == list(range(50))
    assert len({run.id for run in runs}) == 50
    eventually(lambda: not place.executor.pending())


def test_what_goes_on_is_pending_and_can_be_stopped_or_not(place):
    run = place.submit(nap, 0.5 if place.kind == "thread" else 60)
    eventually(lambda: run.state is RunState.RUNNING)
    assert place.executor.pending() == [run]
    assert run.cancel() is (place.kind != "thread")
    assert run.wait(20)
    assert run.state is (RunState.COMPLETED if place.kind == "thread" else RunState.CANCELLED)
    assert not run.cancel()


def test_a_timeout_stops_it_or_is_refused(place):
    if place.kind == "thread":
        with pytest.raises(InvalidOptionError, match="runs in a thread, which cannot be stopped"):
            place.submit(nap, 60, timeout=0.2)
        return
    run = place.submit(nap, 60, timeout=0.2)
    assert run.wait(20)
    assert str(run.error) == "JobTimeout: not done after 0.2 s"


def test_one_that_waits_never_starts_once_it_is_cancelled(place):
    if place.kind == "coroutine":
        held = threading.Event()
        place.loop_thread.loop.call_soon_threadsafe(held.wait)
        busy = []
    else:
        held = None
        busy = [place.submit(nap, 0.5) for _ in range(40)]
    run = place.submit(echo)
    assert run.cancel()
    if held is not None:
        held.set()
    assert run.wait(20)
    assert (run.state, run.started_at) == (RunState.CANCELLED, None)
    for each in busy:
        each.cancel()
    assert all(each.wait(20) for each in busy)


def test_nothing_is_accepted_once_it_is_closed(place):
    place.submit(echo).wait(20)
    place.executor.close()
    with pytest.raises(RuntimeError, match="shut down"):
        place.submit(echo)


def test_threads_are_named_and_few(place):
    if place.kind != "thread":
        return
    barrier = threading.Barrier(33)
    runs = [place.submit(barrier.wait, 20) for _ in range(32)]
    barrier.wait(20)
    assert all(run.wait(20) for run in runs)
    names = {each.name for each in threading.enumerate() if each.name.startswith("job_scheduler-")}
    assert len(names) >= 32
    assert place.executor._threads == 32
