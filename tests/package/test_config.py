"""Files of jobs: what they mean, what is refused, and at which place."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar

import pytest

import job_scheduler.job_scheduler
from job_scheduler import load_jobs
from job_scheduler.config import read_jobs
from job_scheduler.errors import ConfigError, SchedulerError
from tests.conftest import ROOT

HANDLERS = """
import abc
from job_scheduler import Job

log = []

class Base(Job):
    def __init__(self, **kwargs):
        log.append((type(self).__name__, kwargs))
        self.params = kwargs
    def initialized(self, core_lib):
        log.append(("initialized", type(self).__name__, core_lib))
    async def run(self):
        pass

class MyJob(Base): pass
class SomeJob(Base): pass

class Strict(Job):
    def __init__(self, colour, size=1):
        log.append(("Strict", colour, size))
    def process(self):
        pass

class NoParams(Job):
    def process(self):
        pass

class TakesCore(Job):
    def __init__(self, core_lib, *, size=1):
        super().__init__(core_lib)
    def initialized(self, core_lib):
        log.append(("initialized", core_lib))
    def run(self):
        pass

class Broken(Job):
    def __init__(self):
        raise RuntimeError("no disk")
    def run(self):
        pass

class Idle(Job): pass

class Abstract(Job, abc.ABC):
    def run(self):
        pass
    @abc.abstractmethod
    def colour(self): ...

class ByPosition(Job):
    def __init__(self, size, /): pass
    def run(self): pass

class New(Job):
    def __new__(cls, size):
        return super().__new__(cls)
    def __init__(self, *args, **kwargs): pass
    def run(self): pass

class Leaves(Job):
    def __init__(self):
        raise SystemExit(3)
    def run(self): pass

class Locked(Job):
    def __init__(self):
        import threading
        self.lock = threading.Lock()
    def process(self): pass

class NoJob:
    def __init__(self, **kwargs):
        log.append("NoJob")
    def process(self):
        log.append("NoJob")

class Meta(type):
    def __call__(cls, *args, **kwargs):
        log.append("Meta")

class Called(metaclass=Meta): pass

def function(*args, **kwargs):
    log.append("function")

an_object = MyJob.__new__(MyJob)
"""


@pytest.fixture
def handlers(tmp_path, monkeypatch):
    """A module with jobs, and with what is none; it logs whatever is called."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    (tmp_path / "fails.py").write_text("import sys\n\nx = 1 / 0\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "wrong.py").write_text("def\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("handlers", "fails", "leaves", "wrong"):
        sys.modules.pop(name, None)
    import handlers

    yield handlers
    del sys.modules["handlers"]


@pytest.fixture
def write(tmp_path, monkeypatch, handlers):
    """Writes a file of jobs; its path is relative, as users give it."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="jobs.yaml"):
        data = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
        (tmp_path / name).write_bytes(data)
        return name

    return write


@pytest.fixture
def read(write):
    return lambda text: read_jobs(write(text))


@pytest.fixture
def refused(write, handlers):
    """Reads a bad file, which must make nothing, and gives the error."""

    def refused(text):
        with pytest.raises(ConfigError) as caught:
            load_jobs(write(text))
        assert handlers.log == []
        return caught.value

    return refused


class Recorder:
    """Stands in for the scheduler: notes what it is told, and what had been made by then."""

    made: ClassVar[list[Recorder]] = []

    def __init__(self):
        self.calls = []
        self.made.append(self)

    def schedule(self, initial_delay, frequency, job, *, job_id=None, **policies):
        self.calls.append(("schedule", initial_delay, frequency, job, job_id, policies))

    def schedule_once(self, initial_delay, job, *, job_id=None, **policies):
        if "pause_on_failures" in policies:
            raise ValueError("a job that runs once cannot be paused")
        self.calls.append(("schedule_once", initial_delay, job, job_id, policies))

    def add_job(self, job_id, job, *, cron, timezone, **policies):
        self.calls.append(("add_job", job_id, job, cron, timezone, policies))

    def shutdown(self, timeout=None):
        self.calls.append(("shutdown", timeout))


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(job_scheduler.job_scheduler, "JobScheduler", Recorder)
    monkeypatch.setattr(Recorder, "made", [])
    return Recorder


EXAMPLE = """
core_lib:
  jobs:
    - initial_delay: 2h32m
      frequency: 16:00
      handler:
        class: handlers.MyJob
        params:
          some_param: some value
    - initial_delay: startup
      frequency: None
      handler:
        class: handlers.SomeJob
        params:
"""


def entry(fields, handler="{class: handlers.MyJob}"):
    """A file with one job, 'cleanup', whose fields begin on line 3."""
    lines = [f"    {line}\n" for line in textwrap.dedent(fields).strip().splitlines()]
    return f"jobs:\n  cleanup:\n{''.join(lines)}    handler: {handler}\n"


class TestGoodFiles:
    def test_the_example(self, read, handlers):
        first, second = read(EXAMPLE)
        assert first.name == "MyJob"
        assert first.job_class is handlers.MyJob
        assert first.params == {"some_param": "some value"}
        assert first.initial_delay == timedelta(hours=2, minutes=32)
        assert first.frequency == timedelta(minutes=16)
        assert (first.cron, first.timezone, first.policies) == (None, None, {})
        assert (first.file, first.line) == ("jobs.yaml", 7)
        assert second.name == "SomeJob"
        assert (second.initial_delay, second.frequency) == (timedelta(0), None)
        assert second.params == {}
        assert handlers.log == []

    @pytest.mark.parametrize("outer", [True, False])
    def test_names_as_keys_with_and_without_the_outer_level(self, read, outer):
        handler = "{handler: {class: handlers.MyJob}}"
        text = f"jobs:\n  a: {handler}\n  2: {handler}\n"
        if outer:
            text = "core_lib:\n" + textwrap.indent(text, "  ")
        assert [each.name for each in read(text)] == ["a", "2"]

    def test_a_class_that_makes_its_objects_in_its_own_way(self, read):
        [found] = read(entry("", "{class: handlers.New, params: {size: 1}}"))
        assert found.params == {"size": 1}

    def test_a_name_may_be_merged_in(self, read):
        text = """\
        jobs:
          - <<: [{frequency: 1h}, {name: base}]
            handler: {class: handlers.MyJob}
          - name: None
            handler: {class: handlers.MyJob}
        """
        assert [each.name for each in read(text)] == ["base", "MyJob"]

    def test_what_has_ended_is_good(self, read):
        assert read(entry("end: 2001-01-01"))[0].has_ended
        assert read(entry("end: 2001-01-01\ncron: 0 9 * * *"))[0].has_ended
        assert not read(entry("end: 2901-01-01"))[0].has_ended

    def test_names_in_a_list(self, read):
        text = "jobs:\n"
        for name in ("", "name: MyJob, ", "", "name: other, "):
            text += f"  - {{{name}handler: {{class: handlers.MyJob}}}}\n"
        assert [each.name for each in read(text)] == ["MyJob-2", "MyJob", "MyJob-3", "other"]

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            *((text, 0) for text in ("boot", "startup", "Startup", "", "None", "null", "~", "0")),
            *((text, 0) for text in ("'startup'", '""', "0s", ":00")),
            *(("16:00", 960), ("2:04:13:02", 187_982), ("2 days, 4:13:02", 187_982)),
            *(("90", 90), ("1.5", 1.5), ("'16:00'", 960), ("1h30m", 5400), ("010", 10)),
            *(("!!str 16:00", 960), ("1.24 days", 107_136), ("01:02:03", 3723)),
        ],
    )
    def test_the_first_time(self, read, text, seconds):
        [found] = read(entry(f"initial_delay: {text}"))
        assert found.initial_delay == timedelta(seconds=seconds)

    @pytest.mark.parametrize("text", ["None", "null", "~", "", "none", "'None'", "''", "NULL"])
    def test_no_frequency_is_once(self, read, text):
        assert read(entry(f"frequency: {text}"))[0].frequency is None

    @pytest.mark.parametrize(("text", "seconds"), [("16:00", 960), ("2:04:13:02", 187_982)])
    def test_a_frequency_is_read_as_text(self, read, text, seconds):
        assert read(entry(f"frequency: {text}"))[0].frequency == timedelta(seconds=seconds)

    def test_params_keep_their_types(self, read):
        text = """\
        jobs:
          - handler:
              class: handlers.MyJob
              params: {a: 1, b: 1.5, c: yes, d: ~, e: [1, {x: y}], f: 2026-01-31, g: '1', 5: x}
        """
        [found] = read(text)
        assert found.params == {
            "a": 1,
            "b": 1.5,
            "c": True,
            "d": None,
            "e": [1, {"x": "y"}],
            "f": date(2026, 1, 31),
            "g": "1",
            "5": "x",
        }

    def test_two_jobs_share_no_values(self, read):
        text = """\
        jobs:
          - handler: {class: handlers.MyJob, params: &p {a: [1]}}
          - handler: {class: handlers.MyJob, params: *p}
        """
        first, second = read(text)
        assert first.params == second.params
        assert first.params["a"] is not second.params["a"]

    def test_merged_fields_are_overridden(self, read):
        text = """\
        jobs:
          a: &a
            frequency: 1h
            handler: {class: handlers.MyJob}
          b: &b
            <<: *a
            frequency: 2h
          c: *b
        """
        hours = [each.frequency // timedelta(hours=1) for each in read(text)]
        assert hours == [1, 2, 2]

    def test_cron(self, read):
        [found] = read(entry("cron: 0 9 * * mon-fri\ntimezone: Europe/Berlin\nfrequency: None"))
        assert found.cron.expression == "0 9 * * mon-fri"
        assert found.timezone == "Europe/Berlin"
        assert read(entry("cron: '@daily'"))[0].timezone == "UTC"

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("misfire_grace_time: 5m", timedelta(minutes=5)),
            *((f"catch_up: {word}", word) for word in ("latest", "all", "none")),
            *((f"overlap: {word}", word) for word in ("skip", "queue")),
            ("overlap: 3", 3),
            ("jitter: 30s", timedelta(seconds=30)),
            ("jitter: 0", timedelta(0)),
            ("pause_on_failures: 5", 5),
            ("max_retries: 0", 0),
            ("timeout: 16:00", timedelta(minutes=16)),
            ("timeout: 30", timedelta(seconds=30)),
            ("start: 2026-01-31T09:00:00+01:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
            ("start: 2026-01-31 09:00:00 +1", datetime(2026, 1, 31, 8, tzinfo=UTC)),
            ("start: 2026-1-1 9:00:00Z", datetime(2026, 1, 1, 9, tzinfo=UTC)),
            ("end: '2026-01-31T09:00Z'", datetime(2026, 1, 31, 9, tzinfo=UTC)),
            ("end: 2026-01-31 09:00", datetime(2026, 1, 31, 9).astimezone(UTC)),
            ("end: 2026-01-31", datetime(2026, 1, 31).astimezone(UTC)),
        ],
    )
    def test_policies(self, read, text, value):
        [found] = read(entry(text))
        assert found.policies == {text.partition(":")[0]: value}

    def test_a_policy_without_value_is_left_out(self, read):
        text = "catch_up:\njitter: ~\noverlap: null\nmax_retries: None\nmisfire_grace_time: None"
        assert read(entry(text))[0].policies == {}

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ("", "once, at startup"),
            ("initial_delay: 2h32m", "once, after 2 hours 32 minutes"),
            (
                "frequency: 16:00",
                "every 16 minutes, counted from the end of a run, first at startup",
            ),
            (
                "frequency: 1h\ninitial_delay: 5s",
                "every 1 hour, counted from the end of a run, first after 5 seconds",
            ),
            ("cron: 0 9 * * *", "at 09:00"),
        ],
    )
    def test_words(self, read, fields, words):
        assert read(entry(fields))[0].describe().startswith(words)

    def test_the_preview_is_within_start_and_end(self, read):
        fields = "start: 2090-01-01T09:00Z\nend: 2090-01-02T09:00Z\n"
        [found] = read(entry(fields + "cron: 0 9 * * *"))
        assert found.preview() == [datetime(2090, 1, day, 9, tzinfo=UTC) for day in (1, 2)]
        assert read(entry(fields))[0].preview() == []

    def test_a_byte_order_mark(self, read):
        assert read("\ufeff" + entry(""))[0].name == "cleanup"


class TestBadFields:
    @pytest.mark.parametrize(
        ("fields", "line", "field", "words"),
        [
            ("x: 1\nfrequency: 16:0x", 4, "frequency", "'16:0x', which cannot be read; give"),
            ("frequency: 0", 3, "frequency", "frequency is 0; it must be more than zero"),
            ("frequency: '5'", 3, "frequency", "frequency is '5', which cannot be read"),
            ("frequency: startup", 3, "frequency", "or None, for once"),
            ("frequency: [1]", 3, "frequency", "frequency is a list; it must be a text"),
            ("frequency: '" + "1" * 2000 + "'", 3, "frequency", "has 2,000 characters"),
            ("<<: {frequency: 5m, frequency: 6m}", 3, "frequency", "stands there twice"),
            ("frequency: " + "1" * 900, 3, "frequency", "must be a finite number"),
            ("initial_delay: soon", 3, "initial_delay", "or 'startup', for at once"),
            ("initial_delay: -5", 3, "initial_delay", "is -5; it must be zero or more"),
            ("freqency: 1h", 3, "freqency", "no field of a job; did you mean 'frequency'?"),
            ("zzz: 1h", 3, "zzz", "known are catch_up, cron, end"),
            ("name: x", 3, "name", "the key is the job's name; remove the field 'name'"),
            ("jitter: 1m\njitter: 2m", 4, "jitter", "'jitter' stands there twice; remove one"),
            ("cron: 0 9 * * *\nfrequency: 1h", 4, "frequency", "frequency stands beside cron"),
            ("initial_delay: boot\ncron: 0 9 * * *", 3, "initial_delay", "stands beside cron"),
            ("timezone: UTC", 3, "timezone", "timezone belongs to cron"),
            ("cron: 61 * * * *", 3, "cron", "minute '61', at character 1"),
            ("cron: 0 0 30 2 *", 3, "cron", "a date that cannot occur"),
            ("cron: 0 9 * * *\ntimezone: Europe/Berln", 4, "timezone", "mean 'Europe/Berlin'?"),
            ("catch_up: lates", 3, "catch_up", "catch_up is 'lates'; did you mean 'latest'?"),
            ("catch_up: 7", 3, "catch_up", "known are all, latest, none"),
            ("overlap: 0", 3, "overlap", "'skip', 'queue', or how many may run at one time"),
            ("pause_on_failures: 0", 3, "pause_on_failures", "must be a whole number from 1"),
            ("max_retries: 1.5", 3, "max_retries", "must be a whole number from 0"),
            ("max_retries: -1", 3, "max_retries", "must be a whole number from 0"),
            ("timeout: 0", 3, "timeout", "it must be more than zero"),
            ("timeout: soon", 3, "timeout", "a number of seconds, or leave it out"),
            ("misfire_grace_time: x", 3, "misfire_grace_time", "or None, for no limit"),
            ("start: tomorrow", 3, "start", "start is 'tomorrow', which is no instant; give one"),
            ("start: 2026-02-31", 3, "start", "which is no instant"),
            ("end: 0001-01-01T00:00+14:00", 3, "end", "its year must be 1970 to 9000"),
            ("start: 9999-12-31", 3, "start", "start is '9999-12-31'; its year must be"),
            ("start: 2026-02-01\nend: 2026-01-01", 4, "end", "is before start"),
            ("frequency: 5m\njitter: 6m", 4, "jitter", "must be shorter than the time from one"),
        ],
    )
    def test_each_is_told_with_its_place(self, refused, fields, line, field, words):
        error = refused(entry(fields))
        problem = next(each for each in error.problems if each.field == field)
        assert (problem.file, problem.line, problem.entry) == ("jobs.yaml", line, "cleanup")
        assert str(problem).startswith(f"jobs.yaml, line {line}, job 'cleanup': ")
        assert words in str(problem)

    def test_a_timeout_of_what_nothing_can_stop(self, refused):
        [problem] = refused(entry("timeout: 90", "{class: handlers.New}")).problems
        assert (problem.line, problem.field) == (3, "timeout")
        assert "New runs in a thread, which cannot be stopped" in str(problem)

    def test_all_are_told_at_once(self, refused):
        error = refused(
            """\
            jobs:
              - frequency: 16:0x
                handler: {class: handlers.MyJobb}
              - {handler: {class: handlers.MyJob}}
              - initial_delay: soon
            """
        )
        assert [(each.line, each.entry, each.field) for each in error.problems] == [
            (2, "MyJobb", "frequency"),
            (3, "MyJobb", "class"),
            (5, "#3", "handler"),
            (5, "#3", "initial_delay"),
        ]
        assert str(error).splitlines() == [str(each) for each in error.problems]
        assert (error.file, error.line, error.entry) == ("jobs.yaml", 2, "MyJobb")
        assert (error.field, error.problems[0].problems) == ("frequency", ())
        assert isinstance(error, SchedulerError)
        assert isinstance(error, ValueError)

    def test_no_more_than_fifty_are_told(self, refused):
        error = refused("jobs:\n" + "  - {handler: 1}\n" * 70)
        assert len(error.problems) == 70
        assert str(error).splitlines()[50:] == ["jobs.yaml: and 20 more"]

    @pytest.mark.parametrize(
        ("handler", "field", "words"),
        [
            ("handlers.MyJob", "handler", "handler is a plain value; it must be a mapping with"),
            ("handlers.MyJob", "handler", "did you mean {class: handlers.MyJob}?"),
            ("", "handler", "handler is empty"),
            ("{}", "class", "handler has no 'class'"),
            ("{class: }", "class", "class is empty; it must be a text"),
            ("{class: [x]}", "class", "class is a list; it must be a text"),
            ("{klass: handlers.MyJob}", "klass", "no field of handler; did you mean 'class'?"),
            ("{class: MyJob}", "class", "give the module and the class"),
            ("{class: .handlers.MyJob}", "class", "give the module and the class"),
            ("{class: 'handlers.MyJob()'}", "class", "give the module and the class"),
            ("{class: handlers.MyJobb}", "class", "has no 'MyJobb'; did you mean 'MyJob'?"),
            ("{class: handlers.functio}", "class", "did you mean 'function'?"),
            ("{class: handlers.zzzzzz}", "class", "its jobs are Abstract, Base, Broken"),
            ("{class: json.zzzzzz}", "class", "module 'json' has no 'zzzzzz', and no jobs at all"),
            ("{class: handler.MyJob}", "class", "No module named 'handler'"),
            (
                "{class: handlers.MyJob.Inner}",
                "class",
                "a class at the top of a module can be named",
            ),
            ("{class: fails.MyJob}", "class", "ZeroDivisionError: division by zero ("),
            ("{class: fails.MyJob}", "class", "fails.py, line 3)"),
            ("{class: leaves.MyJob}", "class", "SystemExit: 3"),
            ("{class: wrong.MyJob}", "class", "wrong.py, line 1)"),
            ("{class: handlers.Idle}", "class", "defines neither process() nor run()"),
            ("{class: handlers.Abstract}", "class", "is abstract; it does not define colour"),
            ("{class: job_scheduler.Job}", "class", "is the base of all jobs; derive one"),
            ("{class: handlers.MyJob, params: [1]}", "params", "params is a list; it must map"),
            ("{class: handlers.MyJob, params: 5}", "params", "params is a plain value"),
            ("{class: handlers.MyJob, params: {a: 1, a: 2}}", "a", "'a' stands there twice"),
            ("{class: handlers.MyJob, params: {a: [{b: 1, b: 2}]}}", "b", "'b' stands there"),
            ("{class: handlers.MyJob, params: {1: a, '1': b}}", "1", "'1' stands there twice"),
            ("{class: handlers.MyJob, params: {a: 2026-02-31}}", "a", "param 'a' cannot be read"),
            ("{class: handlers.MyJob, params: {a: !!bool x}}", "a", "fit its tag '!!bool'"),
            ("{class: handlers.MyJob, params: {a: !!binary ä}}", "a", "cannot be read"),
            ("{class: handlers.MyJob, params: {core_lib: 1}}", "core_lib", "is given by load_jobs"),
            ("{class: handlers.MyJob, params: {self: 1}}", "self", "has no param 'self'"),
            ("{class: handlers.Strict, params: {color: 1}}", "color", "did you mean 'colour'?"),
            ("{class: handlers.Strict}", "colour", "Strict() needs the param 'colour'"),
            ("{class: handlers.NoParams, params: {x: 1}}", "x", "no param 'x'; it takes none"),
            ("{class: handlers.ByPosition}", "size", "takes 'size' by position only"),
        ],
    )
    def test_handlers(self, refused, handler, field, words):
        error = refused(entry("initial_delay: 5s", handler))
        problem = next(each for each in error.problems if each.field == field)
        assert (problem.line, problem.entry) == (4, "cleanup")
        assert words in str(problem)

    def test_a_param_by_position_is_told_once(self, refused):
        [problem] = refused(entry("", "{class: handlers.ByPosition, params: {size: 1}}")).problems
        assert "takes 'size' by position only" in str(problem)

    def test_the_cause_of_a_failed_import_is_kept(self, refused):
        assert isinstance(refused(entry("", "{class: fails.X}")).__cause__, ZeroDivisionError)

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("os.system", "but a builtin_function_or_method"),
            ("os._exit", "but a builtin_function_or_method"),
            ("subprocess.Popen", "but the class 'Popen'"),
            ("handlers.function", "but a function"),
            ("handlers.NoJob", "but the class 'NoJob'"),
            ("handlers.Called", "but the class 'Called'"),
            ("handlers.an_object", "but a MyJob"),
            ("os.path", "but a module"),
        ],
    )
    def test_what_is_no_job_class_is_never_called(self, refused, tmp_path, path, words):
        params = f"{{args: 'touch {tmp_path}/called', command: 'touch {tmp_path}/called'}}"
        error = refused(entry("", f"{{class: {path}, params: {params}}}"))
        assert f"class {path!r} is no Job class, {words}" in str(error)
        assert not (tmp_path / "called").exists()

    def test_nothing_is_made_if_any_entry_is_bad(self, refused, recorder):
        refused(
            """\
            jobs:
              good: {handler: {class: handlers.MyJob}}
              bad: {handler: {class: handlers.MyJob}, frequency: never}
            """
        )
        assert recorder.made == []


class TestBadFiles:
    @pytest.mark.parametrize(
        ("text", "line", "words"),
        [
            ("", 1, "the file is empty; it needs a mapping with 'jobs'"),
            ("# nothing\n", 1, "the file is empty"),
            ("~", 1, "the file is empty"),
            ("\n- 1", 2, "the file is a list; it must be a mapping with 'jobs'"),
            ("jobs", 1, "the file is a plain value"),
            ("job: []", 1, "'job' is no field of the file; did you mean 'jobs'?"),
            ("core_lib: 1", 1, "core_lib is a plain value; it must be a mapping with 'jobs'"),
            ("core_lib:", 1, "core_lib is empty"),
            ("core_lib:\n  data: 1", 2, "'data' is no field of core_lib; known are jobs"),
            ("core_lib: {}", 1, "core_lib has no 'jobs'"),
            ("core_lib: {core_lib: {jobs: []}}", 1, "'core_lib' is no field of core_lib"),
            ("core_lib: {}\njobs: []", 2, "'jobs' stands beside 'core_lib'"),
            ("{}", 1, "the file has no 'jobs'"),
            ("jobs:", 1, "jobs has no entries"),
            ("jobs: []", 1, "jobs has no entries"),
            ("jobs: {}", 1, "jobs has no entries"),
            ("jobs: 7", 1, "jobs is a plain value; it must be a list of entries, or map"),
            ("jobs: []\njobs: []", 2, "'jobs' stands there twice"),
            ("jobs:\n  - 5", 2, "job '#1': it is a plain value; it must be a mapping with"),
            ("jobs:\n  x:", 2, "job 'x': it is empty; it must be a mapping with a 'handler'"),
            ("jobs:\n  x: {}", 2, "job 'x': handler is missing; it must be a mapping with"),
            ("jobs:\n  '': {}", 2, "'' is no name of a job; it may have 1 to 1,000 printable"),
            ('jobs:\n  "a\\e[31m\\nb": {}', 2, "'a\\x1b[31m\\nb' is no name of a job"),
            ("jobs:\n  - name: [x]", 2, "name is a list; it must be a text"),
            ("jobs:\n  x: {}\n  x: {}", 3, "'x' stands there twice"),
            ("jobs:\n  1: {}\n  '1': {}", 3, "two jobs are named '1', the other on line 2"),
            ("jobs:\n  - name: x\n  - name: x", 3, "two jobs are named 'x', the other on line 2"),
            ("jobs: []\n---\njobs: []", 2, "expected a single document in the stream"),
            ("jobs:\n  - 'x", 2, "this is not YAML: while scanning a quoted scalar"),
            ("jobs:\n\t- x", 2, "this is not YAML"),
            ("jobs:\n  x: {<<: 5}", 2, "job 'x': expected a mapping or list of mappings"),
            ("jobs:\n  x: {<<: [5]}", 2, "job 'x': expected a mapping for merging"),
            ("jobs: *x", 1, "found undefined alias 'x'"),
            ("jobs:\n  ? [a]\n  : b", 2, "a key must be a plain value, not a list or a mapping"),
            ("jobs:\n  - !job x", 2, "the tag '!job' is not plain YAML"),
            (
                "jobs:\n  - !!python/object/apply:os.system ['touch called']",
                2,
                "the tag '!!python/object/apply:os.system' is not plain YAML",
            ),
            ("jobs:\n  a:\n    cron: */5 * * * *", 3, "put the cron expression in quotes"),
            ("jobs:\n  a: {cron: * * * * *}", 2, "this is not YAML"),
            ("jobs:\n  a:\n    cron: @daily", 3, "put the cron expression in quotes"),
            ("jobs:\n  - \x07", 2, "the character #x0007 is not allowed in YAML"),
            (b"jobs:\n  - \xff", 2, "the file is not text in UTF-8"),
            ("#" * 1_000_001, None, "the file has more than 1,000,000 bytes"),
        ],
    )
    def test_each_is_told_with_its_line(self, refused, text, line, words):
        problems = refused(text).problems
        assert any(words in str(each) and each.line == line for each in problems), problems

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (
                "a: &a [x, x, x, x, x, x, x, x, x]\n"
                + "".join(
                    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
                    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
                ),
                "with its aliases written out, this has more than 100,000 values",
            ),
            (
                "a: &a {x: 1}\n"
                + "".join(
                    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
                    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
                ),
                "more than 100,000 values",
            ),
            ("jobs: " + "[" * 100_000, "this is nested more than 50 levels deep"),
            ("jobs: " + "{a: " * 100_000, "nested more than 50 levels deep"),
            ("- " * 100_000, "nested more than 50 levels deep"),
            (
                "x0: &x0 [1]\n" + "".join(f"x{n + 1}: &x{n + 1} [*x{n}]\n" for n in range(500)),
                "nested more than 50 levels deep",
            ),
            ("jobs: [1" + ":59" * 300_000 + "]", "a number of more than 1,000 characters"),
            ("jobs: &a [*a]", "the alias *a contains itself"),
            ("jobs: &a {x: {<<: *a}}", "the alias *a contains itself"),
        ],
        ids=[
            "laughs",
            "merged",
            "lists",
            "mappings",
            "dashes",
            "chain",
            "number",
            "itself",
            "merges itself",
        ],
    )
    def test_what_would_exhaust_memory_or_time_is_refused_at_once(self, refused, text, words):
        started = time.thread_time()
        assert words in str(refused(text))
        assert time.thread_time() - started < 5

    def test_many_jobs_of_one_class_are_named_soon(self, read):
        started = time.thread_time()
        text = "jobs:\n- &a {handler: {class: handlers.MyJob}}\n" + "- *a\n" * 10_000
        assert read(text)[-1].name == "MyJob-10001"
        assert time.thread_time() - started < 10

    def test_a_large_file_of_values_is_given_up_soon(self, refused):
        assert "more than 100,000 values" in str(refused("jobs: [" + "1," * 400_000 + "]"))

    def test_a_file_that_is_not_there(self, write):
        with pytest.raises(FileNotFoundError):
            load_jobs("nowhere.yaml")
        with pytest.raises(IsADirectoryError):
            load_jobs(".")


class TestLoading:
    def test_the_jobs_are_made_and_handed_over(self, write, handlers, recorder):
        text = EXAMPLE + (
            "    - name: report\n"
            "      cron: 0 9 * * *\n"
            "      timezone: Europe/Berlin\n"
            "      overlap: queue\n"
            "      handler: {class: handlers.Strict, params: {colour: red}}\n"
        )
        scheduler = load_jobs(write(text))
        assert handlers.log == [
            ("MyJob", {"some_param": "some value"}),
            ("SomeJob", {}),
            ("Strict", "red", 1),
        ]
        first, second, third = scheduler.calls
        delay, frequency = timedelta(hours=2, minutes=32), timedelta(minutes=16)
        assert first == ("schedule", delay, frequency, first[3], "MyJob", {})
        assert second == ("schedule_once", timedelta(0), second[2], "SomeJob", {})
        assert third == (
            *("add_job", "report", third[2], "0 9 * * *", "Europe/Berlin"),
            {"overlap": "queue"},
        )
        assert isinstance(first[3], handlers.MyJob)
        assert isinstance(second[2], handlers.SomeJob)
        assert isinstance(third[2], handlers.Strict)
        assert first[3].core_lib is None

    def test_core_lib_is_set_before_anything_is_scheduled(self, write, handlers, recorder):
        core_lib = object()
        scheduler = load_jobs(write(EXAMPLE), core_lib)
        assert handlers.log[1] == ("initialized", "MyJob", core_lib)
        assert handlers.log[3] == ("initialized", "SomeJob", core_lib)
        assert scheduler.calls[0][3].core_lib is core_lib

    def test_a_constructor_may_take_core_lib_itself(self, write, handlers, recorder):
        scheduler = load_jobs(write(entry("", "{class: handlers.TakesCore}")), 5)
        assert handlers.log == [("initialized", 5)]
        assert scheduler.calls[0][2].core_lib == 5

    def test_a_constructor_that_fails(self, write, recorder):
        with pytest.raises(ConfigError) as caught:
            load_jobs(write(entry("initial_delay: 1s", "{class: handlers.Broken}")))
        assert str(caught.value) == (
            "jobs.yaml, line 4, job 'cleanup': Broken cannot be made: RuntimeError: no disk"
        )
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert caught.value.problems == (caught.value,)
        assert recorder.made == []

    @pytest.mark.parametrize(
        ("name", "words"),
        [("Leaves", "Leaves cannot be made: SystemExit: 3"), ("Locked", "_thread.lock")],
    )
    def test_no_scheduler_is_made_for_a_job_that_is_no_good(self, write, recorder, name, words):
        text = entry("", "{class: handlers.MyJob}") + entry(
            "", f"{{class: handlers.{name}}}"
        ).removeprefix("jobs:\n").replace("cleanup", "other")
        with pytest.raises(ConfigError, match=f"line 5, job 'other': .*{words}") as caught:
            load_jobs(write(text))
        assert "\n" not in str(caught.value)
        assert recorder.made == []

    def test_what_the_scheduler_refuses_ends_it(self, write, recorder):
        with pytest.raises(ConfigError, match="line 4, job 'cleanup': a job that runs once"):
            load_jobs(write(entry("pause_on_failures: 3")))
        assert recorder.made[0].calls == [("shutdown", 0)]


def run_python(code, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_without_pyyaml_the_error_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['yaml'] = None\n"
        "from job_scheduler import load_jobs\n"
        "try: load_jobs('jobs.yaml')\n"
        "except ValueError as error: print(error)"
    )
    assert run_python(code, cwd=tmp_path) == (
        'jobs.yaml cannot be read without PyYAML: pip install "job_scheduler[yaml]"\n'
    )


def test_pyyaml_is_imported_with_the_first_file(tmp_path):
    code = "import sys; from job_scheduler import load_jobs; print('yaml' in sys.modules)"
    assert run_python(code, cwd=tmp_path) == "False\n"
