"""What stands behind ``JobScheduler`` for everything later: the engine on a loop of its own.

The store is in this program's memory, so its methods never suspend, and the engine's methods that
only speak to it are driven where they are called (``at_once``): they raise there, cost no change of
thread, and may be called from jobs as well.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import time
from collections import OrderedDict
from difflib import get_close_matches
from types import BuiltinMethodType, MethodType
from typing import TYPE_CHECKING, Any, Final

from job_scheduler import instants
from job_scheduler.durations import parse_duration
from job_scheduler.engine import Engine
from job_scheduler.errors import DuplicateIdError, ShutdownError, UnknownIdError
from job_scheduler.log import tell
from job_scheduler.planning import (
    check_new_id,
    check_priority,
    check_sendable,
    check_timeout,
    conflict_resolution_of,
    describe_schedule,
    policies_of,
    within_bounds,
)
from job_scheduler.plans import Plans, Wanted
from job_scheduler.registry import lookup
from job_scheduler.retry import retry_policy
from job_scheduler.run import Ending, Run, RunError, RunState
from job_scheduler.schedule import ConflictResolution, Schedule
from job_scheduler.stores.base import NewRun
from job_scheduler.stores.memory import MemoryStore
from job_scheduler.target import Target
from job_scheduler.triggers import Once

if TYPE_CHECKING:
    import multiprocessing
    from collections.abc import Callable, Coroutine, Mapping

    from job_scheduler.executors.base import Executor
    from job_scheduler.executors.loop_thread import LoopThread
    from job_scheduler.stores.base import Claim, RunRecord
    from job_scheduler.target import Place

_MOST_DONE: Final = 1_000
"""Schedules of one instant that are remembered after it."""


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends, here and now."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("it has suspended")


_SHUT_DOWN: Final = "the scheduler was shut down before its time came"


class Planner(Plans):
    """Schedules and delayed runs of one ``JobScheduler``; all methods from any thread."""

    def __init__(self, executors: Callable[[Place], Executor], loop_thread: LoopThread) -> None:
        super().__init__()
        self._engine = Engine(MemoryStore(), executors, observer=self)
        self._loop_thread = loop_thread
        self._lock = threading.RLock()
        self._closed = False
        self._once: OrderedDict[str, None] = OrderedDict()
        """Schedules of one instant, to be forgotten some time after it."""
        # By the time, so that a run of this program has no id that one of another has.
        self._generations = itertools.count(time.time_ns() // 1000)
        self._handles: dict[str, Run] = {}
        prefix = os.urandom(6).hex()
        self._run_ids = map(f"{prefix}-{{}}".format, itertools.count(1))
        # Not waited for: this may be called by a job on that loop.
        asyncio.run_coroutine_threadsafe(self._start(), loop_thread.loop)

    async def _start(self) -> None:
        with self._lock:  # it may be closed by now; starting does not suspend
            if not self._closed:
                await self._engine.start()

    @property
    def healthy(self) -> bool:
        """Whether the engine's loop turns."""
        if self._closed or self._engine.last_turn_age is None:
            return True
        return self._loop_thread.is_alive and self._engine.healthy

    @property
    def has_plans(self) -> bool:
        """Whether anything goes on or will be due, or a run that was handed out has not ended."""
        if self._closed:
            return False
        due = at_once(self._engine.next_instant()) is not None
        return due or self.busy or bool(self._handles)

    @property
    def busy(self) -> bool:
        """Whether anything goes on, or has ended without being told yet."""
        return self._engine.busy

    # Schedules

    def _add(self, jobs: Mapping[str, Any], wanted: Wanted) -> str:
        schedule_id, given, first = wanted.schedule_id, wanted.given, wanted.first
        check_new_id(schedule_id)
        what = lookup(jobs, given) if isinstance(given, str) else given
        target = Target.of_anything(what, "schedule", wanted.place)
        name = given if isinstance(given, str) else target.name
        target.check(schedule_id or name, wanted.kwargs, wanted.args)
        check_sendable(name, target, wanted.args, wanted.kwargs)
        policies = policies_of(wanted.policies, target)
        on_conflict = conflict_resolution_of(wanted.conflict_resolution)
        with self._lock:
            if self._closed:
                raise ShutdownError(f"{name!r} was not scheduled: the scheduler was shut down")
            schedule_id = self._free_id(name) if schedule_id is None else schedule_id
            schedule = wanted.schedule(schedule_id, name, next(self._generations), policies)
            first = within_bounds(schedule, first)
            if schedule.id in self._given and not self._make_room(schedule.id, on_conflict):
                return schedule.id
            self._given[schedule.id] = given
            at_once(self._engine.add(schedule, target, first))
            if isinstance(wanted.trigger, Once):
                self._forget_old_ones(schedule.id)
        self._tell_planned(schedule, first, is_new=True)
        return schedule.id

    def _forget_old_ones(self, schedule_id: str) -> None:
        """Remember the schedules of one instant that has come, but not without end."""
        self._once[schedule_id] = None
        for _ in range(2):  # more than one comes, to catch up with what was not over before
            if len(self._once) <= _MOST_DONE:
                return
            oldest = next(iter(self._once))
            record = at_once(self._engine.store.schedule(oldest))
            if record.next_at is None and not record.active:
                self._remove(oldest)
            else:
                self._once.move_to_end(oldest)

    def _make_room(self, schedule_id: str, on_conflict: ConflictResolution) -> bool:
        """Whether the schedule shall be added although its id is taken."""
        if on_conflict is ConflictResolution.RAISE:
            raise DuplicateIdError(
                f"{schedule_id!r} is scheduled already: give another id, remove that one first, or "
                f"say add_job(..., conflict_resolution='replace')"
            )
        if on_conflict is ConflictResolution.IGNORE:
            return False
        self._remove(schedule_id)
        return True

    def stop(self, what: Any) -> None:
        """Take off the plan what was given to be run, or everything for None."""
        # Equal, where each look gives another object: names and bound methods.
        by_value = isinstance(what, (str, MethodType, BuiltinMethodType))
        with self._lock:
            found = [
                schedule_id
                for schedule_id, planned in self._given.items()
                if what is None or planned is what or (by_value and planned == what)
            ]
            if not found and isinstance(what, str) and what in self._given:
                found = [what]  # its id
            for schedule_id in found:
                self._remove(schedule_id)

    def remove(self, schedule_id: str) -> None:
        """Take one schedule off the plan."""
        with self._lock:
            self._check_known(schedule_id)
            self._remove(schedule_id)
        tell(logging.INFO, "%r is not scheduled any more", schedule_id)

    def _remove(self, schedule_id: str) -> None:
        del self._given[schedule_id]
        self._once.pop(schedule_id, None)
        for run_id in at_once(self._engine.remove(schedule_id)) or ():
            handle = self._handles.get(run_id)
            if handle is not None:
                self._end_cancelled(handle, "its schedule was removed")

    def pause(self, schedule_id: str) -> None:
        """Take one schedule off the plan until it is resumed."""
        with self._lock:
            self._check_known(schedule_id)
            at_once(self._engine.pause(schedule_id))
        tell(logging.INFO, "%r is paused", schedule_id)

    def resume(self, schedule_id: str) -> None:
        """Put one schedule back on the plan."""
        with self._lock:
            self._check_known(schedule_id)
            at_once(self._engine.resume(schedule_id))
        tell(logging.INFO, "%r goes on", schedule_id)

    def run_now(self, schedule_id: str) -> Run:
        """Run a schedule's job once more, beside whatever goes on."""
        with self._lock:
            self._check_known(schedule_id)
            schedule: Schedule = at_once(self._engine.store.schedule(schedule_id)).schedule
            return self._enqueue(
                schedule.job,
                self._engine.target_of(schedule_id),
                at=instants.now(),
                args=schedule.args,
                kwargs=schedule.kwargs,
                schedule_id=schedule_id,
                priority=schedule.priority,
                retry=schedule.retry,
                timeout=schedule.timeout,
                beside=True,
            )

    def info(self, schedule_id: str) -> dict[str, Any]:
        """What is known of a schedule."""
        with self._lock:
            self._check_known(schedule_id)
            record = at_once(self._engine.store.schedule(schedule_id))
        last = record.last_run
        if last is not None and self._waits_for_a_thread(last):
            last = last._replace(state=RunState.PENDING, started_at=None)
            record = record._replace(last_run=last, running=record.running - 1)
        return describe_schedule(record, is_on=not self._closed)

    def _waits_for_a_thread(self, record: RunRecord) -> bool:
        """Whether a run was started, but its executor has not begun with it."""
        attempt = self._engine.attempt_of(record.id)
        return attempt is not None and attempt.state is RunState.PENDING

    def _check_known(self, schedule_id: str) -> None:
        if schedule_id in self._given:
            return
        near = (
            get_close_matches(schedule_id, self._given, 1) if isinstance(schedule_id, str) else []
        )
        listed = ", ".join(map(repr, sorted(self._given)[:10])) or "none"
        hint = f"did you mean {near[0]!r}?" if near else f"known ids: {listed}"
        raise UnknownIdError(f"nothing is scheduled as {schedule_id!r}; {hint}")

    # Single runs

    def run_later(
        self,
        name: str,
        target: Target,
        kwargs: dict[str, Any],
        *,
        delay: Any = 0,
        timeout: float | None = None,
        priority: int = 5,
        max_retries: int | None = None,
        key: str | None = None,
    ) -> Run:
        waited = parse_duration(delay, "delay", zero=True)
        check_priority(priority)
        retry = target.retry if max_retries is None else retry_policy(max_retries, "max_retries")
        timeout = target.timeout if timeout is None else timeout
        check_timeout(timeout, target)
        return self._enqueue(
            name,
            target,
            at=instants.now() + waited,
            kwargs=kwargs,
            priority=priority,
            retry=retry,
            timeout=timeout,
        )

    def _enqueue(self, name: str, target: Target, **options: Any) -> Run:
        with self._lock:
            if self._closed:
                raise ShutdownError(
                    f"job {name!r} was not accepted: the scheduler was shut down; make a new one"
                )
            run = Run(next(self._run_ids), name, self)
            self._handles[run.id] = run
            at_once(self._engine.enqueue(NewRun(id=run.id, job=name, **options), target))
            return run

    def started(self, claim: Claim, run: Run) -> None:
        """An attempt has started; the engine says so."""
        run_id = claim.run_id
        if run_id not in self._handles:  # of a schedule: nobody holds a run of it
            return
        with self._lock:
            handle = self._handles.get(run_id)
            if handle is not None and handle.state is RunState.PENDING:
                handle._started(run._pid, run._started_at or 0.0)

    def ended(self, claim: Claim, run: Run, again: bool) -> None:
        """An attempt has ended; the engine says so."""
        run_id = claim.run_id
        if run_id not in self._handles:
            return
        with self._lock:
            handle = self._handles.get(run_id)
            if handle is None or run._ending is None:
                return
            if handle.state is RunState.PENDING and run._started_at is not None:
                handle._started(run._pid, run._started_at)
            if again:
                if handle.state is RunState.RUNNING:
                    handle._put_back()
                if self._closed and at_once(self._engine.cancel_waiting(run_id)):
                    self._end_cancelled(handle, _SHUT_DOWN)
                return
            del self._handles[run_id]
            handle._ended(run._ending)

    # As the owner of the runs it has handed out

    def cancel(self, run: Run) -> bool:
        """Cancel a run that waits, or ask the one that goes on to stop."""
        with self._lock:
            if at_once(self._engine.cancel_waiting(run.id)):
                self._end_cancelled(run, "the run was cancelled")
                return True
        return bool(at_once(self._engine.cancel(run.id)))

    def _end_cancelled(self, run: Run, why: str) -> None:
        self._handles.pop(run.id, None)
        error = RunError("JobCancelled", why)
        run._ended(Ending(RunState.CANCELLED, error, ended_at=instants.now().timestamp()))

    def signal(self, run: Run, number: int) -> None:
        """Send a signal to the process of the attempt that goes on."""
        attempt = self._engine.attempt_of(run.id)
        if attempt is not None:
            attempt._owner.signal(attempt, number)

    def process(self, run: Run) -> multiprocessing.Process | None:
        """The process of the attempt that goes on; waits until there is one."""
        run._wait_until(lambda: run.state is not RunState.PENDING, None)
        attempt = self._engine.attempt_of(run.id)
        return None if attempt is None else attempt.process

    # The end

    def pending(self) -> list[Run]:
        """The runs it has handed out that have started and not ended."""
        return [run for run in tuple(self._handles.values()) if run.state is RunState.RUNNING]

    def close(self) -> None:
        """Start nothing more; what has not started is cancelled."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._engine.stop_starting()
            for run in tuple(self._handles.values()):
                if at_once(self._engine.cancel_waiting(run.id)):
                    self._end_cancelled(run, _SHUT_DOWN)
