"""From what is known of an ended process to the outcome of its run, and to the log.

The one place where a failure gets its name, its stored record and its log record, whatever
launched the process and however it failed.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from job_scheduler.launcher import wire
from job_scheduler.launcher.post_mortem import describe_death
from job_scheduler.log import tell
from job_scheduler.run import Ending, Run, RunError, RunState

if TYPE_CHECKING:
    from collections.abc import Callable


class Facts(NamedTuple):
    """What the launcher saw of a process."""

    exitcode: int | None = None
    reason: str = ""
    """Why it was stopped (``wire.CANCELLED``, ``wire.TIMEOUT``) or why there was none; or empty."""
    timeout: float | None = None
    failure: RunError | None = None
    """The exception that the job reported."""
    load_result: Callable[[], Any] | None = None
    """Gives the value that the job returned, if it returned one."""
    peak_memory: int | None = None
    cpu_time: float | None = None
    sent_signal: int | None = None
    """The last signal that this program has sent it, other than to stop it."""
    out_of_memory: bool = False
    """Whether the kernel has killed something for memory at about the time of its end."""
    ended_at: float | None = None
    stderr: str = ""


def judge(facts: Facts) -> tuple[RunState, RunError | None]:
    """Decide how a run ended.

    A result counts as completed even if a signal was under way: the job had finished.
    """
    if facts.exitcode == 0 and (facts.load_result is not None or not facts.reason):
        return RunState.COMPLETED, None
    if facts.reason == wire.CANCELLED:
        return RunState.CANCELLED, RunError("JobCancelled", "the run was cancelled")
    if facts.reason == wire.TIMEOUT:
        message = f"not done after {facts.timeout:g} s"
        return RunState.FAILED, RunError("JobTimeout", message, bases=("TimeoutError",))
    if facts.reason == wire.NO_PROCESS:
        message = f"the system gave it no process: {facts.stderr}"
        return RunState.FAILED, RunError("JobLost", message)
    if facts.failure is not None:
        return RunState.FAILED, facts.failure
    if facts.reason == wire.UNSEEN:
        message = "its end was not seen: an imported module waits for children, or ignores SIGCHLD"
        return RunState.FAILED, RunError("JobLost", message)
    if facts.exitcode is not None and facts.exitcode < 0:
        message = describe_death(
            -facts.exitcode,
            sent=facts.sent_signal,
            out_of_memory=facts.out_of_memory,
            peak_memory=facts.peak_memory,
            cpu_time=facts.cpu_time,
        )
        return RunState.FAILED, RunError("JobKilled", message)
    return RunState.FAILED, RunError("JobExited", f"exited with code {facts.exitcode}")


def is_unexplained_kill(exitcode: int, reason: str, facts: Facts) -> bool:
    """Whether it was killed, and not by us: then the kernel may have done it, for memory."""
    return exitcode == -9 and not reason and facts.sent_signal != 9


def conclude(facts: Facts) -> Ending:
    """The ending that follows from what was seen."""
    state, error = judge(facts)
    return Ending(
        state,
        error,
        exitcode=facts.exitcode,
        ended_at=facts.ended_at or time.time(),
        peak_memory=facts.peak_memory,
        cpu_time=facts.cpu_time,
        stderr=facts.stderr,
        load_result=facts.load_result if state is RunState.COMPLETED else None,
    )


def lost(message: str) -> Ending:
    """The ending of a run of which nothing more will be heard."""
    return Ending(RunState.FAILED, RunError("JobLost", message), ended_at=time.time())


def cancelled() -> Ending:
    """The ending of a run that was cancelled, and has no process to tell of."""
    return conclude(Facts(reason=wire.CANCELLED))


def timed_out(seconds: float) -> Ending:
    """The ending of a run that was stopped after so long, and has no process to tell of."""
    return conclude(Facts(reason=wire.TIMEOUT, timeout=seconds))


def no_process(why: str) -> Ending:
    """The ending of a run that could be given no process."""
    return conclude(Facts(reason=wire.NO_PROCESS, stderr=why))


def settle(run: Run, ending: Ending) -> None:
    """End the run, then log it if it failed."""
    run._ended(ending)
    log_failure(run)


def log_failure(run: Run) -> None:
    """Write the one log record of a failed run; the run itself is on it, as ``record.run``.

    It has ended before, so that a handler may wait for it, or shut its scheduler down.
    """
    if run.state is not RunState.FAILED:
        return
    error, stderr = run.error, run.stderr
    ended_with = "" if run.exitcode is None else f", exit code {run.exitcode}"
    parts = [f"job {run.name!r} failed: {error} (run {run.id}{ended_with})"]
    if error is not None and error.traceback:
        parts.append(error.traceback.rstrip())
    elif stderr:
        parts.append(f"the end of its stderr:\n{stderr.rstrip()}")
    tell(logging.ERROR, "%s", "\n".join(parts), extra={"run": run})
