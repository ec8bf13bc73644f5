"""A task on its way to the workers and back."""

from __future__ import annotations

import hashlib
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from job_scheduler.stores.payload import encode

if TYPE_CHECKING:
    from job_scheduler.executors.celery.news import News
    from job_scheduler.run import Run, RunId


class Stage(Enum):
    """How far a task has come."""

    WAITING = auto()
    """Nobody else knows of it."""
    SENDING = auto()
    SENT = auto()
    STARTED = auto()


class Worker(NamedTuple):
    """Where a task has started."""

    name: str
    """As Celery calls it, ``celery@host``."""
    pid: int | None


class Mark(NamedTuple):
    """What is kept beside the results of a run that was sent, so that it is not sent again."""

    task_id: str
    content: str
    sent_at: float
    """Seconds since 1970."""


class Flight:
    """A run with the task that it is to Celery.

    Raises ``ArgumentsError`` with the path to an argument that is not JSON.
    """

    __slots__ = (
        "args",
        "content",
        "is_let_go",
        "is_marked",
        "kwargs",
        "may_be_known",
        "retry",
        "run",
        "run_id",
        "sent_at",
        "server",
        "stage",
        "started_at",
        "starts",
        "task",
        "task_id",
        "timeout",
        "worker",
    )

    def __init__(
        self,
        run: Run,
        run_id: RunId,
        task: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
    ) -> None:
        self.run = run
        self.run_id: Final = run_id
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.timeout = timeout
        self.may_be_known = run_id.token > 1
        """Whether the run was claimed before, and so perhaps sent."""
        self.task_id = f"{run_id.run}:{run_id.attempt}"
        text = f"{task.name} {encode(args, kwargs)}"
        self.content = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        """What is to be done, in short: a run may be replaced by another of its id."""
        self.stage = Stage.WAITING
        self.sent_at = 0.0
        """In seconds since 1970, as its mark says; zero as long as it has none to be deleted."""
        self.started_at: float | None = None
        """By the monotonic clock."""
        self.worker: Worker | None = None
        self.starts = 0
        """How often it has started without having asked for it, after the first time."""
        self.is_marked = False
        self.server: str | None = None
        """The start of Redis that has its mark."""
        self.retry: News | None = None
        """What was told of its last failure, while it waits for Celery to start it again."""
        self.is_let_go = False
        """Whether it is to be followed no longer, once it is sent."""

    @property
    def mark(self) -> Mark:
        return Mark(self.task_id, self.content, self.sent_at)
