"""The one thread of an SQLite store that speaks to its file, and commits many steps at a time.

A commit waits for the disk, however much is in it. So whatever was asked for while the last one
went on is done in one transaction, each step within a savepoint of its own: one that fails is
undone alone. Nobody is told that something is done before it is on the disk. If the disk takes
nothing, the steps are tried again one by one, so that one that is too large harms no other.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import weakref
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from job_scheduler.errors import StoreError
from job_scheduler.log import tell
from job_scheduler.stores.sqlite.file import open_file, patiently, store_error

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[sqlite3.Connection], Any]

T = TypeVar("T")

_MOST: Final = 1_000
"""Steps in one transaction."""

_LOOK: Final = 0.02
"""Seconds after which it is looked whether another process has changed something."""

_BEFORE_A_FORK: Final = 5.0
"""Seconds for which a fork waits for a transaction to end."""


class _Step(NamedTuple):
    """Something to be done, and who waits for it."""

    work: Work
    writes: bool
    tells: bool
    future: Future[Any]


class _Failed(NamedTuple):
    """The outcome of a step that has failed alone."""

    error: BaseException


class Writer:
    """Does steps in an SQLite file on a thread of its own; all methods from any thread.

    Args:
        path: the file.
        opened: called with each new connection.
        stops: tells, within a transaction, which runs are to be stopped.
    """

    def __init__(
        self,
        path: str,
        opened: Work,
        stops: Callable[[sqlite3.Connection], frozenset[str]],
    ) -> None:
        self.path = path
        self._opened = opened
        self._stops = stops
        self._connection: sqlite3.Connection | None = None
        self._begin_anew()
        _writers.add(self)

    def _begin_anew(self) -> None:
        """As after the start, or in a forked child, which has no thread of its own yet."""
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._using = threading.Lock()
        """Held while the connection is used."""
        self._steps: list[_Step] = []
        self._thread: threading.Thread | None = None
        self._closed: list[Future[None]] = []
        """Who waits for the end of the thread."""
        self._listeners: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._seen: int | None = None
        self._seen_stops: frozenset[str] = frozenset()
        self._looked_at = 0.0

    def call(
        self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True, tells: bool = False
    ) -> Future[T]:
        """Have a step done; the future raises ``StoreError`` if the file does not take it.

        Args:
            work: called on the thread, within a transaction; perhaps twice, if that was undone.
            writes: whether it changes anything.
            tells: whether something may become due by it: then the listeners hear of it.
        """
        future: Future[T] = Future()
        self._notice_fork()
        with self._changed:
            self._steps.append(_Step(work, writes, tells, future))
            self._start()
        return future

    def listen(self, wake: Callable[[], None], renew: Callable[[], None]) -> None:
        """From now on call these; see the contract of stores."""
        self._notice_fork()
        with self._changed:
            self._listeners.append((wake, renew))
            self._start()

    def tell_to_renew(self) -> None:
        """Have the listeners renew: a run of theirs is to be stopped."""
        for _, renew in tuple(self._listeners):
            _hint(renew)

    def close(self) -> Future[None]:
        """Do what was asked for before, then let go of the file; a later step opens it anew."""
        closed: Future[None] = Future()
        self._notice_fork()
        with self._changed:
            self._listeners.clear()
            if self._thread is None:
                closed.set_result(None)
            else:
                self._closed.append(closed)
                self._changed.notify()
        return closed

    def _start(self) -> None:
        """Have the thread look at what there is to do; it may not have begun, or have ended."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._serve, name="job_scheduler-store", daemon=True
            )
            self._thread.start()
        self._changed.notify()

    # The thread

    def _serve(self) -> None:
        while True:
            with self._changed:
                if not self._steps and not self._closed:
                    self._changed.wait(_LOOK if self._listeners else None)
                group, self._steps = self._steps[:_MOST], self._steps[_MOST:]
                if not group and self._closed:
                    self._end()
                    return
            if group:
                self._do(group)
            if self._listeners and time.monotonic() - self._looked_at > _LOOK:
                self._look_around()

    def _end(self) -> None:
        """Let go of the file; whoever asks for something later gets another thread."""
        with self._using:
            self._let_go()
        self._thread = None
        closed, self._closed = self._closed, []
        for each in closed:
            if each.set_running_or_notify_cancel():
                each.set_result(None)

    def _do(self, group: list[_Step]) -> None:
        group = [step for step in group if step.future.set_running_or_notify_cancel()]
        try:
            with self._using:
                outcomes = self._settle(group)
        except BaseException as error:  # nobody must wait for ever
            outcomes = [_Failed(error)] * len(group)
        told = False
        for step, outcome in zip(group, outcomes, strict=True):
            with contextlib.suppress(InvalidStateError):
                if isinstance(outcome, _Failed):
                    step.future.set_exception(outcome.error)
                else:
                    told |= step.tells
                    step.future.set_result(outcome)
        if told:
            for wake, _ in tuple(self._listeners):
                _hint(wake)

    def _settle(self, group: list[_Step]) -> list[Any]:
        """Do steps in one transaction, or one by one if the file does not take them so."""
        try:
            connection = self._open()
            return patiently(lambda: self._commit(connection, group))
        except StoreError as error:
            return [_Failed(error)] * len(group)
        except sqlite3.Error as error:
            if len(group) > 1:
                return [outcome for step in group for outcome in self._settle([step])]
            if not isinstance(error, sqlite3.ProgrammingError):
                self._let_go()  # what has failed once may be of no use any more
            return [_Failed(_with_cause(store_error(self.path, error), error))]

    def _commit(self, connection: sqlite3.Connection, group: list[_Step]) -> list[Any]:
        writes = any(step.writes for step in group)
        connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            outcomes = [_within(connection, step) for step in group]
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise
        return outcomes

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = open_file(self.path)
            try:
                patiently(lambda: self._opened(connection))
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _let_go(self) -> None:
        connection, self._connection, self._seen = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _look_around(self) -> None:
        """Tell the listeners if another process has changed something."""
        self._looked_at = time.monotonic()
        stops = self._seen_stops
        try:
            with self._using:
                connection = self._open()
                (seen,) = connection.execute("PRAGMA data_version").fetchone()
                before, self._seen = self._seen, seen
                if before == seen:
                    return
                stops = self._stops(connection)
        except (sqlite3.Error, StoreError):
            return  # whoever asks for something will hear of it
        is_new, self._seen_stops = bool(stops - self._seen_stops), stops
        for wake, renew in tuple(self._listeners):
            _hint(wake)
            if is_new:
                _hint(renew)

    # Forks

    def _notice_fork(self) -> None:
        """In a child that was forked past our back: leave what is the parent's alone."""
        if self._pid != os.getpid():
            self._after_fork(in_child=True)

    def _before_fork(self) -> bool:
        """Close the file: SQLite would take the parent's locks for the child's."""
        if not self._using.acquire(timeout=_BEFORE_A_FORK):
            return False
        self._let_go()
        return True

    def _after_fork(self, *, in_child: bool, was_closed: bool = False) -> None:
        if not in_child:
            if was_closed:
                self._using.release()
            return
        if self._connection is not None:
            _abandoned.append(self._connection)
            self._connection = None
        self._begin_anew()


def _within(connection: sqlite3.Connection, step: _Step) -> Any:
    """Do one of the steps of a transaction; what is wrong with it alone undoes it alone."""
    connection.execute("SAVEPOINT step")
    try:
        outcome = step.work(connection)
    except sqlite3.Error:
        raise
    except BaseException as error:
        connection.execute("ROLLBACK TO step")
        outcome = _Failed(error)
    connection.execute("RELEASE step")
    return outcome


def _with_cause(error: StoreError, cause: BaseException) -> StoreError:
    error.__cause__ = cause
    return error


def _roll_back(connection: sqlite3.Connection) -> None:
    """Undo a transaction, unless SQLite has done so."""
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _hint(listener: Callable[[], None]) -> None:
    try:
        listener()
    except Exception:
        tell(logging.ERROR, "a listener of the store has failed", exc_info=True)


_writers: Final[weakref.WeakSet[Writer]] = weakref.WeakSet()
_abandoned: Final[list[sqlite3.Connection]] = []
"""Of a parent; to close them here would take its locks away."""
_at_fork: Final[list[tuple[Writer, bool]]] = []


def _before_fork() -> None:
    _at_fork.extend([(writer, writer._before_fork()) for writer in list(_writers)])


def _after_fork_in_parent() -> None:
    while _at_fork:
        writer, was_closed = _at_fork.pop()
        writer._after_fork(in_child=False, was_closed=was_closed)


def _after_fork_in_child() -> None:
    while _at_fork:
        _at_fork.pop()[0]._after_fork(in_child=True)


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
