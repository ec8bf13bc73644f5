"""Hints from one process to another that something is due: NOTIFY and LISTEN.

They only make others look sooner; whoever misses one finds out when it looks by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.errors import StoreError
from job_scheduler.log import tell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from job_scheduler.stores.postgres.link import Link

CHANNEL: Final = "job_scheduler"

_PAUSE: Final = 0.005
"""Seconds between two hints: each is delivered under one lock for the whole server."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
"""Seconds before the listener connects again."""

_LOOK: Final = 30.0
"""Seconds after which the listener asks whether its connection still stands."""


class Announcer:
    """Tells others that something is due, at most every 5 ms; the last is always told."""

    def __init__(self, send: Callable[[], Awaitable[object]]) -> None:
        self._send = send
        self._last = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def may_tell(self) -> bool:
        """Whether a statement may tell by itself; if not, call ``soon`` when it is done."""
        now = time.monotonic()
        if now - self._last < _PAUSE:
            return False
        self._last = now
        return True

    def soon(self) -> None:
        """Tell once the pause is over."""
        loop = asyncio.get_running_loop()
        if self._timer is None or self._loop is not loop:  # that of a process we were forked from
            pause = max(0.0, self._last + _PAUSE - time.monotonic())
            self._loop, self._timer = loop, loop.call_later(pause, self._tell_in_time)

    def _tell_in_time(self) -> None:
        self._timer = None
        if time.monotonic() - self._last < _PAUSE:  # a statement has told meanwhile
            self.soon()
        else:
            self._tell()

    def _tell(self) -> None:
        self._last = time.monotonic()
        task = asyncio.get_running_loop().create_task(self._say())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _say(self) -> None:
        with contextlib.suppress(StoreError):  # it was a hint
            await self._send()

    async def close(self) -> None:
        """Tell what was not told yet."""
        if self._loop is not asyncio.get_running_loop():
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._tell()
        if self._sending:
            await asyncio.wait(self._sending)


class Listener:
    """Hears hints on a connection of its own, and connects again for ever."""

    def __init__(self, link: Link, heard: Callable[[str], None]) -> None:
        self._link = link
        self._heard = heard
        self._closed = False
        self.listening = asyncio.Event()
        """Set while hints are heard."""
        self._begin()

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._listen(), name=CHANNEL)
        self._task.add_done_callback(self._begin_again)

    def _begin_again(self, _task: asyncio.Task[None]) -> None:
        """Nobody but :meth:`close` ends it, also not a job that cancels all tasks."""
        if not self._closed:
            self._begin()

    async def close(self) -> None:
        self._closed = True
        if self._task.get_loop() is not asyncio.get_running_loop():
            return  # that of a process we were forked from
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE
        told = False
        while True:
            try:
                async with self._link.own_connection() as connection:
                    await connection.add_listener(CHANNEL, self._hear)
                    if told:
                        tell(logging.INFO, "PostgreSQL is heard again")
                    told, pause = False, _FIRST_PAUSE
                    self.listening.set()
                    self._heard("plan")  # whatever was said meanwhile
                    await self._stay(connection)
            except StoreError as error:
                reason = str(error)
            else:
                reason = "the connection has ended"
            finally:
                self.listening.clear()
            if not told:
                said = "PostgreSQL is not heard any more (%s); runs start somewhat later"
                tell(logging.WARNING, said, reason)
                told = True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        self._heard(payload)

    async def _stay(self, connection: Any) -> None:
        """Return once the connection has ended."""
        ended = asyncio.Event()

        def end(_connection: Any) -> None:
            ended.set()

        connection.add_termination_listener(end)
        try:
            while not ended.is_set() and not connection.is_closed():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await ended.wait()
                if not ended.is_set():
                    await connection.fetchval("SELECT 1", timeout=_LOOK)
        finally:
            if not connection.is_closed():
                connection.remove_termination_listener(end)
                await connection.remove_listener(CHANNEL, self._hear)
