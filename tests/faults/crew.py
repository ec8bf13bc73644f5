"""Worker processes over one PostgreSQL, and a client that adds runs all the time."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from job_scheduler import Scheduler
from job_scheduler.errors import StoreError
from job_scheduler.stores.postgres import PostgresStore
from tests.conftest import ROOT, eventually, is_alive, lines
from tests.faults.checker import WAITING, Counts, check, keep_journal
from tests.faults.fault_jobs import JOBS, Work, work
from tests.postgres import execute
from tests.webhook_helpers import processes_with

LEASE = 1.0
POLL = 1.0
NOTHING = Counts(0, 0, 0, 0)


def named(dsn, name):
    """The same place, for a connection that says who it is."""
    return f"{dsn}{'&' if '?' in dsn else '?'}application_name={name}"


def make_tables(dsn):
    """Make them, and the checker's journal."""

    async def make():
        store = PostgresStore(dsn, listen=False)
        await store.open()
        await store.close()

    asyncio.run(make())
    keep_journal(dsn)


class Crew:
    """Workers that may be killed, and everything about them that a test asks for."""

    def __init__(self, dsn, folder):
        self.dsn = dsn
        self.log = folder / "log"
        self.log.touch()
        self.workers = []
        self._started = []
        self._environment = {"PYTHONPATH": str(ROOT), "FAULT_LOG": str(self.log)}

    # Processes

    def run(self, *command, **options):
        """A program with the settings of all workers; it is ended with the test."""
        number = len(self._started)
        with Path(f"{self.log}.err{number}").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, **self._environment},
                **options,
            )
        process.errors = Path(errors.name)
        self._started.append(process)
        return process

    def start(self, *options, dsn=None):
        """One more worker; see ``worker_program``."""
        where = named(dsn or self.dsn, f"w{len(self._started)}")
        process = self.run("-m", "tests.faults.worker_program", where, *options)
        self.workers.append(process)
        return process

    def start_ready(self, count, *options):
        """So many workers, which all work."""
        started = [self.start(*options) for _ in range(count)]
        for process in started:
            self.wait_until_ready(process)
        return started

    def wait_until_ready(self, process):
        assert process.stdout.readline() == "ready\n", process.errors.read_text()

    def kill(self, process):
        self.workers.remove(process)
        process.kill()
        process.wait()

    def name_of(self, process):
        """What the store calls a worker's connections."""
        return f"w{self._started.index(process)}"

    def end(self):
        """Leave no process behind."""
        for process in self._started:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
        setting = f"FAULT_LOG={self.log}"
        self.go()
        eventually(lambda: not any(map(is_alive, processes_with(setting))), what="the end of all")

    # Jobs

    def go(self, which="go"):
        """Let a run that holds go on, or one execution of it, or all."""
        Path(f"{self.log}.{which}").touch()

    def starts(self, name):
        """The marks of the executions of a run, in order."""
        told = [line.split() for line in lines(self.log)]
        return [each[2] for each in told if each[:2] == ["start", name] and len(each) == 4]

    def ends(self, name):
        told = [line.split() for line in lines(self.log)]
        return [each[2] for each in told if each[:2] == ["end", name] and len(each) == 4]

    def wait_for_start(self, name, number=1):
        """The mark of the last of so many executions."""
        return eventually(lambda: self.starts(name)[number - 1 :], what=f"start {number}")[0]

    # The store

    def say(self, *statements):
        return execute(self.dsn, *statements)

    def row(self, job_id):
        [row] = self.say(f"SELECT * FROM scheduled_jobs WHERE job_id = '{job_id}'")
        return row

    def journal(self, job_id):
        """What became of a run, and who said so."""
        found = self.say(f"SELECT what, who FROM journal WHERE job_id = '{job_id}' ORDER BY id")
        return [tuple(row) for row in found]

    def add(self, *names, job=work, at=None, mode="raise", **kwargs):
        """Have runs accepted, each under its own name."""

        async def add(client):
            for name in names:
                given = {"name": name, **kwargs}
                await client.schedule(
                    job, job_id=name, kwargs=given, execution_time=at, conflict_resolution=mode
                )
                self.accept(name)

        self.as_client(add)

    def accept(self, name):
        with self.log.open("a") as file:
            file.write(f"ack {name} - {time.time():.6f}\n")

    def as_client(self, story, dsn=None):
        """Do something with a scheduler that runs nothing."""

        async def all_of_it():
            client = Scheduler(store=named(dsn or self.dsn, "client"), jobs=JOBS)
            try:
                return await story(client)
            finally:
                await client.shutdown()

        return asyncio.run(all_of_it())

    def settle(self, takes=1.0):
        """Give what waits or goes on the time that one may take, as long as others end."""
        waiting = f"SELECT job_id FROM scheduled_jobs WHERE status IN {WAITING}"
        patience = LEASE + POLL + takes + 5.0
        left, deadline = None, time.monotonic() + patience
        while (found := self.say(waiting)) and time.monotonic() < deadline:
            if left is None or len(found) < left:
                left, deadline = len(found), time.monotonic() + patience
            time.sleep(0.05)

    def check(self, doomed=()):
        assert check(self.dsn, self.log, doomed) == NOTHING


class Adder:
    """Adds runs of all kinds, until it is told to end; says again what was not accepted."""

    def __init__(self, crew, seeded, pause=0.02):
        self._crew = crew
        self._random = seeded
        self._pause = pause
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.refusals = []
        """The seconds that each refused call took."""

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        self._thread.join()

    def _run(self):
        self._crew.as_client(self._add)

    async def _add(self, client):
        for number in itertools.count():
            if self._stopped.is_set():
                return
            name = f"r{number}"
            job = self._random.choice([work, work, Work])
            kwargs = {"name": name, "takes": self._random.choice([0.0, 0.05, 0.3])}
            while not await self._accepted(client, job, name, kwargs):
                await asyncio.sleep(0.05)
            self._crew.accept(name)
            await asyncio.sleep(self._random.random() * 2 * self._pause)

    async def _accepted(self, client, job, name, kwargs):
        began = time.monotonic()
        try:
            await client.schedule(job, job_id=name, kwargs=kwargs, conflict_resolution="ignore")
        except StoreError:
            self.refusals.append(time.monotonic() - began)
            return False
        return True


class Proxy:
    """Stands between programs and PostgreSQL, and cuts a connection when it is told to.

    Args:
        folder: of the server's socket.
        own: of the socket that this makes.
    """

    def __init__(self, folder, own):
        self._folder, self.folder = folder, own
        self._request = self._answer = self._unheard = None
        self.cuts = 0
        self._loop = asyncio.new_event_loop()
        self._tasks = set()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self):
        self._thread.start()
        opening = asyncio.start_unix_server(self._meet, str(self.folder / ".s.PGSQL.5432"))
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result()
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self, *, request=None, answer=None, unheard=None):
        """Cut the next connection that has one of these in what is said over it.

        Args:
            request: once the server has done what this asks for; its answer is not heard.
            answer: the same, but this is in the answer.
            unheard: this does not reach the server.
        """
        self._request, self._answer, self._unheard = request, answer, unheard

    async def _meet(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        socket = str(self._folder / ".s.PGSQL.5432")
        from_server, to_server = await asyncio.open_unix_connection(socket)
        state = {"cut": False}
        ways = [
            asyncio.ensure_future(self._forward(reader, to_server, state)),
            asyncio.ensure_future(self._reply(from_server, writer, state)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for each in (writer, to_server):
                each.transport.abort()

    async def _forward(self, reader, writer, state):
        while data := await reader.read(1 << 16):
            if self._unheard is not None and self._unheard in data:
                self._unheard = None
                self.cuts += 1
                return
            if self._request is not None and self._request in data:
                self._request, state["cut"] = None, True
            writer.write(data)
            await writer.drain()

    async def _reply(self, reader, writer, state):
        """Hand on what the server says, unless the connection is to be cut once it is done."""
        kept = b""
        while data := await reader.read(1 << 16):
            if self._answer is not None and self._answer in data:
                self._answer, state["cut"] = None, True
            if not state["cut"]:
                writer.write(data)
                await writer.drain()
                continue
            kept += data
            if b"Z\0\0\0\5I" in kept:  # ready, and in no transaction
                self.cuts += 1
                return
