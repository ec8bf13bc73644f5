"""What a launcher promises: one process per job, started by a clean exec or from a zygote.

``submit`` hands a run over and returns; from then on the launcher owns it. It is accepted when
``submit`` returns, and then exactly one of these happens: its process starts once and what
became of it is recorded on the :class:`~job_scheduler.run.Run`; it is cancelled before; or it
is reported as lost. Runs start in the order of their submission, except that those of a class
at its ``max_running`` are passed over.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from job_scheduler.errors import ArgumentsError, JobImportError
from job_scheduler.launcher import main_module, wire
from job_scheduler.launcher.aside import finish_aside

if TYPE_CHECKING:
    import multiprocessing
    from collections.abc import Sequence

    from job_scheduler.job import Job
    from job_scheduler.run import Run


_LOG_PATIENCE = 5.0
"""Seconds for which the interpreter's exit waits until the last failures are logged."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How jobs are launched; the defaults are what a web process wants."""

    max_processes: int = max(32, 4 * (os.cpu_count() or 1))
    """How many jobs run at one time; the others wait."""
    max_threads: int = 32
    """How many threads of this program run jobs; the others wait."""
    max_waiting: int = 100_000
    """How many may wait; one more is a ``QueueFullError``."""
    grace: float = 5.0
    """Seconds between SIGTERM and SIGKILL."""
    initializer: str | None = None
    """``package:function``, called once in the process that the jobs are forked from."""
    on_parent_exit: Literal["finish", "terminate"] = "finish"
    """What happens to running and waiting jobs when this program dies."""
    wait_at_exit: bool = True
    """Whether the interpreter's normal exit waits for the jobs, as ``multiprocessing`` does."""
    spares: int = 8
    """How many processes may wait, forked ahead, for the next jobs; fewer do while it is quiet."""
    spare_seconds: float = 30.0
    """Seconds without a start after which there is one spare less, down to one."""
    capture_stdout: bool = False
    """Whether what jobs print is kept with what they write to their standard error."""
    start_timeout: float = 60.0
    """Seconds that the zygote may take to start, or to import a job class."""

    @property
    def captured(self) -> tuple[int, ...]:
        """The descriptors of which the last bytes are kept."""
        return (1, 2) if self.capture_stdout else (2,)


class Launcher(Protocol):
    """The contract; see the module's text."""

    def prepare(self, job_class: type[Job]) -> None:
        """Make sure that runs of this class can be started; raises ``JobImportError``."""

    def submit(
        self,
        name: str,
        job_class: type[Job],
        arguments: dict[str, Any],
        timeout: float | None,
        run_id: str | None = None,
    ) -> Run:
        """Accept a run; its id is made if none is given."""

    def pending(self) -> list[Run]:
        """The runs that have not ended."""

    def cancel(self, run: Run) -> bool:
        """Ask for the run to be stopped."""

    def signal(self, run: Run, number: int) -> None:
        """Send a signal to the job's process alone, if it is running."""

    def process(self, run: Run) -> multiprocessing.Process | None:
        """The face of the run's process; waits until it exists."""

    def close(self) -> None:
        """Take no more runs; what was accepted goes on, and what it needs is freed after."""


def reference(job_class: type[Job]) -> tuple[str, str, main_module.MainSource | None]:
    """Module, name and main module by which another process finds the class.

    Raises ``JobImportError`` with what to do, if it cannot.
    """
    module_name, qualname = job_class.__module__, job_class.__qualname__
    if "<locals>" in qualname:
        raise JobImportError(
            f"{qualname} is defined inside a function, where the job's own process cannot find "
            f"it: move the class to the top level of {module_name}"
        )
    main = main_module.describe_main() if module_name in main_module.MAIN_NAMES else None
    if module_name in main_module.MAIN_NAMES and main is None:
        raise JobImportError(
            f"{qualname} is defined in an interactive session, where the job's own process "
            f"cannot find it: save the class in a file, say my_jobs.py, and import it from there "
            f"(or try it in place with JobScheduler(eager=True))"
        )
    found: object = sys.modules.get(module_name)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not job_class:
        raise JobImportError(
            f"{module_name}.{qualname} is not the registered class but {found!r}: the job's own "
            f"process would run something else; register the class under its own name"
        )
    return module_name, qualname, main


def encode_arguments(name: str, arguments: dict[str, Any]) -> bytes:
    """The arguments as bytes; raises ``ArgumentsError`` naming the one that cannot be sent."""
    try:
        return wire.encode(arguments)
    except Exception as error:
        for keyword, value in arguments.items():
            try:
                wire.encode(value)
            except Exception as reason:
                raise ArgumentsError(
                    f"job {name!r}: the value of {keyword!r} (a {type(value).__qualname__}) cannot "
                    f"be sent to another process: {reason}"
                ) from reason
        raise ArgumentsError(
            f"job {name!r}: the arguments cannot be sent to another process: {error}"
        ) from error


class Waitable(Protocol):
    """What comes to an end."""

    def wait(self) -> object: ...


class Waited(Protocol):
    """What the interpreter's exit can wait for."""

    def pending(self) -> Sequence[Waitable]: ...

    def close(self) -> None: ...


def wait_at_exit(executor: Waited, settings: Settings) -> None:
    """Have the interpreter's normal exit wait for these jobs, if the settings ask for it."""
    if settings.wait_at_exit:
        _waited_for.add(executor)


def do_not_wait_at_exit(executor: Waited) -> None:
    """Let the interpreter exit whatever these jobs do: they were given up."""
    _waited_for.discard(executor)


_waited_for: weakref.WeakSet[Waited] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):  # what the parent waits for is not the child's
    os.register_at_fork(after_in_child=_waited_for.clear)


@atexit.register
def _wait_for_all() -> None:
    for executor in tuple(_waited_for):
        executor.close()
        for run in executor.pending():
            run.wait()
    finish_aside(_LOG_PATIENCE)
