"""``job-scheduler serve``: the REST API and the dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job_scheduler.errors import SchedulerError

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes; each goes before its variable of the environment."""
    parser.add_argument("--host", help="default: $JOB_SCHEDULER_HOST, or 127.0.0.1")
    parser.add_argument(
        "--port", help="default: $JOB_SCHEDULER_PORT, or 8000; 0 takes one that is free"
    )
    parser.add_argument(
        "--store",
        dest="database_url",
        metavar="URL",
        help="default: $DATABASE_URL, or sqlite:///scheduler.db in this folder",
    )
    parser.add_argument(
        "--jobs",
        metavar="WHERE",
        action="append",
        help="a folder of job classes, or a module with job classes and functions; may be given "
        "several times; default: jobs, if there is such a folder",
    )
    parser.add_argument(
        "--concurrency",
        dest="max_concurrent_jobs",
        metavar="N",
        help="how many jobs go on at one time; default: $MAX_CONCURRENT_JOBS, or 5",
    )


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    try:
        from job_scheduler.service import server
    except ImportError as error:
        raise SchedulerError(
            f'the service needs more packages ({error}): pip install "job_scheduler[service]"'
        ) from None
    names = ("host", "port", "database_url", "jobs", "max_concurrent_jobs")
    given = {name: getattr(options, name) for name in names}
    server.serve(**{name: value for name, value in given.items() if value is not None})
    return 0
