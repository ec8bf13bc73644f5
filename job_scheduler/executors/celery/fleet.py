"""The tasks of one Celery application that are on their way, and what becomes of them.

Three threads serve it: the publisher sends, the watcher hears from the result backend, the roll
call speaks to the workers. The end of a run is told by whoever takes its flight out of the table.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.durations import count_of
from job_scheduler.errors import ShutdownError
from job_scheduler.executors.celery import news as told
from job_scheduler.executors.celery.flight import Flight, Stage
from job_scheduler.executors.celery.publisher import Publisher
from job_scheduler.executors.celery.records import Records
from job_scheduler.executors.celery.roll_call import RollCall
from job_scheduler.executors.celery.watcher import Watcher
from job_scheduler.launcher import ending
from job_scheduler.launcher.aside import do_aside
from job_scheduler.log import tell
from job_scheduler.run import Ending, RunError, RunState

if TYPE_CHECKING:
    from job_scheduler.executors.celery.news import News
    from job_scheduler.run import Run

_MOST_STARTS: Final = 3
"""How often a task may be started again without having asked for it."""

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
        self._closed = False
        self._publisher = Publisher(app, self._records, self)
        self._roll_call = RollCall(app, self, grace)
        self._watcher = Watcher(self._records, self)

    # What users of the executor want

    def take(self, flight: Flight) -> None:
        """Send it, and follow it to its end; raises ``ShutdownError`` after the close."""
        with self._lock:
            if self._closed:
                raise ShutdownError("the scheduler was shut down")
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
        with self._lock:
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
                self._watcher.look_soon(flight)  # it may be elsewhere by now
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
        if self._has_ended(flight):
            return
        self._roll_call.revoke(flight.task_id, repeat=True)
        was_cancelled = flight.run._cancel_requested
        self._fail(flight, ending.cancelled() if was_cancelled else ending.lost(why))

    def vanished(self, flight: Flight) -> None:
        """Its worker is well, and has it no more."""
        if not self._has_ended(flight):
            why = "it has ended without telling how: a task that raises Ignore has to set its state"
            reason = RunError("NoResult", why)
            self._fail(flight, Ending(RunState.FAILED, reason, ended_at=time.time()))

    def _has_ended(self, flight: Flight) -> bool:
        """Whether a task has told of its end, and only that was not heard yet."""
        news = self._records.read(flight.task_id)
        if news is None or news["status"] not in told.ENDED:
            return False
        self.hear(flight, news)
        return True

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

    # What the watcher tells

    @property
    def is_needed(self) -> bool:
        """Whether anything is on its way, or may be."""
        return not self._closed or bool(self._by_run)

    def flight_of(self, task_id: str) -> Flight | None:
        """The flight that a task belongs to."""
        return self._flights.get(task_id)

    def in_fleet(self) -> list[Flight]:
        """Those that were sent."""
        with self._lock:
            return [each for each in self._flights.values() if each.stage is not Stage.SENDING]

    def is_unwanted(self, task_id: str) -> bool:
        """Whether a task that has no flight is to be stopped wherever it comes up."""
        return self._roll_call.is_revoked(task_id)

    def hear_of_unwanted(self, task_id: str, news: News) -> None:
        """There is something new of a task that was revoked."""
        if news["status"] in told.ENDED:
            self._roll_call.confirm(task_id)
        elif told.worker_of(news) is not None:
            self._roll_call.revoke(task_id)
            said = "task %s was revoked, and has started all the same: it is stopped if it can be"
            tell(logging.WARNING, said, task_id)

    def send_again(self, flights: list[Flight]) -> None:
        """Redis has lost them."""
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

    def watched_to_the_end(self) -> None:
        """Nothing is on its way any more: not before, since what Redis has lost is sent again."""
        self._publisher.close()
        self._roll_call.close()

    def hear(self, flight: Flight, news: News) -> None:
        """There is something new of its task."""
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

    # What becomes of a flight

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
            flight.retry = None
            flight.run._started(None, time.time())
        self._roll_call.expect(None if flight.worker is None else flight.worker.name)
        if flight.run._cancel_requested:
            self._roll_call.revoke(flight.task_id)

    def _try_again(self, flight: Flight, news: News) -> None:
        """The task has asked Celery to be started again."""
        if flight.retry == news:
            return
        self._take_off(flight)
        has_begun_again, flight.starts = flight.starts > 0, 0
        with self._lock:
            if flight.run not in self._by_run:
                return
            if flight.run_id.is_kept:
                self._end(flight, told.failed(news)._replace(goes_on=True))
                return
            flight.retry = news
            if not has_begun_again:
                flight.stage, flight.worker = Stage.SENT, None
                flight.run._put_back()
        said = "job %r: %s; Celery tries it again (run %s)"
        tell(logging.WARNING, said, flight.run.name, told.failed(news).error, flight.run.id)

    def _fail(self, flight: Flight, came_of_it: Ending) -> None:
        """End it after its mark is gone, so that who tries it again sends it again."""
        if flight.sent_at:
            with contextlib.suppress(*self._records.errors):
                self._records.unmark({flight.run_id.run: flight.task_id})
                flight.sent_at = 0.0
        self._land(flight, came_of_it)

    def _land(self, flight: Flight, came_of_it: Ending) -> None:
        """It is over, and will not be taken for one that is not."""
        with self._lock:
            if flight.run not in self._by_run:
                return
            self._over[flight.task_id] = None
            if len(self._over) > _MOST_OVER:
                self._over.popitem(last=False)
            if flight.sent_at:
                self._watcher.forget(flight, came_of_it)
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
