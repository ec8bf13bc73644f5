"""How a worker keeps its claims, and takes over those of workers that are no more.

Three loops beside the engine's: one renews the leases of what goes on here, one rescues runs whose
lease has ended anywhere, and one deletes what need not be kept any longer. A thread watches over
all of it: where a lease could not be renewed in time, because the store is away or the event loop
stands still, it stops the jobs before another worker may start them anew. A job in a thread cannot
be stopped, and goes on; the store takes nothing from it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from job_scheduler.attempt import refusal
from job_scheduler.durations import parse_duration
from job_scheduler.engine_log import log_lost_lease, log_rescued, log_unknown
from job_scheduler.errors import InvalidOptionError, StoreError
from job_scheduler.log import tell
from job_scheduler.stores.base import Retention

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from job_scheduler.attempt import Attempt
    from job_scheduler.stores.base import Store, Worker

_BETWEEN_CLEANINGS: Final = 60.0
"""Seconds."""

_AFTER_AN_ERROR: Final = 1.0
"""Seconds until a loop tries again, at most."""


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """How long a worker's claims hold, and what becomes of what it leaves; in seconds."""

    lease: float
    heartbeat: float
    most_crashes: int
    retention: Retention

    @classmethod
    def of(
        cls,
        lease: float | str | timedelta = 30.0,
        heartbeat: float | str | timedelta | None = None,
        most_crashes: int = 3,
        keep: float | str | timedelta | None = "7d",
        keep_most: int | None = 1_000_000,
    ) -> LeaseSettings:
        """Read what a user gave.

        Args:
            lease: how long a claim holds unless it is renewed. Durations are seconds, strings like
                ``"30s"``, or ``timedelta``.
            heartbeat: how often it is renewed; default: three times in a lease.
            most_crashes: a run whose worker or process has died so often fails for good.
            keep: how long ended runs are kept; None: for ever.
            keep_most: how many ended runs are kept; None: all.

        Raises ``InvalidOptionError`` (a ``ValueError``).
        """
        seconds = parse_duration(lease, "lease").total_seconds()
        beat = seconds / 3
        if heartbeat is not None:
            beat = parse_duration(heartbeat, "heartbeat").total_seconds()
        if beat > seconds / 2:
            raise InvalidOptionError(
                f"heartbeat is {beat:g} s and lease {seconds:g} s; a lease must be at least two "
                f"heartbeats long, and three are better"
            )
        for name, value in (("most_crashes", most_crashes), ("keep_most", keep_most)):
            if value is None and name == "keep_most":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidOptionError(f"{name} is {value!r}; it must be a whole number from 1")
        age = None if keep is None else parse_duration(keep, "keep")
        return cls(seconds, beat, most_crashes, Retention(age, keep_most))


class Holder(Protocol):
    """Whoever has claims, as far as they are to be kept."""

    @property
    def store(self) -> Store: ...

    @property
    def worker(self) -> Worker: ...

    def attempts(self) -> list[Attempt]:
        """What goes on here; from any thread."""

    def wake(self) -> None:
        """Something may be due."""


class LeaseKeeper:
    """The loops and the watching thread of one engine."""

    def __init__(self, holder: Holder, settings: LeaseSettings, clock: Callable[[], float]) -> None:
        self._holder = holder
        self._settings = settings
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._renew_now = asyncio.Event()
        self._stopped = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._unknown: dict[str, int] = {}
        self.renewed_at: float | None = None
        """When the store was last asked to renew, and did; in seconds of the lease's clock."""

    def start(self) -> None:
        """Begin; on the running loop."""
        beat = self._settings.heartbeat
        self._begin("renew the leases of its runs", self.renew, beat, self._renew_now)
        self._begin("look for runs that were left", self.rescue, beat)
        self._begin("delete old runs", self._forget, _BETWEEN_CLEANINGS)
        threading.Thread(target=self._watch, name="job_scheduler-watchdog", daemon=True).start()

    def _begin(self, *loop: Any) -> None:
        task = self._loop.create_task(self._for_ever(*loop), name="job_scheduler")
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._begin_again(task, *loop))

    def _begin_again(self, task: asyncio.Task[None], *loop: Any) -> None:
        """Nobody but :meth:`stop` ends a loop, also not a job that cancels all tasks."""
        self._tasks.discard(task)
        if not self._stopped.is_set():
            self._begin(*loop)

    async def stop(self) -> None:
        """Let go; what goes on here is renewed no more."""
        self._stopped.set()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def hint(self) -> None:
        """Renew soon: something here is to be stopped. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._renew_now.set)

    async def _for_ever(
        self,
        what: str,
        action: Callable[[], Awaitable[None]],
        every: float,
        sooner: asyncio.Event | None = None,
    ) -> None:
        failed = False
        pause = every * random.random()  # many workers may have started at one time
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for((sooner or asyncio.Event()).wait(), pause)
            if sooner is not None:
                sooner.clear()
            try:
                await action()
            except Exception as error:
                if not failed:
                    is_ours = isinstance(error, StoreError)
                    said = "the worker cannot %s; it goes on trying: %s"
                    tell(logging.ERROR, said, what, refusal(error), exc_info=not is_ours)
                failed, pause = True, min(_AFTER_AN_ERROR, every / 4)
            else:
                failed, pause = False, every * (0.9 + 0.2 * random.random())

    async def renew(self) -> None:
        """Have all leases begin anew, and learn what was lost or is to be stopped."""
        asked_at = self._clock()
        attempts = {attempt.claim.hold: attempt for attempt in self._holder.attempts()}
        if not attempts:
            self.renewed_at = asked_at
            return
        lost, to_stop = await self._holder.store.renew(list(attempts), self._holder.worker)
        self.renewed_at = asked_at
        for attempt in attempts.values():
            attempt.held_until = asked_at + self._settings.lease
        still = set(self._holder.attempts())
        for hold in lost:
            if attempts[hold] in still:
                attempts[hold].held_until = asked_at
                self._give_up(attempts[hold], "another worker may have started it")
        for hold in to_stop:
            if not attempts[hold].cancelled:
                attempts[hold].cancel()

    def _give_up(self, attempt: Attempt, why: str) -> None:
        if not attempt.given_up:
            stops = attempt.give_up() and attempt.can_be_stopped
            what = (
                "it is stopped here"
                if stops
                else "it cannot be stopped, but its end will not count"
            )
            if attempt.is_elsewhere:
                what = "it is left to whoever has it next, and goes on"
            log_lost_lease(attempt.claim, why, what)

    def _watch(self) -> None:
        """Stop what is not held for much longer, whatever the event loop does."""
        while not self._stopped.wait(self._settings.lease / 12):
            self._watch_once()

    def _watch_once(self) -> None:
        soon = self._clock() + self._settings.lease / 3
        for attempt in self._holder.attempts():
            if attempt.held_until < soon:
                self._give_up(attempt, "its lease could not be renewed in time")

    async def rescue(self) -> None:
        """Put back what workers have left, until nothing is."""
        most = self._settings.most_crashes
        while rescued := await self._holder.store.rescue(most):
            for each in rescued:
                log_rescued(each, most)
            self._holder.wake()
        unknown = await self._holder.store.waiting_for_others(self._holder.worker)
        for job in unknown.keys() - self._unknown.keys():
            log_unknown(job, unknown[job])
        self._unknown = unknown

    @property
    def unknown(self) -> dict[str, int]:
        """How many runs are due of jobs that this worker does not know, when it last looked."""
        return dict(self._unknown)

    async def _forget(self) -> None:
        while await self._holder.store.forget(self._settings.retention):
            await asyncio.sleep(0)


def lease_clock() -> float:
    """Seconds by a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(_BOOT) if _BOOT is not None else time.monotonic()


_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", None)
