"""Every error that this package raises, under one root.

::

    SchedulerError
    ├── UnknownJobError      (ValueError, LookupError)
    ├── InvalidJobError      (TypeError)
    ├── DuplicateJobError    (ValueError)
    ├── UnknownIdError       (ValueError, KeyError)
    ├── DuplicateIdError     (ValueError)
    ├── ArgumentsError       (TypeError)
    ├── InvalidOptionError   (ValueError)
    │   └── InvalidCronError
    ├── ConfigError          (ValueError)
    ├── JobImportError       (ImportError)
    ├── LaunchError          (RuntimeError)
    ├── QueueFullError       (RuntimeError)
    ├── StoreError           (RuntimeError)
    └── ShutdownError        (RuntimeError)

Each is also the built-in error that a reader would expect, so ``except ValueError`` works.
What goes wrong *inside* a job is never raised in the caller: it is on the run, as
:class:`job_scheduler.run.RunError`.
"""

from __future__ import annotations


class SchedulerError(Exception):
    """The root of all errors of this package."""


class UnknownJobError(SchedulerError, ValueError, LookupError):
    """No job of this name is registered."""


class InvalidJobError(SchedulerError, TypeError):
    """What is registered under this name cannot be run as a job."""


class DuplicateJobError(SchedulerError, ValueError):
    """Two jobs claim one name."""


class UnknownIdError(SchedulerError, ValueError, KeyError):
    """Nothing that is scheduled has this id."""

    __str__ = Exception.__str__  # a KeyError would show its message as a literal


class DuplicateIdError(SchedulerError, ValueError):
    """Something is scheduled under this id already."""


class ArgumentsError(SchedulerError, TypeError):
    """The keywords do not fit the job's signature, or a value cannot be sent to a process."""


class InvalidOptionError(SchedulerError, ValueError):
    """A setting has a value that it cannot have."""


class InvalidCronError(InvalidOptionError):
    """A cron expression cannot be read, or names a date that does not exist.

    ``field`` is the name of the field, ``value`` the part of it that is wrong, and ``position``
    how many characters stand before that; None where the whole is wrong.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        position: int | None = None,
        value: str | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.position = position
        self.value = value


class ConfigError(SchedulerError, ValueError):
    """A file of jobs cannot be used; all that is wrong with it, one problem per line.

    ``problems`` are the single ones, each a ``ConfigError`` with its own place: ``file``, ``line``
    (from 1), ``entry`` (the name of the job) and ``field``, each None where it has none. The whole
    has the place of the first.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        entry: str | None = None,
        field: str | None = None,
        problems: tuple[ConfigError, ...] = (),
    ) -> None:
        super().__init__(message)
        self.file = file
        self.line = line
        self.entry = entry
        self.field = field
        self.problems = problems


class JobImportError(SchedulerError, ImportError):
    """The job's class cannot be imported where the job is to run."""


class LaunchError(SchedulerError, RuntimeError):
    """The process that launches the jobs could not be started, or does not answer."""


class QueueFullError(SchedulerError, RuntimeError):
    """As many runs wait as the scheduler was told to keep."""


class StoreError(SchedulerError, RuntimeError):
    """The store cannot be reached, or cannot do what it was asked; nothing was accepted."""


class ShutdownError(SchedulerError, RuntimeError):
    """The scheduler was shut down and takes no more work."""
