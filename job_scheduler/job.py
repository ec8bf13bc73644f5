"""What a user writes: a subclass of :class:`Job`.

This module is loaded by every process that runs a job, so it imports next to nothing: modules with
after-fork hooks (``threading``, ``random``, ``logging``) would cost each job 100 µs and more.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any, ClassVar, Literal, Self

    from job_scheduler.retry import RetryPolicy


class Job:
    """A piece of work, and the place where it runs.

    A subclass says by what it defines where it runs:

    * ``def process(self, **kwargs)``: in a process of its own;
    * ``def run(self, **kwargs)``: in a thread of this program;
    * ``async def run(self, **kwargs)``: on an event loop of this program.

    If it has both, ``JobScheduler.run`` takes ``process``; the class attribute ``executor``
    decides otherwise. A run started by name gets a fresh instance, made without arguments.
    An ``__init__`` of a subclass need not call this one.

    Raises ``TypeError`` when an object is made of a class that defines neither.
    """

    executor: ClassVar[Literal["process", "thread", "coroutine", "celery"] | None] = None
    """Where the job runs, when what it defines shall not decide."""

    celery_task: ClassVar[Any] = None
    """The task that it is to Celery; set by ``job_scheduler.celery.register``."""

    timeout: ClassVar[float | timedelta | None] = None
    """Seconds after its start at which a run is stopped; None: never."""

    retry: ClassVar[RetryPolicy | int | None] = None
    """How a run that has failed is tried again: a policy, or how often."""

    memory_limit: ClassVar[int | None] = None
    """Bytes of private memory that a run in a process may have (``RLIMIT_DATA``)."""

    max_running: ClassVar[int | None] = None
    """How many runs of this class may be in processes at one time; None: no limit of its own."""

    core_lib: Any = None
    """What ``set_data_handler`` was given; for jobs that run in this program."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        if not (hasattr(cls, "process") or hasattr(cls, "run")):
            raise TypeError(
                f"{cls.__name__} defines neither process() nor run(), so there is nothing to do: "
                f"add 'def process(self)' to run it in a process of its own"
            )
        return super().__new__(cls)

    def __init__(self, core_lib: Any = None) -> None:
        if core_lib is not None:
            self.set_data_handler(core_lib)

    def set_data_handler(self, core_lib: Any) -> None:
        """Give the job the objects it works with, and call its ``initialized`` hook."""
        self.core_lib = core_lib
        self.initialized(core_lib)

    def initialized(self, core_lib: Any) -> None:
        """Called once ``core_lib`` is set; a hook for subclasses."""


class TestJob(Job):
    """The job that every scheduler knows: prints a greeting."""

    __test__ = False  # not a test case for pytest, whatever its name says

    def process(self, name: str = "World") -> None:
        print(f"Hello, {name}!")
