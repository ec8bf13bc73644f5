"""``JobScheduler``, the face for ordinary code.

The module is light on purpose: a program that defines a job beside its scheduler makes the
launching process import both. What is needed to run anything is loaded with the first run.
"""

from __future__ import annotations

import sys

from job_scheduler.job import TestJob
from job_scheduler.options import check_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Any, Literal, Self, TypeVar

    from job_scheduler.dispatch import Dispatcher
    from job_scheduler.job import Job
    from job_scheduler.plans import Plans
    from job_scheduler.run import Run
    from job_scheduler.stored_plans import StoreOptions
    from job_scheduler.stores.base import Store

    JobClass = TypeVar("JobClass", bound=type[Job])


class JobScheduler:
    """Runs jobs by name, each in its own process, and returns at once.

    >>> scheduler = JobScheduler()
    >>> run = scheduler.run("TestJob", name="Ada")      # doctest: +SKIP

    Nothing is started before the first run. All methods may be called from any thread. A
    subclass may set ``self.jobs`` in an ``__init__`` that does not call this one.

    Args:
        jobs: name -> job class or task of Celery, added to the jobs that every scheduler knows.
        max_processes: how many jobs run in processes at one time; default: 4 per processor,
            32 at least.
        max_threads: how many jobs run in threads of this program at one time; default: 32.
        max_waiting: how many runs may wait for a process; one more is a ``QueueFullError``.
        grace: seconds between SIGTERM and SIGKILL when a run is stopped.
        spares: how many processes may wait, forked ahead, for the next jobs, which start sooner
            in them: 0.5 MB each. Default: 8, and fewer while it is quiet.
        initializer: ``"package.module:function"``, called once in the process that the jobs
            are forked from; the place for ``django.setup`` and logging.
        capture_stdout: whether what jobs print goes the way of their standard error: kept, at the
            end, in ``Run.stderr``, and passed on to this program's.
        on_parent_exit: ``"finish"`` or ``"terminate"`` the jobs when this program dies.
        wait_at_exit: whether the interpreter's normal exit waits for the jobs, as
            ``multiprocessing`` does; False is right for web workers.
        eager: run everything in place, in the calling thread, for tests of your own code.
        start_method: ``"zygote"`` or ``"spawn"``; default: what the platform can.
        store: ``"sqlite:///jobs.db"`` or ``"postgresql://..."``: what is accepted is kept there,
            survives this program, and may be run by any other that has the same store. Arguments
            are JSON then. A job whose program dies is started again.
        workers: with a store, how many runs go on in this program at one time; 0: it only accepts
            them, and others run them.
        lease: with a store, how long a run that is not heard of stays this program's. Durations are
            seconds, strings like ``"30s"``, or ``timedelta``.
        heartbeat: with a store, how often that is renewed; default: three times in a lease.
        most_crashes: with a store, a run whose program or process has died so often fails for good.
        keep: with a store, how long ended runs are kept; default: 7 days.
        keep_most: with a store, how many ended runs are kept; default: 1,000,000.
        keep_keys: with a store, how long keys are remembered; default: 30 days.
        listen: False behind a transaction pooler of PostgreSQL.
    """

    jobs: dict[str, Any]

    _options: Mapping[str, Any] = {}
    _store: StoreOptions | None = None
    _dispatcher: Dispatcher | None = None

    def __init__(
        self,
        jobs: Mapping[str, Any] | None = None,
        *,
        max_processes: int | None = None,
        max_threads: int | None = None,
        max_waiting: int | None = None,
        grace: float | None = None,
        spares: int | None = None,
        initializer: str | None = None,
        capture_stdout: bool | None = None,
        on_parent_exit: Literal["finish", "terminate"] | None = None,
        wait_at_exit: bool | None = None,
        eager: bool = False,
        start_method: Literal["zygote", "spawn"] | None = None,
        store: str | Store | None = None,
        workers: int | None = None,
        lease: float | str | timedelta | None = None,
        heartbeat: float | str | timedelta | None = None,
        most_crashes: int | None = None,
        keep: float | str | timedelta | None = None,
        keep_most: int | None = None,
        keep_keys: float | str | timedelta | None = None,
        listen: bool | None = None,
    ) -> None:
        if jobs is not None:
            _check_jobs(jobs)
        self.jobs = {"TestJob": TestJob, **(jobs or {})}
        given = {
            "max_processes": max_processes,
            "max_threads": max_threads,
            "max_waiting": max_waiting,
            "grace": grace,
            "spares": spares,
            "initializer": initializer,
            "capture_stdout": capture_stdout,
            "on_parent_exit": on_parent_exit,
            "wait_at_exit": wait_at_exit,
            "start_method": start_method,
        }
        self._options = {key: value for key, value in given.items() if value is not None}
        self._options |= {"eager": eager}
        check_options(self._options)
        of_store = {
            "workers": workers,
            "lease": lease,
            "heartbeat": heartbeat,
            "most_crashes": most_crashes,
            "keep": keep,
            "keep_most": keep_most,
            "keep_keys": keep_keys,
            "listen": listen,
        }
        self._keep_in(store, {key: value for key, value in of_store.items() if value is not None})

    def _keep_in(self, store: str | Store | None, options: dict[str, Any]) -> None:
        """Have a store from now on, and look at once for what others have left in it."""
        from job_scheduler.errors import InvalidOptionError

        if store is None:
            if options:
                raise InvalidOptionError(
                    f"{next(iter(options))!r} needs a store, as in store='sqlite:///jobs.db'"
                )
            return
        from job_scheduler.launcher.main_module import is_imported_for_jobs
        from job_scheduler.stored_plans import StoreOptions

        if self._options["eager"]:
            raise InvalidOptionError("with eager=True jobs run at once: give no store")
        self._store = StoreOptions(store, **options)
        if sys.platform == "linux" and self._options.get("start_method") != "spawn":
            # What dies with its program is started again, so none may go on beside that.
            self._options = {"on_parent_exit": "terminate", **self._options}
        if not is_imported_for_jobs():
            self._planner()

    def run(self, name: str, /, **kwargs: Any) -> Run:
        """Start the job of this name and return at once.

        Every keyword belongs to the job, also ``name`` and ``timeout``; for a job in a process
        it may be anything that can be pickled. The first run starts the launching process, and
        the first run of each class waits until that has imported it.

        Raises ``UnknownJobError`` (a ``ValueError`` and a ``LookupError``), ``ArgumentsError``
        (a ``TypeError``) for keywords that do not fit or cannot be sent, ``JobImportError`` if
        the job's process could not import the class, ``QueueFullError``, ``LaunchError`` and
        ``ShutdownError``. If it returns, the run is accepted. What goes wrong in the job itself
        is never raised here: it is on the :class:`~job_scheduler.run.Run`.
        """
        return self._run(name, kwargs)

    def get_run(self, run_id: str) -> Run:
        """A handle on a run that is in the store, whoever has started it.

        Raises ``UnknownIdError`` (a ``ValueError`` and a ``KeyError``), and ``InvalidOptionError``
        without a store.
        """
        return (self._dispatcher or self._start()).stored().get_run(run_id)

    def options(
        self,
        *,
        key: str | None = None,
        timeout: float | str | timedelta | None = None,
        delay: float | str | timedelta | None = None,
        priority: int | None = None,
        max_retries: int | None = None,
    ) -> RunWithOptions:
        """A view of this scheduler whose ``run`` has these options.

        Args:
            key: a second run of the same job with this key starts nothing and returns the
                first :class:`~job_scheduler.run.Run`, whatever its arguments. Per process; the
                last 100,000 keys are remembered.
            timeout: how long after its start the run is stopped, instead of the job class's own
                ``timeout``. Durations are seconds, strings like ``"30s"``, or ``timedelta``.
            delay: how long from now the run starts.
            priority: of the runs that are due together, lower numbers start first; default: 5.
            max_retries: how often a run that fails is tried again, instead of what the job
                class's own ``retry`` says.

        Without a store a run with one of the last three waits in this program: what has not started
        when the program ends, or is shut down, never does. Wait for it, or give a store.
        """
        given = {"delay": delay, "priority": priority, "max_retries": max_retries}
        later = {name: value for name, value in given.items() if value is not None}
        return RunWithOptions(self, key, timeout, later)

    def schedule(
        self,
        initial_delay: float | str | timedelta,
        frequency: float | str | timedelta,
        job: Job | type[Job] | str | Callable[[], Any],
        *,
        job_id: str | None = None,
        **policies: Any,
    ) -> str:
        """Run a job again and again: first after a delay, then so long after the end of each run.

        So it never overlaps itself. Scheduled work alone does not keep the program alive; see
        :meth:`wait`. A job that raises is logged, and goes on.

        Args:
            initial_delay: until the first run; may be zero. Durations are seconds, strings like
                ``"1s"``, ``"2h32m"`` or ``"16:00"`` (16 minutes), or ``timedelta``.
            frequency: from the end of a run to the start of the next; more than zero.
            job: an object of a job class, a class, of which each run gets a new object, the
                name of a registered one, or a function. What has both ``run`` and ``process``
                runs here, by ``run``.
            job_id: what the schedule is called; default: the job's name, with a number.
            policies: as for :meth:`add_job`.

        Returns its id. Raises ``InvalidOptionError`` (a ``ValueError``) for what cannot be read,
        ``InvalidJobError`` (a ``TypeError``) for what cannot be run, ``UnknownJobError``,
        ``ArgumentsError``, ``DuplicateIdError`` and ``ShutdownError``.
        """
        from job_scheduler.durations import parse_duration

        every = parse_duration(frequency, "frequency")
        return self._planner().schedule(self.jobs, initial_delay, every, job, job_id, policies)

    def schedule_once(
        self,
        initial_delay: float | str | timedelta,
        job: Job | type[Job] | str | Callable[[], Any],
        *,
        job_id: str | None = None,
        **policies: Any,
    ) -> str:
        """Run a job once, after a delay, which may be zero; otherwise as :meth:`schedule`."""
        return self._planner().schedule(self.jobs, initial_delay, None, job, job_id, policies)

    def stop(self, job: Job | type[Job] | str | Callable[..., Any] | None = None) -> None:
        """Take a job off the plan, or everything; harmless for what is not on it.

        A run that goes on ends, and is the last. The scheduler stays usable, and so does the job;
        what is scheduled again before that run has ended goes on beside it.

        Args:
            job: what was given to :meth:`schedule`, :meth:`schedule_once` or :meth:`add_job`.
        """
        if self._dispatcher is not None:
            self._dispatcher.planner().stop(job)

    def add_job(
        self,
        job_id: str,
        func: Callable[..., Any] | Job | type[Job] | str,
        interval: float | str | timedelta | None = None,
        args: list[Any] | tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        cron: str | None = None,
        at: datetime | None = None,
        timezone: str | None = None,
        executor: Literal["process", "thread", "coroutine", "celery"] | None = None,
        conflict_resolution: Literal["raise", "ignore", "replace"] = "raise",
        **policies: Any,
    ) -> str:
        """Run something at a fixed rate, as cron says, or at an instant.

        Instants do not drift: the next is counted from the one before. While a run goes on, the
        next instant is skipped and logged, unless ``overlap`` says otherwise.

        Args:
            job_id: what it is called.
            func: a function, which runs in a thread of this program, a coroutine function,
                which runs on a loop of it, a task of Celery, which its workers run, or a job, as
                for :meth:`schedule`.
            interval: the first run comes after one, and then one in each.
            args: what to call it with, a list.
            kwargs: and by keyword.
            cron: an expression of five fields, or six with the second in front; see
                :class:`~job_scheduler.Cron`.
            at: an instant; a naive ``datetime`` is taken as local time. One that is past runs now.
            timezone: of the cron expression, a name like ``"Europe/Berlin"``; default: UTC.
            executor: where it runs, whatever it says itself.
            conflict_resolution: if the id is taken: ``"raise"``, ``"ignore"`` or ``"replace"``.
            policies: ``misfire_grace_time`` (how late an instant may still run; default: however
                late), ``catch_up`` (of missed instants ``"latest"``, ``"all"`` or ``"none"``),
                ``overlap`` (``"skip"``, ``"queue"`` one, or how many may run at one time),
                ``jitter`` (up to how much later than its instant a run starts), ``start`` and
                ``end`` (bounds), ``pause_on_failures`` (how many in a row), ``priority`` (lower
                ones first), ``timeout``, ``max_retries`` or ``retry`` (a ``RetryPolicy``).

        Returns the id. Raises as :meth:`schedule`.
        """
        return self._planner().add_job(
            self.jobs,
            job_id,
            func,
            interval=interval,
            cron=cron,
            at=at,
            timezone=timezone,
            args=args,
            kwargs=kwargs,
            executor=executor,
            conflict_resolution=conflict_resolution,
            policies=policies,
        )

    def remove_job(self, job_id: str) -> None:
        """Take what has this id off the plan; what runs goes on.

        Raises ``UnknownIdError`` (a ``ValueError`` and a ``KeyError``), as do the next four.
        """
        self._planner().remove(job_id)

    def pause_job(self, job_id: str) -> None:
        """Start no more runs of it until it is resumed; what comes due meanwhile is left out."""
        self._planner().pause(job_id)

    def resume_job(self, job_id: str) -> None:
        """Go on with what was paused, from now on."""
        self._planner().resume(job_id)

    def run_job_now(self, job_id: str) -> Run:
        """Run it once more, at once, beside its schedule."""
        return self._planner().run_now(job_id)

    def get_job_info(self, job_id: str) -> dict[str, Any]:
        """What is known of it.

        ``id``, ``job``, ``trigger`` in words, ``next_run_time`` (None while it is paused or runs
        until its next is known), ``paused``, ``running``, ``last_run`` (a dict, or None), and how
        many runs have ``completed``, ``failed``, were ``cancelled``, and instants ``missed``.
        """
        return self._planner().info(job_id)

    @property
    def healthy(self) -> bool:
        """Whether what is scheduled is looked after: the engine's loop turns, or there is none."""
        return self._dispatcher is None or self._dispatcher.healthy

    def wait(self) -> None:
        """Block until Ctrl-C, SIGTERM or :meth:`shutdown`; the last line of a ``main.py``.

        Then running jobs are waited for, until a second Ctrl-C stops them, and the program can
        end as usual, with code 0. SIGTERM is looked at only in the main thread, and only if the
        program does not do so itself. On an event loop, or in a job, it is refused.
        """
        from job_scheduler.waiting import refuse_in_an_event_loop, wait_for_the_end

        refuse_in_an_event_loop("wait()")
        dispatcher = self._dispatcher or self._start()
        dispatcher.refuse_in_a_job("wait()")
        wait_for_the_end(dispatcher.ended, self.shutdown)

    def job(self, job_class: JobClass) -> JobClass:
        """Register a job class under its own name; for use as a decorator."""
        from job_scheduler.errors import DuplicateJobError, InvalidJobError
        from job_scheduler.job import Job

        if not (isinstance(job_class, type) and issubclass(job_class, Job)):
            raise InvalidJobError(f"{job_class!r} is not a Job class")
        name = job_class.__name__
        known = self.jobs.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (
            job_class.__module__,
            job_class.__qualname__,
        ):
            raise DuplicateJobError(f"{name!r} is registered already, as {known!r}")
        self.jobs[name] = job_class
        return job_class

    def shutdown(self, wait: bool = True, timeout: float | timedelta | None = None) -> None:
        """Take no more runs, and wait for the accepted ones.

        Args:
            wait: False returns at once; accepted runs go on by themselves.
            timeout: seconds or a ``timedelta`` to wait, zero to stop at once; then what waits is
                cancelled, and what runs gets SIGTERM, and SIGKILL after the grace period.

        Harmless when called twice. A run after it is a ``ShutdownError``.
        """
        from job_scheduler.durations import seconds_to_wait

        seconds = None if timeout is None else seconds_to_wait(timeout, negative=False)
        dispatcher = self._dispatcher or self._start()
        if wait:
            dispatcher.shutdown(seconds)
        else:
            dispatcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def _run(
        self,
        name: str,
        arguments: dict[str, Any],
        key: str | None = None,
        timeout: float | str | timedelta | None = None,
        later: Mapping[str, Any] | None = None,
    ) -> Run:
        dispatcher = self._dispatcher or self._start()
        return dispatcher.run(self.jobs, name, arguments, key=key, timeout=timeout, later=later)

    def _planner(self) -> Plans:
        return (self._dispatcher or self._start()).planner()

    def _start(self) -> Dispatcher:
        """Load what runs need; of several threads that do so at once, one wins."""
        from weakref import finalize, ref

        from job_scheduler.dispatch import Dispatcher
        from job_scheduler.launcher.main_module import refuse_during_import

        refuse_during_import()
        me = ref(self)

        def jobs() -> Mapping[str, Any]:
            scheduler = me()
            return {} if scheduler is None else scheduler.jobs

        started = Dispatcher(self._options, jobs, self._store)
        dispatcher: Dispatcher = self.__dict__.setdefault("_dispatcher", started)
        if dispatcher is started:
            finalize(self, dispatcher.abandon)
        return dispatcher


class RunWithOptions:
    """A scheduler's ``run`` with options; made by :meth:`JobScheduler.options`."""

    def __init__(
        self,
        scheduler: JobScheduler,
        key: str | None,
        timeout: float | str | timedelta | None,
        later: Mapping[str, Any],
    ) -> None:
        self._scheduler = scheduler
        self._key = key
        self._timeout = timeout
        self._later = later

    def run(self, name: str, /, **kwargs: Any) -> Run:
        """Start the job of this name, with the options; see :meth:`JobScheduler.run`."""
        return self._scheduler._run(name, kwargs, self._key, self._timeout, self._later)


def _check_jobs(jobs: object) -> None:
    """Raise ``InvalidOptionError`` if this is no mapping; a list of classes has no names."""
    from job_scheduler.errors import InvalidOptionError
    from job_scheduler.job import Job

    if hasattr(jobs, "keys") and not isinstance(jobs, type):
        return
    each = next(iter(jobs), None) if isinstance(jobs, (list, tuple, set, frozenset)) else jobs
    name = each.__name__ if isinstance(each, type) and issubclass(each, Job) else "Hello"
    raise InvalidOptionError(
        f"jobs is {jobs!r}; it must map names to classes, as in {{{name!r}: {name}}}"
    )


CronScheduler = JobScheduler
