"""Runs jobs in processes of their own, by way of a launcher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job_scheduler.launcher.called import Called

if TYPE_CHECKING:
    from job_scheduler.launcher.base import Launcher
    from job_scheduler.run import Run, RunId
    from job_scheduler.target import Target


class ProcessExecutor:
    """The face of a launcher as an executor, for functions and job objects too."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def submit(
        self,
        name: str,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
        run_id: RunId | None = None,
    ) -> Run:
        """Accept a run; what is sent to the process is pickled."""
        arguments = arguments_of(target, args, kwargs)
        handle_id = None if run_id is None else str(run_id)
        if arguments is kwargs:
            return self._launcher.submit(name, target.what, kwargs, timeout, handle_id)
        if target.method is not None:
            self._launcher.prepare(target.job_class)  # imported once, where the jobs are forked
        return self._launcher.submit(name, Called, arguments, timeout, handle_id)

    def pending(self) -> list[Run]:
        return self._launcher.pending()

    def cancel(self, run: Run) -> bool:
        return self._launcher.cancel(run)

    def signal(self, run: Run, number: int) -> None:
        self._launcher.signal(run, number)

    def process(self, run: Run) -> Any:
        return self._launcher.process(run)

    def close(self) -> None:
        self._launcher.close()


def arguments_of(target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What is sent to the process: the keywords alone, for a class that makes its own object."""
    if isinstance(target.what, type) and not args:
        return kwargs
    function = target.what
    if target.method is not None:
        job = target.what() if isinstance(target.what, type) else target.what
        function = job.process
    return {"function": function, "args": args, "kwargs": kwargs}
