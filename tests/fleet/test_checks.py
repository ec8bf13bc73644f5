"""What is refused before anything is sent, and what is said of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from datetime import UTC, datetime

import pytest
from celery import Celery

from job_scheduler import Job, JobScheduler, Scheduler, load_jobs
from job_scheduler.celery import SETTINGS, register
from job_scheduler.errors import (
    ArgumentsError,
    InvalidJobError,
    InvalidOptionError,
    UnknownJobError,
)
from job_scheduler.finding import find_jobs
from job_scheduler.service.job_types.describing import describe_job
from tests.conftest import ROOT, eventually
from tests.fleet.conftest import begun, ended_within
from tests.fleet.tasks import add, make_app

NOWHERE = "redis://127.0.0.1:1/0"


class Report(Job):
    def process(self, a):
        return a


class Limited(Report):
    memory_limit = 1_000_000


class Needy(Job):
    def __init__(self, x):
        super().__init__()

    def process(self):
        pass


@pytest.fixture
def nowhere():
    """An application whose Redis is not there."""
    return make_app(NOWHERE)


@pytest.fixture
def scheduler(nowhere):
    scheduler = JobScheduler(jobs=nowhere.jobs, wait_at_exit=False)
    yield scheduler
    scheduler.shutdown(timeout=0)


class TestArguments:
    @pytest.mark.parametrize(
        ("kwargs", "words"),
        [
            ({"a": {1, 2}}, "kwargs['a'] is {1, 2}, a set, which is not JSON; send sorted(value)"),
            ({"a": [datetime.now(UTC)]}, "kwargs['a'][0] is datetime"),
            ({"c": 1}, "job 'add' (add) takes a, b; missing: a"),
        ],
    )
    def test_of_a_run(self, scheduler, kwargs, words):
        with pytest.raises(ArgumentsError) as caught:
            scheduler.run("add", **kwargs)
        assert words in str(caught.value)

    def test_of_a_schedule(self, scheduler, nowhere):
        with pytest.raises(ArgumentsError, match="cannot be called with"):
            scheduler.add_job("a", nowhere.jobs["add"], interval=1, args=[1, 2, 3])
        with pytest.raises(ArgumentsError, match=r"args\[0\] is .* which is not JSON"):
            scheduler.add_job("a", nowhere.jobs["add"], interval=1, args=[object()])

    def test_a_name_that_nobody_knows(self, scheduler):
        with pytest.raises(UnknownJobError, match="did you mean 'add'"):
            scheduler.run("ad")


class TestJobs:
    def test_a_function_is_no_task(self, scheduler):
        with pytest.raises(InvalidJobError, match=r"add\(\) is no task of Celery: put @app.task"):
            scheduler.add_job("a", add, interval=1, executor="celery")

    def test_a_coroutine_function_would_not_run(self, nowhere, scheduler):
        @nowhere.task(shared=False)
        async def send():
            """Celery would tell that it has succeeded."""

        with pytest.raises(InvalidJobError, match="which Celery's workers do not await"):
            scheduler.add_job("a", send, interval=1)

    def test_a_class_that_no_application_knows(self, scheduler):
        with pytest.raises(InvalidJobError, match=r"write job_scheduler.celery.register\(app, Rep"):
            scheduler.add_job("a", Report, interval=1, executor="celery")

    @pytest.mark.parametrize(
        ("what", "words"),
        [
            (lambda task: task.delay, "give the task itself, add"),
            (lambda task: task.apply_async, "add.apply_async would send the task and know no more"),
            (lambda task: task.s(1, 2), r"is a signature of Celery, .* give the task"),
        ],
    )
    def test_what_celery_makes_of_a_task(self, nowhere, scheduler, what, words):
        with pytest.raises(InvalidJobError, match=words):
            scheduler.add_job("a", what(nowhere.jobs["add"]), interval=1, args=[1])

    def test_an_object(self, scheduler):
        with pytest.raises(InvalidJobError, match="give the class Report, and what it needs"):
            scheduler.add_job("a", Report(), interval=1, executor="celery")

    @pytest.mark.parametrize(
        ("job", "words"),
        [
            (len, "is not a Job class"),
            (Report(), "is not a Job class"),
            (Limited, "which have limits of their own: --concurrency"),
            (Needy, "needs x, but a job that is run by name"),
        ],
    )
    def test_what_cannot_be_registered(self, nowhere, job, words):
        with pytest.raises((InvalidJobError, InvalidOptionError), match=words):
            register(nowhere, job)
        assert getattr(job, "executor", None) is None

    def test_registering_is_harmless_twice_and_gives_the_task(self, nowhere):
        class Own(Job):
            def process(self):
                """Nothing."""

        task = register(nowhere, Own, rate_limit="1/m")
        assert register(nowhere, Own) is task is Own.celery_task
        assert (Own.executor, task.rate_limit) == ("celery", "1/m")

        class Below(Own):
            """Another job, which nobody has registered."""

        with pytest.raises(InvalidJobError, match="register"):
            JobScheduler(jobs={"Below": Below}).run("Below")


class TestApplications:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"accept_content": ["json", "pickle"]}, "since pickle may run code of whoever"),
            ({"task_serializer": "yaml"}, "has task_serializer='yaml', but what is sent"),
            ({"result_serializer": "pickle"}, "has result_serializer='pickle'"),
            ({"task_always_eager": True}, r"give JobScheduler\(eager=True\)"),
        ],
    )
    def test_settings_that_do_not_do(self, settings, words, tmp_path):
        app = make_app(NOWHERE, **settings)
        scheduler = JobScheduler(jobs=app.jobs, wait_at_exit=False)
        with pytest.raises(InvalidOptionError, match=words):
            scheduler.run("add", a=1)
        with pytest.raises(InvalidOptionError, match=words):
            scheduler.add_job("a", app.jobs["add"], interval=1, args=[1])
        store = f"sqlite:///{tmp_path / 'jobs.db'}"
        with JobScheduler(jobs=app.jobs, store=store, workers=0) as stored:
            with pytest.raises(InvalidOptionError, match=words):
                stored.run("add", a=1)
            with pytest.raises(InvalidOptionError, match=words):
                stored.add_job("a", app.jobs["add"], interval=1, args=[1])

    @pytest.mark.parametrize("backend", [None, "rpc://", "cache+memory://"])
    def test_a_backend_from_which_nothing_is_heard(self, backend):
        app = Celery("other", broker=NOWHERE, backend=backend, set_as_current=False)
        app.conf.update(SETTINGS)
        job = app.task(name="j", shared=False)(add)
        with pytest.raises(InvalidOptionError, match="results are heard from Redis alone"):
            JobScheduler(jobs={"j": job}, wait_at_exit=False).run("j", a=1)

    def test_without_word_of_the_start_it_is_warned(self, redis_server, start_worker, caplog):
        app = make_app(redis_server.url, task_track_started=False)
        start_worker(task_track_started=False)
        with JobScheduler(jobs=app.jobs) as scheduler:
            assert ended_within(scheduler.run("add", a=1)).result == 2
        assert "has no task_track_started" in caplog.text


class TestElsewhere:
    """The other faces of the package know tasks, too."""

    def test_in_place_for_tests(self, nowhere):
        run = JobScheduler(jobs=nowhere.jobs, eager=True).run("add", a=1)
        assert (run.state, run.result) == ("completed", 2)
        assert JobScheduler(jobs=nowhere.jobs, eager=True).run("Report", a=1).result[1] == 3

    def test_in_an_asyncio_program(self, app, start_worker, tmp_path):
        start_worker()

        async def go():
            store = f"sqlite:///{tmp_path / 'jobs.db'}"
            async with Scheduler(store=store, jobs=app.jobs) as scheduler:
                job_id = await scheduler.schedule(app.jobs["add"], args=[1], kwargs={"b": 2})
                ids = await scheduler.schedule_many("Report", [{"a": 1}, {"a": 2}])
                await scheduler.wait_until_idle()
                return [await scheduler.get_job(each) for each in (job_id, *ids)]

        records = asyncio.run(go())
        assert [record.result for record in records] == ["3", '["Report",3]', '["Report",4]']

    def test_the_tasks_of_a_module_are_found(self, tmp_path, monkeypatch):
        text = f"""
            from celery import Celery
            app = Celery("found", broker={NOWHERE!r}, backend={NOWHERE!r}, set_as_current=False)

            @app.task(shared=False)
            def send(address): ...
        """
        (tmp_path / "found_tasks.py").write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(tmp_path)
        found = find_jobs(["found_tasks"])
        assert list(found) == ["found_tasks.send"]
        assert describe_job("send", found["found_tasks.send"])["executor"] == "celery"

    def test_from_a_file(self, redis_server, start_worker, tmp_path, monkeypatch):
        text = f"""
            from job_scheduler import Job
            from job_scheduler.celery import register
            from tests.fleet.tasks import make_app
            app = make_app({redis_server.url!r})

            class Count(Job):
                def process(self, key="file"):
                    raise RuntimeError("the workers of this test have another")

            register(app, Count, name="unknown")
        """
        (tmp_path / "file_jobs.py").write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(tmp_path)
        entry = "jobs: [{initial_delay: startup, handler: {class: file_jobs.Count%s}}]"
        (tmp_path / "jobs.yaml").write_text(entry % "")
        start_worker()
        with load_jobs(tmp_path / "jobs.yaml") as scheduler:
            eventually(lambda: scheduler.get_job_info("Count")["failed"] == 1)
            assert "NotRegistered" in scheduler.get_job_info("Count")["last_run"]["error"]
        (tmp_path / "jobs.yaml").write_text(entry % ", params: {x: 1}")
        with pytest.raises(ValueError, match="x"):
            load_jobs(tmp_path / "jobs.yaml")

    def test_a_program_that_ends_at_once_has_sent_all(self, redis_server, start_worker):
        program = textwrap.dedent(f"""
            from job_scheduler import JobScheduler
            from tests.fleet.tasks import add, make_app
            scheduler = JobScheduler(jobs=make_app({redis_server.url!r}).jobs)
            for number in range(20):
                scheduler.run("count", key="a", seconds=0.3)
        """)
        start_worker()
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False)
        assert done.returncode == 0
        assert len(begun(redis_server, "a")) < 20  # it was not waited for
        eventually(lambda: redis_server.client.get("done:a") == b"20", 30)

    def test_a_forked_child_sends_by_itself(self, redis_server, start_worker):
        program = textwrap.dedent(f"""
            import os
            from job_scheduler import JobScheduler
            from tests.fleet.tasks import add, make_app
            scheduler = JobScheduler(jobs=make_app({redis_server.url!r}).jobs)
            assert scheduler.run("add", a=1).wait(20)
            child = os.fork()
            for _ in range(20):
                run = scheduler.run("add", a=1)
                assert run.wait(20) and run.result == 2, run.error
            if child:
                assert os.waitpid(child, 0)[1] == 0
            else:
                os._exit(0)
        """)
        start_worker()
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False)
        assert done.returncode == 0

    def test_two_applications(self, redis_server, app, start_worker):
        other = make_app(redis_server.url.removesuffix("0") + "1", name="other")
        start_worker()
        with JobScheduler(jobs=app.jobs | {"other": other.jobs["add"]}) as scheduler:
            run, of_other = scheduler.run("add", a=1), scheduler.run("other", a=1)
            assert ended_within(run).result == 2
            assert of_other.cancel()
            assert (of_other.wait(5), of_other.state) == (True, "cancelled")
