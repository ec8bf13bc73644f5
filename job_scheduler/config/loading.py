"""From checked entries to jobs on a scheduler's plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job_scheduler.config.classes import needs_core_lib, target_of
from job_scheduler.config.report import problem_at
from job_scheduler.errors import InvalidJobError
from job_scheduler.planning import check_sendable
from job_scheduler.target import Target

if TYPE_CHECKING:
    from job_scheduler.config.entries import Entry
    from job_scheduler.job import Job
    from job_scheduler.job_scheduler import JobScheduler


def make_jobs(entries: list[Entry], core_lib: Any = None) -> list[tuple[Entry, Job | type[Job]]]:
    """Make the job of each entry and give it ``core_lib``, if there is one.

    Those that run on Celery's workers are made there.

    Raises ``ConfigError`` with the entry whose constructor or hook failed, or whose job cannot
    be sent to the process that it is to run in.
    """
    jobs = []
    for entry in entries:
        job: Job | type[Job]
        try:
            job = entry.job_class
            if target_of(entry.job_class).place != "celery":
                job = _make_job(entry, core_lib)
            elif entry.params:
                raise InvalidJobError("params make an object, and none is sent to Celery's workers")
        except (Exception, SystemExit) as error:
            said = f"{entry.job_class.__qualname__} cannot be made: {type(error).__name__}: {error}"
            raise _problem(entry, said) from error
        try:
            check_sendable(entry.name, Target.of_anything(job, "schedule"), (), {})
        except (TypeError, ValueError) as error:
            raise _problem(entry, str(error)) from error
        jobs.append((entry, job))
    return jobs


def _make_job(entry: Entry, core_lib: Any) -> Job:
    params = dict(entry.params)
    if needs_core_lib(entry.job_class):
        params["core_lib"] = core_lib
    job = entry.job_class(**params)
    # A constructor that passed it on has called the hook already.
    if core_lib is not None and job.core_lib is not core_lib:
        job.set_data_handler(core_lib)
    return job


def schedule_jobs(scheduler: JobScheduler, jobs: list[tuple[Entry, Job | type[Job]]]) -> None:
    """Put all jobs on the plan; if the scheduler refuses one, it is shut down."""
    for entry, job in jobs:
        try:
            _schedule(scheduler, entry, job)
        except (TypeError, ValueError) as error:
            scheduler.shutdown(timeout=0)
            raise _problem(entry, str(error)) from error


def _schedule(scheduler: JobScheduler, entry: Entry, job: Job | type[Job]) -> None:
    if entry.cron is not None:
        scheduler.add_job(
            entry.name,
            job,
            cron=entry.cron.expression,
            timezone=entry.cron.timezone,
            **entry.policies,
        )
    elif entry.frequency is None:
        scheduler.schedule_once(entry.initial_delay, job, job_id=entry.name, **entry.policies)
    else:
        scheduler.schedule(
            entry.initial_delay, entry.frequency, job, job_id=entry.name, **entry.policies
        )


def _problem(entry: Entry, said: str) -> Exception:
    problem = problem_at(entry.file, said, line=entry.line, entry=entry.name)
    problem.problems = (problem,)
    return problem
