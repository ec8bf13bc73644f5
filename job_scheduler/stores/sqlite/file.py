"""The file of an SQLite store: made for its owner alone, opened, and brought to this version."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from job_scheduler.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

VERSION: Final = 1
"""The version of the schema, kept as ``user_version``."""

_SCHEMA: Final = Path(__file__).with_name("schema.sql")

_PATIENCE: Final = 30.0
"""Seconds that one statement waits for another program to let go of the file."""

_TRIES: Final = 4
"""How often that long is waited."""

_SETTINGS: Final = (
    "synchronous=FULL",
    "wal_autocheckpoint=4000",
    "journal_size_limit=67108864",
    "secure_delete=OFF",
    "temp_store=MEMORY",
    "cache_size=-16000",
)

_REASONS: Final = {
    sqlite3.SQLITE_FULL: "there is no room left",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database",
    sqlite3.SQLITE_CORRUPT: "it is damaged; 'PRAGMA integrity_check' tells where",
    sqlite3.SQLITE_READONLY: "it, or its folder, may not be written",
    sqlite3.SQLITE_CANTOPEN: "it, or its folder, may not be opened",
    sqlite3.SQLITE_IOERR: "it could not be read or written, perhaps for want of room",
    sqlite3.SQLITE_BUSY: f"another program has kept it for {_TRIES * _PATIENCE:.0f} seconds",
    sqlite3.SQLITE_TOOBIG: "a text is longer than SQLite can keep",
}

_creating: Final = threading.Lock()
"""Held while a file is made: to close it lets go of all locks that this process has on it."""


def open_file(path: str) -> sqlite3.Connection:
    """A connection to the store in this file, which is made if there is none.

    Raises ``StoreError``.
    """
    with _creating:
        _create(path)
        connection = sqlite3.connect(
            path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
    try:
        for setting in _SETTINGS:
            connection.execute(f"PRAGMA {setting}")
        patiently(lambda: _use_log(connection, path))
        patiently(lambda: _migrate(connection, path))
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise store_error(path, error) from error
        raise
    return connection


def patiently(step: Callable[[], T]) -> T:
    """Do a step again, as often as may be, if another program was in its way."""
    for _ in range(_TRIES - 1):
        try:
            return step()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
    return step()


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another program was in the way."""
    return _code(error) == sqlite3.SQLITE_BUSY


def store_error(path: str, error: sqlite3.Error) -> StoreError:
    """What to tell a user in place of SQLite's own error."""
    reason = _REASONS.get(_code(error), str(error))
    return StoreError(f"the store {path}: {reason}")


def _code(error: sqlite3.Error) -> int:
    """The kind of an error, without the details that SQLite adds in the higher bits."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _create(path: str) -> None:
    """Make an empty file that nobody else may read, unless there is one; its log gets its mode."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise StoreError(f"the store {path}: there is no folder {folder}")
    if os.path.isdir(path):
        raise StoreError(f"the store {path}: this is a folder; give the path of a file in it")
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"the store {path}: it cannot be made: {error.strerror}") from error


def _use_log(connection: sqlite3.Connection, path: str) -> None:
    """Write ahead into a log: readers do not wait for writers, and a commit is one write."""
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"the store {path}: no log can be kept beside it (journal_mode={mode})")


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the tables to this version; of several processes that start, one does it."""
    if _version(connection, path) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection, path) < 1:
            for statement in _SCHEMA.read_text(encoding="utf-8").split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: str) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise StoreError(
            f"the store {path}: a newer version of this package has made it (schema {version}, "
            f"while this one knows {VERSION})"
        )
    return version
