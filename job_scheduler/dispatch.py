"""What stands behind ``JobScheduler.run``: the launcher, the local executors, the known keys."""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.durations import count_of
from job_scheduler.errors import InvalidOptionError, LaunchError, ShutdownError
from job_scheduler.launcher.base import Launcher, Settings, do_not_wait_at_exit
from job_scheduler.log import tell
from job_scheduler.registry import lookup
from job_scheduler.run import RunState
from job_scheduler.target import Target, seconds_or_none

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from job_scheduler.executors.base import Executor
    from job_scheduler.executors.loop_thread import LoopThread
    from job_scheduler.plans import Plans
    from job_scheduler.run import Run
    from job_scheduler.stored_plans import StoredPlans, StoreOptions
    from job_scheduler.target import Place

_TIME_TO_STOP: Final = 2.0
"""Seconds beyond the grace after which what does not stop is left behind."""

_MOMENT: Final = 0.002
"""Seconds after which to look again for what takes less."""

_MOST_KEYS: Final = 100_000
"""Keys that are remembered; then the oldest is forgotten."""


class Dispatcher:
    """Gives each run to what executes it; starts each executor with the first run for it."""

    def __init__(
        self,
        options: Mapping[str, Any],
        jobs: Callable[[], Mapping[str, Any]] = dict,
        store: StoreOptions | None = None,
    ) -> None:
        settings = dict(options)
        self._eager = settings.pop("eager", False)
        self._start_method = settings.pop("start_method", None)
        self._settings = Settings(**settings)
        self._jobs = jobs
        self._store = store
        self._planner: Plans | None = None
        self._targets: dict[Any, Target] = {}
        self._start_unused()
        _dispatchers.add(self)

    def _start_unused(self) -> None:
        """Be as new: at first, and in a forked child, where none of the threads exist."""
        self._lock = threading.RLock()
        self._closed = False
        self.ended = threading.Event()
        """Set when the scheduler is shut down."""
        self._launcher: Launcher | None = None
        self._executors: dict[str, Executor] = {}
        self._loop_thread: LoopThread | None = None
        if self._planner is not None:
            _abandoned.append(self._planner)
        self._planner = None
        self._by_key: OrderedDict[tuple[str, str], Run] = OrderedDict()
        self._starting: set[tuple[str, str]] = set()

    def run(
        self,
        jobs: Mapping[str, Any],
        name: str,
        arguments: dict[str, Any],
        *,
        key: str | None = None,
        timeout: Any = None,
        later: Mapping[str, Any] | None = None,
    ) -> Run:
        """Look the job up, check the arguments, then hand the run over.

        ``later`` are options that need the engine.
        """
        job_class = lookup(jobs, name)
        if type(name) is not str:  # a member of an enumeration, say
            name = str.__str__(name)
        target = self._targets.get(job_class)
        if target is None:
            target = self._targets[job_class] = Target.of_anything(job_class, "run")
        target.check(name, arguments)
        seconds = target.timeout if timeout is None else seconds_or_none(timeout, "timeout")
        if self._store is not None:
            return self.planner().run_later(
                name, target, arguments, timeout=seconds, key=_checked(key), **later or {}
            )
        submit = self._submit
        if later or target.retry is not None:
            submit = functools.partial(self._submit_later, later or {})
        if key is None:
            return submit(name, target, arguments, seconds)
        return self._run_once(name, target, arguments, seconds, key, submit)

    def _run_once(
        self,
        name: str,
        target: Target,
        arguments: dict[str, Any],
        timeout: float | None,
        key: str,
        submit: Callable[..., Run],
    ) -> Run:
        """Return the run that has this key; only if there is none, start one."""
        _checked(key)
        with self._lock:
            known = self._by_key.get((name, key))
            if known is None:
                self._refuse_if_starting(name, key)
                self._starting.add((name, key))
                try:
                    known = submit(name, target, arguments, timeout)
                    self._by_key[name, key] = known
                finally:
                    self._starting.remove((name, key))
                if len(self._by_key) > _MOST_KEYS:
                    self._by_key.popitem(last=False)
            return known

    def _refuse_if_starting(self, name: str, key: str) -> None:
        if (name, key) in self._starting:  # this thread holds the lock already
            raise LaunchError(
                f"job {name!r} was not accepted: run() with the key {key!r} was interrupted by a "
                f"signal handler that asks for the same"
            )

    def _submit(
        self, name: str, target: Target, arguments: dict[str, Any], timeout: float | None
    ) -> Run:
        if self._closed:
            raise ShutdownError(
                f"job {name!r} was not accepted: the scheduler was shut down; make a new one"
            )
        if not self._eager and target.place == "process":
            launcher = self._launcher or self._open_launcher()
            return launcher.submit(name, target.job_class, arguments, timeout)
        return self.executor(target.place).submit(name, target, (), arguments, timeout)

    def _submit_later(
        self,
        later: Mapping[str, Any],
        name: str,
        target: Target,
        arguments: dict[str, Any],
        timeout: float | None,
    ) -> Run:
        if self._eager:
            raise InvalidOptionError(
                f"job {name!r}: with eager=True a run starts at once and is not tried again; "
                f"delay, priority and retries need a scheduler without it"
            )
        return self.planner().run_later(name, target, arguments, timeout=timeout, **later)

    def _open_launcher(self) -> Launcher:
        with self._lock:
            if self._launcher is None:
                self._refuse_if_closed()
                self._launcher = open_launcher(self._settings, self._start_method)
            return self._launcher

    def executor(self, place: Place) -> Executor:
        """What runs jobs there; it is started when it is first asked for."""
        kind = "inline" if self._eager else place
        with self._lock:
            if kind not in self._executors:
                self._refuse_if_closed()
                self._executors[kind] = self._open_executor(kind)
            return self._executors[kind]

    def _refuse_if_closed(self) -> None:
        """With the lock: what is opened now, nobody would close."""
        if self._closed:
            raise ShutdownError("the scheduler was shut down")

    def _open_executor(self, kind: str) -> Executor:
        if kind == "inline":
            from job_scheduler.executors.inline import InlineExecutor

            return InlineExecutor()
        if kind == "process":
            from job_scheduler.executors.process import ProcessExecutor

            return ProcessExecutor(self._launcher or self._open_launcher())
        if kind == "thread":
            from job_scheduler.executors.thread import ThreadExecutor

            return ThreadExecutor(self._settings)
        if kind == "celery":
            from job_scheduler.executors.celery.executor import CeleryExecutor

            return CeleryExecutor(self._settings)
        from job_scheduler.executors.coroutine import CoroutineExecutor

        return CoroutineExecutor(self.loop_thread().loop, self._settings)

    def loop_thread(self) -> LoopThread:
        """The event loop of this scheduler, in a thread of its own."""
        with self._lock:
            if self._loop_thread is None:
                from job_scheduler.executors.loop_thread import LoopThread

                self._loop_thread = LoopThread()
            return self._loop_thread

    def planner(self) -> Plans:
        """Schedules and delayed runs; the engine is started when they are first asked for."""
        with self._lock:
            if self._planner is None:
                if self._closed:
                    raise ShutdownError(
                        "nothing was scheduled: the scheduler was shut down; make a new one"
                    )
                if self._eager:
                    raise InvalidOptionError(
                        "with eager=True jobs run at once: what is scheduled needs a scheduler "
                        "without it"
                    )
                self._planner = self._open_planner()
            return self._planner

    def _open_planner(self) -> Plans:
        if self._store is None:
            from job_scheduler.planner import Planner

            return Planner(self.executor, self.loop_thread())
        from job_scheduler.launcher import main_module
        from job_scheduler.stored_plans import StoredPlans

        return StoredPlans(
            self._store,
            self._jobs,
            self.executor,
            self.loop_thread(),
            wait_at_exit=self._settings.wait_at_exit,
            only_accepts=main_module.runs_jobs,  # a job's process ends with the job
        )

    def stored(self) -> StoredPlans:
        """The same with a store; raises ``InvalidOptionError`` without one."""
        if self._store is None:
            raise InvalidOptionError(
                "without a store a run is known only to the handle that run() returns: give "
                "JobScheduler(store='sqlite:///jobs.db')"
            )
        plans: Any = self.planner()
        return plans  # type: ignore[no-any-return]

    @property
    def healthy(self) -> bool:
        """Whether what was started goes on."""
        return self._planner is None or self._planner.healthy

    def _started(self) -> list[Launcher | Executor]:
        with self._lock:
            started = [self._launcher, *self._executors.values()]
        return [executor for executor in started if executor is not None]

    def abandon(self) -> None:
        """Nobody refers to the scheduler any more: what it has planned goes on all the same."""
        if self._planner is None or not self._planner.has_plans:
            self.close()

    def close(self) -> None:
        """Take no more runs; accepted ones go on."""
        self._closed = True
        self.ended.set()
        if self._planner is not None:
            self._planner.close()
        for executor in self._started():
            executor.close()
        if self._loop_thread is not None:
            self._loop_thread.stop_once(lambda: not self._pending() and not self._is_busy())

    def shutdown(self, timeout: float | None) -> None:
        """Take no more runs, wait for accepted ones, and stop what is left after ``timeout``."""
        self.refuse_in_a_job("shutdown()", "call shutdown(wait=False), or ")
        if self._store is not None and self._planner is not None:
            self.stored().shutdown(timeout)
        self.close()
        deadline = None if timeout is None else time.monotonic() + timeout
        while runs := self._pending():  # again, since one may have been on its way in
            left = None if deadline is None else deadline - time.monotonic()
            if not runs[0].wait(left):
                break
        stopped = [run for run in self._pending() if run.cancel()]
        deadline = time.monotonic() + self._settings.grace + _TIME_TO_STOP
        for run in stopped:
            run.wait(max(0.0, deadline - time.monotonic()))
        self._finish_planner(deadline)
        for executor in self._started():
            do_not_wait_at_exit(executor)
        left_behind = len(self._pending())
        if left_behind:
            said = "%s did not stop in time, and may go on"
            tell(logging.WARNING, said, count_of(left_behind, "job"))

    def refuse_in_a_job(self, what: str, instead: str = "") -> None:
        """Raise ``LaunchError`` in a thread of a job, which would be waited for."""
        from_loop = self._loop_thread is not None and self._loop_thread.is_current
        threads: Any = self._executors.get("thread")
        if from_loop or (threads is not None and threads.is_current):
            raise LaunchError(
                f"{what} would wait for the job that calls it: {instead}call it from a thread of "
                f"your own"
            )

    def _finish_planner(self, deadline: float) -> None:
        """Wait until the engine has recorded what has ended."""
        while self._is_busy() and time.monotonic() < deadline:
            if any(run.state is RunState.RUNNING for run in self._pending()):
                return  # these do not stop
            time.sleep(_MOMENT)

    def _is_busy(self) -> bool:
        return self._planner is not None and self._planner.busy

    def _pending(self) -> list[Run]:
        runs = [run for executor in self._started() for run in executor.pending()]
        return [run for run in runs if not run.state.ended]


def open_launcher(settings: Settings, start_method: str | None) -> Launcher:
    """The launcher of this name, or the best that the platform can; nothing is started yet."""
    if start_method is None:
        start_method = "zygote" if sys.platform == "linux" else "spawn"
    if start_method == "zygote":
        from job_scheduler.launcher.client import ZygoteLauncher

        return ZygoteLauncher(settings)
    if settings.on_parent_exit == "terminate":
        raise InvalidOptionError(
            "on_parent_exit='terminate' needs the zygote, which this platform or start_method "
            "does not give: with a fresh interpreter per job, running jobs go on by themselves"
        )
    from job_scheduler.launcher.spawn import SpawnLauncher

    return SpawnLauncher(settings)


def _checked(key: str | None) -> str | None:
    if key is not None and (not isinstance(key, str) or not key):
        raise InvalidOptionError(f"key is {key!r}; it must be a string that is not empty")
    return key


_abandoned: Final[list[Plans]] = []
"""What forked children have inherited: its connections are the parent's, so nothing closes them."""

_dispatchers: weakref.WeakSet[Dispatcher] = weakref.WeakSet()


def _renew_all() -> None:
    for dispatcher in tuple(_dispatchers):
        dispatcher._start_unused()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
