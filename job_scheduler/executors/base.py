"""What an executor promises: to run what it accepts, once, and to tell what came of it.

``submit`` returns a :class:`~job_scheduler.run.Run` at once. It goes from pending to running when
the job is about to start, and ends with what the job returned or raised; a failure is logged once.
What differs is how far a run can be stopped:

==========  ==================================  ==================================================
executor    a timeout                           ``cancel()`` of a run that goes on
==========  ==================================  ==================================================
process     stops the process                   stops the process: TERM, grace, KILL
thread      is refused: nothing can stop one    False; the run goes on
coroutine   cancels the task at its next await  cancels the task at its next await
celery      stops the worker's process, if its  stops the worker's process, if its pool is
            pool is prefork; otherwise the run  prefork; otherwise the run goes on to its end
            ends here, and goes on there
==========  ==================================  ==================================================

A coroutine that computes without awaiting, or that swallows its cancellation, goes on. A run that
waits can be cancelled everywhere, and then never starts; of one that waits in the queue of a fleet
this holds as soon as its workers were told.

``celery`` takes tasks of Celery and what is registered as one, with arguments and results of JSON,
and is waited for, at the program's exit, until all is sent. The process is on another machine:
there is no ``pid``, no ``exitcode`` and no ``stderr``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from job_scheduler.run import Owner, Run, RunId
    from job_scheduler.target import Target
else:
    Owner = object


class Executor(Owner, Protocol):
    """The contract; see the module's text."""

    def submit(
        self,
        name: str,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
        run_id: RunId | None = None,
    ) -> Run:
        """Accept a run, from any thread; ``timeout`` is in seconds, a missing id is made."""

    def pending(self) -> list[Run]:
        """The runs that have not ended."""

    def close(self) -> None:
        """Take no more runs; accepted ones go on."""
