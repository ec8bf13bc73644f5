"""Connections to PostgreSQL: a pool of our own or the caller's, and errors that say what is wrong.

Nothing of asyncpg leaves this module: what goes wrong is a ``StoreError``. Statements that the
server gave up in favour of others are said again.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import random
from typing import TYPE_CHECKING, Any, Final, TypeVar

from job_scheduler.errors import InvalidOptionError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

T = TypeVar("T")

_TIMEOUT: Final = 30.0
"""Seconds for a statement, or for all those of a transaction."""

_TIME_TO_CLOSE: Final = 5.0
"""Seconds for connections to end in good order."""

_TRIES: Final = 5
"""How often to say what the server gave up."""

_GIVEN_UP: Final = ("40001", "40P01")
"""Serialization failure, deadlock."""

_CONTENT: Final = ("22", "54")
"""Classes of errors that are about what was sent: data exceptions, limits of the server."""

_PLANNER: Final = {"enable_seqscan": "off", "jit": "off"}
"""Settings for statements that always have an index: the planner keeps a plan, and one that it made
while the queue was empty, or without figures, would read all of the table when it is full."""

_SET: Final = ";".join(f"SET {name} = {value}" for name, value in _PLANNER.items())
_SET_LOCAL: Final = _SET.replace("SET", "SET LOCAL")
_RESET: Final = ";".join(f"RESET {name}" for name in _PLANNER)

_ENOUGH: Final = 4
"""Connections from which on one of the caller's is kept for the statement that is said most."""

UNIQUE_VIOLATION: Final = "23505"


class RefusedError(StoreError):
    """The server does not take what it was sent."""

    def __init__(self, message: str, sqlstate: str | None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


def load_asyncpg() -> Any:
    """The module, which nothing but this store needs; raises ``StoreError`` if it is missing."""
    try:
        import asyncpg
    except ImportError:
        raise StoreError(
            'a store in PostgreSQL needs asyncpg: pip install "job_scheduler[postgres]"'
        ) from None
    return asyncpg


class Link:
    """A way to the database.

    Args:
        pool_or_dsn: a pool, which stays the caller's, or where to connect to.
        direct: there is no transaction pooler in between.
    """

    def __init__(self, pool_or_dsn: Any, *, direct: bool) -> None:
        self._asyncpg = load_asyncpg()
        self._dsn = pool_or_dsn if isinstance(pool_or_dsn, str) else None
        self._given: Any = None if self._dsn is not None else pool_or_dsn
        if self._given is not None and not hasattr(self._given, "acquire"):
            raise InvalidOptionError(
                f"the store is {pool_or_dsn!r}; give a pool of asyncpg or a text that begins with "
                f"postgresql://"
            )
        self._direct = direct
        self._pool: Any = self._given
        self._is_open = False
        self._opening = asyncio.Lock()
        self._kept: Any = None
        self._keeping = asyncio.Lock()
        self._pid = os.getpid()
        self._inherited: list[Any] = []
        """Pools of the process that this one was forked from: kept, so that nothing ends them."""

    async def open(self) -> None:
        """Connect; harmless twice."""
        self._is_open = True
        await self._connect()

    async def _connect(self) -> None:
        self._notice_fork()
        if self._pool is not None:
            return
        async with self._opening:
            if self._pool is None:
                self._refuse_if_closed()
                with self._translated():
                    self._pool = await self._make_pool()

    async def _make_pool(self) -> Any:
        options: dict[str, Any] = {"min_size": 1, "max_size": 10, "command_timeout": _TIMEOUT}
        if self._direct:
            options["server_settings"] = dict(_PLANNER)
        else:
            options["statement_cache_size"] = 0
        if "reset" in inspect.signature(self._asyncpg.create_pool).parameters:
            options["reset"] = _leave_as_it_is
        async with asyncio.timeout(_TIMEOUT):
            try:
                return await self._asyncpg.create_pool(self._dsn, **options)
            except ValueError as error:  # a port that is no number, say
                raise StoreError(f"the address of the store cannot be used: {error}") from error

    async def close(self) -> None:
        """Close the pool, unless it is the caller's; harmless twice.

        What is asked later is refused: nobody would close what it has made.
        """
        self._is_open = False
        await self._give_back()
        if self._given is not None or self._pid != os.getpid():
            return
        async with self._opening:
            pool, self._pool = self._pool, None
        self._opening = asyncio.Lock()  # it may be opened again on another loop
        if pool is None:
            return
        try:
            async with asyncio.timeout(_TIME_TO_CLOSE):
                await pool.close()
        except (self._asyncpg.PostgresError, self._asyncpg.InterfaceError, OSError):
            pool.terminate()  # a TimeoutError is an OSError

    def _notice_fork(self) -> None:
        """A connection that two processes use is of no use to either."""
        if self._pid == os.getpid():
            return
        if self._given is not None:
            raise StoreError(
                "this process was forked after its pool of connections was made; make the pool, "
                "and the scheduler, in the process that uses them"
            )
        self._inherited.append(self._pool)
        self._pool = None
        self._opening = asyncio.Lock()
        self._pid = os.getpid()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Have errors of the database leave as ours."""
        asyncpg = self._asyncpg
        try:
            yield
        except asyncpg.ClientConfigurationError as error:
            raise StoreError(f"the address of the store cannot be used: {error}") from error
        except TimeoutError as error:
            said = f"PostgreSQL has not answered within {_TIMEOUT:.0f} s"
            if self._given is not None and not self._given.get_idle_size():
                said += "; all connections of the pool are in use: make it larger, or give yours"
            raise StoreError(said) from error
        except asyncpg.PostgresError as error:
            state = error.sqlstate or ""
            if state.startswith(_CONTENT) or state == UNIQUE_VIOLATION:
                raise RefusedError(f"PostgreSQL has refused: {error}", state) from error
            raise StoreError(f"PostgreSQL cannot do it now: {_text(error)}") from error
        except asyncpg.InterfaceError as error:
            if isinstance(error, ValueError):  # a value that the driver cannot send
                raise RefusedError(f"PostgreSQL cannot keep it: {error}", None) from error
            raise StoreError(f"PostgreSQL cannot be reached: {_text(error)}") from error
        except (asyncpg.InternalClientError, OSError) as error:
            raise StoreError(f"PostgreSQL cannot be reached: {_text(error)}") from error

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection for a while."""
        self._refuse_if_closed()
        await self._connect()
        pool = self._pool
        async with pool.acquire(timeout=_TIMEOUT) as connection:
            try:
                yield connection
            finally:
                if self._pool is not pool:
                    connection.terminate()  # it was made while the pool was being closed

    def _refuse_if_closed(self) -> None:
        if not self._is_open:
            raise StoreError("the store is closed")

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        """Say one statement."""

        async def say(connection: Any) -> list[Any]:
            rows: list[Any] = await connection.fetch(statement, *values)
            return rows

        return await self._again_if_given_up(say)

    async def fetch_by_index(self, statement: str, *values: Any) -> list[Any]:
        """Say one statement that must not read whole tables, whatever the planner thinks."""
        if self._given is None and self._direct:
            return await self.fetch(statement, *values)
        if self._direct and self._given.get_max_size() >= _ENOUGH:
            return await self._fetch_on_kept(statement, *values)

        async def say(connection: Any) -> list[Any]:
            await connection.execute(_SET_LOCAL)
            rows: list[Any] = await connection.fetch(statement, *values)
            return rows

        return await self.transaction(say)

    async def _fetch_on_kept(self, statement: str, *values: Any) -> list[Any]:
        async def say(connection: Any) -> list[Any]:
            rows: list[Any] = await connection.fetch(statement, *values)
            return rows

        return await self._again_if_given_up(say, self._kept_connection)

    @contextlib.asynccontextmanager
    async def _kept_connection(self) -> AsyncIterator[Any]:
        """The caller's connection that is not given back after each statement, which costs."""
        async with self._keeping:
            self._refuse_if_closed()
            if self._kept is None:
                self._notice_fork()
                kept = await self._given.acquire(timeout=_TIMEOUT)
                self._kept = kept
                await kept.execute(_SET)
            try:
                yield self._kept
            except BaseException:
                await self._give_back()
                raise

    async def _give_back(self) -> None:
        """Let the caller have his connection again, as it was."""
        kept, self._kept = self._kept, None
        if kept is None or self._pid != os.getpid():
            return
        try:
            async with asyncio.timeout(_TIME_TO_CLOSE):
                if not kept.is_closed():
                    await kept.execute(_RESET)
        except (self._asyncpg.PostgresError, self._asyncpg.InterfaceError, OSError):
            # A TimeoutError is an OSError; what the pool has taken back is its own again.
            with contextlib.suppress(self._asyncpg.InterfaceError):
                kept.terminate()
        with contextlib.suppress(self._asyncpg.PostgresError, self._asyncpg.InterfaceError):
            await self._given.release(kept)

    async def transaction(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do some work as one step, on a connection; said again if the server gives it up."""

        async def whole(connection: Any) -> T:
            async with connection.transaction():
                return await work(connection)

        return await self._again_if_given_up(whole)

    async def _again_if_given_up(
        self,
        work: Callable[[Any], Awaitable[T]],
        on: Callable[[], contextlib.AbstractAsyncContextManager[Any]] | None = None,
    ) -> T:
        for left in reversed(range(_TRIES)):
            with self._translated():
                try:
                    async with asyncio.timeout(_TIMEOUT), (on or self.connection)() as connection:
                        return await work(connection)
                except self._asyncpg.PostgresError as error:
                    if error.sqlstate not in _GIVEN_UP or not left:
                        raise
            await asyncio.sleep(random.random() * 0.01 * (_TRIES - left))
        raise AssertionError("unreachable")  # the last try raises or returns

    async def within(self, connection: Any, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do some work within the caller's transaction, on his connection."""
        kinds = (self._asyncpg.Connection, self._asyncpg.pool.PoolConnectionProxy)
        if not isinstance(connection, kinds):
            raise InvalidOptionError(
                f"connection is {connection!r}; give a connection of asyncpg to the database of "
                f"this store"
            )
        with self._translated():
            async with asyncio.timeout(_TIMEOUT):
                if connection.is_in_transaction():
                    return await self._within_savepoint(connection, work)
                async with connection.transaction():
                    return await work(connection)

    async def _within_savepoint(self, connection: Any, work: Callable[[Any], Awaitable[T]]) -> T:
        """The caller may have begun his transaction with a statement, unknown to the driver."""
        await connection.execute("SAVEPOINT job_scheduler")
        try:
            done = await work(connection)
        except BaseException:
            await connection.execute("ROLLBACK TO SAVEPOINT job_scheduler")
            raise
        await connection.execute("RELEASE SAVEPOINT job_scheduler")
        return done

    # The listener's

    @property
    def can_listen(self) -> bool:
        """Whether a connection can be spared for it."""
        return self._given is None or self._given.get_max_size() > 1

    @contextlib.asynccontextmanager
    async def own_connection(self) -> AsyncIterator[Any]:
        """A connection to keep."""
        with self._translated():
            if self._given is not None:
                async with self.connection() as connection:
                    yield connection
                return
            async with asyncio.timeout(_TIMEOUT):
                connection = await self._asyncpg.connect(self._dsn, command_timeout=_TIMEOUT)
            try:
                yield connection
            finally:
                connection.terminate()


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _leave_as_it_is(connection: Any) -> None:
    """We leave nothing behind that another use of the connection could stumble over."""
