"""Where job classes may be defined: modules, scripts, ``python -m``, sessions; and where not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from job_scheduler import Job, JobScheduler
from job_scheduler.errors import JobImportError, LaunchError
from tests.conftest import ROOT, eventually, zygote_pid

SCRIPT = """
    from dataclasses import dataclass
    from job_scheduler import Job, JobScheduler

    @dataclass
    class Point:
        x: int

    class Here(Job):
        def process(self, point):
            return Point(point.x + 1), __name__

    if __name__ == "__main__":
        scheduler = JobScheduler(jobs={"Here": Here}, start_method=START_METHOD)
        run = scheduler.run("Here", point=Point(1))
        run.wait()
        assert run.error is None, run.error.traceback
        print(run.result)
"""


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
@pytest.mark.parametrize(("name", "module"), [("script.py", False), ("pack/age.py", True)])
def test_a_class_in_the_program_itself(run_script, start_method, name, module):
    code = SCRIPT.replace("START_METHOD", repr(start_method))
    done = run_script(code, name=name, module=module)
    assert done.stdout == "(Point(x=2), '__mp_main__')\n"
    assert done.stderr == ""


def test_a_package_run_by_its_main_module(run_script, tmp_path):
    code = SCRIPT.replace("START_METHOD", "'zygote'")
    run_script(code, name="package/__main__.py")
    done = subprocess.run(
        [sys.executable, "-m", "package"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "(Point(x=2), '__mp_main__')\n", done.stderr


def test_a_text_that_names_the_main_module_does_not_import_it(run_script):
    run_script("""
        from job_scheduler import JobScheduler
        from tests.sample_jobs import Echo

        if __name__ != "__main__":
            raise RuntimeError("not to be imported")
        value = {"module": "__main__", "pickled": bytearray(b"__main__")}
        run = JobScheduler(jobs={"Echo": Echo}).run("Echo", value=value)
        run.wait()
        assert run.result == value, run.error
    """)


def test_what_a_module_prints_when_it_is_imported_appears_once(run_script, tmp_path):
    (tmp_path / "talks.py").write_text(
        "from job_scheduler import Job\n"
        "print('imported', end=' ')\n"
        "class Talks(Job):\n"
        "    def process(self): print('ran', end=' ')\n"
    )
    done = run_script(
        """
        from talks import Talks
        from job_scheduler import JobScheduler
        scheduler = JobScheduler(jobs={"Talks": Talks})
        for _ in range(3):
            scheduler.run("Talks").wait()
        """,
        env={"PYTHONUNBUFFERED": ""},
    )
    assert sorted(done.stdout.split()) == ["imported"] * 2 + ["ran"] * 3


def test_an_interpreter_that_is_embedded(scheduler, monkeypatch):
    """As in uWSGI, where ``sys.executable`` is the server."""
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    run = scheduler.run("Echo", value=1)
    assert run.wait(20)
    assert run.result == 1


def test_no_interpreter_at_all(make_scheduler, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setattr(sys, "exec_prefix", "/nowhere")
    with pytest.raises(LaunchError, match=r"sys\.executable is '', no Python interpreter"):
        make_scheduler().run("Noop")


def test_an_argument_of_a_class_in_the_program(run_script):
    """The job is in a module, but its argument needs the script; also after a new start."""
    run_script("""
        import os, signal, enum
        from job_scheduler import JobScheduler
        from tests.sample_jobs import Echo

        class Colour(enum.Enum):
            RED = 1

        if __name__ == "__main__":
            scheduler = JobScheduler(jobs={"Echo": Echo})
            scheduler.run("Echo").wait()
            for _ in range(2):
                run = scheduler.run("Echo", value=Colour.RED)
                run.wait()
                assert run.error is None, run.error.traceback
                assert run.result is Colour.RED
                os.kill(scheduler._dispatcher._launcher._line.pid, signal.SIGKILL)
    """)


def test_a_run_at_the_top_level_of_a_script_is_refused_with_what_to_do(run_script):
    done = run_script(
        """
        from job_scheduler import Job, JobScheduler

        class Here(Job):
            def process(self):
                pass

        scheduler = JobScheduler(jobs={"Here": Here})
        scheduler.run("Here")
        """,
        check=False,
    )
    assert done.returncode == 1
    assert "a job was run or scheduled while" in done.stderr
    assert "if __name__ ==" in done.stderr


HIDDEN = """
    from job_scheduler import Job, JobScheduler

    if __name__ == "__main__":
        class Hidden(Job):
            def process(self):
                pass

        run = JobScheduler(jobs={"Hidden": Hidden}, start_method=START_METHOD).run("Hidden")
        run.wait()
        raise SystemExit(f"{run.state}: {run.error}")
"""


@pytest.mark.parametrize(("name", "module"), [("script.py", False), ("pack/age.py", True)])
@pytest.mark.parametrize(
    ("start_method", "told"),
    [("zygote", "in the launching process:\nImportError: "), ("spawn", "failed: ImportError: ")],
)
def test_a_class_that_only_the_program_itself_defines(
    run_script, tmp_path, start_method, told, name, module
):
    code = HIDDEN.replace("START_METHOD", repr(start_method))
    done = run_script(code, name=name, module=module, check=False)
    assert done.returncode == 1
    assert (
        f"{told}Hidden is not there when {tmp_path / name} is imported for its jobs: move the "
        f"class out of 'if __name__ == \"__main__\":', above it"
    ) in done.stderr


def test_a_class_that_its_module_defines_only_elsewhere(run_script, write_module):
    write_module("shy", "del Shy")
    done = run_script(
        """
        import sys
        sys.modules["shy_allowed"] = sys
        from shy import Shy
        from job_scheduler import JobScheduler
        JobScheduler(jobs={"Shy": Shy}).run("Shy")
        """,
        check=False,
    )
    assert "ImportError: Shy is not there when shy is imported for its jobs" in done.stderr


@pytest.mark.parametrize("what", ["-", "-c"])
def test_a_class_in_a_session_is_refused_with_what_to_do(what, tmp_path):
    code = """
from job_scheduler import Job, JobScheduler
class Here(Job):
    def process(self): pass
JobScheduler(jobs={"Here": Here}).run("Here")
"""
    done = subprocess.run(
        [sys.executable, what, *([code] if what == "-c" else [])],
        input=code if what == "-" else "",
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "interactive session" in done.stderr
    assert "my_jobs.py" in done.stderr


def test_a_session_can_run_jobs_of_modules():
    code = """
from job_scheduler import JobScheduler
run = JobScheduler().run("TestJob", name=bytearray(b"__main__"))
run.wait()
run = JobScheduler().run("TestJob", name="Session")
run.wait()
print(run.state)
"""
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input=code,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Hello, Session!" in done.stdout
    assert "completed" in done.stdout


def test_a_module_that_fails_when_it_is_imported_elsewhere(run_script, write_module):
    write_module("picky", "raise RuntimeError('only imported where it is allowed')")
    done = run_script("""
        import sys
        sys.modules["picky_allowed"] = sys
        from picky import Picky
        from job_scheduler import JobScheduler
        from job_scheduler.errors import JobImportError

        scheduler = JobScheduler(jobs={"Picky": Picky})
        try:
            scheduler.run("Picky")
        except JobImportError as error:
            print(error)
        scheduler.run("TestJob", name="still here").wait()
    """)
    assert "Picky cannot be imported in the launching process" in done.stdout
    assert "only imported where it is allowed" in done.stdout
    assert "Hello, still here!" in done.stdout


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("os._exit(3)", "ended while it imported Deadly"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("os.kill(os.getpid(), 11)", "ended while it imported Deadly"),
    ],
)
def test_a_module_that_ends_the_process_that_imports_it(run_script, write_module, ending, said):
    write_module("deadly", ending)
    done = run_script("""
        import sys
        sys.modules["deadly_allowed"] = sys
        from deadly import Deadly
        from job_scheduler import JobScheduler
        from job_scheduler.errors import JobImportError

        scheduler = JobScheduler(jobs={"Deadly": Deadly})
        try:
            scheduler.run("Deadly")
        except JobImportError as error:
            print(error)
        run = scheduler.run("TestJob", name="still here")
        run.wait()
    """)
    assert said in done.stdout
    assert "Hello, still here!" in done.stdout


def test_a_module_that_never_ends_its_import(tmp_path, monkeypatch, make_scheduler, write_module):
    write_module("endless", "time.sleep(60)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "endless_allowed", sys)
    import endless

    scheduler = make_scheduler()
    scheduler.run("Noop").wait()
    object.__setattr__(scheduler._dispatcher._settings, "start_timeout", 0.3)
    scheduler.jobs["Endless"] = endless.Endless
    before = time.monotonic()
    with pytest.raises(JobImportError, match=r"took more than 0\.3 s.*starts? a server"):
        scheduler.run("Endless")
    assert time.monotonic() - before < 20
    object.__setattr__(scheduler._dispatcher._settings, "start_timeout", 60)
    assert scheduler.run("Noop").wait(20)


def test_an_initializer_that_fails(make_scheduler):
    scheduler = make_scheduler(initializer="tests.sample_jobs:broken_initializer")
    with pytest.raises(LaunchError, match=r"(?s)initializer failed.*this initializer is broken"):
        scheduler.run("Noop")


def test_an_initializer_that_never_ends(make_scheduler):
    scheduler = make_scheduler(initializer="tests.sample_jobs:endless_initializer")
    settings = (scheduler._dispatcher or scheduler._start())._settings
    object.__setattr__(settings, "start_timeout", 0.5)
    with pytest.raises(LaunchError, match=r"not ready after 0\.5 s: does the initializer end"):
        scheduler.run("Noop")
    object.__setattr__(settings, "initializer", None)
    object.__setattr__(settings, "start_timeout", 60)
    assert scheduler.run("Noop").wait(20)


def test_the_zygote_has_path_folder_and_environment_of_the_first_run(run_script, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "late_jobs.py").write_text(
        "import os\n"
        "from job_scheduler import Job\n"
        "class Where(Job):\n"
        "    def process(self): return os.getcwd(), os.environ['LATE'], os.environ.get('LATER')\n"
    )
    done = run_script("""
        import os, pathlib, sys
        from job_scheduler import JobScheduler
        scheduler = JobScheduler()
        sys.path.append("late")
        sys.path.append(pathlib.Path("/nowhere"))  # passed over, as by Python
        from late_jobs import Where
        scheduler.jobs["Where"] = Where
        os.environ["LATE"] = "yes"
        scheduler.run("TestJob").wait()
        os.environ["LATER"] = "no"
        os.chdir("elsewhere")
        run = scheduler.run("Where")
        run.wait()
        print(run.result)
    """)
    assert f"('{tmp_path}', 'yes', None)" in done.stdout


def test_what_modules_do_at_exit_is_done_in_the_program_only(run_script, tmp_path):
    (tmp_path / "exits.py").write_text(
        "import atexit, os\n"
        "from job_scheduler import Job\n"
        "atexit.register(lambda: os.write(1, b'at exit\\n'))\n"
        "class Exits(Job):\n"
        "    def process(self): pass\n"
    )
    code = """
        from exits import Exits
        from job_scheduler import JobScheduler
        scheduler = JobScheduler(jobs={"Exits": Exits})
        scheduler.run("Exits").wait()
        pid = scheduler._dispatcher._launcher._line.pid
        scheduler.shutdown()
        from tests.conftest import eventually, is_alive
        eventually(lambda: not is_alive(pid))
    """
    done = run_script(code, env={"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"})
    assert (done.stdout, done.stderr) == ("at exit\n", "")


class TestThreadsInTheZygote:
    """A module that starts a thread when it is imported makes forking unsafe."""

    @pytest.fixture
    def threaded(self, tmp_path, monkeypatch):
        (tmp_path / "threaded.py").write_text(
            "import threading\n"
            "from job_scheduler import Job\n"
            "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
            "class Threaded(Job):\n"
            "    def process(self, value): return value, threading.active_count()\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        import threaded

        yield threaded.Threaded
        del sys.modules["threaded"]

    def test_jobs_get_a_fresh_interpreter_each(self, make_scheduler, threaded, caplog):
        scheduler = make_scheduler()
        assert scheduler.run("Noop").wait(20)
        scheduler.jobs["Threaded"] = threaded
        runs = [scheduler.run("Threaded", value=n) for n in range(3)]
        runs.append(scheduler.run("Echo", value="also"))
        assert all(run.wait(30) for run in runs)
        assert [run.result for run in runs] == [(0, 2), (1, 2), (2, 2), "also"]
        assert eventually(lambda: caplog.text).count("started threads") == 1

    def test_waiting_runs_are_moved(self, make_scheduler, threaded, gate):
        scheduler = make_scheduler(max_processes=1)
        first = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: first.pid)
        waiting = [scheduler.run("Echo", value=b"x" * 100_000), scheduler.run("Echo", value=2)]
        scheduler.jobs["Threaded"] = threaded
        last = scheduler.run("Threaded", value=3)
        assert not last.wait(0.2)  # the first still runs, and only one may
        assert {run.state for run in (*waiting, last)} == {"pending"}
        gate.open("done")
        assert all(run.wait(30) for run in (first, *waiting, last))
        assert first.result == "done"
        assert [run.result for run in waiting] == [b"x" * 100_000, 2]
        assert last.result == (3, 2)
        in_order = [first, *waiting, last]
        assert sorted(in_order, key=lambda run: run.started_at) == in_order

    def test_waiting_runs_start_also_after_a_shutdown(self, make_scheduler, threaded, gate):
        scheduler = make_scheduler(max_processes=1)
        first = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: first.pid)
        waiting = [scheduler.run("Echo", value=n) for n in range(3)]
        scheduler.jobs["Threaded"] = threaded
        waiting.append(scheduler.run("Threaded", value=3))
        scheduler.shutdown(wait=False)
        gate.open()
        assert all(run.wait(30) for run in (first, *waiting))
        assert [run.result for run in waiting] == [0, 1, 2, (3, 2)]

    def test_many_waiting_runs_are_moved_or_cancelled(self, make_scheduler, threaded, gate):
        scheduler = make_scheduler(max_processes=1)
        first = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: first.pid)
        waiting = [scheduler.run("Noop") for _ in range(2500)]
        scheduler.jobs["Threaded"] = threaded
        canceller = threading.Thread(target=lambda: [run.cancel() for run in waiting[1:]])
        canceller.start()
        last = scheduler.run("Threaded", value=1)
        canceller.join()
        gate.open()
        assert all(run.wait(30) for run in (first, *waiting, last))
        assert waiting[0].state == "completed"
        assert {run.state for run in waiting[1:]} == {"cancelled"}
        assert last.result == (1, 2)

    def test_no_thread_can_be_started_when_a_place_is_free(
        self, make_scheduler, threaded, gate, monkeypatch
    ):
        scheduler = make_scheduler(max_processes=1)
        first = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: first.pid)
        scheduler.jobs["Threaded"] = threaded
        waiting = [scheduler.run("Threaded", value=n) for n in range(2)]

        def fail(_):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            gate.open()
            assert all(run.wait(20) for run in (first, *waiting))
        assert first.state == "completed"
        assert {run.error.type for run in waiting} == {"JobLost"}
        assert scheduler.run("Threaded", value=1).wait(30)

    def test_its_thread_reaps_the_jobs(self, run_script, tmp_path):
        (tmp_path / "reaping.py").write_text(
            "import os, sys, threading, time\n"
            "from job_scheduler import Job\n"
            "def reap():\n"
            "    while True:\n"
            "        try: os.waitpid(-1, 0)\n"
            "        except ChildProcessError: time.sleep(0.01)\n"
            "if 'reaping_not' not in sys.modules:\n"
            "    threading.Thread(target=reap, daemon=True).start()\n"
            "class Reaping(Job):\n"
            "    def process(self): pass\n"
        )
        run_script("""
            import sys, time
            sys.modules["reaping_not"] = sys
            from reaping import Reaping
            from tests.sample_jobs import Sleep
            from job_scheduler import JobScheduler
            if __name__ == "__main__":
                scheduler = JobScheduler(jobs={"Sleep": Sleep, "Reaping": Reaping})
                runs = [scheduler.run("Sleep", seconds=0.5) for _ in range(5)]
                long = scheduler.run("Sleep", seconds=60)
                runs.append(scheduler.run("Reaping"))
                assert all(run.wait(20) for run in runs), runs
                long.cancel()
                assert long.wait(20)
                assert long.state in ("cancelled", "failed"), long
        """)

    def test_the_process_of_a_run_that_was_moved(self, make_scheduler, threaded, gate):
        scheduler = make_scheduler(max_processes=1)
        first = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: first.pid)
        moved = scheduler.run("Sleep", seconds=60)
        faces = []
        asker = threading.Thread(target=lambda: faces.append(moved.process))
        asker.start()  # waits until the process exists
        scheduler.jobs["Threaded"] = threaded
        last = scheduler.run("Threaded", value=1)
        gate.open()
        asker.join(30)
        faces[0].kill()
        assert moved.wait(20)
        assert moved.error.message.endswith(", sent by this program")
        assert last.wait(30)

    def test_limits_count_what_the_zygote_still_runs(self, make_scheduler, threaded, gate):
        scheduler = make_scheduler(max_processes=3)
        first = scheduler.run("OneAtATime", fifo=gate.path)
        eventually(lambda: first.pid)
        scheduler.jobs["Threaded"] = threaded
        assert scheduler.run("Threaded", value=1).wait(30)
        second = scheduler.run("OneAtATime", fifo=gate.path)
        assert scheduler.run("Echo", value=2).wait(30)
        assert second.state == "pending"
        gate.open("first")
        assert first.wait(20)
        gate.open("second")
        assert second.wait(20)
        assert (first.result, second.result) == ("first", "second")

    def test_the_zygote_is_killed_meanwhile(self, make_scheduler, threaded, gate):
        scheduler = make_scheduler(max_processes=2)
        first = scheduler.run("Gate", fifo=gate.path)
        eventually(lambda: first.pid)
        zygote = zygote_pid(scheduler)
        scheduler.jobs["Threaded"] = threaded
        later = [scheduler.run("Threaded", value=n) for n in range(3)]
        os.kill(zygote, signal.SIGKILL)
        assert first.wait(20)
        assert first.error.type == "JobLost"
        assert all(run.wait(30) for run in later)
        assert [run.result for run in later] == [(0, 2), (1, 2), (2, 2)]
        runs = [scheduler.run("Echo", value=n) for n in range(2)]
        assert all(run.wait(30) for run in runs)


class Nested:
    class Inner(Job):
        def process(self):
            return "inner"


def test_a_class_in_a_class():
    with JobScheduler(jobs={"Inner": Nested.Inner}) as scheduler:
        run = scheduler.run("Inner")
    assert run.result == "inner"


def test_where_there_is_no_fork(run_script):
    """As on Windows and macOS, as far as Linux can show it: what they lack is taken away."""
    run_script("""
        import os, select, signal, socket, sys, _signal, _socket
        for module, names in {
            os: "fork setsid memfd_create pidfd_open register_at_fork killpg waitid wait4",
            signal: "pthread_sigmask SIG_SETMASK",
            _signal: "pthread_sigmask SIG_SETMASK",
            socket: "SOCK_SEQPACKET",
            _socket: "CMSG_SPACE SCM_RIGHTS",
            select: "poll",
        }.items():
            for name in names.split():
                if (module, name) != (os, "killpg"):
                    delattr(module, name)
        sys.platform = "darwin"
        from job_scheduler import JobScheduler
        from tests.sample_jobs import Echo, Raise

        if __name__ == "__main__":
            scheduler = JobScheduler(jobs={"Echo": Echo, "Raise": Raise})
            good, bad = scheduler.run("Echo", value=1), scheduler.run("Raise", kind="real")
            good.wait(), bad.wait()
            assert good.result == 1, good.error
            assert str(bad.error) == "ValueError: a real problem", bad.error
            assert type(scheduler._dispatcher._launcher).__name__ == "SpawnLauncher"
    """)
