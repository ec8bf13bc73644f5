"""Jobs on the workers of Celery: the settings that this needs, and how a job gets there.

::

    app = Celery("tasks", broker="redis://localhost:6379/0", backend="redis://localhost:6379/0")
    app.conf.update(SETTINGS)

    @app.task
    def resize(path: str) -> None: ...

    scheduler.add_job("thumbnails", resize, cron="*/5 * * * *", args=["/srv/pictures"])

Needs the extra ``celery``: ``pip install 'job_scheduler[celery]'``.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.errors import InvalidJobError
from job_scheduler.job import Job
from job_scheduler.registry import celery_task_of
from job_scheduler.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS: Final[Mapping[str, Any]] = {
    # Whoever reaches the broker can run no code. Without these an application is refused.
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    # Starts are heard, and so a worker is missed that dies; one write to Redis more per task.
    "task_track_started": True,
    # A worker that dies while no scheduler looks loses nothing: Celery starts its tasks again.
    # Those that take longer than the broker's visibility_timeout, 1 hour, are started twice.
    "task_acks_late": True,
    # A worker holds back no more than it works at; one round trip more per task.
    "worker_prefetch_multiplier": 1,
    # What has succeeded is not run again when its message comes back.
    "worker_deduplicate_successful_tasks": True,
    "broker_connection_retry_on_startup": True,
    # A Redis that has gone without a word is missed.
    "redis_socket_timeout": 10.0,
    "redis_socket_connect_timeout": 10.0,
}
"""What an application needs whose tasks are scheduled here, for ``app.conf.update``.

``task_reject_on_worker_lost`` is left off: the scheduler itself starts a run again whose process
has died, and counts how often. ``docs/celery.md`` tells more of them and of their price.
"""


def register(app: Any, job_class: type[Job], *, name: str | None = None, **options: Any) -> Any:
    """Make a job a task of a Celery application; its runs go to the workers from now on.

    To be called where both find it, the program with the scheduler and the workers: beside the
    class. Harmless twice. The class's ``executor`` becomes ``"celery"`` unless it says another.

    Args:
        app: the application.
        job_class: what it defines runs on a worker, ``process`` before ``run``; each run gets an
            object of its own.
        name: of the task; default: the module and the name of the class.
        options: for ``app.task``, as ``rate_limit="10/m"``; queues are given by Celery's setting
            ``task_routes``.

    Returns the task. Raises ``InvalidJobError`` (a ``TypeError``) for what is not a job class, or
    cannot be run by name.
    """
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise InvalidJobError(f"{job_class!r} is not a Job class")
    method = Target.of_class(job_class, "celery").method or "process"
    task_name = name or app.gen_task_name(job_class.__qualname__, job_class.__module__)
    known = celery_task_of(job_class)
    if known is not None and (known.app, known.name) == (app, task_name):
        return known

    def call(*args: Any, **kwargs: Any) -> Any:
        result = getattr(job_class(), method)(*args, **kwargs)
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    call.__doc__ = job_class.__doc__
    task = app.task(**{"name": task_name, "typing": False, "shared": False, **options})(call)
    if job_class.executor is None:
        job_class.executor = "celery"
    job_class.celery_task = task
    return task
