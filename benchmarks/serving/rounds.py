"""What is asked of which server, round after round."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from queueing.server import database

from serving import servers
from serving.filling import fill

Figures = dict[str, float]

CEILING = "uvicorn alone"

_CLIENT = Path(__file__).parent / "client.py"
_PATIENCE = 120.0


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    seconds: float = 2.0
    """For each row."""
    jobs: int = 10_000
    runs: int = 100_000


QUICK = Sizes(seconds=0.2, jobs=500, runs=2_000)


class Row(NamedTuple):
    """One request, asked by so many clients at one time."""

    method: str
    path: str
    clients: int
    expected: str = "200"
    accept: str = "*/*"

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}, {self.clients}"


_TOGETHER = (1, 8, 64)

EMPTY_ROWS = [Row("POST", "/run/nothing", clients, "202") for clients in _TOGETHER]
"""Asked of a store that has nothing yet."""

FULL_ROWS = [
    *(Row("GET", "/healthz", clients) for clients in _TOGETHER),
    *(Row("GET", "/jobs/1", clients) for clients in _TOGETHER),
    *(Row("GET", "/jobs?limit=50", clients) for clients in _TOGETHER),
    Row("GET", "/jobs", 1),
    Row("GET", "/runs?limit=50", 1),
    Row("GET", "/metrics", 1),
    Row("GET", "/", 1, accept="text/html"),
]
"""Asked of one that is full."""

CEILING_ROWS = [Row(method, "/", clients) for method in ("POST", "GET") for clients in _TOGETHER]


class Subject(NamedTuple):
    """A service on a store: this one's, or that of another checkout."""

    name: str
    store: str
    checkout: Path | None = None


class RequestError(Exception):
    """A request was answered in another way than it should be."""


@dataclass
class Rounds:
    """What was found."""

    figures: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    """subject -> row -> figures of each round."""
    remarks: list[str] = field(default_factory=list)

    def add(self, subject: str, row: str, figures: Figures) -> None:
        self.figures.setdefault(subject, {}).setdefault(row, []).append(figures)

    def remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


class Stores:
    """Databases for services: one that was filled once, and empty ones.

    Args:
        dsn: of a PostgreSQL where databases may be made; None: there is none.
    """

    def __init__(self, folder: Path, dsn: str | None) -> None:
        self._folder = folder
        self._dsn = dsn
        self._count = 0
        self._stack = contextlib.ExitStack()
        self._full: dict[Subject, str] = {}

    def __enter__(self) -> Stores:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def empty(self, subject: Subject) -> Iterator[str]:
        self._count += 1
        name = f"bench_service_{self._count}"
        if subject.store == "SQLite":
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                yield f"sqlite:///{folder}/scheduler.db"
            return
        assert self._dsn is not None
        with database(self._dsn, name) as address:
            yield address

    def full(self, subject: Subject, sizes: Sizes) -> str:
        """One that has jobs and runs; each subject has its own."""
        if subject not in self._full:
            address = self._stack.enter_context(self.empty(subject))
            fill(address, sizes.jobs, sizes.runs)
            self._full[subject] = address
        return self._full[subject]


def run_rounds(
    subjects: list[Subject],
    stores: Stores,
    count: int,
    sizes: Sizes,
    show_progress: Callable[[str], None],
) -> Rounds:
    """Interleaved, so that a slow moment of the machine meets all; each has another order."""
    rounds = Rounds()
    for subject in subjects:
        show_progress(f"filling the store of {subject.name}")
        stores.full(subject, sizes)
    for number in range(count):

        def progress(text: str, number: int = number) -> None:
            show_progress(f"round {number + 1} of {count}: {text}")

        shift = number % len(subjects)
        for subject in subjects[shift:] + subjects[:shift]:
            _measure(subject, stores, sizes, rounds, progress)
        with servers.trivial() as server:
            for row in CEILING_ROWS:
                progress(f"{row.name}, {CEILING}")
                rounds.add(CEILING, row.name, ask(server, row, sizes.seconds))
    return rounds


def _measure(
    subject: Subject,
    stores: Stores,
    sizes: Sizes,
    rounds: Rounds,
    show_progress: Callable[[str], None],
) -> None:
    with stores.empty(subject) as address, servers.service(address, subject.checkout) as server:
        for row in EMPTY_ROWS:
            show_progress(f"{row.name}, {subject.name}")
            rounds.add(subject.name, row.name, _ask_and_wait(server, row, sizes.seconds))
    full = stores.full(subject, sizes)
    with servers.service(full, subject.checkout) as server:
        for row in FULL_ROWS:
            show_progress(f"{row.name}, {subject.name}")
            try:
                rounds.add(subject.name, row.name, ask(server, row, sizes.seconds))
            except RequestError as error:
                rounds.remark(f"not measured on {subject.name}: {error}")


def _ask_and_wait(server: servers.Server, row: Row, seconds: float) -> Figures:
    """The same, and how many of the runs were completed in a second until none was left."""
    before, began, cpu = server.completed(), time.perf_counter(), server.cpu()
    figures = ask(server, row, seconds)
    count = figures["answered"]
    server.wait_for_runs(before + int(count))
    took, cpu = time.perf_counter() - began, server.cpu() - cpu
    return {**figures, "run rate": count / took, "cpu": cpu / count * 1000}


def ask(server: servers.Server, row: Row, seconds: float) -> Figures:
    """The figures of one row; raises ``RequestError`` unless all answers are as they should be."""
    given: dict[str, Any] = {
        "port": server.port,
        "method": row.method,
        "path": row.path,
        "clients": row.clients,
        "seconds": seconds,
        "accept": row.accept,
    }
    if row.method == "POST":
        given["body"] = json.dumps({"parameters": {"recipient": "user@example.com"}})
    command = [sys.executable, str(_CLIENT), json.dumps(given)]
    cpu = server.cpu()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + _PATIENCE
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    statuses = figures.pop("statuses")
    if list(statuses) != [row.expected]:
        found = re.sub(r"[{}']", "", str(statuses))
        raise RequestError(f"{row.method} {row.path} is answered with {found}")
    return {**figures, "cpu": (server.cpu() - cpu) / figures["answered"] * 1000}
