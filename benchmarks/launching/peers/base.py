"""What the benchmark asks of a peer."""

from __future__ import annotations

import abc

IN_FLIGHT = 16
EVERY_PARENT = ("bare", "heavy", "threads", "hog")


class Peer(abc.ABC):
    """One way to start a job; the jobs are those of ``functions``, by name.

    The attributes tell what applies to it; ``submit`` and ``wait_all`` are what is measured.
    """

    key: str
    """Its name on the command line."""
    title: str
    """Its name in the tables."""
    group = "process per job"
    """The table, or the part of it, where it belongs; see ``tables``."""
    parents: tuple[str, ...] = ("bare", "heavy")
    """The parents it is measured in."""
    needs: tuple[str, ...] = ()
    """The modules that have to be installed."""
    has_first_line = True
    """Whether it runs Python, so that a job can tell when it started."""
    idle_jobs = 8
    """How many idle jobs show the memory of one; 0 if there is nothing to show."""
    takes_bursts = False
    """Whether it is asked to accept many calls at once."""

    def __init__(self) -> None:
        self.limit = IN_FLIGHT
        """How many jobs may be in flight before ``submit`` waits."""

    def start(self, folder: str) -> None:  # noqa: B027 - many have nothing to prepare
        """Prepare everything that is done once, however many jobs follow."""

    @abc.abstractmethod
    def submit(self, job: str, **arguments: str) -> None:
        """Start a job: the call that is timed. Waits if ``limit`` are in flight."""

    @abc.abstractmethod
    def wait_all(self) -> None:
        """Wait until all jobs have ended and are reaped; raises if one did not succeed."""

    def stop(self) -> None:  # noqa: B027
        """Let go of what ``start`` prepared."""


def expect(succeeded: bool, job: object) -> None:
    """Stop the benchmark if a job did not succeed."""
    if not succeeded:
        raise RuntimeError(f"a job failed, so nothing was measured: {job}")
