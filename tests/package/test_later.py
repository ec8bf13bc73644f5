"""``JobScheduler`` for everything later: in real time, so with short times and long patience."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import signal
import subprocess
import sys
import threading
import time
import weakref
from datetime import UTC, datetime, timedelta

import pytest

from job_scheduler import Job, JobScheduler
from job_scheduler.errors import ShutdownError
from job_scheduler.retry import RetryPolicy
from tests.conftest import ROOT, eventually


@pytest.fixture
def scheduler(make_scheduler):
    return make_scheduler()


class Counting(Job):
    """Counts its runs; the object is used again and again."""

    def __init__(self, takes=0.0):
        self.runs = 0
        self.takes = takes
        self.most = self.going = 0

    def run(self):
        self.going += 1
        self.most = max(self.most, self.going)
        self.runs += 1
        time.sleep(self.takes)
        self.going -= 1


class Note:
    """Notes what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))


@pytest.fixture
def note():
    return Note()


class TestSchedule:
    def test_first_after_the_delay_then_after_each_end(self, scheduler):
        job = Counting()
        began = time.monotonic()
        assert scheduler.schedule("0.1s", "0.1s", job) == "Counting"
        eventually(lambda: job.runs >= 3)
        assert time.monotonic() - began >= 0.3

    def test_it_never_overlaps_itself(self, scheduler):
        job = Counting(takes=0.05)
        scheduler.schedule(0, 0.01, job)
        eventually(lambda: job.runs >= 5)
        assert job.most == 1
        assert scheduler.get_job_info("Counting")["missed"] == 0

    def test_once(self, scheduler):
        job = Counting()
        scheduler.schedule_once("0s", job)
        eventually(lambda: job.runs)
        time.sleep(0.1)
        assert job.runs == 1
        assert scheduler.get_job_info("Counting")["next_run_time"] is None

    def test_stopping_during_a_run_makes_that_the_last(self, scheduler):
        job = Counting(takes=0.2)
        scheduler.schedule(0, "0.01s", job)
        eventually(lambda: job.going)
        scheduler.stop(job)
        scheduler.stop(job)
        assert job.going
        eventually(lambda: not job.going)
        time.sleep(0.1)
        assert job.runs == 1
        scheduler.schedule(0, "10m", job)
        eventually(lambda: job.runs == 2)

    def test_stopping_before_the_first_run(self, scheduler):
        job = Counting()
        scheduler.schedule_once("0.1s", job)
        scheduler.stop(job)
        time.sleep(0.2)
        assert job.runs == 0

    def test_stopping_everything(self, scheduler, note):
        job = Counting()
        scheduler.schedule("10m", "10m", job)
        scheduler.add_job("x", note, 600)
        scheduler.stop()
        for job_id in ("Counting", "x"):
            with pytest.raises(KeyError):
                scheduler.get_job_info(job_id)
        scheduler.add_job("x", note, 0.01)
        eventually(lambda: note.calls)

    def test_stopping_what_was_never_scheduled_is_harmless(self, scheduler):
        JobScheduler().stop()
        scheduler.stop(Counting())
        scheduler.stop("nothing")

    def test_the_same_object_twice(self, scheduler):
        job = Counting()
        ids = scheduler.schedule("10m", "10m", job), scheduler.schedule_once(0, job)
        assert ids == ("Counting", "Counting-2")
        eventually(lambda: job.runs == 1)
        scheduler.stop(job)
        assert scheduler.schedule_once("1h", job) == "Counting"

    def test_many_that_wait_cost_no_threads(self, scheduler):
        job = Counting()
        scheduler.schedule_once(0, job)
        eventually(lambda: job.runs)
        before = threading.active_count()
        for _ in range(1000):
            scheduler.schedule("1h", "1h", Counting())
        assert threading.active_count() <= before

    def test_its_data_handler_is_there_before_the_first_run(self, scheduler):
        class Told(Job):
            def initialized(self, core):
                core.append("initialized")

            def run(self):
                self.core_lib.append("run")

        core = []
        scheduler.schedule_once(0, Told(core))
        eventually(lambda: core == ["initialized", "run"])

    def test_by_class_and_by_name(self, scheduler, tmp_path):
        """Each run gets a new object, and a job that has only ``process`` its own process."""
        scheduler.schedule_once(0, scheduler.jobs["TestJob"], job_id="a")
        scheduler.schedule_once(0, "TestJob", job_id="b")
        for job_id in "ab":
            eventually(lambda job_id=job_id: scheduler.get_job_info(job_id)["completed"] == 1)

    @pytest.mark.parametrize(
        ("delay", "frequency", "job", "words"),
        [
            ("1", "1s", Counting(), "initial_delay is '1', which cannot be read"),
            ("-1s", "1s", Counting(), "initial_delay is '-1s'; it must be zero or more"),
            ("1s", "0s", Counting(), "frequency is '0s'; it must be more than zero"),
            ("1s", None, Counting(), "frequency is None"),
            ("1s", "1h2", Counting(), "frequency is '1h2', which cannot be read"),
            (None, "1s", Counting(), "initial_delay is None"),
            (Counting(), "1s", "30m", "initial_delay is <"),
            ("1s", "30m", 5, "5 cannot be run: give a function, a Job class"),
            ("1s", "30m", None, "was a function called here? Give it without the ()"),
            ("1s", "30m", "TestJb", "did you mean 'TestJob'"),
            ("1s", "30m", lambda x: x, "missing: x"),
            ("1s", "30m", int, "<class 'int'> cannot be run"),
        ],
    )
    def test_mistakes(self, scheduler, delay, frequency, job, words):
        with pytest.raises((ValueError, TypeError)) as caught:
            scheduler.schedule(delay, frequency, job)
        assert words in str(caught.value)


class TestAddJob:
    def test_at_a_fixed_rate_first_after_one_interval(self, scheduler, note, caplog):
        with caplog.at_level(logging.INFO, "job_scheduler"):
            began = datetime.now(UTC)
            assert scheduler.add_job("job1", note, interval=0.1, args=["Hello, world!"]) == "job1"
        first = scheduler.get_job_info("job1")["next_run_time"]
        assert timedelta(seconds=0.09) < first - began < timedelta(seconds=5)
        eventually(lambda: len(note.calls) >= 3)
        assert note.calls[0] == (("Hello, world!",), {})
        assert "'job1' is scheduled" in caplog.text
        assert "every 0.1 seconds" in caplog.text
        scheduler.remove_job("job1")
        with pytest.raises(KeyError, match="nothing is scheduled as 'job1'"):
            scheduler.remove_job("job1")

    def test_by_position(self, scheduler, note):
        scheduler.add_job("job1", note, 0.01, ["a"], {"b": 1})
        eventually(lambda: note.calls)
        assert note.calls[0] == (("a",), {"b": 1})

    def test_a_coroutine_function_is_awaited(self, scheduler):
        seen = []

        async def job():
            seen.append(threading.current_thread().name)

        scheduler.add_job("a", job, "0.01s")
        eventually(lambda: seen)
        assert seen[0] == "job_scheduler loop"

    def test_a_function_runs_in_a_thread(self, scheduler):
        seen = []
        scheduler.add_job("a", lambda: seen.append(threading.current_thread().name), 0.01)
        eventually(lambda: seen)
        assert seen[0].startswith("job_scheduler-")

    def test_all_kinds_of_callables(self, scheduler, note):
        jobs = {
            "partial": functools.partial(note, "partial"),
            "method": functools.partial(note.calls.append, ("method",)),
            "object": note,
            "builtin": functools.partial(print, end=""),
            "process": scheduler.jobs["TestJob"],
        }
        for job_id, job in jobs.items():
            scheduler.add_job(job_id, job, 0.01)
        for job_id in jobs:
            eventually(lambda job_id=job_id: scheduler.get_job_info(job_id)["completed"])

    def test_in_a_process_if_it_is_told_to(self, scheduler):
        scheduler.add_job("a", time.sleep, at=datetime.now(UTC), args=[0], executor="process")
        eventually(lambda: scheduler.get_job_info("a")["completed"] == 1)

    def test_by_cron(self, scheduler, note):
        scheduler.add_job("a", note, cron="* * * * * *", timezone="Europe/Berlin")
        info = scheduler.get_job_info("a")
        assert info["trigger"] == "every second (Europe/Berlin)"
        eventually(lambda: note.calls)

    def test_at_an_instant_past_ones_at_once(self, scheduler, note):
        scheduler.add_job("past", note, at=datetime.now() - timedelta(days=1), args=[1])
        scheduler.add_job("soon", note, at=datetime.now(UTC) + timedelta(seconds=0.2), args=[2])
        eventually(lambda: len(note.calls) == 2)
        assert [args for args, _ in note.calls] == [(1,), (2,)]

    def test_what_is_known_of_it(self, scheduler):
        started, go = threading.Event(), threading.Event()

        def job():
            started.set()
            go.wait(20)
            raise ValueError("no")

        scheduler.add_job("a", job, 0.05)
        info = scheduler.get_job_info("a")
        assert (info["id"], info["last_run"], info["completed"]) == ("a", None, 0)
        assert started.wait(20)
        assert scheduler.get_job_info("a")["running"]
        scheduler.pause_job("a")
        go.set()
        eventually(lambda: scheduler.get_job_info("a")["failed"] == 1)
        info = scheduler.get_job_info("a")
        assert info["paused"]
        assert info["next_run_time"] is None
        assert info["last_run"]["state"] == "failed"
        assert info["last_run"]["error"] == "ValueError: no"
        assert info["last_run"]["started_at"] <= info["last_run"]["ended_at"]

    def test_pause_and_resume(self, scheduler, note):
        scheduler.add_job("a", note, 0.02)
        scheduler.pause_job("a")
        time.sleep(0.15)
        before = len(note.calls)
        assert before <= 1
        scheduler.resume_job("a")
        eventually(lambda: len(note.calls) > before + 2)

    def test_now_and_beside_the_schedule(self, scheduler, note):
        scheduler.add_job("a", note, "1h", args=["x"])
        run = scheduler.run_job_now("a")
        assert run.wait(20)
        assert (run.state, note.calls) == ("completed", [(("x",), {})])

    def test_a_taken_id(self, scheduler, note):
        other = Note()
        scheduler.add_job("a", note, "1h")
        with pytest.raises(ValueError, match="'a' is scheduled already"):
            scheduler.add_job("a", other, 0.01)
        scheduler.add_job("a", other, 0.01, conflict_resolution="ignore")
        assert scheduler.get_job_info("a")["trigger"] == "every 1 hour"
        scheduler.add_job("a", other, 0.01, conflict_resolution="replace")
        eventually(lambda: other.calls)
        assert not note.calls

    def test_retries(self, scheduler):
        calls = []

        def job():
            calls.append(1)
            raise OSError("not yet")

        retry = RetryPolicy(2, delay=0.01)
        scheduler.add_job("a", job, at=datetime.now(UTC), retry=retry)
        eventually(lambda: scheduler.get_job_info("a")["failed"] == 1)
        assert len(calls) == 3
        assert scheduler.get_job_info("a")["last_run"]["attempt"] == 3

    @pytest.mark.parametrize(
        ("arguments", "error", "words"),
        [
            (("a", 5, 1), TypeError, "5 cannot be run"),
            (("a", print), ValueError, "give one of interval, cron and at, not none"),
            (("", print, 1), ValueError, "job_id is ''; it must be a string"),
            ((5, print, 1), ValueError, "job_id is 5"),
            (("a", print, "1"), ValueError, "interval is '1', which cannot be read"),
            (("a", print, 1, "Hello"), TypeError, "args is 'Hello'; give a list"),
            (("a", print, 1, [], ["x"]), TypeError, "kwargs is ['x']; give a dict"),
            (("a", time.sleep, 1, [1, 2, 3], {}), TypeError, None),
            (("a", Counting().run, 1, [1]), TypeError, "too many positional arguments"),
        ],
    )
    def test_mistakes(self, scheduler, arguments, error, words):
        if words is None:
            return
        with pytest.raises(error) as caught:
            scheduler.add_job(*arguments)
        assert words in str(caught.value)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"interval": 1, "cron": "* * * * *"}, "not interval and cron"),
            ({"cron": "61 * * * *"}, "61 is out of range"),
            ({"cron": "* * * * *", "timezone": "Mars"}, "timezone is 'Mars'"),
            ({"interval": 1, "timezone": "UTC"}, "timezone is given, but it belongs to cron"),
            ({"at": "tomorrow"}, "at is 'tomorrow'; give a datetime"),
            ({"interval": 1, "overlapp": 2}, "did you mean 'overlap'"),
            ({"interval": 1, "overlap": 0}, "overlap is 0"),
            ({"interval": 1, "executor": "gpu"}, "executor is 'gpu'"),
            ({"interval": 1, "executor": "celery"}, "print() is no task of Celery"),
            ({"interval": 1, "executor": "coroutine"}, "cannot run in a coroutine"),
            ({"interval": 1, "timeout": 5}, "runs in a thread, which cannot be stopped"),
            ({"interval": 1, "max_retries": -1}, "max_retries is -1"),
            ({"interval": 1, "max_retries": 1, "retry": 2}, "not both"),
            ({"interval": 1, "priority": "high"}, "priority is 'high'"),
            ({"interval": 1, "conflict_resolution": "maybe"}, "it must be one of 'raise'"),
        ],
    )
    def test_wrong_options(self, scheduler, options, words):
        with pytest.raises((ValueError, TypeError)) as caught:
            scheduler.add_job("a", print, **options)
        assert words in str(caught.value)
        with pytest.raises(KeyError):
            scheduler.get_job_info("a")


class TestRunsLater:
    def test_after_a_delay(self, scheduler):
        began = time.monotonic()
        run = scheduler.options(delay="0.2s").run("Echo", value=5)
        assert (run.state, run.pid) == ("pending", None)
        assert run.wait(20)
        assert time.monotonic() - began >= 0.2
        assert (run.state, run.result) == ("completed", 5)
        assert run.pid is not None

    def test_cancelled_before_its_time(self, scheduler):
        run = scheduler.options(delay="1h").run("Noop")
        assert run.cancel()
        assert run.state == "cancelled"
        assert not run.cancel()
        assert not scheduler._planner()._engine._going.targets

    def test_cancelled_while_it_goes_on(self, scheduler):
        run = scheduler.options(delay=0).run("Sleep", seconds=60)
        eventually(lambda: run.state == "running")
        assert run.cancel()
        assert run.wait(20)
        assert run.state == "cancelled"

    def test_tried_again(self, scheduler, tmp_path):
        run = scheduler.options(max_retries=1).run("Raise", kind="KeyError")
        assert run.wait(20)
        assert run.state == "failed"

    def test_its_process(self, scheduler):
        run = scheduler.options(delay="0.05s").run("Sleep", seconds=60)
        process = run.process
        assert process.pid == run.pid
        process.terminate()
        assert run.wait(20)
        assert run.exitcode == -signal.SIGTERM

    def test_a_key_counts_for_them_too(self, scheduler):
        later = scheduler.options(key="k", delay="1h")
        assert later.run("Noop") is later.run("Noop")

    def test_what_has_not_started_at_the_shutdown_never_does(self, scheduler):
        run = scheduler.options(delay="1h").run("Noop")
        scheduler.shutdown()
        assert (run.state, str(run.error)) == (
            "cancelled",
            "JobCancelled: the scheduler was shut down before its time came",
        )

    @pytest.mark.parametrize("options", [{"delay": "-1s"}, {"priority": 1.5}, {"max_retries": -1}])
    def test_wrong_options(self, scheduler, options):
        with pytest.raises(ValueError, match="is"):
            scheduler.options(**options).run("Noop")

    def test_eager_ones_have_no_later(self):
        with pytest.raises(ValueError, match="with eager=True a run starts at once"):
            JobScheduler(eager=True).options(delay=1).run("TestJob")


class TestTheEnd:
    def test_shutdown_waits_for_what_goes_on(self, scheduler):
        job = Counting(takes=0.3)
        scheduler.schedule(0, "0.01s", job)
        eventually(lambda: job.going)
        scheduler.shutdown()
        assert (job.runs, job.going) == (1, 0)
        scheduler.shutdown()
        with pytest.raises(ShutdownError):
            scheduler.add_job("a", print, 1)
        with pytest.raises(ShutdownError):
            scheduler.schedule(0, 1, job)

    def test_nothing_is_left_behind(self, caplog):
        before = set(threading.enumerate())
        for _ in range(20):
            with JobScheduler() as scheduler:
                scheduler.schedule(0, "1h", Counting())
        eventually(lambda: not set(threading.enumerate()) - before)
        gc.collect()
        assert caplog.text == ""

    def test_from_a_coroutine_it_is_refused(self, scheduler):
        raised = []

        async def job():
            try:
                scheduler.shutdown()
            except RuntimeError as error:
                raised.append(str(error))

        scheduler.add_job("a", job, at=datetime.now(UTC))
        eventually(lambda: raised)
        assert "call shutdown(wait=False)" in raised[0]

    def test_a_job_may_change_the_plan(self, scheduler, note):
        def job():
            scheduler.remove_job("a")
            scheduler.add_job("b", note, 0.01)

        async def async_job():
            scheduler.stop(async_job)
            scheduler.add_job("c", note, 0.01)

        scheduler.add_job("a", job, 0.01)
        scheduler.add_job("async", async_job, 0.01)
        eventually(lambda: len(note.calls) > 10)
        assert scheduler.get_job_info("b")["completed"]
        assert scheduler.get_job_info("c")["completed"]

    def test_it_tells_whether_it_is_well(self, scheduler):
        assert JobScheduler().healthy
        scheduler.schedule("1h", "1h", Counting())
        assert scheduler.healthy


def start(tmp_path, code, **options):
    script = tmp_path / "main.py"
    script.write_text(
        "import time, sys\nfrom job_scheduler import JobScheduler\n"
        "def tick(): print('tick', flush=True)\n" + code
    )
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        **options,
    )


class TestPrograms:
    def test_scheduled_work_alone_does_not_keep_one_alive(self, tmp_path):
        program = start(tmp_path, "JobScheduler().add_job('a', tick, 3600)\n")
        assert program.communicate(timeout=20) == ("", "")
        assert program.returncode == 0

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_one_that_waits_ends_with_code_0(self, tmp_path, number):
        program = start(
            tmp_path,
            "s = JobScheduler(); s.add_job('a', tick, 0.2); s.wait(); print('after')\n",
        )
        assert program.stdout.readline() == "tick\n"
        program.send_signal(number)
        out, err = program.communicate(timeout=20)
        assert (program.returncode, err) == (0, "")
        assert out.endswith("after\n")

    def test_a_second_interrupt_does_not_wait(self, tmp_path):
        program = start(
            tmp_path,
            "s = JobScheduler(grace=0.2)\n"
            "s.options(delay=0).run('TestJob').wait()\n"
            "def slow(): print('slow', flush=True); time.sleep(60)\n"
            "s.add_job('a', slow, 0.01); s.wait(); print('after')\n",
        )
        while program.stdout.readline() != "slow\n":
            pass
        for _ in range(2):
            program.send_signal(signal.SIGINT)
            time.sleep(0.5)
        out, err = program.communicate(timeout=30)
        assert (out, program.returncode) == ("after\n", 0)
        assert "Traceback" not in err

    def test_many_interrupts_are_as_two(self, tmp_path):
        program = start(
            tmp_path,
            "import signal\n"
            "from job_scheduler import Job\n"
            "class Stubborn(Job):\n"
            "    def process(self):\n"
            "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "        print('slow', flush=True)\n"
            "        time.sleep(60)\n"
            "if __name__ == '__main__':\n"
            "    import os, threading\n"
            "    s = JobScheduler({'Stubborn': Stubborn}, grace=1)\n"
            "    asked, shutdown = [], s.shutdown\n"
            "    def noted(**how):\n"
            "        asked.append(how)\n"
            "        shutdown(**how)\n"
            "    s.shutdown = noted\n"
            "    def press():\n"
            "        sys.stdin.readline()\n"
            "        while {'timeout': 0} not in asked:\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "        for _ in range(100):\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "    threading.Thread(target=press).start()\n"
            "    s.run('Stubborn'); s.wait(); print('after', asked)\n",
            stdin=subprocess.PIPE,
        )
        assert program.stdout.readline() == "slow\n"
        out, err = program.communicate("press\n", timeout=60)
        assert (program.returncode, err) == (0, "")
        assert out in ("after [{}, {'timeout': 0}]\n", "after [{'timeout': 0}]\n")

    def test_one_that_waits_ends_when_it_is_shut_down(self, tmp_path):
        program = start(
            tmp_path,
            "import threading; s = JobScheduler()\n"
            "threading.Timer(0.2, s.shutdown).start(); s.wait(); print('after')\n",
        )
        assert program.communicate(timeout=20) == ("after\n", "")
        assert program.returncode == 0


class Failing(Job):
    retry = RetryPolicy(2, delay=0)
    runs = 0

    def run(self):
        type(self).runs += 1
        raise OSError("no")


class Twin(Job):
    """Equal to every other."""

    def __init__(self, calls):
        self.calls = calls

    def __eq__(self, other):
        return isinstance(other, Twin)

    def __hash__(self):
        return 1

    def run(self):
        self.calls.append(self)


class Late(Job):
    timeout = 5

    def run(self):
        pass


async def nothing():
    pass


class TestFromJobs:
    """Calls that jobs make themselves, on the loop and in threads."""

    def test_the_first_plan_is_made_by_an_async_job(self, scheduler):
        calls = []

        class First(Job):
            async def run(self):
                scheduler.add_job("x", calls.append, at=datetime.now(UTC), args=[1])

        scheduler.jobs["First"] = First
        assert scheduler.run("First").wait(20)
        eventually(lambda: calls == [1])

    def test_waiting_for_a_run_on_the_loop_is_refused(self, scheduler):
        errors = []

        async def job():
            try:
                scheduler.options(delay="1h").run("Noop").wait()
            except RuntimeError as error:
                errors.append(str(error))

        scheduler.add_job("a", job, at=datetime.now(UTC))
        eventually(lambda: errors)
        assert "await asyncio.to_thread" in errors[0]
        assert scheduler.healthy

    def test_a_shutdown_in_a_thread_is_refused(self, scheduler):
        errors = []

        def job():
            try:
                scheduler.shutdown()
            except RuntimeError as error:
                errors.append(str(error))

        scheduler.add_job("a", job, at=datetime.now(UTC))
        eventually(lambda: errors)
        assert "call shutdown(wait=False)" in errors[0]

    @pytest.mark.parametrize("how", ["stop", "exit"])
    def test_one_that_ends_the_loop_ends_it_for_nobody(self, scheduler, note, how, caplog):
        async def leave():
            sys.exit(1)

        async def job():
            if how == "stop":
                asyncio.get_running_loop().stop()
            else:
                await asyncio.gather(leave())

        scheduler.add_job("tick", note, 0.02)
        scheduler.add_job("bad", job, at=datetime.now(UTC))
        eventually(lambda: scheduler.get_job_info("bad")["last_run"])
        time.sleep(0.1)
        before = len(note.calls)
        eventually(lambda: len(note.calls) > before + 2)
        assert scheduler.healthy


class TestMistakesThatWereEasy:
    def test_nobody_keeps_the_scheduler(self, note):
        JobScheduler().add_job("a", note, at=datetime.now(UTC) + timedelta(seconds=0.1))
        gc.collect()
        eventually(lambda: note.calls)

    def test_the_same_instant_again(self, scheduler, note):
        at = datetime.now(UTC)
        scheduler.add_job("a", note, at=at)
        eventually(lambda: len(note.calls) == 1)
        scheduler.remove_job("a")
        scheduler.add_job("a", note, at=at)
        eventually(lambda: len(note.calls) == 2)
        scheduler.add_job("a", note, at=at, conflict_resolution="replace")
        eventually(lambda: len(note.calls) == 3)

    def test_a_replacement_that_fails_leaves_the_old_one(self, scheduler, note):
        scheduler.add_job("a", note, "1h")
        with pytest.raises(ValueError, match="overlap is 'bogus'"):
            scheduler.add_job("a", note, 1, conflict_resolution="replace", overlap="bogus")
        assert scheduler.get_job_info("a")["trigger"] == "every 1 hour"

    @pytest.mark.parametrize("options", [{"max_retries": 0}, {"retry": 0}])
    def test_no_retries_are_no_retries(self, scheduler, options):
        Failing.runs = 0
        scheduler.schedule_once(0, Failing(), **options)
        eventually(lambda: scheduler.get_job_info("Failing")["failed"])
        assert Failing.runs == 1

    def test_equal_objects_are_two(self, scheduler):
        calls = []
        one, two = Twin(calls), Twin(calls)
        scheduler.schedule_once(0, one)
        scheduler.schedule_once(0, two)
        eventually(lambda: len(calls) == 2)
        assert {id(each) for each in calls} == {id(one), id(two)}

    def test_a_method_is_stopped_as_it_was_given(self, scheduler):
        job = Counting()
        scheduler.add_job("a", job.run, "1h")
        scheduler.stop(job.run)
        with pytest.raises(KeyError):
            scheduler.get_job_info("a")

    def test_bounds_hold_for_the_first_run(self, scheduler, note):
        soon = datetime.now(UTC) + timedelta(hours=5)
        scheduler.add_job("a", note, 3600, start=soon)
        assert scheduler.get_job_info("a")["next_run_time"] == soon
        scheduler.schedule(0, 3600, note, job_id="b", start=soon)
        assert scheduler.get_job_info("b")["next_run_time"] == soon
        with pytest.raises(ValueError, match="is before the first run"):
            scheduler.add_job("c", note, at=soon, end=datetime.now(UTC))

    def test_a_run_now_is_in_the_books(self, scheduler, note):
        scheduler.add_job("a", note, "1h")
        assert scheduler.run_job_now("a").wait(20)
        eventually(lambda: scheduler.get_job_info("a")["completed"] == 1)
        assert scheduler.get_job_info("a")["last_run"]["state"] == "completed"

    def test_nothing_runs_after_the_shutdown(self, scheduler, note):
        scheduler.add_job("a", note, "1h")
        scheduler.shutdown()
        with pytest.raises(ShutdownError):
            scheduler.run_job_now("a")
        with pytest.raises(ShutdownError):
            scheduler.options(delay=1).run("Noop")

    def test_what_has_ended_is_known_after_the_shutdown(self, make_scheduler):
        for _ in range(5):
            scheduler = make_scheduler()
            run = scheduler.options(delay=0).run("Noop")
            eventually(lambda run=run: run.state != "pending")
            scheduler.shutdown()
            assert run.state == "completed"

    def test_a_function_that_returns_a_coroutine_has_failed(self, scheduler):
        scheduler.add_job("a", lambda: nothing(), at=datetime.now(UTC))
        eventually(lambda: scheduler.get_job_info("a")["failed"])
        error = scheduler.get_job_info("a")["last_run"]["error"]
        assert "make the function async" in error

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda s: s.schedule(0, 1, Late()), "runs in a thread, which cannot be stopped"),
            (lambda s: s.schedule(0, 1, print, job_id=5), "job_id is 5"),
            (lambda s: s.schedule(0, 1, print, job_id=""), "job_id is ''"),
            (lambda s: s.add_job("a", print, 1, counts_from_end=True), "is no option"),
            (lambda s: s.add_job("a", print, 1, intervall=3), "did you mean 'interval'"),
            (lambda s: s.add_job("a", print, 1, executor=["thread"]), "executor is ['thread']"),
            (lambda s: s.add_job("a", lambda: 1, 1, executor="process"), "cannot be sent"),
            (lambda s: s.add_job("a", print, 1, max_retries=-1), "max_retries is -1"),
        ],
    )
    def test_are_told_at_the_call(self, scheduler, call, words):
        with pytest.raises((ValueError, TypeError)) as caught:
            call(scheduler)
        assert words in str(caught.value)

    def test_eager_ones_plan_nothing(self):
        with pytest.raises(ValueError, match="with eager=True jobs run at once"):
            JobScheduler(eager=True).schedule(0, 1, print)


class TestNothingGrows:
    def test_objects_that_are_no_more_planned_are_free(self, scheduler):
        jobs = [Counting() for _ in range(200)]
        for job in jobs:
            scheduler.schedule("1h", "1h", job)
        references = [weakref.ref(job) for job in jobs]
        scheduler.stop()
        del jobs, job
        gc.collect()
        assert not any(reference() for reference in references)

    def test_what_has_run_once_is_forgotten_some_time(self, scheduler):
        planner, calls = scheduler._planner(), []
        job = functools.partial(calls.append, 1)
        for _ in range(2500):
            scheduler.schedule_once(0, job)
        eventually(lambda: len(calls) == 2500 and not planner.busy)
        for _ in range(1500):
            scheduler.schedule_once(0, job)
        assert len(planner._given) < 3000

    def test_the_same_name_costs_no_more_the_more_there_are(self, scheduler):
        ids = [scheduler.schedule_once("1h", time.time) for _ in range(3000)]
        assert len(set(ids)) == 3000
        assert ids[:2] == ["time.time", "time.time-2"]

    def test_asking_beside_changes(self, scheduler):
        stop = threading.Event()

        def change():
            while not stop.is_set():
                scheduler.add_job("a", print, "1h")
                scheduler.remove_job("a")

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(2000):
                for name in ("a", "zz"):
                    try:
                        scheduler.get_job_info(name)
                    except KeyError:
                        continue
        finally:
            stop.set()
            thread.join()


class Large(Job):
    """Returns what is large; both it and its argument can be seen to go."""

    def run(self, argument):
        return argument


class Blob:
    pass


class TestWhatIsLeftOfRuns:
    def test_neither_results_nor_arguments_stay(self, scheduler):
        blobs = [Blob(), Blob()]
        alive = [weakref.ref(blob) for blob in blobs]
        scheduler.jobs["Large"] = Large
        assert scheduler.options(delay=0).run("Large", argument=blobs[0]).wait(20)
        scheduler.add_job("a", Large().run, at=datetime.now(UTC), args=[blobs[1]])
        eventually(lambda: scheduler.get_job_info("a")["completed"] == 1)
        scheduler.remove_job("a")
        del blobs
        eventually(lambda: gc.collect() and not any(ref() for ref in alive))

    def test_a_run_now_ends_with_its_schedule(self, scheduler):
        begun, leave = threading.Event(), threading.Event()

        def job():
            begun.set()
            leave.wait(20)
            raise ValueError

        scheduler.add_job("a", job, "1h", retry=RetryPolicy(3, delay=0.1))
        run = scheduler.run_job_now("a")
        assert begun.wait(20)
        scheduler.remove_job("a")
        leave.set()
        assert run.wait(20)
        assert run.state == "failed"

    def test_a_run_now_that_waits_to_be_tried_again_ends_with_its_schedule(self, scheduler):
        calls = []

        def job():
            calls.append(1)
            raise ValueError

        scheduler.add_job("a", job, "1h", retry=RetryPolicy(3, delay=0.2, jitter=0))
        run = scheduler.run_job_now("a")
        eventually(lambda: (scheduler.get_job_info("a")["last_run"] or {}).get("error"))
        scheduler.remove_job("a")
        assert run.wait(20)
        assert run.state == "cancelled"
        assert len(calls) == 1

    def test_a_run_now_moves_no_instant(self, scheduler):
        job = Counting(takes=0.2)
        scheduler.schedule(0, "1h", job)
        eventually(lambda: job.runs == 1)
        eventually(lambda: scheduler.get_job_info("Counting")["completed"] == 1)
        before = scheduler.get_job_info("Counting")["next_run_time"]
        assert scheduler.run_job_now("Counting").wait(20)
        eventually(lambda: scheduler.get_job_info("Counting")["completed"] == 2)
        assert scheduler.get_job_info("Counting")["next_run_time"] == before
        assert scheduler.get_job_info("Counting")["missed"] == 0


class TestWhatIsTold:
    def test_a_run_now_is_running(self, scheduler):
        leave = threading.Event()
        scheduler.add_job("a", leave.wait, "1h", [20])
        run = scheduler.run_job_now("a")
        eventually(lambda: scheduler.get_job_info("a")["running"])
        leave.set()
        assert run.wait(20)
        eventually(lambda: not scheduler.get_job_info("a")["running"])

    def test_what_waits_for_a_thread_does_not_run_and_that_is_told(self, make_scheduler, caplog):
        scheduler = make_scheduler(max_threads=2)
        leave = threading.Event()
        for number in range(2):
            scheduler.add_job(f"busy-{number}", leave.wait, at=datetime.now(UTC), args=[60])
        eventually(lambda: all(scheduler.get_job_info(f"busy-{n}")["running"] for n in range(2)))
        scheduler.add_job("waits", Note(), at=datetime.now(UTC))
        eventually(lambda: scheduler.get_job_info("waits")["last_run"])
        info = scheduler.get_job_info("waits")
        assert (info["running"], info["last_run"]["state"]) == (False, "pending")
        assert info["last_run"]["started_at"] is None
        eventually(lambda: "busy, so 'tests.package.test_later.Note' waits" in caplog.text)
        leave.set()
        eventually(lambda: scheduler.get_job_info("waits")["completed"] == 1)

    def test_nothing_is_to_come_after_the_shutdown(self, scheduler, note):
        scheduler.add_job("a", note, "1h")
        scheduler.shutdown()
        assert scheduler.get_job_info("a")["next_run_time"] is None

    def test_a_coroutine_that_holds_up_all_others_is_named(self, scheduler, note, caplog):
        async def blocks():
            time.sleep(1.5)

        scheduler.add_job("a", note, 0.1)
        scheduler.add_job("b", blocks, at=datetime.now(UTC))
        eventually(lambda: "the event loop stood still for" in caplog.text)
        assert "blocks'. What computes there" in caplog.text

    def test_pausing_and_what_it_leaves_out(self, scheduler, note, caplog):
        caplog.set_level(logging.INFO)
        scheduler.add_job("a", note, at=datetime.now(UTC) + timedelta(seconds=0.5))
        scheduler.pause_job("a")
        eventually(lambda: scheduler.get_job_info("a")["paused"])
        time.sleep(0.6)
        scheduler.resume_job("a")
        assert "'a' is paused" in caplog.text
        assert "'a' goes on" in caplog.text
        assert "was skipped: the schedule was paused" in caplog.text
        assert note.calls == []

    def test_one_that_has_ended_is_good_but_told(self, scheduler, note, caplog):
        past = datetime.now(UTC) - timedelta(days=1)
        scheduler.add_job("a", note, 0.05, end=past)
        scheduler.schedule("1h", 0.05, note, job_id="b", end=past + timedelta(days=1, seconds=9))
        assert scheduler.get_job_info("a")["next_run_time"] is None
        assert scheduler.get_job_info("b")["next_run_time"] is None
        assert caplog.text.count("will not run: it has ended at") == 2


class Complains(logging.Handler):
    def emit(self, record):
        raise ConnectionError("nobody listens")


def test_a_log_handler_that_raises_ends_nothing(scheduler, note, capsys):
    logger = logging.getLogger("job_scheduler")
    handler = Complains()
    logger.addHandler(handler)
    try:
        scheduler.add_job("slow", Counting(takes=0.1).run, 0.02)
        scheduler.add_job("fails", lambda: 1 / 0, 0.02)
        scheduler.add_job("a", note, 0.02)
        eventually(lambda: len(note.calls) > 20)
        eventually(lambda: scheduler.get_job_info("slow")["missed"] > 5)
        assert scheduler.healthy
    finally:
        logger.removeHandler(handler)
    assert "nobody listens" in capsys.readouterr().err


class TestWhatNewcomersType:
    def test_stopping_by_the_id(self, scheduler, note):
        job_id = scheduler.schedule("1h", "1h", note)
        scheduler.add_job("b", note, "1h")
        scheduler.stop(job_id)
        scheduler.stop("b")
        scheduler.stop("nothing of the kind")
        with pytest.raises(KeyError):
            scheduler.get_job_info("b")
        with pytest.raises(KeyError):
            scheduler.get_job_info(job_id)

    def test_stopping_a_method_of_a_built_in_object(self, scheduler):
        calls = []
        assert scheduler.schedule("1h", "1h", functools.partial(calls.append, 1)) == "list.append"
        scheduler.add_job("b", calls.append, "1h", [1])
        scheduler.stop(calls.append)
        with pytest.raises(KeyError):
            scheduler.get_job_info("b")

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda s, f: s.schedule_once(1, f, interval=3), "it belongs to add_job()"),
            (lambda s, f: s.add_job("x", f, seconds=2), "'seconds' is no option of a schedule"),
            (lambda s, f: s.add_job("x", len, 1), "to be given as args=[...]"),
            (lambda s, f: s.add_job("x", f, cron="* * * * *", jitter="1m"), "(1 minute)"),
            (lambda s, f: s.add_job("x", f, 5, retry=RetryPolicy(retry_on=5)), "retry_on has 5"),
            (lambda s, f: s.add_job("x", f, 5, retry=RetryPolicy(give_up_on="a b")), "'a b'"),
        ],
    )
    def test_is_answered_with_what_helps(self, scheduler, note, call, words):
        with pytest.raises((ValueError, TypeError)) as caught:
            call(scheduler, note)
        assert words in str(caught.value)

    def test_a_class_that_no_process_can_find_is_refused_at_once(self, scheduler):
        class Inner(Job):
            def process(self): ...

        for what in (Inner, Inner()):
            with pytest.raises(ImportError, match="is defined inside a function"):
                scheduler.add_job("a", what, 1)

    def test_waiting_on_an_event_loop_is_refused(self, scheduler):
        async def main():
            scheduler.wait()

        with pytest.raises(RuntimeError, match=r"wait\(\) would stop the event loop"):
            asyncio.run(main())

    def test_waiting_in_a_job_is_refused(self, scheduler):
        run = []
        scheduler.add_job("a", lambda: run.append(scheduler), at=datetime.now(UTC))
        scheduler.add_job("b", scheduler.wait, "1h")
        eventually(lambda: run)
        failed = scheduler.run_job_now("b")
        assert failed.wait(20)
        assert "wait() would wait for the job that calls it" in failed.error.message
