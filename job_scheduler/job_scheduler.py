"""``JobScheduler``, the face for ordinary code.

The module is light on purpose: a program that defines a job beside its scheduler makes the
launching process import both. What is needed to run anything is loaded with the first run.
"""

from __future__ import annotations

from job_scheduler.job import TestJob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from types import TracebackType
    from typing import Any, Literal, Self, TypeVar

    from job_scheduler.dispatch import Dispatcher
    from job_scheduler.job import Job
    from job_scheduler.run import Run

    JobClass = TypeVar("JobClass", bound=type[Job])


class JobScheduler:
    """Runs jobs by name, each in its own process, and returns at once.

    >>> scheduler = JobScheduler()
    >>> run = scheduler.run("TestJob", name="Ada")      # doctest: +SKIP

    Nothing is started before the first run. All methods may be called from any thread. A
    subclass may set ``self.jobs`` in an ``__init__`` that does not call this one.

    Args:
        jobs: name -> job class, added to the jobs that every scheduler knows.
        max_processes: how many jobs run in processes at one time; default: 4 per processor,
            32 at least.
        max_waiting: how many runs may wait for that; one more is a ``QueueFullError``.
        grace: seconds between SIGTERM and SIGKILL when a run is stopped.
        spares: how many processes may wait, forked ahead, for the next jobs, which start sooner
            in them: 0.5 MB each. Default: 8, and fewer while it is quiet.
        initializer: ``"package.module:function"``, called once in the process that the jobs
            are forked from; the place for ``django.setup`` and logging.
        on_parent_exit: ``"finish"`` or ``"terminate"`` the jobs when this program dies.
        wait_at_exit: whether the interpreter's normal exit waits for the jobs, as
            ``multiprocessing`` does; False is right for web workers.
        eager: run everything in place, in the calling thread, for tests of your own code.
        start_method: ``"zygote"`` or ``"spawn"``; default: what the platform can.
    """

    jobs: dict[str, type[Job]]

    _options: Mapping[str, Any] = {}
    _dispatcher: Dispatcher | None = None

    def __init__(
        self,
        jobs: Mapping[str, type[Job]] | None = None,
        *,
        max_processes: int | None = None,
        max_waiting: int | None = None,
        grace: float | None = None,
        spares: int | None = None,
        initializer: str | None = None,
        on_parent_exit: Literal["finish", "terminate"] | None = None,
        wait_at_exit: bool | None = None,
        eager: bool = False,
        start_method: Literal["zygote", "spawn"] | None = None,
    ) -> None:
        if jobs is not None:
            _check_jobs(jobs)
        self.jobs = {"TestJob": TestJob, **(jobs or {})}
        given = {
            "max_processes": max_processes,
            "max_waiting": max_waiting,
            "grace": grace,
            "spares": spares,
            "initializer": initializer,
            "on_parent_exit": on_parent_exit,
            "wait_at_exit": wait_at_exit,
            "start_method": start_method,
        }
        self._options = {key: value for key, value in given.items() if value is not None}
        self._options |= {"eager": eager}
        _check_options(self._options)

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

    def options(
        self, *, key: str | None = None, timeout: float | timedelta | None = None
    ) -> RunWithOptions:
        """A view of this scheduler whose ``run`` has these options.

        Args:
            key: a second run of the same job with this key starts nothing and returns the
                first :class:`~job_scheduler.run.Run`, whatever its arguments. Per process; the
                last 100,000 keys are remembered.
            timeout: seconds after its start at which the run is stopped, instead of the job
                class's own ``timeout``.
        """
        return RunWithOptions(self, key, timeout)

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
        timeout: float | timedelta | None = None,
    ) -> Run:
        dispatcher = self._dispatcher or self._start()
        return dispatcher.run(self.jobs, name, arguments, key=key, timeout=timeout)

    def _start(self) -> Dispatcher:
        """Load what runs need; of several threads that do so at once, one wins."""
        from weakref import finalize

        from job_scheduler.dispatch import Dispatcher
        from job_scheduler.launcher.main_module import refuse_during_import

        refuse_during_import()
        started = Dispatcher(self._options)
        dispatcher: Dispatcher = self.__dict__.setdefault("_dispatcher", started)
        if dispatcher is started:
            finalize(self, dispatcher.close)
        return dispatcher


class RunWithOptions:
    """A scheduler's ``run`` with options; made by :meth:`JobScheduler.options`."""

    def __init__(
        self, scheduler: JobScheduler, key: str | None, timeout: float | timedelta | None
    ) -> None:
        self._scheduler = scheduler
        self._key = key
        self._timeout = timeout

    def run(self, name: str, /, **kwargs: Any) -> Run:
        """Start the job of this name, with the options; see :meth:`JobScheduler.run`."""
        return self._scheduler._run(name, kwargs, self._key, self._timeout)


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


def _check_options(options: Mapping[str, Any]) -> None:
    from job_scheduler.errors import InvalidOptionError

    allowed = {
        "on_parent_exit": ("finish", "terminate"),
        "start_method": ("zygote", "spawn"),
    }
    for name, values in allowed.items():
        if options.get(name, values[0]) not in values:
            raise InvalidOptionError(f"{name} is {options[name]!r}; it must be one of {values}")
    for name, least in (("max_processes", 1), ("max_waiting", 1), ("spares", 0)):
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidOptionError(f"{name} is {value!r}; it must be a whole number from {least}")
    grace = options.get("grace", 0)
    if isinstance(grace, bool) or not isinstance(grace, (int, float)) or not 0 <= grace < 1e6:
        raise InvalidOptionError(f"grace is {grace!r}; it must be a number of seconds")
    initializer = options.get("initializer", "a:b")
    if not isinstance(initializer, str) or not all(initializer.partition(":")):
        raise InvalidOptionError(
            f"initializer is {initializer!r}; it must be a string 'package.module:function', "
            f"since it is called in another process"
        )
