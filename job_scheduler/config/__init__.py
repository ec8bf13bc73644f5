"""Jobs and when they run, from a YAML file.

::

    core_lib:                         # this outer level may be left out
      jobs:
        - initial_delay: 2h32m
          frequency: 16:00            # 16 minutes after the end of each run
          handler:
            class: some_package.MyJob
            params:
              some_param: some value
        - initial_delay: startup      # or boot, or left out: at once
          frequency: None             # or left out: once
          handler:
            class: some_package.SomeJob

``jobs`` may also map names to entries. In place of the two times, ``cron`` says when, with a
``timezone`` if it is not UTC; put it in quotes. Further fields of an entry:

==================  =============================================================
name                in a list only; default: the class's name, numbered if needed
misfire_grace_time  how late a run may start; None, the default, is without limit
catch_up            what was missed: ``latest``, ``all`` or ``none``
overlap             ``skip``, ``queue``, or how many may run at one time
jitter              up to how much later each run starts, by chance
start, end          from when and until when, as in ``2026-01-31 09:00``
pause_on_failures   after how many failures in a row the job is paused
max_retries         how often a failed run is tried again
timeout             after how long a run is stopped
==================  =============================================================

Times without an offset are the machine's local ones. A length of time is read as it is written, so
that ``16:00`` needs no quotes; a bare number is seconds. ``params`` have the types that YAML gives
them, and go to the constructor as keywords.

**Such a file is trusted input.** It names modules, and those are imported, which runs their code.
Only subclasses of ``Job`` are ever called, and what is made to exhaust memory or time is refused;
but whoever can write the file chooses which of the installed code runs, and with what. Never read
one that comes from a user.

PyYAML is imported with the first file, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job_scheduler.errors import ConfigError

if TYPE_CHECKING:
    from os import PathLike

    from job_scheduler.config.entries import Entry
    from job_scheduler.job_scheduler import JobScheduler

__all__ = ["load_jobs", "read_jobs"]


def load_jobs(path: str | PathLike[str], core_lib: Any = None) -> JobScheduler:
    """Make a scheduler with the jobs of a YAML file, already started.

    The whole file is checked before any job is made, and all jobs are made before any starts.
    Each job gets ``core_lib``, if there is one, by ``set_data_handler``, which calls its hook
    ``initialized``. Such a file is trusted input: see :mod:`job_scheduler.config`.

    Raises ``ConfigError`` (a ``ValueError``) with all that is wrong: file, line, job, field and
    what is allowed; and ``OSError`` if the file cannot be opened.
    """
    from job_scheduler.job_scheduler import JobScheduler

    entries = read_jobs(path)

    from job_scheduler.config.loading import make_jobs, schedule_jobs

    jobs = make_jobs(entries, core_lib)
    scheduler = JobScheduler()
    schedule_jobs(scheduler, jobs)
    return scheduler


def read_jobs(path: str | PathLike[str]) -> list[Entry]:
    """Read and check a YAML file of jobs; the modules are imported, but no job is made.

    Raises the same errors as :func:`load_jobs`.
    """
    try:
        import yaml  # noqa: F401
    except ImportError:
        raise ConfigError(
            f'{path} cannot be read without PyYAML: pip install "job_scheduler[yaml]"',
            file=str(path),
        ) from None
    from job_scheduler.config.entries import read_entries

    return read_entries(path)
