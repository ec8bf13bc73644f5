"""Whether a Celery application is one that we can send to, and hear from."""

from __future__ import annotations

import logging
import weakref
from typing import Any, Final

import celery

from job_scheduler.errors import InvalidOptionError
from job_scheduler.log import tell

_OBEYS: Final = (5, 6)
"""From this version of Celery on, who sends a task decides whether its result is kept."""

_good: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""The applications that were found good."""

_JSON: Final = frozenset({"json", "application/json"})


def check_task(task: Any) -> None:
    """Raise ``InvalidOptionError`` for a task that cannot be sent, or not be heard of.

    The message says what to write.
    """
    if task.app not in _good:
        _check_app(task.app)
        _good.add(task.app)
    if task.ignore_result and celery.VERSION < _OBEYS:
        raise InvalidOptionError(
            f"the task {task.name} has ignore_result, so workers of this version of Celery do not "
            f"tell of its end: write @app.task(ignore_result=False), or take Celery 5.6"
        )


def _check_app(app: Any) -> None:
    where = f"the Celery application {app.main!r}"
    conf = app.conf
    if conf.task_always_eager:
        raise InvalidOptionError(
            f"{where} has task_always_eager, so nothing is sent to workers: for tests give "
            f"JobScheduler(eager=True), which runs tasks in place as well"
        )
    accepted = {
        "accept_content": conf.accept_content,
        "result_accept_content": conf.result_accept_content or (),
        "task_serializer": [conf.task_serializer],
        "result_serializer": [conf.result_serializer],
    }
    for name, kinds in accepted.items():
        others = sorted(set(kinds) - _JSON)
        if others:
            raise InvalidOptionError(
                f"{where} has {name}={conf[name]!r}, but what is sent and heard is JSON alone, "
                f"since {others[0]} may run code of whoever reaches the broker: write "
                f"app.conf.update(job_scheduler.celery.SETTINGS)"
            )
    _check_backend(where, app)
    if not conf.task_track_started:
        said = (
            "%s has no task_track_started: runs count as waiting until they end, and a worker "
            "that dies is not missed; write app.conf.update(job_scheduler.celery.SETTINGS)"
        )
        tell(logging.WARNING, said, where)


def _check_backend(where: str, app: Any) -> None:
    from celery.backends.redis import RedisBackend

    if not isinstance(app.backend, RedisBackend):
        raise InvalidOptionError(
            f"{where} has the result backend {app.conf.result_backend!r}; results are heard from "
            f"Redis alone: write Celery(..., backend='redis://localhost:6379/0')"
        )
