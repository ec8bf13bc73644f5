"""What the result backend, which is Redis, holds of tasks, and the marks that we keep there.

A mark says which task a run was sent as. It is written once the task is in the broker. So whoever
takes a run over knows whether it is in the fleet already; one whose scheduler has died between the
two is sent again. And where the marks are gone, Redis has lost its memory, and the tasks with it.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from job_scheduler.executors.celery.flight import Mark
from job_scheduler.executors.celery.news import unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from job_scheduler.executors.celery.flight import Flight
    from job_scheduler.executors.celery.news import News

_KEPT: Final = 30 * 24 * 3600
"""Seconds for which a mark is kept whose scheduler does not come back."""

_MOST_AT_ONCE: Final = 500
"""Tasks that are asked for together."""

_SPECIAL: Final = re.compile(rb"([*?\[\]\\^-])")
"""What means something in a pattern of Redis."""


class Records:
    """The result backend of one Celery application; from any thread."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._client = backend.client
        self.errors: tuple[type[Exception], ...] = tuple(backend.connection_errors)
        """What is raised while Redis is away."""
        self.server: str | None = None
        """Which start of Redis it is, as far as it has told."""
        self.is_with_broker = True
        """Whether the broker is the same server, and so loses its memory with this one."""
        self._prefix = _bytes(backend.get_key_for_task("-"))[:-1]

    @property
    def kept(self) -> float:
        """Seconds for which Celery keeps a result."""
        return float(self._backend.expires or _KEPT)

    def _key(self, task_id: str) -> bytes:
        return self._prefix + task_id.encode()

    def _mark_key(self, run: str) -> bytes:
        return self._prefix + b"job_scheduler-sent-" + run.encode()

    def meet(self) -> str | None:
        """Ask anew which start of Redis it is."""
        self.server = start_of(self._client)
        return self.server

    def read(self, task_id: str) -> News | None:
        """What is known of a task."""
        return self._decoded(self._client.get(self._key(task_id)))

    def read_all(self, task_ids: Sequence[str]) -> list[News | None]:
        """The same of several."""
        return list(map(self._decoded, self._client.mget(map(self._key, task_ids))))

    def look(self, flights: Sequence[Flight]) -> list[tuple[News | None, bool]]:
        """What is known of tasks, and whether they still have their marks; in one question."""
        keys = [self._key(flight.task_id) for flight in flights]
        marks = [self._mark_key(flight.run_id.run) for flight in flights]
        found = self._client.mget(keys + marks)
        news = map(self._decoded, found[: len(keys)])
        return list(zip(news, [mark is not None for mark in found[len(keys) :]], strict=True))

    def _decoded(self, text: bytes | None) -> News | None:
        if text is None:
            return None
        try:
            news = self._backend.decode(text)
        except Exception as error:  # its worker writes in another way
            return unreadable(f"{type(error).__name__}: {error}")
        if not isinstance(news, dict) or not isinstance(news.get("status"), str):
            return unreadable(f"it is {news!r:.100}")
        return news

    def mark(self, flight: Flight) -> None:
        """Note that a run was sent."""
        self._client.execute_command(*self.marking(flight))
        flight.is_marked = True

    def marking(self, flight: Flight) -> tuple[Any, ...]:
        """The command that does so."""
        flight.server = self.server
        return "SET", self._mark_key(flight.run_id.run), json.dumps(flight.mark), "EX", _KEPT

    def marker(self) -> Marker:
        """For a thread that notes one after another."""
        return Marker(self, self._client)

    def mark_of(self, run: str) -> Mark | None:
        """As what a run was sent."""
        text = self._client.get(self._mark_key(run))
        return None if text is None else Mark(*json.loads(text))

    def unmark(self, tasks: Mapping[str, str]) -> None:
        """Forget that runs were sent as these tasks; not that they were sent as others since.

        Args:
            tasks: the ids of tasks by those of their runs.
        """
        if not tasks:
            return
        keys = [self._mark_key(run) for run in tasks]
        marks = zip(keys, tasks.values(), self._client.mget(keys), strict=True)
        of_these = [key for key, task, text in marks if text and json.loads(text)[0] == task]
        if of_these:
            self._client.delete(*of_these)

    def listen(self) -> Listening:
        """Hear of every change from now on of tasks whose id has a colon, as ours do."""
        pattern = _SPECIAL.sub(rb"\\\1", self._prefix) + b"*:*"
        return Listening(self, self._client, pattern)

    def task_of(self, channel: bytes) -> str:
        """The id of the task that something was published of."""
        return channel.removeprefix(self._prefix).decode(errors="replace")


class Marker:
    """Writes marks at once, and reads of each that it is written only before the next.

    So the mark is on its way when its task is, and nobody waits for it. One that gets lost with the
    connection is written later, by whoever looks after its task; until then, that might be sent
    again.
    """

    def __init__(self, records: Records, client: Any) -> None:
        self._records = records
        self._client = client
        self._line: Any = None
        """A client with one connection of its own."""
        self._last: Flight | None = None

    def mark(self, flight: Flight) -> None:
        """Note that a run was sent."""
        self.finish()
        try:
            if self._line is None:
                self._line = self._client.client()
            self._line.connection.send_command(*self._records.marking(flight))
            self._last = flight
        except Exception:
            self._drop()

    def finish(self) -> None:
        """See that the last one is written."""
        flight, self._last = self._last, None
        if flight is None:
            return
        try:
            self._line.connection.read_response()
            flight.is_marked = True
        except Exception:
            self._drop()

    def _drop(self) -> None:
        if self._line is not None:
            with contextlib.suppress(Exception):
                self._line.connection.disconnect()  # it may hold an answer that nobody has read
                self._line.close()
        self._line = None


class Listening:
    """A subscription; used by one thread."""

    def __init__(self, records: Records, client: Any, pattern: bytes) -> None:
        self._records = records
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.psubscribe(pattern)

    def next_ones(self, deadline: float) -> list[str]:
        """The ids of tasks of which there is something new, before a time of the monotonic clock.

        What it is, only the records can tell: what is published is heard in all databases of a
        server, of others' tasks, too.
        """
        changed: dict[str, None] = {}
        while len(changed) < _MOST_AT_ONCE:
            left = 0.0 if changed else max(0.0, deadline - time.monotonic())
            message = self._pubsub.get_message(timeout=left)
            if message is not None:
                changed[self._records.task_of(_bytes(message["channel"]))] = None
            elif left <= 0:
                break
        return list(changed)

    def close(self) -> None:
        self._pubsub.close()


def start_of(client: Any) -> str | None:
    """An id that Redis makes anew at each start; None if it does not tell."""
    try:
        told = client.info("server")
    except ResponseError:  # it may not be asked
        return None
    start = told.get("run_id")
    return None if start is None else str(start)


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
