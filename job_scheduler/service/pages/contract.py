"""What the pages ask of the service, and what they need to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from job_scheduler.run import RunState

Item = TypeVar("Item", covariant=True)


class Job(Protocol):
    """A job as the REST API gives it."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str | None: ...
    @property
    def job_type(self) -> str: ...
    @property
    def cron_expression(self) -> str | None: ...
    @property
    def schedule(self) -> str: ...
    @property
    def timezone(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...
    @property
    def is_active(self) -> bool: ...
    @property
    def max_retries(self) -> int | None: ...
    @property
    def created_at(self) -> datetime | None: ...
    @property
    def last_run_at(self) -> datetime | None: ...
    @property
    def next_run_at(self) -> datetime | None: ...
    @property
    def last_state(self) -> str | None: ...
    @property
    def running(self) -> int: ...
    @property
    def completed(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def cancelled(self) -> int: ...
    @property
    def missed(self) -> int: ...


class Run(Protocol):
    """A run as the REST API lists it."""

    @property
    def id(self) -> str: ...
    @property
    def job_id(self) -> int | None: ...
    @property
    def job_name(self) -> str | None: ...
    @property
    def job_type(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...
    @property
    def due_at(self) -> datetime | None: ...
    @property
    def created_at(self) -> datetime | None: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def ended_at(self) -> datetime | None: ...
    @property
    def duration(self) -> float | None: ...
    @property
    def exit_code(self) -> int | None: ...
    @property
    def signal(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...


class RunDetail(Run, Protocol):
    """All that is known about one run."""

    @property
    def traceback(self) -> str | None: ...
    @property
    def output(self) -> str | None: ...
    @property
    def result(self) -> Any: ...
    @property
    def worker(self) -> str | None: ...
    @property
    def peak_memory(self) -> int | None: ...
    @property
    def cpu_time(self) -> float | None: ...
    @property
    def max_retries(self) -> int | None: ...


class Outcome(Protocol):
    """A run as one bar of a job's strip."""

    @property
    def run_id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def at(self) -> datetime: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def ended_at(self) -> datetime | None: ...


class Totals(Protocol):
    """The numbers at the head of the page."""

    @property
    def jobs(self) -> int: ...
    @property
    def running(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def next_run_at(self) -> datetime | None: ...


class JobType(Protocol):
    """A kind of job that can be scheduled."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str | None: ...
    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON Schema of its parameters."""


class Page(Protocol[Item]):
    """Some of a longer list."""

    @property
    def items(self) -> Sequence[Item]: ...
    @property
    def next(self) -> str | None:
        """The cursor of what follows, None at the end."""


class JobsAsked(NamedTuple):
    """Which jobs: those after the ``cursor`` that hold the ``text`` and are ``paused`` or not."""

    cursor: str | None = None
    limit: int = 50
    text: str | None = None
    paused: bool | None = None


class RunsAsked(NamedTuple):
    """Which runs: those after the ``cursor``, of one ``job`` or ``state`` where it is given."""

    cursor: str | None = None
    limit: int = 25
    job: int | None = None
    state: RunState | None = None


class Pages(Protocol):
    """The service, as far as the pages need it; raises the errors of ``job_scheduler.errors``."""

    async def totals(self) -> Totals: ...

    async def job_types(self) -> Sequence[JobType]: ...

    async def jobs(self, asked: JobsAsked) -> Page[Job]: ...

    async def job(self, number: int) -> Job: ...

    async def create(self, job: Mapping[str, Any]) -> Job:
        """Add a job, given as the body of ``POST /jobs``."""

    async def change(self, number: int, patch: Mapping[str, Any]) -> Job:
        """Change a job, given the body of ``PATCH /jobs/{id}``."""

    async def delete(self, number: int) -> None: ...

    async def run_job(self, number: int) -> Run: ...

    async def outcomes(self, numbers: Sequence[int], most: int) -> Mapping[int, Sequence[Outcome]]:
        """The last runs of each of these jobs, newest first."""

    async def runs(self, asked: RunsAsked) -> Page[Run]: ...

    async def run(self, run_id: str) -> RunDetail: ...

    async def cancel(self, run_id: str) -> object: ...

    async def retry(self, run_id: str) -> Run: ...

    async def changed(self) -> object:
        """Wait until something has changed; raises ``ShutdownError`` when the service ends."""
