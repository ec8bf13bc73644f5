"""Where schedules and runs are kept, so that what was accepted is not lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from job_scheduler.errors import InvalidOptionError
from job_scheduler.texts import without_password

if TYPE_CHECKING:
    from job_scheduler.stores.base import Store

_FORMS = "'sqlite:///jobs.db', 'sqlite:////var/lib/jobs.db' or 'postgresql://user@host/database'"


def open_store(db_pool: Any = None, store: str | Store | None = None, *, listen: bool) -> Store:
    """The store that is meant; nothing is opened yet.

    Args:
        db_pool: a pool of asyncpg.
        store: the address of a store, or one itself.
        listen: whether to wait for word from PostgreSQL.

    Raises ``InvalidOptionError`` (a ``ValueError``) unless there is exactly one of the first two,
    and for an address that cannot be read.
    """
    if (db_pool is None) == (store is None):
        raise InvalidOptionError(f"give one of db_pool and store, as in store={_FORMS}")
    if db_pool is not None:
        if not hasattr(db_pool, "acquire"):
            raise InvalidOptionError(
                f"db_pool is {db_pool!r}; give a pool, as in await asyncpg.create_pool(...)"
            )
        return _postgres(db_pool, listen)
    if not isinstance(store, str):
        if store is None or not hasattr(store, "exchange"):
            raise InvalidOptionError(f"store is {store!r}; it must be like {_FORMS}")
        return store
    scheme, separator, path = store.partition("://")
    if scheme in ("postgresql", "postgres") and separator:
        return _postgres(store, listen)
    if scheme == "sqlite" and path == "/:memory:":
        raise InvalidOptionError(
            f"store is {store!r}; an SQLite store is a file that programs share: give its path, or "
            f"no store at all"
        )
    if scheme == "sqlite" and path.startswith("/") and len(path) > 1:
        from job_scheduler.stores.sqlite import SqliteStore

        return SqliteStore(os.path.abspath(path[1:]))
    if store == "memory://":
        from job_scheduler.stores.memory import MemoryStore

        return MemoryStore()
    hint = "; the path of a file stands after three slashes" if scheme == "sqlite" else ""
    raise InvalidOptionError(
        f"store is {without_password(store)!r}; it must be like {_FORMS}{hint}"
    )


def _postgres(where: Any, listen: bool) -> Store:
    from job_scheduler.stores.postgres import PostgresStore

    return PostgresStore(where, listen=listen)
