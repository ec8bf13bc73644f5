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
from job_scheduler.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS: Final[Mapping[str, Any]] = {
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    "task_track_started": True,
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    "worker_deduplicate_successful_tasks": True,
    "broker_connection_retry_on_startup": True,
}
"""What an application needs whose tasks are scheduled here, for ``app.conf.update``.

======================================  ==========================================================
setting                                 what for, and its price
======================================  ==========================================================
``accept_content``, ``…_serializer``    JSON alone: whoever reaches the broker can run no code.
                                        Without it an application is refused. Tasks that take
                                        pickles need an application of their own.
``task_track_started``                  The start of a run is heard, and so a worker is missed that
                                        dies. One write to Redis more per task.
``task_acks_late``                      A message is in the broker until its task has ended, so that
                                        a worker that dies while no scheduler looks loses nothing:
                                        Celery starts the task again after the broker's
                                        ``visibility_timeout`` (1 hour). So a task that takes longer
                                        than that is started twice, unless that is raised; and tasks
                                        have to be harmless to repeat.
``worker_prefetch_multiplier``          With 1, a worker holds back no more than it can work at. One
                                        round trip more per task.
``worker_deduplicate_successful_tasks``  What has succeeded is not started again when its message
                                        comes back. A look at Redis for those that do.
======================================  ==========================================================

Left as it is: ``task_reject_on_worker_lost`` (False). The scheduler itself starts a run again whose
process has died, and counts how often. With True Celery does so as well, without end and without
counting; that is noticed, and stopped, but costs a start.
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
    known = vars(job_class).get("celery_task")
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
