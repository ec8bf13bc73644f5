"""The command ``job-scheduler``: ``check``, ``run``, ``worker`` and ``serve``."""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from job_scheduler import __version__
from job_scheduler.cli import serving, worker
from job_scheduler.errors import ConfigError, SchedulerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job_scheduler.config.entries import Entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 for a file that cannot be used."""
    options = _parser().parse_args(arguments)
    # As python -m does, so that handlers of the current directory are found.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    for stream in (sys.stdout, sys.stderr):  # what a terminal cannot show, is shown as \x..
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        command: Any = options.command
        code = int(command(options))
        sys.stdout.flush()
    except BrokenPipeError:
        _write_no_more()
    except SchedulerError as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:  # before anything has begun that ends in good order
        return 130
    else:
        return code
    return 1


def _write_no_more() -> None:
    """Whoever has read the output is gone: let nothing that is left of it raise again."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="job-scheduler",
        description="Check and run files of jobs (YAML); run what is due in a store; serve an API.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, summary in (
        (check, "say whether a file is good, and when its jobs run next"),
        (run, "run the jobs of a file in the foreground, until Ctrl-C"),
    ):
        subparser = commands.add_parser(
            command.__name__,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}. "
            f"The file is trusted input: the modules that it names are imported.",
        )
        subparser.add_argument("file", metavar="FILE", help="for example jobs.yaml")
        subparser.set_defaults(command=command)
    summary = "run what is due in a store, until SIGTERM or Ctrl-C"
    subparser = commands.add_parser(
        "worker", help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    worker.add_options(subparser)
    subparser.set_defaults(command=work)
    summary = "serve the REST API and the dashboard, and run the jobs"
    subparser = commands.add_parser(
        "serve",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}, until SIGTERM or Ctrl-C. What is not "
        f"given here is read from the environment and from .env.",
    )
    serving.add_options(subparser)
    subparser.set_defaults(command=serving.serve)
    return parser


def work(options: argparse.Namespace) -> int:
    """Run what is due in a store, until SIGTERM or Ctrl-C."""
    _print_log()
    return worker.work(options)


def check(options: argparse.Namespace) -> int:
    """Say whether a file is good, and when its jobs run next; no job is made."""
    _describe(options.file, _read(options.file))
    return 0


def run(options: argparse.Namespace) -> int:
    """Run the jobs of a file in the foreground, until Ctrl-C."""
    entries = _read(options.file)
    _describe(options.file, entries)

    from job_scheduler.config.loading import make_jobs, schedule_jobs
    from job_scheduler.job_scheduler import JobScheduler

    jobs = make_jobs(entries)
    _print_log()
    scheduler = JobScheduler()
    schedule_jobs(scheduler, jobs)
    print("running; Ctrl-C ends it, and a second one stops the jobs that go on", flush=True)
    scheduler.wait()
    return 0


def _read(file: str) -> list[Entry]:
    from job_scheduler.config import read_jobs

    try:
        return read_jobs(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}", file=file) from error


class _StatusLines(logging.StreamHandler[Any]):
    """Prints records; once nobody reads them any more, the program is told to end."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # its name in logging
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            _write_no_more()
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            super().handleError(record)


def _print_log() -> None:
    """Print what the scheduler logs, one line per record, unless it is printed already."""
    logger = logging.getLogger("job_scheduler")
    if logger.handlers:
        return
    handler = _StatusLines(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _describe(file: str, entries: list[Entry]) -> None:
    from job_scheduler.config.classes import needs_core_lib

    count = "1 job" if len(entries) == 1 else f"{len(entries):,} jobs"
    print(f"{file} is good: {count}")
    for entry in entries:
        print(f"\n{entry.name} ({entry.job_class.__module__}.{entry.job_class.__qualname__})")
        print(f"    {entry.describe()}")
        for policy, value in entry.policies.items():
            print(f"    {policy}: {_words(value)}")
        instants = [instant.isoformat(" ", "seconds") for instant in entry.preview()]
        if instants:
            print(f"    next: {', '.join(instants)}")
        elif entry.has_ended:
            print("    next: never; it has ended")
        if needs_core_lib(entry.job_class):
            print("    its constructor takes a core_lib; here it gets None")


def _words(value: object) -> str:
    from datetime import datetime, timedelta

    from job_scheduler.durations import describe_duration

    if isinstance(value, timedelta):
        return describe_duration(value)
    if isinstance(value, datetime):
        return value.astimezone().isoformat(" ", "seconds")
    return str(value)
