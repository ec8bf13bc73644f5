"""The program's side of the zygote: start it, feed it, listen to it, replace it if it dies.

``submit`` makes one send on a socket and takes no lock. A thread of ours reads the reports.
Nothing of the program's own is touched: no signal handler, no child of its to wait for (the
zygote is not its child), no event loop.

Each zygote has one :class:`~job_scheduler.launcher.line.Line` to it. When a zygote dies, its line
is closed for reading first, then read to its end: after that no child of the dead zygote can
announce itself any more (a child that cannot announce itself ends without having run anything).
So the runs that had not been announced are exactly those that can be given to the next zygote.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import marshal
import os
import queue
import select
import signal
import socket
import sys
import threading
import traceback
import weakref
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.errors import (
    JobImportError,
    LaunchError,
    QueueFullError,
    ShutdownError,
)
from job_scheduler.launcher import ending, wire
from job_scheduler.launcher.base import Settings, encode_arguments, reference, wait_at_exit
from job_scheduler.launcher.line import Line, open_line
from job_scheduler.launcher.main_module import describe_main
from job_scheduler.run import Run, RunError, RunState

if TYPE_CHECKING:
    import multiprocessing
    from collections.abc import Callable

    from job_scheduler.job import Job
    from job_scheduler.launcher.spawn import SpawnLauncher

logger: Final = logging.getLogger("job_scheduler")

_MOST_DEATHS: Final = 10
"""Zygotes that may die one after the other, no job having started, before runs are given up."""

_IMPORT_TRIES: Final = 3
"""Zygotes that may die while they import one class before the class is blamed."""


class _Submission:
    """An accepted run with what is needed to submit it again, until it is announced."""

    __slots__ = (
        "class_id",
        "failure",
        "line",
        "load_result",
        "memory_file",
        "packet",
        "run",
        "timeout",
    )

    def __init__(
        self,
        run: Run,
        class_id: int,
        timeout: float | None,
        packet: bytes,
        memory_file: int | None,
    ) -> None:
        self.run = run
        self.class_id = class_id
        self.timeout = timeout
        self.packet = packet
        self.memory_file = memory_file
        self.line: Line | None = None
        self.failure: RunError | None = None
        self.load_result: Callable[[], Any] | None = None

    def forget_packet(self) -> None:
        self.packet = b""
        if self.memory_file is not None:
            os.close(self.memory_file)
            self.memory_file = None


class _ZygoteDiedError(Exception):
    """The zygote has died while something was asked of it."""


class ZygoteLauncher:
    """Forks each job from a zygote; see :class:`job_scheduler.launcher.base.Launcher`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()  # a signal handler may call run() too
        self._line: Line | None = None
        self._closed = False
        self._held = False  # no run may pass by without the lock
        self._deaths = 0
        self._classes: dict[type[Job], int] = {}
        self._main_needed = False
        self._waiting: dict[str, _Submission] = {}
        self._running: dict[str, _Submission] = {}
        self._fallback: SpawnLauncher | None = None
        prefix = os.urandom(6).hex()
        self._ids = map(f"{prefix}-{{}}".format, itertools.count(1))
        _launchers.add(self)
        wait_at_exit(self, settings)

    def __repr__(self) -> str:
        return f"<ZygoteLauncher: {len(self._running)} running, {len(self._waiting)} waiting>"

    # What the scheduler calls

    def prepare(self, job_class: type[Job]) -> None:
        """Have the class imported in the zygote, which is started if need be."""
        with self._lock:
            if self._closed:
                raise ShutdownError("the scheduler was shut down and takes no more work")
            if self._fallback is not None:
                self._fallback.prepare(job_class)
                return
            reference(job_class)
            self._classes.setdefault(job_class, len(self._classes) + 1)
            self._line_with([job_class])

    def submit(
        self, name: str, job_class: type[Job], arguments: dict[str, Any], timeout: float | None
    ) -> Run:
        """Accept a run: one send to the zygote, once it runs and knows the class."""
        payload = encode_arguments(name, arguments)
        line = self._ready_line(job_class, payload)
        if line is None:
            assert self._fallback is not None
            return self._fallback.submit(name, job_class, arguments, timeout)
        if len(self._waiting) >= self._settings.max_waiting:
            raise QueueFullError(
                f"{len(self._waiting):,} runs wait already, as many as max_waiting allows: "
                f"job {name!r} was not accepted"
            )
        run = Run(next(self._ids), name, self)
        class_id = self._classes[job_class]
        packet, memory_file = wire.pack(wire.RUN, run.id, class_id, name, timeout, payload=payload)
        submission = _Submission(run, class_id, timeout, packet, memory_file)
        if memory_file is not None and memory_file > _most_memory_files():
            submission.forget_packet()
            raise QueueFullError(
                f"so many large arguments wait that file descriptors run out (RLIMIT_NOFILE): "
                f"job {name!r} was not accepted"
            )
        self._waiting[run.id] = submission
        try:
            self._send_submission(submission, line)
        except BaseException:
            self._waiting.pop(run.id, None)
            submission.forget_packet()
            raise
        return run

    def _ready_line(self, job_class: type[Job], payload: bytes) -> Line | None:
        """A line whose zygote has all that the run needs; None: use the fallback."""
        while True:
            line = self._line
            class_id = self._classes.get(job_class)
            if line is None or class_id not in line.loaded or self._held:
                self.prepare(job_class)
                if self._fallback is not None:
                    return None
            elif (
                wire.refers_to_main(payload)
                and not line.main_loaded
                and describe_main() is not None
            ):
                with self._lock:
                    self._main_needed = True
                    self._line_with([job_class])
            else:
                return line

    def pending(self) -> list[Run]:
        """The runs that have not ended."""
        submissions = [*self._waiting.values(), *self._running.values()]
        runs = [submission.run for submission in submissions]
        return runs + (self._fallback.pending() if self._fallback is not None else [])

    def cancel(self, run: Run) -> bool:
        """Ask the zygote to stop the run."""
        run._cancel_requested = True
        self._request(run, wire.STOP, run.id)
        return True

    def signal(self, run: Run, number: int) -> None:
        """Send a signal to the job's process alone, if it is running."""
        self._request(run, wire.SIGNAL, run.id, int(number))  # marshal takes no enumerations

    def process(self, run: Run) -> multiprocessing.Process:
        """The face of the run's process; waits until it exists."""
        from job_scheduler.launcher.process import JobProcess

        return JobProcess(run, self)

    def close(self) -> None:
        """Take no more runs; the zygote leaves when all it accepted have ended."""
        with self._lock:
            self._closed = self._held = True
            if self._line is not None:
                self._tell(self._line, wire.CLOSE)
            if self._fallback is not None:
                self._fallback.close()

    # Sending

    def _send_submission(self, submission: _Submission, line: Line) -> None:
        submission.line = line
        try:
            line.send(submission.packet, submission.memory_file)
        except ConnectionError:
            with self._lock:
                # Buried before the run was in the books, so nobody else submits it again.
                if line.buried and submission.line is line:
                    self._submit_again([submission])
        except OSError as error:
            raise LaunchError(
                f"job {submission.run.name!r} was not accepted: its arguments could not be "
                f"handed to the launching process: {error}"
            ) from error

    def _request(self, run: Run, *request: Any) -> None:
        # In this order: a run that starts meanwhile is among the running before it leaves here.
        submission = self._waiting.get(run.id) or self._running.get(run.id)
        if submission is not None and submission.line is not None:
            self._tell(submission.line, *request)

    def _tell(self, line: Line, *request: Any) -> None:
        with contextlib.suppress(ConnectionError):  # it has died; its burial sees to the runs
            line.send(*wire.pack(*request))

    # Starting a zygote

    def _open_line(self) -> Line:
        """Start a zygote and wait until it is ready; raises ``LaunchError``."""
        line = open_line(self._settings)
        line.reader = threading.Thread(
            target=self._listen, args=(line,), name="job_scheduler reports", daemon=True
        )
        line.reader.start()
        self._line = line
        return line

    def _line_with(self, job_classes: list[type[Job]]) -> Line:
        """A line whose zygote has imported the classes; starts one, and another if it dies."""
        for tries_left in reversed(range(_IMPORT_TRIES)):
            line = self._line or self._open_line()
            try:
                for job_class in job_classes:
                    if self._classes[job_class] not in line.loaded:
                        self._load(line, job_class)
                if self._main_needed and not line.main_loaded:
                    self._load_main(line)
            except _ZygoteDiedError as error:
                self._line = None
                if not tries_left:
                    raise JobImportError(str(error)) from None
            else:
                break
        self._leave_zygote_if_threaded(line)
        return line

    def _load(self, line: Line, job_class: type[Job]) -> None:
        """Have the zygote import the class; raises ``JobImportError``."""
        class_id = self._classes[job_class]
        module, qualname, main = reference(job_class)
        limits = [
            None if n is None else int(n) for n in (job_class.max_running, job_class.memory_limit)
        ]
        self._ask(line, qualname, wire.LOAD, class_id, module, qualname, *limits, main)
        line.loaded.add(class_id)

    def _load_main(self, line: Line) -> None:
        """Have the zygote import the main module, to which some argument refers."""
        self._ask(line, "the main module", wire.LOAD_MAIN, describe_main())
        line.main_loaded = True

    def _ask(self, line: Line, what: str, *request: Any) -> None:
        """Make the zygote import something, and wait for its answer."""
        if threading.current_thread() is line.reader:
            raise JobImportError(
                f"{what} cannot be imported now: run() was called by a log handler, in the thread "
                f"that would learn of the import; run that job once before"
            )
        self._tell(line, *request)
        line.unanswered += 1
        timeout = self._settings.start_timeout
        try:
            while line.unanswered:
                reply = line.replies.get(timeout=timeout)
                line.unanswered -= 1
        except queue.Empty:
            os.kill(line.pid, signal.SIGKILL)
            raise JobImportError(
                f"importing {what} took more than {timeout:g} s in the launching process. Does "
                f"its module start a server or a loop when it is imported? That belongs under "
                f"'if __name__ == \"__main__\":'"
            ) from None
        if reply is None:
            line.replies.put(None)
            raise _ZygoteDiedError(f"the launching process ended while it imported {what}")
        (kind, *header), payload = reply
        if kind == wire.REFUSED:
            raise JobImportError(
                f"{what} cannot be imported in the launching process:\n{wire.decode(payload)}"
            )
        line.threads = header[0]

    def _leave_zygote_if_threaded(self, line: Line) -> None:
        """Start all further jobs by a clean exec if the zygote is no longer safe to fork."""
        if not line.threads or self._fallback is not None:
            return
        logger.warning(
            "an imported module has started threads, so jobs cannot be forked safely: each is "
            "started in a fresh interpreter instead, which takes longer"
        )
        from job_scheduler.launcher.spawn import SpawnLauncher

        self._fallback = SpawnLauncher(self._settings)
        self._line = None
        self._tell(line, wire.HAND_BACK)
        self._tell(line, wire.CLOSE)

    # Listening

    def _listen(self, line: Line) -> None:
        """Read reports until the zygote is gone, then see to what it has left undone."""
        poll = select.poll()
        poll.register(line.reports, select.POLLIN)
        poll.register(line.control, 0)  # only to be told that the other end is closed
        gone = False
        while not gone:
            gone = any(descriptor == line.control.fileno() for descriptor, _ in poll.poll())
            self._read_reports(line)
        with contextlib.suppress(OSError):  # the program has closed it under us
            line.reports.shutdown(socket.SHUT_RD)
        self._read_reports(line)
        line.replies.put(None)
        self._bury(line)

    def _read_reports(self, line: Line) -> None:
        while True:
            try:
                received = wire.receive(line.reports)
            except OSError:  # none is there, or the socket is not
                return
            if received is None:
                return
            try:
                self._take_report(line, *received)
            except Exception:  # a logging filter of the program's, say: the next report counts
                traceback.print_exc()

    def _take_report(self, line: Line, report: Any, memory_file: int | None) -> None:
        """Act on a report; one of a run whose ``submit`` was interrupted is of no interest."""
        kind, run_id = report[:2]
        if kind == wire.STARTED:
            self._take_start(*report[1:])
            return
        problem: OSError | None = None
        try:
            payload = wire.payload_of(report[-1], memory_file)
        except OSError as error:  # no descriptor was free: the end of the run counts all the same
            problem, payload = error, b""
        finally:
            if memory_file is not None and memory_file >= 0:
                os.close(memory_file)
        if kind in wire.OF_A_RUN and run_id not in self._running and run_id not in self._waiting:
            return
        if kind == wire.ENDED:
            self._take_end(payload, *report[1:-1])
        elif kind == wire.RESULT:
            self._running[run_id].load_result = (
                functools.partial(wire.decode, payload) if problem is None else _raiser(problem)
            )
        elif kind == wire.FAILURE:
            message, text = wire.decode(payload) if problem is None else (str(problem), "")
            self._running[run_id].failure = RunError(report[2], message, text)
        elif kind == wire.HANDED_BACK:
            self._move_to_fallback(wire.decode(payload))
        else:
            line.replies.put((report, payload))

    def _take_start(self, run_id: str, at: float, pid: int) -> None:
        submission = self._waiting.get(run_id)
        if submission is None:
            return
        submission.forget_packet()
        self._running[run_id] = submission
        self._waiting.pop(run_id, None)
        self._deaths = 0
        submission.run._started(pid, at)

    def _take_end(
        self,
        tail: bytes,
        run_id: str,
        status: int | None,
        reason: str,
        peak_kilobytes: int,
        cpu_seconds: float,
        at: float,
    ) -> None:
        submission = self._running.get(run_id) or self._waiting[run_id]
        submission.forget_packet()
        facts = ending.Facts(
            reason=reason,
            timeout=submission.timeout,
            failure=submission.failure,
            load_result=submission.load_result,
            ended_at=at,
            stderr=tail.decode(errors="replace"),
        )
        if status is not None:
            facts = facts._replace(
                exitcode=os.waitstatus_to_exitcode(status),
                peak_memory=peak_kilobytes * 1024,
                cpu_time=cpu_seconds,
            )
            if submission.run.state == RunState.PENDING:  # it ended before it could announce itself
                submission.run._started(None, at)
        ending.settle(submission.run, facts)
        self._running.pop(run_id, None)
        self._waiting.pop(run_id, None)

    def _move_to_fallback(self, run_ids: list[str]) -> None:
        """Start the runs that the zygote has handed back by a clean exec."""
        by_id = {class_id: job_class for job_class, class_id in self._classes.items()}
        for run_id in run_ids:
            submission = self._waiting.pop(run_id, None)
            if submission is None:  # submit() has just given up on it
                continue
            payload = wire.payload_of(marshal.loads(submission.packet)[-1], submission.memory_file)
            submission.forget_packet()
            job_class = by_id[submission.class_id]
            assert self._fallback is not None
            self._fallback.adopt(submission.run, job_class, payload, submission.timeout)

    # When a zygote has died

    def _bury(self, line: Line) -> None:
        """Report what ran under a dead zygote as lost, and start what waited under another."""
        with self._lock:
            if self._line is line:
                self._line = None
            with contextlib.suppress(OSError):
                line.control.shutdown(socket.SHUT_RDWR)  # from here on, sends fail
            line.buried = True
            for submission in [s for s in tuple(self._running.values()) if s.line is line]:
                del self._running[submission.run.id]
                ending.lose(
                    submission.run,
                    "the launching process died while the job ran; what became of it is unknown",
                )
            left = [s for s in tuple(self._waiting.values()) if s.line is line]
            for submission in [s for s in left if s.run._cancel_requested]:
                left.remove(submission)
                self._give_up(submission, ending.Facts(reason=wire.CANCELLED))
            if left:
                logger.warning(
                    "the launching process %d died; %d waiting runs go to a new one",
                    line.pid,
                    len(left),
                )
                self._submit_again(left)

    def _submit_again(self, submissions: list[_Submission]) -> None:
        """Give runs that no child has announced to a new zygote, before any others."""
        self._held = True
        try:
            self._submit_again_in_order(submissions)
        finally:
            self._held = self._closed

    def _submit_again_in_order(self, submissions: list[_Submission]) -> None:
        self._deaths += 1
        line: Line | None = None
        imported: list[type[Job]] = []
        for job_class, class_id in tuple(self._classes.items()):
            of_class = [each for each in submissions if each.class_id == class_id]
            if not of_class or self._fallback is not None:
                continue
            try:
                if self._deaths > _MOST_DEATHS:
                    raise LaunchError(f"the launching process died {_MOST_DEATHS} times in a row")
                line = self._line_with([*imported, job_class])
                imported.append(job_class)
            except (LaunchError, JobImportError) as error:
                for submission in of_class:
                    submissions.remove(submission)
                    facts = ending.Facts(reason=wire.NO_PROCESS, stderr=str(error))
                    self._give_up(submission, facts)
        if self._fallback is not None:
            self._move_to_fallback([submission.run.id for submission in submissions])
        elif line is not None:
            self._send_again(submissions, line)

    def _send_again(self, submissions: list[_Submission], line: Line) -> None:
        for submission in submissions:
            self._send_submission(submission, line)
            if submission.run._cancel_requested:  # its STOP may have gone to the dead zygote
                self._tell(line, wire.STOP, submission.run.id)
        if self._closed:
            self._tell(line, wire.CLOSE)

    def _give_up(self, submission: _Submission, facts: ending.Facts) -> None:
        self._waiting.pop(submission.run.id, None)
        submission.forget_packet()
        ending.settle(submission.run, facts)

    # When the program forks

    def _abandon(self) -> None:
        """In a forked child: leave the zygote and the runs to the parent, whose they are."""
        self._lock = threading.RLock()  # a thread that is not here may have held it
        self._line = None
        self._fallback = None
        self._closed = self._held = True
        for submission in (*self._waiting.values(), *self._running.values()):
            submission.forget_packet()
        self._waiting.clear()
        self._running.clear()


def _raiser(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


def _most_memory_files() -> int:
    """The highest descriptor for large arguments: the zygote has the same limit, and needs room."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4


_launchers: weakref.WeakSet[ZygoteLauncher] = weakref.WeakSet()
# Pickled references to classes of a script name it so when they come from a child.
sys.modules.setdefault("__mp_main__", sys.modules["__main__"])


def _abandon_all() -> None:
    for launcher in tuple(_launchers):
        launcher._abandon()


os.register_at_fork(after_in_child=_abandon_all)
