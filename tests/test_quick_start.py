"""What the README promises first, with the standard library's ``unittest`` and nothing else.

``python -m unittest tests/test*.py`` is to pass wherever the package is installed, also where there
is no pytest. The tests that mirror the package are in ``tests/package`` and its neighbours.
"""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import tempfile
import unittest
from datetime import UTC, datetime
from pathlib import Path

from job_scheduler import Cron, Job, JobScheduler

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0
"""Seconds after which something that takes milliseconds is taken to fail."""

ACCEPT = """
import sys
from job_scheduler import JobScheduler
from tests.test_quick_start import JOBS

scheduler = JobScheduler(jobs=JOBS, store=sys.argv[1], workers=0)
print(scheduler.run("Greet", name="Ada").id)
scheduler.shutdown()
"""


class Greet(Job):
    def process(self, name: str) -> dict[str, object]:
        return {"text": f"Hello, {name}!", "pid": os.getpid()}


class WaitForText(Job):
    """Ends once somebody has written into a FIFO."""

    def process(self, fifo: str) -> str:
        return Path(fifo).read_text()


class Refuse(Job):
    def process(self) -> None:
        raise ValueError("there is no such order")


class KillItself(Job):
    def process(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Note(Job):
    def process(self, file: str, line: str) -> None:
        with open(file, "a") as opened:
            opened.write(f"{line}\n")


JOBS = {each.__name__: each for each in (Greet, WaitForText, Refuse, KillItself, Note)}


class QuickStart(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.log = queue.SimpleQueue()
        handler = logging.handlers.QueueHandler(self.log)
        logging.getLogger("job_scheduler").addHandler(handler)
        self.addCleanup(logging.getLogger("job_scheduler").removeHandler, handler)

    def scheduler(self, **options):
        scheduler = JobScheduler(jobs=JOBS, **options)
        self.addCleanup(scheduler.shutdown, timeout=0)
        return scheduler

    def assert_ends(self, run, state):
        self.assertTrue(run.wait(PATIENCE), f"{run} has not ended")
        self.assertEqual(run.state, state, run.error)


class RunByName(QuickStart):
    def test_is_done_in_a_process_of_its_own(self):
        run = self.scheduler().run("Greet", name="Ada")
        self.assertIsInstance(run.process, multiprocessing.Process)
        self.assert_ends(run, "completed")
        self.assertEqual(run.result, {"text": "Hello, Ada!", "pid": run.pid})
        self.assertNotEqual(run.pid, os.getpid())
        self.assertEqual((run.process.pid, run.exitcode, run.error), (run.pid, 0, None))

    def test_returns_at_once(self):
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        run = self.scheduler().run("WaitForText", fifo=str(fifo))
        self.assertFalse(run.state.ended)  # it cannot, before the next line
        fifo.write_text("written after run() was back")
        self.assert_ends(run, "completed")
        self.assertEqual(run.result, "written after run() was back")

    def test_refuses_a_wrong_keyword_where_it_is_called(self):
        with self.assertRaisesRegex(TypeError, r"unknown: nmae \(did you mean 'name'\?\)"):
            self.scheduler().run("Greet", nmae="Ada")

    def test_refuses_an_unknown_job_with_the_nearest_name(self):
        with self.assertRaisesRegex(ValueError, "'Gret'; did you mean 'Greet'"):
            self.scheduler().run("Gret", name="Ada")

    def test_tells_what_a_job_raised(self):
        run = self.scheduler().run("Refuse")
        self.assert_ends(run, "failed")
        self.assertEqual(str(run.error), "ValueError: there is no such order")
        self.assertIn("in process", run.error.traceback)
        self.assertIn("there is no such order", self.log.get(timeout=PATIENCE).getMessage())

    def test_tells_what_killed_a_job(self):
        run = self.scheduler().run("KillItself")
        self.assert_ends(run, "failed")
        self.assertRegex(str(run.error), "^JobKilled: killed by SIGKILL")
        self.assertEqual(run.exitcode, -signal.SIGKILL)
        self.assertIn("killed by SIGKILL", self.log.get(timeout=PATIENCE).getMessage())

    def test_with_a_key_is_done_once(self):
        file = self.folder / "notes"
        once = self.scheduler().options(key="evt_1")
        first = once.run("Note", file=str(file), line="first")
        second = once.run("Note", file=str(file), line="second")
        self.assertEqual(first.id, second.id)
        self.assert_ends(first, "completed")
        third = once.run("Note", file=str(file), line="third")
        self.assert_ends(third, "completed")
        self.assertEqual(file.read_text(), "first\n")

    def test_is_done_in_place_by_an_eager_scheduler(self):
        run = self.scheduler(eager=True).run("Greet", name="Ada")
        self.assertEqual(run.state, "completed")
        self.assertEqual(run.result, {"text": "Hello, Ada!", "pid": os.getpid()})


class LaterAndRepeatedly(QuickStart):
    def test_at_an_interval_until_it_is_removed(self):
        calls, later = queue.SimpleQueue(), queue.SimpleQueue()
        scheduler = self.scheduler()
        scheduler.add_job("greeting", calls.put, interval=0.05, args=["Hello!"])
        self.assertEqual([calls.get(timeout=PATIENCE) for _ in range(3)], ["Hello!"] * 3)
        self.assertIsNotNone(scheduler.get_job_info("greeting")["next_run_time"])
        scheduler.remove_job("greeting")
        before = calls.qsize()
        with self.assertRaisesRegex(KeyError, "greeting"):
            scheduler.get_job_info("greeting")
        # One call may have begun before it was removed; after six intervals there is no other.
        scheduler.schedule_once("0.3s", lambda: later.put("over"), job_id="over")
        self.assertEqual(later.get(timeout=PATIENCE), "over")
        self.assertLessEqual(calls.qsize(), before + 1)

    def test_again_some_time_after_each_end(self):
        calls = queue.SimpleQueue()
        scheduler = self.scheduler()
        scheduler.schedule("0s", "0.05s", lambda: calls.put("called"), job_id="often")
        self.assertEqual([calls.get(timeout=PATIENCE) for _ in range(2)], ["called"] * 2)
        scheduler.stop()
        with self.assertRaises(KeyError):
            scheduler.get_job_info("often")

    def test_by_cron_which_says_when(self):
        cron = Cron("*/5 9-17 * * mon-fri")
        words = "every 5 minutes from 09:00 to 17:59 on Monday to Friday (UTC)"
        self.assertEqual(cron.describe(), words)
        friday = datetime(2026, 1, 2, 17, 50, tzinfo=UTC)
        self.assertEqual(
            [f"{instant:%a %H:%M}" for instant in cron.preview(3, after=friday)],
            ["Fri 17:55", "Mon 09:00", "Mon 09:05"],
        )
        with self.assertRaisesRegex(ValueError, "hour"):
            Cron("* 25 * * *")


class AcceptedMeansKept(QuickStart):
    def setUp(self):
        super().setUp()
        self.store = f"sqlite:///{self.folder}/jobs.db"

    def test_what_one_accepts_another_does(self):
        run = self.scheduler(store=self.store, workers=0).run("Greet", name="Ada")
        self.assertEqual(run.state, "pending")
        self.scheduler(store=self.store)
        self.assert_ends(run, "completed")
        self.assertEqual(run.result["text"], "Hello, Ada!")

    def test_over_a_restart(self):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        accepting = subprocess.run(
            [sys.executable, "-c", ACCEPT, self.store],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.assertEqual(accepting.stderr, "")
        run = self.scheduler(store=self.store).get_run(accepting.stdout.strip())
        self.assert_ends(run, "completed")
        self.assertEqual(run.result["text"], "Hello, Ada!")
        self.assertNotEqual(run.result["pid"], os.getpid())

    def test_a_key_holds_over_schedulers(self):
        first = self.scheduler(store=self.store).options(key="evt_1").run("Greet", name="Ada")
        self.assert_ends(first, "completed")
        second = self.scheduler(store=self.store).options(key="evt_1").run("Greet", name="Grace")
        self.assertEqual((second.id, second.state), (first.id, "completed"))
        self.assertEqual(second.result["text"], "Hello, Ada!")


if __name__ == "__main__":
    unittest.main()
