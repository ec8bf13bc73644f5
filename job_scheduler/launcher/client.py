"""The program's side of the zygote: start it, feed it, listen to it, replace it if it dies.

``submit`` makes one send on a socket and takes no lock. A thread of ours reads the reports; it
runs no code of the program's. Nothing of the program's own is touched: no signal handler, no
child of its to wait for (the zygote is not its child), no event loop.

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

from job_scheduler.errors import JobImportError, LaunchError, QueueFullError, ShutdownError
from job_scheduler.launcher import ending, wire
from job_scheduler.launcher.aside import do_aside
from job_scheduler.launcher.base import Settings, encode_arguments, reference, wait_at_exit
from job_scheduler.launcher.books import Books, Submission
from job_scheduler.launcher.boot import start_zygote
from job_scheduler.launcher.line import Line, ZygoteDiedError
from job_scheduler.launcher.main_module import describe_main
from job_scheduler.log import tell
from job_scheduler.run import Run

if TYPE_CHECKING:
    import multiprocessing
    from collections.abc import Iterable

    from job_scheduler.job import Job
    from job_scheduler.launcher.spawn import SpawnLauncher


_MOST_DEATHS: Final = 10
"""Zygotes that may die one after the other, no job having started, before runs are given up."""

_MOST_TRIES: Final = 3
"""Processes that may be killed before they announce a run, before that counts as its end."""

_IMPORT_TRIES: Final = 3
"""Zygotes that may die while they import one class before the class is blamed."""

_RESERVED_DESCRIPTORS: Final = 32
"""Descriptors that a zygote needs besides one per running job and one per large argument."""


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
        self._books = Books()
        self._fallback: SpawnLauncher | None = None
        prefix = os.urandom(6).hex()
        self._ids = map(f"{prefix}-{{}}".format, itertools.count(1))
        _launchers.add(self)
        wait_at_exit(self, settings)

    def __repr__(self) -> str:
        books = self._books
        return f"<ZygoteLauncher: {len(books.running)} running, {len(books.waiting)} waiting>"

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
            self._have_imported([job_class])

    def submit(
        self,
        name: str,
        job_class: type[Job],
        arguments: dict[str, Any],
        timeout: float | None,
        run_id: str | None = None,
    ) -> Run:
        """Accept a run: one send to the zygote, once it runs and knows the class."""
        payload = encode_arguments(name, arguments)
        line = self._ready_line(job_class, payload)
        if line is None:
            assert self._fallback is not None
            return self._fallback.submit(name, job_class, arguments, timeout, run_id)
        books = self._books
        if len(books.waiting) >= self._settings.max_waiting:
            raise QueueFullError(
                f"{len(books.waiting):,} runs wait already, as many as max_waiting allows: "
                f"job {name!r} was not accepted"
            )
        run = Run(run_id or next(self._ids), name, self)
        class_id = self._classes[job_class]
        packet, attachment = wire.pack(wire.RUN, run.id, class_id, name, timeout, payload=payload)
        if attachment is not None and len(books.large) >= self._most_large():
            raise QueueFullError(
                f"so many large arguments wait that the launching process runs out of file "
                f"descriptors (RLIMIT_NOFILE): job {name!r} was not accepted"
            )
        submission = Submission(run, job_class, timeout, packet, attachment)
        try:
            books.enter(submission)
            self._send(submission, line)
        except BaseException:
            books.withdraw(submission)
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
                not line.main_loaded
                and wire.refers_to_main(payload)
                and describe_main() is not None
            ):
                with self._lock:
                    self._main_needed = True
                    self._have_imported([job_class])
            else:
                return line

    def _most_large(self) -> int:
        """How many large arguments may wait: each holds a descriptor in the zygote."""
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        running = min(self._settings.max_processes, limit // 2)
        return max(1, limit - running - _RESERVED_DESCRIPTORS)

    def pending(self) -> list[Run]:
        """The runs that have not ended."""
        return self._books.runs() + (self._fallback.pending() if self._fallback else [])

    def cancel(self, run: Run) -> bool:
        """Ask the zygote to stop the run."""
        run._cancel_requested = True
        self._request(run, wire.STOP, run.id)
        return True

    def signal(self, run: Run, number: int) -> None:
        """Send a signal to the job's process alone, if it is running."""
        submission = self._books.running.get(run.id)
        if submission is not None:
            submission.sent_signal = number
        self._request(run, wire.SIGNAL, run.id, int(number))  # marshal takes no enumerations

    def _request(self, run: Run, *request: Any) -> None:
        submission = self._books.find(run.id)
        line = submission.line if submission is not None else None
        if line is not None:
            line.tell(*request)

    def process(self, run: Run) -> multiprocessing.Process:
        """The face of the run's process; waits until it exists."""
        from job_scheduler.launcher.process import JobProcess

        return JobProcess(run)

    def close(self) -> None:
        """Take no more runs; the zygote leaves when all it accepted have ended."""
        with self._lock:
            self._closed = self._held = True
            if self._line is not None:
                _tell_to_close(self._line)
            if self._fallback is not None:
                self._fallback.close()

    def _send(self, submission: Submission, line: Line) -> None:
        submission.line = line
        try:
            line.send(submission.packet, submission.attachment)
            if submission.cancelled():  # meanwhile: that request may have gone before this one
                line.tell(wire.STOP, submission.run.id)
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

    # Starting a zygote and having it import, always under the lock

    def _open_line(self) -> Line:
        """Start a zygote and wait until it is ready; raises ``LaunchError``."""
        line = start_zygote(self._settings)
        if self._line is not None:  # a signal handler has called run() meanwhile
            line.close()
            return self._line
        line.reader = threading.Thread(
            target=self._listen, args=(line,), name="job_scheduler reports", daemon=True
        )
        try:
            line.reader.start()
        except RuntimeError as error:
            line.close()
            raise LaunchError(f"no thread can be started to listen to the jobs: {error}") from error
        if line.threads:
            self._leave_threaded_zygote(line)
        else:
            self._line = line
        return line

    def _have_imported(self, job_classes: list[type[Job]]) -> None:
        """Have a zygote import the classes; starts one if need be, and another if it dies."""
        what = ""
        for _ in range(_IMPORT_TRIES):
            line = self._line
            try:
                for job_class in job_classes:
                    if self._zygote_is_left:
                        return
                    line = self._line or self._open_line()
                    what = job_class.__qualname__
                    if self._classes[job_class] not in line.loaded:
                        self._load(line, job_class)
                if self._main_needed and line is not None and not line.main_loaded:
                    what = "the main module"
                    self._ask_to_import(line, what, wire.LOAD_MAIN, describe_main())
                    line.main_loaded = True
                return
            except ZygoteDiedError:
                self._line = None
        raise JobImportError(f"the launching process ended while it imported {what}")

    def _load(self, line: Line, job_class: type[Job]) -> None:
        """Have the zygote import the class; raises ``JobImportError``."""
        class_id = self._classes[job_class]
        module, qualname, main = reference(job_class)
        limits = [
            None if n is None else int(n) for n in (job_class.max_running, job_class.memory_limit)
        ]
        content = (class_id, module, qualname, *limits, main)
        self._ask_to_import(line, qualname, wire.LOAD, *content)
        line.loaded.add(class_id)

    def _ask_to_import(self, line: Line, what: str, *request: Any) -> None:
        timeout = self._settings.start_timeout
        try:
            (kind, *_), payload = line.ask(timeout, *request)
        except queue.Empty:
            line.kill()
            raise JobImportError(
                f"importing {what} took more than {timeout:g} s in the launching process. Does "
                f"its module start a server or a loop when it is imported? That belongs under "
                f"'if __name__ == \"__main__\":'"
            ) from None
        if kind == wire.REFUSED:
            raise JobImportError(
                f"{what} cannot be imported in the launching process:\n{wire.decode(payload)}"
            )

    # Going on without a zygote

    @property
    def _zygote_is_left(self) -> bool:
        return self._fallback is not None

    def _leave_threaded_zygote(self, line: Line) -> None:
        """Start all further jobs by a clean exec: the zygote is no longer safe to fork.

        Called in the thread that listens to it, which no signal handler interrupts. New runs
        wait until those that the zygote hands back have gone before them.
        """
        from job_scheduler.launcher.spawn import SpawnLauncher

        if line.left:
            return
        line.left = True
        if self._fallback is None:
            do_aside(_warn_of_threads)
            self._fallback = SpawnLauncher(self._settings, held=True)
        self._line = None
        try:
            line.tell(wire.HAND_BACK)
            line.tell(wire.CLOSE)
        except (LaunchError, OSError):
            line.kill()  # its burial hands its runs over

    def _take_handed_back(self, line: Line, run_ids: list[str], last: bool) -> None:
        """Start runs that no zygote will start by a clean exec; count those that it has started."""
        self._move_to_fallback(run_ids)
        if last and self._fallback is not None:
            for submission in self._books.on(line):
                submission.take_place(self._fallback)
            self._fallback.release()

    def _move_to_fallback(self, run_ids: Iterable[str]) -> None:
        assert self._fallback is not None
        for run_id in run_ids:
            submission = self._books.waiting.get(run_id)
            if submission is None:  # submit() has just given up on it
                continue
            submission.leave_place()
            if submission.cancelled():
                self._end_as_cancelled(submission)
                continue
            payload = submission.attachment or marshal.loads(submission.packet)[-1]
            run, job_class, timeout = submission.run, submission.job_class, submission.timeout
            try:
                self._fallback.adopt(run, job_class, payload, timeout)
            except Exception as error:
                self._books.end(submission, ending.lost(f"it could not be started: {error}"))
                continue
            self._books.leave(submission)
            if run._cancel_requested:
                self._fallback.cancel(run)

    def _end_as_cancelled(self, submission: Submission) -> None:
        self._books.end(submission, ending.cancelled())

    # Listening

    def _listen(self, line: Line) -> None:
        """Read reports until the zygote is gone, then see to what it has left undone."""
        try:
            self._read_until_death(line)
        finally:
            line.kill()
            line.take_death()
            self._bury(line)

    def _read_until_death(self, line: Line) -> None:
        poll = select.poll()
        poll.register(line.reports, select.POLLIN)
        poll.register(line.control, 0)  # only to be told that the other end is closed
        if line.pidfd >= 0:  # what the zygote's imports have forked may keep that end open
            poll.register(line.pidfd, select.POLLIN)
        gone = False
        while not gone:
            gone = any(descriptor != line.reports.fileno() for descriptor, _ in poll.poll())
            self._read_reports(line)
        with contextlib.suppress(OSError):  # the program has closed it under us
            line.reports.shutdown(socket.SHUT_RD)
        self._read_reports(line)

    def _read_reports(self, line: Line) -> None:
        while True:
            try:
                received = wire.receive(line.reports)
            except OSError:  # none is there, or the socket is not
                return
            except Exception:  # a job has written on a socket that it did not know
                traceback.print_exc()
                continue
            if received is None:
                return
            try:
                self._take_report(line, *received)
            except Exception:  # a fault in one must not cost all that follow
                traceback.print_exc()

    def _take_report(self, line: Line, report: Any, memory_file: int | None) -> None:
        kind = report[0]
        if kind == wire.STARTED:
            self._deaths = 0
            self._books.take_start(*report[1:])
            return
        problem: OSError | None = None
        try:
            payload = wire.take_payload(report[-1], memory_file)
        except OSError as error:  # no descriptor was free: the end of the run counts all the same
            problem, payload = error, b""
        if kind == wire.ENDED:
            if not self._try_again(line, *report[1:4]):
                self._books.take_end(payload, *report[1:-1])
        elif kind == wire.RESULT:
            self._books.take_result(report[1], payload, problem)
        elif kind == wire.FAILURE:
            self._books.take_failure(report[1], report[2], payload, problem)
        elif kind == wire.HANDED_BACK:
            self._take_handed_back(line, wire.decode(payload), last=report[1])
        else:
            if kind == wire.LOADED and report[2]:
                self._leave_threaded_zygote(line)
            line.take_answer(report[1], (report[:-1], payload))

    def _try_again(self, line: Line, run_id: str, status: int | None, reason: str) -> bool:
        """Send a run again whose process was killed before it could begin; not for ever."""
        submission = self._books.never_began(run_id, status, reason)
        if submission is None or submission.tries >= _MOST_TRIES or submission.cancelled():
            return False
        submission.tries += 1
        try:
            self._send(submission, line)
        except Exception as error:
            self._give_up(submission, error)
        return True

    # When a zygote has died

    def _bury(self, line: Line) -> None:
        """End what ran under a dead zygote, and start what waited under another."""
        with self._lock:
            if self._line is line:
                self._line = None
            with contextlib.suppress(OSError):
                line.control.shutdown(socket.SHUT_RDWR)  # from here on, sends fail
            line.buried = True
            for submission in self._books.running_on(line):
                _kill_group(submission.run.pid)
                message = "the launching process died while the job ran, so the job was killed"
                self._books.end(submission, ending.lost(message))
            left = []
            for submission in self._books.waiting_on(line):
                if submission.cancelled():
                    self._end_as_cancelled(submission)
                else:
                    left.append(submission)
            if left:
                text = "the launching process %d died; %d waiting runs go to a new one"
                do_aside(functools.partial(tell, logging.WARNING, text, line.pid, len(left)))
                self._submit_again(left)
            if self._fallback is not None:  # it may have died before it handed anything back
                self._fallback.release()

    def _submit_again(self, submissions: list[Submission]) -> None:
        """Give runs that no child has announced to a new zygote, before any others."""
        self._held = True
        self._deaths += 1
        try:
            left = self._those_with_a_line(submissions)
            if self._fallback is not None:
                self._move_to_fallback([submission.run.id for submission in left])
                return
            for submission in left:
                self._send_again(submission)
            if self._closed and self._line is not None:
                _tell_to_close(self._line)
        finally:
            self._held = self._closed

    def _those_with_a_line(self, submissions: list[Submission]) -> list[Submission]:
        """Start a zygote with the classes of these runs; gives up those whose class it lacks."""
        left = submissions
        while left and not self._zygote_is_left:
            imported: list[type[Job]] = []
            try:
                for job_class in dict.fromkeys(submission.job_class for submission in left):
                    imported.append(job_class)
                    if self._deaths > _MOST_DEATHS:
                        raise LaunchError(f"the launching process died {self._deaths} times")
                    self._have_imported(imported)
                break
            except Exception as error:  # the last one's fault; once more without it
                for submission in left:
                    if submission.job_class is imported[-1]:
                        self._give_up(submission, error)
                left = [each for each in left if each.job_class is not imported[-1]]
        return left

    def _send_again(self, submission: Submission) -> None:
        line = self._line
        assert line is not None
        if submission.cancelled():
            self._end_as_cancelled(submission)
            return
        try:
            self._send(submission, line)
        except Exception as error:
            self._give_up(submission, error)

    def _give_up(self, submission: Submission, reason: Exception) -> None:
        self._books.end(submission, ending.no_process(str(reason)))

    # When the program forks

    def _abandon(self) -> None:
        """In a forked child: leave the zygote and the runs to the parent, whose they are."""
        self._lock = threading.RLock()  # a thread that is not here may have held it
        self._line = None
        self._fallback = None
        self._closed = self._held = True
        self._books.forget_all()


def _tell_to_close(line: Line) -> None:
    with contextlib.suppress(LaunchError):  # it takes no requests; it leaves with this program
        line.tell(wire.CLOSE)


def _kill_group(pid: int | None) -> None:
    """End a job that nobody watches any more: it counts as failed, so it must not go on."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if pid is not None and os.getsid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)


def _warn_of_threads() -> None:
    tell(
        logging.WARNING,
        "an imported module has started threads, so jobs cannot be forked safely: each is "
        "started in a fresh interpreter instead, which takes longer",
    )


_launchers: weakref.WeakSet[ZygoteLauncher] = weakref.WeakSet()
# Pickled references to classes of a script name it so when they come from a child.
sys.modules.setdefault("__mp_main__", sys.modules["__main__"])


def _abandon_all() -> None:
    for launcher in tuple(_launchers):
        launcher._abandon()


os.register_at_fork(after_in_child=_abandon_all)
