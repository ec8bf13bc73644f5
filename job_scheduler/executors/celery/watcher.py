"""The thread that hears from the result backend, and keeps the marks there.

What is published tells it at once that there is something new of a task. What it is, and what was
not heard, it learns by looking: once a second at those that are on their way, some at a time.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from job_scheduler.executors.celery.flight import Stage
from job_scheduler.log import tell
from job_scheduler.run import RunState

if TYPE_CHECKING:
    from job_scheduler.executors.celery.flight import Flight
    from job_scheduler.executors.celery.news import News
    from job_scheduler.executors.celery.records import Listening, Records
    from job_scheduler.run import Ending

_BETWEEN_LOOKS: Final = 1.0
"""Seconds."""

_SOON: Final = 0.05
"""Seconds until the next look, where something is known to have happened."""

_MOST_LOOKED_AT: Final = 1_000
"""Tasks that are looked at in one look, in turn."""

_MARKED_ANEW: Final = 6 * 3600.0
"""Seconds, at most, after which a mark is written again, so that it is not forgotten."""

_UNMARKED_AFTER: Final = 60.0
"""Seconds after its success for which a run's mark is kept: until then the store knows of it."""

_AFTER_AN_ERROR: Final = 0.5
"""Seconds until it is tried again to hear from Redis."""


class Home(Protocol):
    """Who has the flights."""

    @property
    def is_needed(self) -> bool:
        """Whether anything is on its way, or may be."""

    def flight_of(self, task_id: str) -> Flight | None:
        """The flight that a task belongs to."""

    def in_fleet(self) -> list[Flight]:
        """Those that were sent."""

    def hear(self, flight: Flight, news: News) -> None:
        """There is something new of its task."""

    def is_unwanted(self, task_id: str) -> bool:
        """Whether a task that has no flight is to be stopped wherever it comes up."""

    def hear_of_unwanted(self, task_id: str, news: News) -> None:
        """There is something new of one of these."""

    def send_again(self, flights: list[Flight]) -> None:
        """Redis has lost them."""

    def watched_to_the_end(self) -> None:
        """Nothing is on its way any more."""


class Watcher:
    """Hears of all that goes on until nothing does.

    Args:
        records: of the tasks.
        home: told of what is new.
    """

    def __init__(self, records: Records, home: Home) -> None:
        self._records = records
        self._home = home
        self._soon: set[str] = set()
        self._looked_at = 0
        self._marks_to_forget: deque[tuple[float, str, str]] = deque()
        name = "job_scheduler celery results"
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    # From any thread

    def look_soon(self, flight: Flight) -> None:
        """Perhaps what is new of it was published before anybody listened."""
        self._soon.add(flight.task_id)

    def forget(self, flight: Flight, came_of_it: Ending) -> None:
        """Its mark is needed no more; after a success only once the store has that."""
        mark = flight.run_id.run, flight.task_id
        if came_of_it.state is RunState.COMPLETED and flight.run_id.is_kept:
            self._marks_to_forget.append((time.monotonic(), *mark))
        else:
            self._marks_to_forget.appendleft((-math.inf, *mark))

    # The thread

    def _serve(self) -> None:
        is_away = False
        while self._home.is_needed:
            try:
                listening = self._records.listen()
            except Exception as error:
                is_away = self._tell_of_absence(is_away, error)
                continue
            try:
                self._records.meet()
                if is_away:
                    tell(logging.INFO, "Celery's tasks are heard of again")
                is_away = False
                self._watch(listening)
            except Exception as error:
                is_away = self._tell_of_absence(is_away, error)
            finally:
                with contextlib.suppress(Exception):
                    listening.close()
        self._home.watched_to_the_end()
        with contextlib.suppress(*self._records.errors):
            self._forget_marks(math.inf)

    def _tell_of_absence(self, was_away: bool, error: Exception) -> bool:
        if not was_away:
            said = "nothing is heard of Celery's tasks until Redis is back: %s: %s"
            is_usual = isinstance(error, self._records.errors)
            tell(logging.ERROR, said, type(error).__name__, error, exc_info=not is_usual)
        time.sleep(_AFTER_AN_ERROR)
        return True

    def _watch(self, listening: Listening) -> None:
        """Hear and look, as long as Redis is there."""
        self._looked_at, next_look = 0, 0.0  # at all of them: much may have happened
        while self._home.is_needed:
            if self._soon:
                next_look = min(next_look, time.monotonic() + _SOON)
            # Not for long, as nobody wakes this thread when it is not needed any more.
            self._hear_of(listening.next_ones(min(next_look, time.monotonic() + _BETWEEN_LOOKS)))
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + _BETWEEN_LOOKS
                self._look()
                self._forget_marks(time.monotonic() - _UNMARKED_AFTER)

    def _hear_of(self, task_ids: list[str]) -> None:
        """See what is new of these tasks, as far as they are ours."""
        home = self._home
        ours = [each for each in task_ids if home.flight_of(each) or home.is_unwanted(each)]
        if not ours:
            return
        for task_id, news in zip(ours, self._records.read_all(ours), strict=True):
            flight = home.flight_of(task_id)
            if news is None:
                continue  # it is of another database
            if flight is not None:
                home.hear(flight, news)
            elif home.is_unwanted(task_id):
                home.hear_of_unwanted(task_id, news)

    def _look(self) -> None:
        """Ask for what might not have been heard."""
        flights = self._next_ones()
        if not flights:
            return
        looked = self._records.look(flights)
        missing = []
        # Whoever has the run next takes a mark for good only as long as a result would be kept.
        marked_anew = min(_MARKED_ANEW, self._records.kept / 4)
        for flight, (news, has_mark) in zip(flights, looked, strict=True):
            if news is not None:
                self._home.hear(flight, news)
            elif flight.stage is Stage.SENT and flight.is_marked and not has_mark:
                missing.append(flight)
            if not flight.is_marked or time.time() - flight.sent_at > marked_anew:
                self._mark(flight)
        if missing:
            self._miss_marks(missing, has_others=any(has_mark for _, has_mark in looked))

    def _next_ones(self) -> list[Flight]:
        soon, self._soon = self._soon, set()
        sent = self._home.in_fleet()
        first = self._looked_at if self._looked_at < len(sent) else 0
        self._looked_at = first + _MOST_LOOKED_AT
        others = sent[:first] + sent[self._looked_at :]
        return sent[first : self._looked_at] + [each for each in others if each.task_id in soon]

    def _miss_marks(self, flights: list[Flight], *, has_others: bool) -> None:
        """Have sent again what Redis has lost; what it has only thrown out is marked anew."""
        server = self._records.meet()
        lost = []
        for flight in flights:
            is_known_to_stand = has_others and server is not None and flight.server == server
            if is_known_to_stand or not self._records.is_with_broker:
                self._mark(flight)
            else:
                lost.append(flight)
        self._home.send_again(lost)

    def _mark(self, flight: Flight) -> None:
        """Note that a run was sent, unless it has ended; then its mark is taken off by others."""
        if self._home.flight_of(flight.task_id) is flight:
            flight.sent_at = time.time()
            self._records.mark(flight)

    def _forget_marks(self, before: float) -> None:
        """Delete the marks of what has ended before a time of the monotonic clock."""
        old = {}
        while self._marks_to_forget and self._marks_to_forget[0][0] < before:
            _, run, task_id = self._marks_to_forget.popleft()
            old[run] = task_id
        self._records.unmark(old)
