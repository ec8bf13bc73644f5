"""The tasks of one Celery application that are on their way, and what is heard of them.

Three threads serve it: one sends, one hears from the result backend, one speaks to the workers.
The end of a run is told by whoever takes its flight out of the table.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.durations import count_of
from job_scheduler.executors.celery import news as told
from job_scheduler.executors.celery.flight import Flight, Stage
from job_scheduler.executors.celery.publisher import Publisher
from job_scheduler.executors.celery.records import Listening, Records
from job_scheduler.executors.celery.roll_call import RollCall
from job_scheduler.launcher import ending
from job_scheduler.launcher.aside import do_aside
from job_scheduler.log import tell
from job_scheduler.run import Ending, RunError, RunState

if TYPE_CHECKING:
    from job_scheduler.executors.celery.news import News
    from job_scheduler.run import Run

_BETWEEN_LOOKS: Final = 1.0
"""Seconds between two looks at what might not have been heard."""

_MOST_LOOKED_AT: Final = 1_000
"""Tasks that are looked at in one look, in turn."""

_MARKED_ANEW: Final = 6 * 3600.0
"""Seconds, at most, after which a mark is written again, so that it is not forgotten."""

_SOON: Final = 0.05
"""Seconds until the next look, where something is known to have happened."""

_AFTER_AN_ERROR: Final = 0.5
"""Seconds until it is tried again to hear from Redis."""

_MOST_STARTS: Final = 3
"""How often a task may be started again without having asked for it."""

_UNMARKED_AFTER: Final = 60.0
"""Seconds after its success for which a run's mark is kept: until then the store knows of it."""

_MOST_OVER: Final = 10_000


class Fleet:
    """What goes on with one Celery application; from any thread.

    Args:
        app: the application, which was found good.
        grace: seconds that a worker may take to end what is over its time.
    """

    def __init__(self, app: Any, grace: float) -> None:
        self._records = Records(app.backend)
        self._flights: dict[str, Flight] = {}
        self._by_run: dict[Run, Flight] = {}
        # Held while a run changes its state, and never while Redis is asked. What a run calls then
        # takes no lock of those that call this fleet.
        self._lock = threading.RLock()
        self._over: OrderedDict[str, None] = OrderedDict()
        self._marks_to_forget: deque[tuple[float, str, str]] = deque()
        self._again: set[str] = set()
        self._looked_at = 0
        self._closed = False
        self._publisher = Publisher(app, self._records, self)
        self._roll_call = RollCall(app, self, grace)
        name = "job_scheduler celery results"
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    # What users of the executor want

    def take(self, flight: Flight) -> None:
        """Send it, and follow it to its end."""
        with self._lock:
            self._by_run[flight.run] = flight
        self._publisher.put(flight)

    def pending(self) -> list[Run]:
        """The runs that have not ended."""
        with self._lock:
            return list(self._by_run)

    def unsent(self) -> bool:
        """Whether any run is not in the fleet yet."""
        with self._lock:
            early = (Stage.WAITING, Stage.SENDING)
            return any(flight.stage in early for flight in self._by_run.values())

    def unsaid(self) -> bool:
        """Whether the workers were not told yet of all that was cancelled."""
        return self._roll_call.has_unsaid

    def cancel(self, run: Run) -> bool:
        """Revoke a run's task; it ends here at once unless a worker has begun with it."""
        run._cancel_requested = True
        with self._lock:
            flight = self._by_run.get(run)
            if flight is None:
                return False
            if flight.stage in (Stage.SENT, Stage.STARTED):
                self._roll_call.revoke(flight.task_id, repeat=flight.stage is Stage.SENT)
            if flight.stage in (Stage.WAITING, Stage.SENT):
                self._land(flight, ending.cancelled())
            return True

    def let_go(self, run: Run) -> bool:
        """Follow a run no longer; what is in the fleet stays there."""
        with self._lock:
            flight = self._by_run.get(run)
            if flight is None:
                return False
            if flight.stage is Stage.SENDING:
                run._cancel_requested = True
                flight.is_let_go = True
            else:
                self._end(flight, _let_go())
            return True

    def revoke_left(self, run: str) -> None:
        """Revoke what a run was sent as that nobody follows; by its mark."""
        self._roll_call.revoke_left(run)

    def close(self) -> None:
        """Take nothing more; the threads end when nothing is on its way."""
        self._closed = True

    # What the publisher tells

    def may_send(self, flight: Flight) -> bool:
        with self._lock:
            if flight.stage is not Stage.WAITING or flight.run not in self._by_run:
                return False
            flight.stage = Stage.SENDING
            return True

    def leaves(self, flight: Flight) -> None:
        with self._lock:
            self._flights[flight.task_id] = flight

    def is_over(self, task_id: str) -> bool:
        return task_id in self._over

    def sent(self, flight: Flight) -> None:
        with self._lock:
            if flight.run not in self._by_run:
                return  # it was quick
            self._flights[flight.task_id] = flight
            if flight.stage is Stage.SENDING:
                flight.stage = Stage.SENT
            if flight.may_be_known:
                self._again.add(flight.task_id)  # it may be elsewhere by now
            if flight.is_let_go:
                self._end(flight, _let_go())
            elif flight.run._cancel_requested:
                self.cancel(flight.run)

    def not_sent(self, flight: Flight) -> None:
        with self._lock:
            if flight.stage is not Stage.SENDING or flight.run not in self._by_run:
                return  # it was heard of: so it is in the fleet
            self._flights.pop(flight.task_id, None)
            flight.stage = Stage.WAITING
            if flight.is_let_go:
                self._end(flight, _let_go())
            elif flight.run._cancel_requested:
                self._end(flight, ending.cancelled())

    def refused(self, flight: Flight, error: Exception) -> None:
        reason = RunError(type(error).__name__, f"it could not be sent: {error}")
        self._land(flight, Ending(RunState.FAILED, reason, ended_at=time.time()))

    def replaced(self, task_id: str) -> None:
        self._roll_call.revoke(task_id, repeat=True)

    # What the roll call tells

    def started(self) -> list[Flight]:
        with self._lock:
            return [each for each in self._flights.values() if each.stage is Stage.STARTED]

    def lost(self, flight: Flight, why: str) -> None:
        """A worker is no more; should it be there all the same, its task is revoked."""
        said = self._records.read(flight.task_id)
        if said is not None and said["status"] in told.ENDED:
            self._hear(flight, said)
            return
        self._roll_call.revoke(flight.task_id, repeat=True)
        was_cancelled = flight.run._cancel_requested
        self._fail(flight, ending.cancelled() if was_cancelled else ending.lost(why))

    def vanished(self, flight: Flight) -> None:
        """Its worker is well, and has it no more."""
        said = self._records.read(flight.task_id)
        if said is not None and said["status"] in told.ENDED:
            self._hear(flight, said)
            return
        why = "it has ended without telling how: a task that raises Ignore has to set its state"
        reason = RunError("NoResult", why)
        self._fail(flight, Ending(RunState.FAILED, reason, ended_at=time.time()))

    def left(self, run: str) -> str | None:
        """The task that a run was sent as, and that nobody here follows; its mark is taken off."""
        mark = self._records.mark_of(run)
        if mark is None or mark.task_id in self._flights:
            return None
        self._records.unmark({run: mark.task_id})
        return mark.task_id

    def too_long(self, flight: Flight) -> None:
        self._roll_call.revoke(flight.task_id)
        self._fail(flight, ending.timed_out(flight.timeout or 0.0))

    # The thread that hears

    def _serve(self) -> None:
        listening: Listening | None = None
        is_away, next_look = False, 0.0
        while not self._closed or self._by_run:
            try:
                if listening is None:
                    listening = self._records.listen()
                    self._records.meet()
                    self._looked_at, next_look = 0, 0.0
                if self._again or self._closed:
                    next_look = min(next_look, time.monotonic() + _SOON)
                self._hear_of(listening.next_ones(next_look))
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + _BETWEEN_LOOKS
                    self._look()
                    self._forget_marks(time.monotonic() - _UNMARKED_AFTER)
            except Exception as error:
                if not is_away:
                    is_away = True
                    said = "nothing is heard of Celery's tasks until Redis is back: %s: %s"
                    is_usual = isinstance(error, self._records.errors)
                    tell(logging.ERROR, said, type(error).__name__, error, exc_info=not is_usual)
                if listening is not None:
                    with contextlib.suppress(Exception):
                        listening.close()
                    listening = None
                time.sleep(_AFTER_AN_ERROR)
            else:
                if is_away:
                    tell(logging.INFO, "Celery's tasks are heard of again")
                is_away = False
        self._publisher.close()  # not before: what Redis has lost is sent again
        self._roll_call.close()
        with contextlib.suppress(*self._records.errors):
            self._forget_marks(math.inf)

    def _hear_of(self, task_ids: list[str]) -> None:
        """See what is new of these tasks, as far as they are ours."""
        ours = [each for each in task_ids if each in self._flights]
        unwanted = [each for each in task_ids if self._roll_call.is_revoked(each)]
        if not ours and not unwanted:
            return
        both = [*ours, *unwanted]
        for task_id, news in zip(both, self._records.read_all(both), strict=True):
            flight = self._flights.get(task_id)
            if news is not None and flight is not None:
                self._hear(flight, news)
            elif news is not None and self._roll_call.is_revoked(task_id):
                self._hear_of_unwanted(task_id, news)

    def _hear_of_unwanted(self, task_id: str, news: News) -> None:
        if news["status"] in told.ENDED:
            self._roll_call.confirm(task_id)
        elif told.worker_of(news) is not None:
            self._roll_call.revoke(task_id)
            said = "task %s was revoked, and has started all the same: it is stopped if it can be"
            tell(logging.WARNING, said, task_id)

    def _look(self) -> None:
        """Ask for what might not have been heard, some of it each time."""
        flights = self._next_ones()
        if not flights:
            return
        looked = self._records.look(flights)
        missing = []
        # Whoever has the run next takes a mark for good only as long as a result would be kept.
        marked_anew = min(_MARKED_ANEW, self._records.kept / 4)
        for flight, (news, has_mark) in zip(flights, looked, strict=True):
            if news is not None:
                self._hear(flight, news)
            elif flight.stage is Stage.SENT and flight.is_marked and not has_mark:
                missing.append(flight)
            if not flight.is_marked or time.time() - flight.sent_at > marked_anew:
                self._mark(flight)
        if missing:
            self._miss_marks(missing, has_others=any(has_mark for _, has_mark in looked))

    def _miss_marks(self, flights: list[Flight], *, has_others: bool) -> None:
        """Send again what Redis has lost; what it has only thrown out is marked anew."""
        server = self._records.meet()
        lost = []
        for flight in flights:
            is_known_to_stand = has_others and server is not None and flight.server == server
            if is_known_to_stand or not self._records.is_with_broker:
                self._mark(flight)
            else:
                lost.append(flight)
        self._send_again(lost)

    def _next_ones(self) -> list[Flight]:
        with self._lock:
            again, self._again = self._again, set()
            sent = [each for each in self._flights.values() if each.stage is not Stage.SENDING]
        first = self._looked_at if self._looked_at < len(sent) else 0
        self._looked_at = first + _MOST_LOOKED_AT
        soon = [flight for flight in sent[self._looked_at :] if flight.task_id in again]
        return sent[first : self._looked_at] + soon

    def _send_again(self, flights: list[Flight]) -> None:
        for flight in flights:
            with self._lock:
                if flight.stage is not Stage.SENT or flight.run not in self._by_run:
                    continue
                flight.stage, flight.is_marked = Stage.WAITING, False
                del self._flights[flight.task_id]
            self._publisher.put(flight)
        if flights:
            said = "Redis has lost its memory, and %s with it, which is sent again: %s"
            tell(logging.WARNING, said, count_of(len(flights), "task"), flights[0].task_id)

    def _mark(self, flight: Flight) -> None:
        """Only this thread ends what is in the fleet, or those that are sorry for it later."""
        if flight.stage in (Stage.SENT, Stage.STARTED) and flight.run in self._by_run:
            flight.sent_at = time.time()
            self._records.mark(flight)

    def _forget_marks(self, before: float) -> None:
        """Delete the marks of what has ended before a time of the monotonic clock."""
        old = {}
        while self._marks_to_forget and self._marks_to_forget[0][0] < before:
            _, run, task_id = self._marks_to_forget.popleft()
            old[run] = task_id
        self._records.unmark(old)

    # What becomes of a flight

    def _hear(self, flight: Flight, news: News) -> None:
        status = news["status"]
        if status in told.NO_NEWS or self._flights.get(flight.task_id) is not flight:
            return
        if status == "RETRY":
            self._try_again(flight, news)
        elif status in told.ENDED:
            if told.has_run(news):
                self._take_off(flight)
            came_of_it = told.ending_of(news, flight.timeout)
            started_at = flight.run._started_at  # by this clock, while the end is by the worker's
            if started_at is not None:
                ended_at = max(started_at, came_of_it.ended_at or 0.0)
                came_of_it = came_of_it._replace(ended_at=ended_at)
            if came_of_it.state is RunState.FAILED:
                self._fail(flight, came_of_it)
            else:
                self._land(flight, came_of_it)
        else:
            self._hear_of_start(flight, news)

    def _hear_of_start(self, flight: Flight, news: News) -> None:
        worker, before = told.worker_of(news), flight.worker
        if worker is None or before is None or before in (worker, (worker.name, None)):
            flight.worker = worker or before
            self._take_off(flight)
            return
        # A look may have been ahead of what is heard now: what does Redis say?
        now = self._records.read(flight.task_id)
        if now is None or told.worker_of(now) != worker:
            return
        flight.worker = worker
        flight.starts += 1
        if flight.starts < _MOST_STARTS:  # also one that has asked for it may tell so later
            self._roll_call.expect(worker.name)
            return
        self._roll_call.revoke(flight.task_id)
        why = f"{before.name} has lost it, and Celery has started it {_MOST_STARTS} times again"
        self._fail(flight, ending.lost(why))

    def _take_off(self, flight: Flight) -> None:
        """It goes on, as far as is known."""
        with self._lock:
            if flight.stage is Stage.STARTED or flight.run not in self._by_run:
                return
            flight.stage = Stage.STARTED
            flight.started_at = time.monotonic()
            flight.retry_was_told = False
            flight.run._started(None, time.time())
        self._roll_call.expect(None if flight.worker is None else flight.worker.name)
        if flight.run._cancel_requested:
            self._roll_call.revoke(flight.task_id)

    def _try_again(self, flight: Flight, news: News) -> None:
        """The task has asked Celery to be started again."""
        if flight.retry_was_told:
            return
        self._take_off(flight)
        has_begun_again, flight.starts = flight.starts > 0, 0
        with self._lock:
            if flight.run not in self._by_run:
                return
            if flight.run_id.is_kept:
                self._end(flight, told.failed(news)._replace(goes_on=True))
                return
            flight.retry_was_told = True
            if not has_begun_again:
                flight.stage, flight.worker = Stage.SENT, None
                flight.run._put_back()
        said = "job %r: %s; Celery tries it again (run %s)"
        tell(logging.WARNING, said, flight.run.name, told.failed(news).error, flight.run.id)

    def _fail(self, flight: Flight, came_of_it: Ending) -> None:
        """End it after its mark is gone, so that who tries it again sends it again."""
        if flight.is_marked:
            with contextlib.suppress(*self._records.errors):
                self._records.unmark({flight.run_id.run: flight.task_id})
                flight.is_marked = False
        self._land(flight, came_of_it)

    def _land(self, flight: Flight, came_of_it: Ending) -> None:
        """It is over, and will not be taken for one that is not."""
        with self._lock:
            if flight.run not in self._by_run:
                return
            self._over[flight.task_id] = None
            if len(self._over) > _MOST_OVER:
                self._over.popitem(last=False)
            mark = flight.run_id.run, flight.task_id
            # A success may not be in the store yet.
            if came_of_it.state is RunState.COMPLETED and flight.run_id.is_kept:
                self._marks_to_forget.append((time.monotonic(), *mark))
            elif flight.is_marked:
                self._marks_to_forget.appendleft((-math.inf, *mark))
            self._end(flight, came_of_it)

    def _end(self, flight: Flight, came_of_it: Ending) -> None:
        del self._by_run[flight.run]
        self._flights.pop(flight.task_id, None)
        flight.run._ended(came_of_it)
        if came_of_it.state is RunState.FAILED:  # a handler may wait for a lock, or for a run
            do_aside(functools.partial(ending.log_failure, flight.run))


def _let_go() -> Ending:
    error = RunError("JobCancelled", "it was left to others, and goes on")
    return Ending(RunState.CANCELLED, error, ended_at=time.time())
