"""The thread that sends tasks to the broker, one after another, and waits where it is away."""

from __future__ import annotations

import logging
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol

from job_scheduler.executors.celery import news
from job_scheduler.executors.celery.line import Line
from job_scheduler.executors.celery.records import start_of
from job_scheduler.log import tell

if TYPE_CHECKING:
    from job_scheduler.executors.celery.flight import Flight, Mark
    from job_scheduler.executors.celery.news import News
    from job_scheduler.executors.celery.records import Records

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
"""Seconds until it is tried again to reach a broker that is away."""


class Home(Protocol):
    """Who has the flights."""

    def may_send(self, flight: Flight) -> bool:
        """Whether it still waits to be sent; then nobody else sends it."""

    def leaves(self, flight: Flight) -> None:
        """It is sent now, under its name, and may be heard of."""

    def is_over(self, task_id: str) -> bool:
        """Whether the end of a task was told here."""

    def sent(self, flight: Flight) -> None:
        """It is in the fleet."""

    def not_sent(self, flight: Flight) -> None:
        """It waits again."""

    def refused(self, flight: Flight, error: Exception) -> None:
        """It can never be sent."""

    def replaced(self, task_id: str) -> None:
        """A task is not wanted any more: another has taken its place."""


class Publisher:
    """Sends what it is given; nothing that it has taken is ever dropped.

    Args:
        app: the Celery application.
        records: of its tasks.
        home: told what becomes of them.
    """

    def __init__(self, app: Any, records: Records, home: Home) -> None:
        self._app = app
        self._records = records
        self._marker = records.marker()
        self._home = home
        self._flights: SimpleQueue[Flight | None] = SimpleQueue()
        self._line = Line(app)
        self._producer: Any = None
        self._is_away = False
        self._pause = _FIRST_PAUSE
        name = "job_scheduler celery publisher"
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def put(self, flight: Flight) -> None:
        """Have a task sent."""
        self._flights.put(flight)

    def close(self) -> None:
        """Send what was given, and end."""
        self._flights.put(None)

    def _serve(self) -> None:
        while (flight := self._next()) is not None:
            try:
                self._send_at_last(flight)
            except Exception as error:
                self._refuse(flight, error)
            del flight
        self._hang_up()

    def _next(self) -> Flight | None:
        if self._flights.empty():
            self._marker.finish()
        return self._flights.get()

    def _refuse(self, flight: Flight, error: Exception) -> None:
        try:
            self._home.refused(flight, error)
        except Exception:  # the others go on
            tell(logging.ERROR, "task %s could not be sent", flight.task_id, exc_info=True)

    def _send_at_last(self, flight: Flight) -> None:
        """Send it, however long the broker is away."""
        while self._home.may_send(flight):
            try:
                if self._is_new(flight):
                    self._send(flight)
            except self._errors as error:
                is_there = self._producer is not None
                self._wait_for_the_broker(flight, error)
                if is_there:  # perhaps it is only this one that it does not take
                    self._flights.put(flight)
                    return
                continue
            self._pause = _FIRST_PAUSE
            if self._is_away:
                self._is_away = False
                tell(logging.INFO, "the broker is there again, and what has waited is sent")
            self._home.sent(flight)

    def _wait_for_the_broker(self, flight: Flight, error: Exception) -> None:
        self._hang_up()
        if not self._is_away:
            self._is_away = True
            said = "nothing is sent to Celery's workers until the broker is back: %s: %s"
            tell(logging.ERROR, said, type(error).__name__, error)
        self._home.not_sent(flight)
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        """What is raised while the broker or the result backend is away."""
        from kombu.exceptions import OperationalError

        return (OperationalError, OSError, *self._records.errors)

    def _send(self, flight: Flight) -> None:
        producer = self._producer or self._call()
        flight.sent_at = time.time()  # now, since it may have ended before this is back
        self._home.leaves(flight)
        try:
            flight.task.apply_async(
                flight.args,
                flight.kwargs,
                task_id=flight.task_id,
                producer=producer,
                retry=False,
                serializer="json",
                add_to_parent=False,
                # Celery here would hear of each result, although nobody asks it; the worker, who
                # is told by the header, keeps it.
                ignore_result=True,
                headers={"ignore_result": False},
                **({} if flight.timeout is None else {"time_limit": flight.timeout}),
            )
        except self._errors:
            said = "the broker was lost while task %s was sent; it is sent again, and may run twice"
            tell(logging.WARNING, said, flight.task_id)
            raise
        self._marker.mark(flight)

    def _call(self) -> Any:
        """A producer; raises if the broker is away."""
        connection = self._line.connection()
        connection.ensure_connection(max_retries=1, interval_start=0)
        self._compare_servers(connection)
        self._producer = self._app.amqp.Producer(connection, auto_declare=False)
        return self._producer

    def _compare_servers(self, connection: Any) -> None:
        """Learn whether what is sent is kept where the marks are."""
        broker = None
        if connection.transport.driver_type == "redis":
            broker = start_of(connection.default_channel.client)
            if broker is None:
                return  # nobody knows
        was_with_broker = self._records.is_with_broker
        self._records.is_with_broker = broker == self._records.meet()
        if broker is not None and was_with_broker and not self._records.is_with_broker:
            said = "broker and results are not on one Redis: what the broker loses is not missed"
            tell(logging.WARNING, said)

    def _hang_up(self) -> None:
        self._line.drop()
        self._producer = None

    def _is_new(self, flight: Flight) -> bool:
        """Whether the run is not in the fleet yet; otherwise the flight is what is there."""
        if not flight.may_be_known:
            return True
        mark = self._records.mark_of(flight.run_id.run)
        if mark is not None and not self._home.is_over(mark.task_id):
            said = self._records.read(mark.task_id)
            if self._goes_on(flight, mark, said):
                flight.task_id, flight.sent_at, flight.is_marked = mark.task_id, mark.sent_at, True
                flight.retry = said if said is not None and said["status"] == "RETRY" else None
                return False
        is_taken = mark is not None and mark.task_id == flight.task_id
        if is_taken or self._records.read(flight.task_id) is not None:
            flight.task_id = f"{flight.run_id.run}:{flight.run_id.attempt}.{flight.run_id.token}"
        return True

    def _goes_on(self, flight: Flight, mark: Mark, said: News | None) -> bool:
        """Whether what the run was sent as is in the fleet, or has ended without being told."""
        if mark.content != flight.content:
            self._home.replaced(mark.task_id)
            return False
        if said is None and time.time() - mark.sent_at > self._records.kept:
            warning = "what became of task %s is not known any more: its run %s is sent again"
            tell(logging.WARNING, warning, mark.task_id, flight.run_id.run)
            return False
        return said is None or not news.tells_of_lost_worker(said)
