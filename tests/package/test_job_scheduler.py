"""The face: what a user types, and what it says when that is wrong."""

from __future__ import annotations

import asyncio
import enum
import os
import threading
import types
from datetime import timedelta

import pytest

from job_scheduler import Job, JobScheduler, Run
from job_scheduler.errors import (
    ArgumentsError,
    DuplicateJobError,
    InvalidJobError,
    InvalidOptionError,
    JobImportError,
    UnknownJobError,
)
from tests import sample_jobs
from tests.conftest import eventually, lines


class TestANewScheduler:
    def test_knows_the_test_job(self, capfd):
        with JobScheduler() as scheduler:
            assert list(scheduler.jobs) == ["TestJob"]
            run = scheduler.run("TestJob", name="Ada")
        assert run.state == "completed"
        assert capfd.readouterr().out == "Hello, Ada!\n"

    def test_starts_nothing_prints_nothing_and_leaves_nothing(self, run_script, tmp_path):
        done = run_script("""
            import os, threading
            from job_scheduler import JobScheduler
            before = set(os.listdir("/proc/self/fd"))
            scheduler = JobScheduler()
            assert threading.active_count() == 1
            assert set(os.listdir("/proc/self/fd")) == before
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pass
            else:
                raise AssertionError("it has started a process")
        """)
        assert (done.stdout, done.stderr) == ("", "")
        assert [path.name for path in tmp_path.iterdir()] == ["script.py"]

    def test_jobs_is_a_dict_to_add_to_and_replace_in(self, scheduler):
        scheduler.jobs["MyAwesomeJob"] = sample_jobs.Echo
        assert type(scheduler.jobs) is dict
        first = scheduler.run("MyAwesomeJob", value=1)
        scheduler.jobs["MyAwesomeJob"] = sample_jobs.Noop
        second = scheduler.run("MyAwesomeJob")
        assert first.wait(20)
        assert second.wait(20)
        assert (first.result, second.result) == (1, None)
        del scheduler.jobs["MyAwesomeJob"]
        with pytest.raises(UnknownJobError):
            scheduler.run("MyAwesomeJob")

    def test_a_name_may_be_a_member_of_an_enumeration(self, scheduler):
        class Name(enum.StrEnum):
            ECHO = "Echo"

        run = scheduler.run(Name.ECHO, value=1)
        assert run.wait(20)
        assert (type(run.name), run.name) == (str, "Echo")

    def test_schedulers_do_not_share_their_jobs(self):
        one, other = JobScheduler(), JobScheduler()
        one.jobs["Echo"] = sample_jobs.Echo
        assert "Echo" not in other.jobs

    def test_a_subclass_that_only_sets_jobs(self):
        class MyScheduler(JobScheduler):
            def __init__(self):
                self.jobs = {"Echo": sample_jobs.Echo}

        with MyScheduler() as scheduler:
            run = scheduler.run("Echo", value=5)
        assert run.result == 5


class TestTheDecorator:
    def test_registers_under_the_class_name(self):
        scheduler = JobScheduler()

        assert scheduler.job(sample_jobs.Echo) is sample_jobs.Echo
        assert scheduler.jobs["Echo"] is sample_jobs.Echo
        scheduler.job(sample_jobs.Echo)  # again, as when a module is loaded twice

    def test_refuses_a_name_that_is_taken(self):
        scheduler = JobScheduler(jobs={"Echo": sample_jobs.Noop})
        with pytest.raises(DuplicateJobError, match="'Echo' is registered already"):
            scheduler.job(sample_jobs.Echo)

    @pytest.mark.parametrize("value", [print, object, sample_jobs.Noop()])
    def test_refuses_what_is_no_job_class(self, value):
        with pytest.raises(InvalidJobError, match="is not a Job class"):
            JobScheduler().job(value)


class TestArguments:
    def test_every_keyword_is_the_jobs(self, scheduler):
        run = scheduler.run("Echo", value=1, name=2, timeout=3, key=4, args=5, kwargs=6, run=7)
        assert run.wait(20)
        assert run.result == {
            "value": 1, "name": 2, "timeout": 3, "key": 4, "args": 5, "kwargs": 6, "run": 7
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("job", "arguments", "said"),
        [
            ("Log", {}, r"'Log' \(Log.process\) takes path, tag; missing: path"),
            ("Log", {"path": "x", "tga": 1}, r"unknown: tga \(did you mean 'tag'\?\)"),
            ("Log", {"paht": "x"}, r"; missing: path; unknown: paht \(did you mean 'path'\?\)$"),
            ("Sleep", {"xyz": 1}, r"takes seconds; missing: seconds; unknown: xyz$"),
            ("Noop", {"more": 1}, "takes no keywords; unknown: more"),
            ("Echo", {"self": 1}, "'self' is the job itself"),
            ("InThread", {"wrong": 1}, r"\(InThread.run\).*unknown: wrong"),
        ],
    )
    def test_keywords_that_do_not_fit_fail_in_the_caller(self, scheduler, job, arguments, said):
        with pytest.raises(ArgumentsError, match=said) as caught:
            scheduler.run(job, **arguments)
        assert isinstance(caught.value, TypeError)

    def test_they_are_taken_as_they_are_at_the_call(self, make_scheduler, gate):
        scheduler = make_scheduler(max_processes=1)
        first = scheduler.run("Gate", fifo=gate.path)
        value = [1]
        second = scheduler.run("Echo", value=value)
        value.append(2)
        gate.open()
        assert first.wait(20)
        assert second.wait(20)
        assert second.result == [1]


async def asynchronous_generator(self):
    yield


class TestWrongJobs:
    """Refused at the run, with what is wrong and what to do."""

    @pytest.mark.parametrize(
        ("body", "kind", "said"),
        [
            ({}, InvalidJobError, "neither process.* nor run"),
            ({"process": 5}, InvalidJobError, "neither process"),
            (
                {"process": lambda self: 0, "__init__": lambda self, colour: None},
                InvalidJobError,
                r"needs colour.*: give them defaults, or take them as keywords of process\(\)",
            ),
            (
                {"run": lambda self: 0, "__init__": lambda self, colour: None},
                InvalidJobError,
                r"take them as keywords of run\(\)",
            ),
            ({"process": lambda: 0}, InvalidJobError, r"process\(\) lacks self"),
            ({"process": lambda **more: 0}, InvalidJobError, r"process\(\) lacks self"),
            ({"run": lambda *, more: 0}, InvalidJobError, r"run\(\) lacks self"),
            (
                {"process": lambda self: (yield)},
                InvalidJobError,
                r"process\(\) is a generator.*nothing.*return a list, or do the work in a loop",
            ),
            ({"run": lambda self: (yield)}, InvalidJobError, r"run\(\) is a generator"),
            ({"process": asynchronous_generator}, InvalidJobError, r"process\(\) is a generator"),
            ({"run": asynchronous_generator}, InvalidJobError, r"run\(\) is a generator"),
            (
                {"process": staticmethod(lambda: (yield))},
                InvalidJobError,
                r"process\(\) is a generator",
            ),
            ({"process": lambda self, x, /: 0}, InvalidJobError, "positional-only parameter 'x'"),
            ({"process": lambda self: 0, "timeout": -1}, InvalidOptionError, "Bad.timeout is -1"),
            ({"process": lambda self: 0, "timeout": "5"}, InvalidOptionError, "timeout is '5'"),
            (
                {"process": lambda self: 0, "memory_limit": "1GB"},
                InvalidOptionError,
                "Bad.memory_limit is '1GB'",
            ),
            ({"process": lambda self: 0, "max_running": 0}, InvalidOptionError, "max_running is 0"),
            ({"run": lambda self: 0, "max_running": 1}, InvalidOptionError, "runs in a thread"),
            ({"run": lambda self: 0, "timeout": 1}, InvalidOptionError, "cannot be stopped"),
            ({"run": lambda self: 0, "executor": "process"}, InvalidJobError, "not define process"),
            ({"process": lambda self: 0, "executor": "moon"}, InvalidOptionError, "is 'moon'"),
        ],
    )
    def test_are_told_apart(self, scheduler, body, kind, said):
        scheduler.jobs["Bad"] = type("Bad", (Job,), body)
        with pytest.raises(kind, match=said):
            scheduler.run("Bad")


class TestOptions:
    def test_a_key_starts_one_run_only(self, scheduler, tmp_path):
        log = str(tmp_path / "log")
        keyed = scheduler.options(key="evt_1")
        first = keyed.run("Log", path=log, tag="first")
        assert keyed.run("Log", path=log, tag="second") is first
        assert first.wait(20)
        assert keyed.run("Log", path=log, tag="third") is first
        other_job = keyed.run("Echo", value=1)
        assert other_job is not first
        other_key = scheduler.options(key="evt_2").run("Log", path=log, tag="other")
        assert other_key.wait(20)
        assert [line.split()[0] for line in lines(log)] == ["first", "other"]

    def test_a_key_of_a_run_that_was_not_accepted_is_free(self, scheduler):
        keyed = scheduler.options(key="evt_1")
        with pytest.raises(ArgumentsError):
            keyed.run("Echo", value=lambda: 0)
        assert keyed.run("Echo", value=1).wait(20)

    def test_a_key_from_many_threads_at_once(self, scheduler, tmp_path):
        log = str(tmp_path / "log")
        runs = []
        barrier = threading.Barrier(8)

        def submit(n):
            barrier.wait()
            runs.append(scheduler.options(key="one").run("Log", path=log, tag=str(n)))

        threads = [threading.Thread(target=submit, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(runs)) == 1
        assert runs[0].wait(20)
        assert len(lines(log)) == 1

    def test_the_oldest_keys_are_forgotten(self, make_scheduler, monkeypatch):
        monkeypatch.setattr("job_scheduler.dispatch._MOST_KEYS", 2)
        scheduler = make_scheduler(eager=True)
        first = [scheduler.options(key=key).run("Noop") for key in "abc"]
        again = [scheduler.options(key=key).run("Noop") for key in "cba"]
        assert again[0] is first[2]
        assert again[1] is first[1]
        assert again[2] is not first[0]

    @pytest.mark.parametrize("key", ["", 5, b"x"])
    def test_a_key_that_is_none_is_refused(self, scheduler, key):
        with pytest.raises(InvalidOptionError, match="key is"):
            scheduler.options(key=key).run("Noop")

    def test_a_wrong_timeout_is_refused(self, scheduler):
        with pytest.raises(InvalidOptionError, match="timeout is 0"):
            scheduler.options(timeout=0).run("Noop")

    @pytest.mark.parametrize(
        "jobs", [[sample_jobs.Echo], {sample_jobs.Echo}, (sample_jobs.Echo,), sample_jobs.Echo]
    )
    def test_jobs_without_names_are_refused(self, jobs):
        with pytest.raises(InvalidOptionError) as caught:
            JobScheduler(jobs=jobs)
        assert str(caught.value) == (
            f"jobs is {jobs!r}; it must map names to classes, as in {{'Echo': Echo}}"
        )

    @pytest.mark.parametrize("jobs", [[], "Echo", 5, print, [("Echo", sample_jobs.Echo)], dict])
    def test_what_holds_no_jobs_is_refused_too(self, jobs):
        with pytest.raises(
            InvalidOptionError, match=r"map names to classes, as in \{'Hello': Hello"
        ):
            JobScheduler(jobs=jobs)

    def test_any_mapping_of_jobs_is_taken(self):
        jobs = types.MappingProxyType({"Echo": sample_jobs.Echo})
        assert set(JobScheduler(jobs=jobs).jobs) == {"TestJob", "Echo"}
        assert set(JobScheduler(jobs={}).jobs) == {"TestJob"}

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"max_processes": 0}, "max_processes is 0"),
            ({"max_waiting": True}, "max_waiting is True"),
            ({"grace": -1}, "grace is -1"),
            ({"initializer": "no_function"}, "must be a string 'package.module:function'"),
            ({"initializer": print}, "must be a string"),
            ({"on_parent_exit": "explode"}, r"one of \('finish', 'terminate'\)"),
            ({"start_method": "fork"}, r"one of \('zygote', 'spawn'\)"),
        ],
    )
    def test_settings_are_checked_when_they_are_given(self, options, said):
        with pytest.raises(ValueError, match=said):
            JobScheduler(**options)

    def test_what_the_fallback_cannot_do_is_refused(self, make_scheduler):
        scheduler = make_scheduler(start_method="spawn", on_parent_exit="terminate")
        with pytest.raises(InvalidOptionError, match="needs the zygote"):
            scheduler.run("Noop")


class CallableObject:
    def __call__(self, value=None):
        return value


class TestMethodsWithoutSelf:
    """Those that need none are run as they are."""

    @pytest.mark.parametrize(
        "method",
        [
            staticmethod(lambda value=None: value),
            classmethod(lambda cls, value=None: value),
            lambda *anything, value=None: value,
            CallableObject(),
        ],
    )
    def test_they_get_their_keywords(self, make_scheduler, method):
        scheduler = make_scheduler(eager=True)
        scheduler.jobs["Static"] = type("Static", (Job,), {"process": method})
        assert scheduler.run("Static", value=5).result == 5
        with pytest.raises(ArgumentsError, match="takes value; unknown: other"):
            scheduler.run("Static", other=5)


class TestJobsOfThisProgram:
    def test_a_thread(self, scheduler):
        run = scheduler.run("InThread", value=3)
        assert run.wait(20)
        assert run.result[0] == 3
        assert run.result[1].startswith("job_scheduler")
        assert (run.pid, run.process) == (None, None)

    def test_a_coroutine(self, scheduler):
        run = scheduler.run("OnLoop", value=3)
        assert run.wait(20)
        assert run.result == 3

    @pytest.mark.parametrize("job", ["InThread", "OnLoop"])
    def test_a_failure_looks_as_anywhere(self, scheduler, job, caplog):
        run = scheduler.run(job, fail=True)
        assert run.wait(20)
        assert run.state == "failed"
        assert run.error.type == "ValueError"
        assert "sample_jobs.py" in run.error.traceback
        assert "job_scheduler/executors" not in run.error.traceback
        [record] = eventually(lambda: caplog.records)
        assert record.run is run

    def test_both_methods_mean_a_process_unless_the_class_says_otherwise(self, scheduler):
        process, thread = scheduler.run("Both"), scheduler.run("BothInThread")
        assert process.wait(20)
        assert thread.wait(20)
        assert process.result[0] == "process" != thread.result[0]
        assert thread.result == ("thread", os.getpid())

    def test_a_coroutine_is_cancelled(self, scheduler):
        run = scheduler.run("Forever")
        eventually(lambda: run.state == "running")
        assert run.cancel()
        assert run.wait(20)
        assert run.state == "cancelled"

    def test_a_coroutine_times_out(self, scheduler):
        run = scheduler.options(timeout=0.01).run("Forever")
        assert run.wait(20)
        assert str(run.error) == "JobTimeout: not done after 0.01 s"

    def test_shutdown_waits_for_them(self, scheduler):
        runs = [scheduler.run(job, value=1) for job in ("InThread", "OnLoop") * 5]
        scheduler.shutdown()
        assert {run.state for run in runs} == {"completed"}

    def test_the_program_waits_for_them_at_its_end(self, run_script):
        done = run_script("""
            import asyncio, os, time
            from job_scheduler import Job, JobScheduler

            class InThread(Job):
                def run(self):
                    time.sleep(0.2)
                    os.write(1, b"thread done\\n")

            class OnLoop(Job):
                async def run(self):
                    await asyncio.sleep(0.2)
                    os.write(1, b"coroutine done\\n")

            scheduler = JobScheduler(jobs={"InThread": InThread, "OnLoop": OnLoop})
            scheduler.run("InThread")
            scheduler.run("OnLoop")
        """)
        assert sorted(done.stdout.splitlines()) == ["coroutine done", "thread done"]


class TestEager:
    @pytest.fixture
    def scheduler(self, make_scheduler):
        return make_scheduler(eager=True)

    def test_runs_in_place(self, scheduler):
        run = scheduler.run("Pid")
        assert isinstance(run, Run)
        assert run.state == "completed"
        assert run.result[0] == os.getpid()
        assert scheduler.run("InThread", value=1).result == (1, threading.current_thread().name)
        assert scheduler.run("OnLoop", value=2).result == 2
        assert scheduler.run("Asynchronous", value=3).result == 3

    def test_a_failure_is_on_the_run(self, scheduler, caplog):
        run = scheduler.run("Raise", kind="real")
        assert str(run.error) == "ValueError: a real problem"
        assert len(caplog.records) == 1
        assert scheduler.run("Exit", code=3).error.type == "SystemExit"

    def test_what_a_process_would_refuse_is_refused(self, scheduler):
        with pytest.raises(ArgumentsError, match="cannot be sent"):
            scheduler.run("Echo", value=lambda: 0)
        value = [1]
        assert scheduler.run("Echo", value=value).result is not value

    def test_a_local_class_may_be_tried(self, scheduler):
        class Local(Job):
            def process(self):
                return "local"

        scheduler.jobs["Local"] = Local
        assert scheduler.run("Local").result == "local"

    def test_a_coroutine_where_a_loop_is_running(self, scheduler):
        async def main():
            return [scheduler.run(job, value=1).result for job in ("OnLoop", "Asynchronous")]

        assert asyncio.run(main()) == [1, 1]

    def test_it_has_ended(self, scheduler):
        run = scheduler.run("Noop")
        assert run.wait(0)
        assert not run.cancel()
        assert run.process is None


class TestShutdown:
    @pytest.mark.parametrize("timeout", [30, 1e10, 1e20, float("inf"), timedelta(seconds=30)])
    def test_waits_for_seconds_or_a_timedelta(self, scheduler, timeout):
        run = scheduler.run("OnLoop", value=1)
        scheduler.shutdown(timeout=timeout)
        assert run.state == "completed"

    @pytest.mark.parametrize("timeout", [-1, timedelta(days=-1), "5", True, float("nan")])
    def test_refuses_what_is_no_time_and_goes_on(self, scheduler, timeout):
        with pytest.raises(InvalidOptionError, match="timeout is "):
            scheduler.shutdown(timeout=timeout)
        assert scheduler.run("OnLoop", value=1).wait(20)


def test_runs_from_many_threads(scheduler, tmp_path):
    log = str(tmp_path / "log")
    runs = []

    def submit(n):
        for each in range(25):
            runs.append(scheduler.run("Log", path=log, tag=f"{n}-{each}"))

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(run.wait(30) for run in runs)
    assert len({line.split()[0] for line in lines(log)}) == len(lines(log)) == 200
    assert len({run.id for run in runs}) == 200


def test_a_scheduler_that_is_dropped_lets_its_runs_finish(tmp_path, gate):
    run = JobScheduler(jobs={"Gate": sample_jobs.Gate}).run("Gate", fifo=gate.path)
    gate.open("through")
    assert run.wait(20)
    assert run.result == "through"


def test_a_dropped_scheduler_leaves_no_process(tmp_path):
    from tests.conftest import is_alive, zygote_pid

    scheduler = JobScheduler()
    scheduler.run("TestJob").wait()
    pid = zygote_pid(scheduler)
    del scheduler
    eventually(lambda: not is_alive(pid), what="the end of the launching process")


def test_a_job_class_defined_in_a_test_function_is_told_what_to_do(scheduler):
    class Local(Job):
        def process(self):
            pass

    scheduler.jobs["Local"] = Local
    with pytest.raises(JobImportError, match="top level"):
        scheduler.run("Local")
