"""The thread that speaks to the workers: it asks who is there, and revokes what is not wanted.

A worker that dies with all its processes tells nobody. So those that have started something here
are asked for it every few seconds:

* It says that it has it: all is well.
* It answers, but has it not, twice: it was started anew meanwhile, and the task is lost; or it was
  not, and the task has ended without telling how.
* It is silent for six rounds, although it has answered while it worked: it is lost.
* It has never answered while it worked, as one of the solo pool does: nothing can be said, until a
  worker of its name answers again.

Revocations are said at once, and again in each round.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol

from job_scheduler.executors.celery.flight import Worker
from job_scheduler.executors.celery.line import Line
from job_scheduler.executors.celery.revocations import Revocations
from job_scheduler.log import tell

if TYPE_CHECKING:
    from job_scheduler.executors.celery.flight import Flight

ROUND: Final = 5.0
"""Seconds between two rounds."""

_SOON: Final = 0.5
"""Seconds until the first round after a start: whoever answers it can be missed later."""

_MOST_SILENT: Final = 6
"""Rounds in which a worker may be silent."""

_MOST_ABSENT: Final = 2
"""Answers without the task."""

_TO_ANSWER: Final = 1.0
"""Seconds that the workers have to answer."""

_MOST_ASKED: Final = 1_000
"""Tasks that are asked for in one round, in turn."""

_ALL: Final = 1_000_000
"""Answers; with none said, Celery waits for no more than it has names."""

_ODD: Final = 60.0
"""Seconds of silence after which a worker of which nothing is known is told of."""


class Home(Protocol):
    """Who has the flights."""

    def started(self) -> list[Flight]:
        """Those that workers have started."""

    def lost(self, flight: Flight, why: str) -> None:
        """Its worker is no more."""

    def vanished(self, flight: Flight) -> None:
        """Its worker is well, and has it no more."""

    def too_long(self, flight: Flight) -> None:
        """It goes on beyond its time."""

    def left(self, run: str) -> str | None:
        """The task that a run was sent as, and that nobody here follows."""


class RollCall:
    """Knows which workers are there.

    Args:
        app: the Celery application.
        home: told what is lost.
        grace: seconds beyond a run's timeout that its worker may take to end it.
    """

    def __init__(self, app: Any, home: Home, grace: float) -> None:
        self._app = app
        self._home = home
        self._grace = grace
        self._every = ROUND
        # Speaks on our connection, not on those that the application shares.
        self._control = type(app.control)(app)
        self._control.mailbox.producer_pool = None
        self._line = Line(app)
        self._answers: set[str] = set()
        """Workers that have answered while they worked."""
        self._pids: dict[str, set[int]] = {}
        """Their processes, which tell one start of a worker from the next."""
        self._silent: Counter[str] = Counter()
        self._absent: Counter[str] = Counter()
        self._odd: dict[str, float] = {}
        self._revocations = Revocations()
        self._wake = threading.Event()
        self._next_round = 0.0
        self._asked = 0
        self._is_idle = False
        self._is_failing = False
        self._closed = False
        name = "job_scheduler celery workers"
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    # From any thread

    def expect(self, name: str | None) -> None:
        """A worker has started something: see soon whether it answers while it works."""
        if name in self._answers and not self._is_idle:
            return
        soon = time.monotonic() + min(_SOON, self._every)
        if self._is_idle or self._next_round > soon:
            self._next_round = soon
            self._wake.set()

    def revoke(self, task_id: str, *, repeat: bool = False) -> None:
        """Have a task not started, or stopped where the pool can do that."""
        self._revocations.add(task_id, repeat=repeat)
        self._wake.set()

    def revoke_left(self, run: str) -> None:
        """Revoke what a run was sent as, if anything."""
        self._revocations.add_run(run)
        self._wake.set()

    def is_revoked(self, task_id: str) -> bool:
        """Whether it is to be revoked, wherever it comes up."""
        return self._revocations.is_repeated(task_id)

    def confirm(self, task_id: str) -> None:
        """It is known to be revoked, or to have ended."""
        self._revocations.confirm(task_id)

    @property
    def has_unsaid(self) -> bool:
        """Whether there is a revocation that the workers were not told yet."""
        return self._revocations.has_unsaid

    def close(self) -> None:
        """End; what was to be revoked is said before."""
        self._closed = True
        self._wake.set()

    # The thread

    def _serve(self) -> None:
        while not self._closed:
            self._wake.wait(self._seconds_to_wait())
            self._wake.clear()
            self._look()
        self._look()
        self._line.drop()

    def _seconds_to_wait(self) -> float | None:
        self._is_idle = True  # from here on a start wakes this thread
        said_again = self._revocations.has_unsaid or self._revocations.repeated()
        if not self._home.started() and not said_again:
            return None
        self._is_idle = False
        return max(0.0, self._next_round - time.monotonic())

    def _look(self) -> None:
        try:
            self._revoke_new()
            self._look_for_late()
            if time.monotonic() >= self._next_round and not self._closed:
                self._next_round = time.monotonic() + self._every
                if repeated := self._revocations.repeated():
                    self._broadcast(repeated)
                self._call()
        except Exception as error:  # nobody is missed while the broker is away
            if not self._is_failing:
                self._is_failing = True
                said = "nothing is heard of Celery's workers: %s: %s"
                tell(logging.WARNING, said, type(error).__name__, error)
            self._line.drop()
            self._silent.clear()
            self._absent.clear()
            self._next_round = time.monotonic() + self._every
        else:
            self._is_failing = False

    def _revoke_new(self) -> None:
        for run in self._revocations.runs():
            task_id = self._home.left(run)
            self._revocations.found(run, task_id)
        task_ids = self._revocations.new()
        if task_ids:
            self._broadcast(task_ids)
            self._revocations.said(task_ids)

    def _broadcast(self, task_ids: list[str]) -> None:
        self._control.revoke(
            task_ids, terminate=True, signal="SIGTERM", connection=self._line.connection()
        )

    def _look_for_late(self) -> None:
        """Pools other than prefork do not keep to a limit of time."""
        now = time.monotonic()
        for flight in self._home.started():
            if flight.timeout is None or flight.started_at is None:
                continue
            if now > flight.started_at + flight.timeout + self._grace:
                self._home.too_long(flight)

    def _call(self) -> None:
        by_worker: dict[str, list[Flight]] = {}
        flights = self._next_ones()
        self._find([each for each in flights if each.worker is None])
        for flight in flights:
            if flight.worker is not None:
                by_worker.setdefault(flight.worker.name, []).append(flight)
        if not by_worker:
            return
        asked = {flight.task_id for flight in flights if flight.worker is not None}
        answers = self._ask(list(by_worker), asked, len(by_worker))
        doubtful = [
            name
            for name, flights in by_worker.items()
            if name in answers and any(each.task_id not in answers[name] for each in flights)
        ]
        if doubtful:  # there may be several workers of a name
            for name, has in self._ask(doubtful, asked, None).items():
                answers[name] |= has
        still = {task_id: times for task_id, times in self._absent.items() if task_id in asked}
        self._absent = Counter(still)
        for name, flights in by_worker.items():
            if name in answers:
                self._hear(name, flights, answers[name])
            else:
                self._miss(name, flights)
        new_ones = self._answers - self._pids.keys()
        if new_ones:
            self._pids |= self._pids_of(list(new_ones))

    def _find(self, flights: list[Flight]) -> None:
        """Learn where tasks go on that were first seen in a state of their own."""
        if flights:
            answers = self._ask(None, {each.task_id for each in flights}, None)
            for flight in flights:
                for name, has in answers.items():
                    if flight.task_id in has:
                        flight.worker = Worker(name, None)

    def _ask(
        self, names: list[str] | None, asked: set[str], most: int | None
    ) -> dict[str, set[str]]:
        """What workers have of these tasks: so many that answer first, or all that do (None)."""
        answers: dict[str, set[str]] = {}
        for name, tasks in self._replies("query_task", names, most, ids=list(asked)):
            answers.setdefault(name, set()).update(tasks)
        return answers

    def _replies(
        self, command: str, names: list[str] | None, most: int | None, **arguments: Any
    ) -> list[tuple[str, Any]]:
        replies = self._control.broadcast(
            command,
            arguments=arguments,
            destination=names,
            connection=self._line.connection(),
            reply=True,
            timeout=_TO_ANSWER,
            limit=most or _ALL,
        )
        return [answer for reply in replies or () for answer in reply.items()]

    def _pids_of(self, names: list[str]) -> dict[str, set[int]]:
        """The main processes of the workers of these names."""
        pids: dict[str, set[int]] = {}
        for name, told in self._replies("stats", names, None):
            pids.setdefault(name, set()).add(told.get("pid"))
        return pids

    def _next_ones(self) -> list[Flight]:
        """Those to be asked for in this round."""
        flights = self._home.started()
        first = self._asked if self._asked < len(flights) else 0
        self._asked = first + _MOST_ASKED
        return flights[first : self._asked]

    def _hear(self, name: str, flights: list[Flight], has: set[str]) -> None:
        self._silent.pop(name, None)
        self._odd.pop(name, None)
        for flight in flights:
            if flight.task_id in has:
                self._answers.add(name)
                self._absent.pop(flight.task_id, None)
                continue
            self._absent[flight.task_id] += 1
            if self._absent[flight.task_id] < _MOST_ABSENT:
                continue
            if name in self._pids and self._pids[name] == self._pids_of([name]).get(name):
                self._home.vanished(flight)
            else:
                self._pids.pop(name, None)
                self._home.lost(flight, f"{name} was started anew and does not have it any more")

    def _miss(self, name: str, flights: list[Flight]) -> None:
        if name not in self._answers:
            since = self._odd.setdefault(name, time.monotonic())
            if 0 < since < time.monotonic() - _ODD:
                self._odd[name] = 0.0
                said = (
                    "worker %s has not answered since it began task %s: it may be of the solo "
                    "pool, which does not while it works; if it is no more, cancel the run"
                )
                tell(logging.WARNING, said, name, flights[0].task_id)
            return
        self._silent[name] += 1
        if self._silent[name] >= _MOST_SILENT:
            del self._silent[name]
            self._answers.discard(name)
            self._pids.pop(name, None)
            for flight in flights:
                self._home.lost(flight, f"{name} does not answer any more")
