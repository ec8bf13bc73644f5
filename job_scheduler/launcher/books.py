"""What the program knows of the runs that it has handed to zygotes and that have not ended."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING, Any

from job_scheduler.launcher import ending, wire
from job_scheduler.launcher.aside import do_aside
from job_scheduler.launcher.post_mortem import OutOfMemoryWatch
from job_scheduler.run import Ending, Run, RunError, RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from job_scheduler.job import Job
    from job_scheduler.launcher.line import Line
    from job_scheduler.launcher.spawn import SpawnLauncher


class Submission:
    """An accepted run, with what is needed to submit it again until it is announced."""

    __slots__ = (
        "attachment",
        "failure",
        "job_class",
        "line",
        "load_result",
        "packet",
        "places",
        "run",
        "sent_signal",
        "timeout",
        "tries",
    )

    def __init__(
        self,
        run: Run,
        job_class: type[Job],
        timeout: float | None,
        packet: bytes,
        attachment: bytes | None,
    ) -> None:
        self.run = run
        self.job_class = job_class
        self.timeout = timeout
        self.packet = packet
        self.attachment = attachment
        self.line: Line | None = None
        """The line by which it was sent; None before, and again once its end is known."""
        self.failure: RunError | None = None
        self.load_result: Callable[[], Any] | None = None
        self.sent_signal: int | None = None
        self.tries = 0
        """How many processes were killed before they could announce it."""
        self.places: list[Callable[[], None]] = []
        """Gives up its place among the processes that another launcher counts, if it has one."""

    def take_place(self, counted_by: SpawnLauncher) -> None:
        """Let another launcher count its process, until that has ended."""
        counted_by.occupy(self.job_class)
        self.places.append(functools.partial(counted_by.vacate, self.job_class))
        if self.line is None:  # it has ended meanwhile, before it had the place to leave
            self.leave_place()

    def cancelled(self) -> bool:
        return self.run._cancel_requested

    def leave_place(self) -> None:
        with contextlib.suppress(IndexError):
            self.places.pop()()


class Books:
    """The submissions by run id: those that wait for a process, and those that have one.

    Any thread enters a submission, one listening thread per line moves it on. A submission that
    moves is in both places for a moment, and one that ends leaves after its run has ended: so
    whoever looks for what has not ended finds it.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, Submission] = {}
        self.running: dict[str, Submission] = {}
        self.large: set[str] = set()
        """The waiting ones with an attachment."""
        self._memory = OutOfMemoryWatch()

    def enter(self, submission: Submission) -> None:
        self.waiting[submission.run.id] = submission
        if submission.attachment is not None:
            self.large.add(submission.run.id)

    def withdraw(self, submission: Submission) -> None:
        """Take out a submission that was not accepted after all."""
        submission.line = None
        submission.leave_place()
        self.leave(submission)

    def leave(self, submission: Submission) -> None:
        run_id = submission.run.id
        self.waiting.pop(run_id, None)
        self.running.pop(run_id, None)
        self.large.discard(run_id)

    def find(self, run_id: str) -> Submission | None:
        # In this order: a run that starts meanwhile is among the running before it leaves here.
        return self.waiting.get(run_id) or self.running.get(run_id)

    def runs(self) -> list[Run]:
        found = {**self.waiting, **self.running}
        return [submission.run for submission in found.values()]

    def of(self, run_ids: Iterable[str]) -> set[Submission]:
        return {found for run_id in run_ids if (found := self.find(run_id)) is not None}

    def on(self, line: Line) -> set[Submission]:
        # In this order, as in find().
        waiting = self.waiting_on(line)
        return {*waiting, *self.running_on(line)}

    def waiting_on(self, line: Line) -> list[Submission]:
        return [each for each in tuple(self.waiting.values()) if each.line is line]

    def running_on(self, line: Line) -> list[Submission]:
        return [each for each in tuple(self.running.values()) if each.line is line]

    def forget_all(self) -> None:
        """Be empty: in a forked child, whose parent they belong to."""
        self.waiting.clear()
        self.running.clear()
        self.large.clear()

    # What a zygote and its children report

    def take_start(self, run_id: str, at: float, pid: int) -> None:
        submission = self.waiting.get(run_id)
        if submission is None:  # its submit() was interrupted, or it was given up
            return
        submission.packet, submission.attachment = b"", None
        self.running[run_id] = submission
        self.waiting.pop(run_id, None)
        self.large.discard(run_id)
        submission.run._started(pid, at)
        self._memory.look(at)

    def take_result(self, run_id: str, payload: bytes, problem: OSError | None) -> None:
        submission = self.find(run_id)
        if submission is not None:
            submission.load_result = (
                functools.partial(wire.decode, payload) if problem is None else _raiser(problem)
            )

    def take_failure(self, run_id: str, name: str, payload: bytes, problem: OSError | None) -> None:
        submission = self.find(run_id)
        if submission is not None:
            rest = wire.decode(payload) if problem is None else (str(problem),)
            submission.failure = RunError(name, *rest)

    def take_end(
        self,
        payload: bytes,
        run_id: str,
        status: int | None,
        reason: str,
        peak_kilobytes: int,
        cpu_seconds: float,
        at: float,
    ) -> None:
        """End the run as its zygote has seen it; the payload is the tail of its stderr."""
        submission = self.find(run_id)
        if submission is None:
            return
        facts = ending.Facts(
            reason=reason,
            timeout=submission.timeout,
            failure=submission.failure,
            load_result=submission.load_result,
            ended_at=at,
            stderr=payload.decode(errors="replace"),
        )
        if status is not None:
            facts = facts._replace(
                exitcode=os.waitstatus_to_exitcode(status),
                peak_memory=peak_kilobytes * 1024,
                cpu_time=cpu_seconds,
                sent_signal=submission.sent_signal,
            )
            if ending.is_unexplained_kill(facts.exitcode or 0, reason, facts):
                facts = facts._replace(out_of_memory=self._memory.has_struck())
            if submission.run.state == RunState.PENDING:  # it ended before it could announce itself
                submission.run._started(None, at)
        self.end(submission, ending.conclude(facts))

    def never_began(self, run_id: str, status: int | None, reason: str) -> Submission | None:
        """The submission, if its process was killed before it announced the run."""
        submission = self.waiting.get(run_id)
        killed = status is not None and os.WIFSIGNALED(status) and not reason
        return submission if killed else None

    def end(self, submission: Submission, how: Ending) -> None:
        """End the run, take it out, and have it logged if it failed."""
        submission.line = None
        submission.leave_place()
        try:
            submission.run._ended(how)
        finally:
            self.leave(submission)
        if how.state is RunState.FAILED:
            do_aside(functools.partial(ending.log_failure, submission.run))


def _raiser(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail
