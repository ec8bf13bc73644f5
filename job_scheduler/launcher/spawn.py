"""The fallback: each job in a fresh interpreter, by ``multiprocessing``'s spawn.

Used where there is no fork, and where imported modules have started threads, which a forked
child would find dead and perhaps holding locks. A job takes tens of milliseconds to start and
imports its modules anew. A thread of this program watches each running job, so if the program
is killed, running jobs go on but waiting ones are lost; and a host that may not have children
(a daemonic process) cannot use it. Written for macOS and Windows too, and untested there; on
Windows stderr is not captured, and a stopped job is ended at once, without its descendants.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing import connection
from multiprocessing import process as multiprocessing_process
from typing import TYPE_CHECKING, Any

from job_scheduler.errors import LaunchError, QueueFullError, ShutdownError
from job_scheduler.launcher import ending, spawned, wire
from job_scheduler.launcher.aside import do_aside
from job_scheduler.launcher.base import Settings, encode_arguments, reference, wait_at_exit
from job_scheduler.launcher.post_mortem import OutOfMemoryWatch
from job_scheduler.launcher.queue import Assignment, JobClass, Queue, Waiting
from job_scheduler.launcher.stderr import READ_SIZE, Tail
from job_scheduler.run import Ending, Run, RunError

if TYPE_CHECKING:
    from job_scheduler.job import Job

_POSIX = os.name == "posix"


class _Watched:
    """One running process, as its watching thread and those who stop it see it."""

    def __init__(self, run: Run, process: Any, reports: Any, timeout: float | None) -> None:
        self.run = run
        self.process = process
        self.sentinel = _sentinel(process)
        self.reports = reports
        self.timeout = timeout
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.reason = ""
        self.lock = threading.Lock()
        self.reaped = False
        self.tail = Tail()
        self.facts = ending.Facts(timeout=timeout)

    def stop(self, reason: str, grace: float) -> None:
        """TERM now; the watching thread kills when the grace is over."""
        with self.lock:
            if not self.reason:
                self.reason = reason
                self.deadline = time.monotonic() + grace
                self._signal_group(signal.SIGTERM)

    def kill_group(self) -> None:
        with self.lock:
            self.deadline = None
            self._signal_group(signal.SIGKILL if _POSIX else signal.SIGTERM)

    def _signal_group(self, number: int) -> None:
        if self.reaped:
            return
        if not _POSIX:
            self.process.terminate()
            return
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            os.kill(self.process.pid, number)
        except PermissionError:
            pass  # the job has become another user, which only root may signal

    def signal(self, number: int) -> None:
        with self.lock, contextlib.suppress(PermissionError):
            if not self.reaped:
                self.facts = self.facts._replace(sent_signal=number)
                os.kill(self.process.pid, number)

    def reap(self) -> int:
        """Take the exit code; a stopped job's group is killed first, while its id is taken."""
        if self.reason:
            self.kill_group()
        with self.lock:
            self.process.join()
            self.reaped = True
            code: int = self.process.exitcode
            return code

    def close(self) -> None:
        self.reports.close()
        if self.sentinel != self.process.sentinel:
            os.close(self.sentinel)


def _sentinel(process: Any) -> int:
    """What becomes readable when the process ends.

    The one of multiprocessing is a pipe, which also waits for what the process leaves behind.
    """
    try:
        return os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        sentinel: int = process.sentinel
        return sentinel


class SpawnLauncher:
    """Starts a fresh interpreter per job; see :class:`job_scheduler.launcher.base.Launcher`."""

    def __init__(self, settings: Settings, *, held: bool = False) -> None:
        self._settings = settings
        self._released = threading.Event()
        if not held:
            self._released.set()
        self._lock = threading.RLock()
        self._closed = False
        self._queue = Queue()
        self._classes: dict[type[Job], JobClass] = {}
        self._class_of: dict[JobClass, type[Job]] = {}
        self._runs: dict[str, Run] = {}
        self._watched: dict[str, _Watched] = {}
        self._threads = 0
        self._memory = OutOfMemoryWatch()
        self._outside = 0  # processes of a zygote that this launcher has taken over from
        prefix = os.urandom(6).hex()
        self._ids = map(f"{prefix}-{{}}".format, itertools.count(1))
        wait_at_exit(self, settings)

    def prepare(self, job_class: type[Job]) -> None:
        """Look whether a fresh interpreter can find the class; it is imported only there."""
        if self._closed:
            raise ShutdownError("the scheduler was shut down and takes no more work")
        reference(job_class)

    def release(self) -> None:
        """Start runs and let new ones come, after what another launcher hands over."""
        with self._lock:
            self._released.set()
            try:
                for _ in range(len(self._runs)):
                    self._add_thread()
            except RuntimeError as error:
                self._give_up_ready_ones(error)

    def _known(self, job_class: type[Job]) -> JobClass:
        known = self._classes.get(job_class)
        if known is None:
            class_id = len(self._classes) + 1
            known = JobClass(class_id, job_class, job_class.max_running, job_class.memory_limit)
            self._classes[job_class] = known
            self._class_of[known] = job_class
            self._queue.add_class(known)
        return known

    def submit(
        self,
        name: str,
        job_class: type[Job],
        arguments: dict[str, Any],
        timeout: float | None,
        run_id: str | None = None,
    ) -> Run:
        """Accept a run; a thread that has nothing to watch starts it, or it waits for one."""
        self.prepare(job_class)
        payload = encode_arguments(name, arguments)
        if not self._released.wait(self._settings.start_timeout):
            raise LaunchError("the launching process does not hand back its waiting runs")
        if len(self._runs) - len(self._watched) >= self._settings.max_waiting:
            raise QueueFullError(f"too many runs wait already: job {name!r} was not accepted")
        run = Run(run_id or next(self._ids), name, self)
        self.adopt(run, job_class, payload, timeout)
        return run

    def adopt(self, run: Run, job_class: type[Job], payload: bytes, timeout: float | None) -> None:
        """Take over a run that another launcher had accepted; raises ``LaunchError``."""
        run._owner = self
        with self._lock:
            known = self._known(job_class)
            assignment = Assignment(run.id, run.name, job_class, known.memory_limit, payload, None)
            self._runs[run.id] = run
            self._queue.add(Waiting(assignment, known, timeout))
            try:
                self._add_thread()
            except RuntimeError as error:
                if not self._threads and not self._outside:  # else the next that ends sees to it
                    self._queue.take(run.id)
                    del self._runs[run.id]
                    raise LaunchError(
                        f"job {run.name!r} was not accepted: no thread can be started to watch "
                        f"it: {error}"
                    ) from error

    def occupy(self, job_class: type[Job]) -> None:
        """Count a process that another launcher has started."""
        with self._lock:
            self._outside += 1
            self._queue.one_started(self._known(job_class))

    def vacate(self, job_class: type[Job]) -> None:
        """That process has ended."""
        with self._lock:
            self._outside -= 1
            self._queue.one_ended(self._classes[job_class])
            try:
                self._add_thread()
            except RuntimeError as error:
                self._give_up_ready_ones(error)

    def pending(self) -> list[Run]:
        """The runs that have not ended."""
        return list(self._runs.values())

    def cancel(self, run: Run) -> bool:
        """Take the run from the queue, or stop its process."""
        with self._lock:
            waiting = self._queue.take(run.id)
            watched = self._watched.get(run.id)
            run._cancel_requested = True
        if waiting is not None:
            ending.settle(run, ending.cancelled())
            del self._runs[run.id]
        elif watched is not None:
            watched.stop(wire.CANCELLED, self._settings.grace)
        return True

    def signal(self, run: Run, number: int) -> None:
        """Send a signal to the job's process alone, if it is running."""
        watched = self._watched.get(run.id)
        if watched is not None:
            watched.signal(number)

    def process(self, run: Run) -> multiprocessing.Process:
        """The face of the run's process; waits until it exists."""
        from job_scheduler.launcher.process import JobProcess

        return JobProcess(run)

    def close(self) -> None:
        """Take no more runs."""
        self._closed = True

    # Threads that start and watch

    def _add_thread(self) -> None:
        """Start a thread if a run may start; raises ``RuntimeError`` if the system has none."""
        with self._lock:
            running = self._threads + self._outside
            may_start = self._released.is_set() and running < self._settings.max_processes
            if may_start and self._queue.ready:
                threading.Thread(
                    target=self._work_off, name="job_scheduler spawn", daemon=True
                ).start()
                self._threads += 1

    def _give_up_ready_ones(self, error: RuntimeError) -> None:
        """Fail the runs that could start, if there is no thread and none to be had for them."""
        while self._queue.ready and not self._threads and not self._outside:
            run = self._runs[self._queue.next().assignment.run_id]
            run._ended(ending.no_process(str(error)))
            del self._runs[run.id]
            do_aside(functools.partial(ending.log_failure, run))

    def _work_off(self) -> None:
        """Start and watch one run after the other until none may start."""
        while True:
            with self._lock:
                if not self._queue.ready:
                    self._threads -= 1
                    return
                waiting = self._queue.next()
                self._queue.one_started(waiting.of)
            try:
                self._run(waiting)
            except BaseException:  # whatever a log handler raises, the others count too
                traceback.print_exc()
            with self._lock:
                self._queue.one_ended(waiting.of)
                with contextlib.suppress(RuntimeError):  # this thread goes on by itself
                    self._add_thread()

    def _run(self, waiting: Waiting) -> None:
        run = self._runs[waiting.assignment.run_id]
        try:
            how = self._end_of(run, waiting)
        except Exception as error:
            how = ending.lost(f"its process could not be watched: {error!r}")
        run._ended(how)
        self._watched.pop(run.id, None)
        del self._runs[run.id]
        ending.log_failure(run)

    def _end_of(self, run: Run, waiting: Waiting) -> Ending:
        if run._cancel_requested:
            return ending.cancelled()
        try:
            watched, stderr = self._start(run, waiting)
        except Exception as error:
            return ending.no_process(f"{type(error).__name__}: {error}")
        try:
            return ending.conclude(self._watch(watched, stderr))
        except BaseException:
            watched.kill_group()
            watched.reap()
            watched.close()
            raise

    def _start(self, run: Run, waiting: Waiting) -> tuple[_Watched, Any]:
        context = multiprocessing.get_context("spawn")
        reports, its_reports = context.Pipe(duplex=False)
        stderr, its_stderr = context.Pipe(duplex=False) if _POSIX else (None, None)
        module, qualname, _ = reference(self._class_of[waiting.of])
        process = context.Process(
            target=spawned.live,
            name=run.name,
            args=(
                module,
                qualname,
                waiting.of.memory_limit,
                self._settings.initializer,
                self._settings.captured,
                waiting.assignment.payload,
                its_reports,
                its_stderr,
            ),
        )
        process.start()
        # Ours to wait for: multiprocessing would reap it before a group is killed.
        multiprocessing_process._children.discard(process)  # type: ignore[attr-defined]
        its_reports.close()
        if its_stderr is not None:
            its_stderr.close()
        watched = _Watched(run, process, reports, waiting.timeout)
        with self._lock:
            self._watched[run.id] = watched
        if run._cancel_requested:
            watched.stop(wire.CANCELLED, self._settings.grace)
        return watched, stderr

    def _watch(self, watched: _Watched, stderr: Any) -> ending.Facts:
        """Read what the process says until it has ended; enforce its deadline."""
        sources = [watched.sentinel, watched.reports]
        if stderr is not None:
            sources.append(stderr)
        while True:
            deadline = watched.deadline
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            # A stop by another thread sets a new deadline: look again now and then.
            ready = connection.wait(sources, min(left, 0.2) if left is not None else 0.2)
            for source in (watched.reports, stderr):
                if source in ready and not self._read(watched, source, stderr):
                    sources.remove(source)
            if watched.sentinel in ready:
                break
            if watched.deadline is not None and time.monotonic() >= watched.deadline:
                self._enforce(watched)
        code = watched.reap()
        for source in (watched.reports, stderr):
            while source in sources and connection.wait([source], 0):
                if not self._read(watched, source, stderr):
                    break
        watched.close()
        if stderr is not None:
            stderr.close()
        if watched.run.pid is None:
            watched.run._started(watched.process.pid, time.time())
        return watched.facts._replace(
            exitcode=code,
            out_of_memory=ending.is_unexplained_kill(code, watched.reason, watched.facts)
            and self._memory.has_struck(),
            reason=watched.reason,
            stderr=watched.tail.bytes().decode(errors="replace"),
        )

    def _enforce(self, watched: _Watched) -> None:
        if watched.reason:
            watched.kill_group()
        else:
            watched.stop(wire.TIMEOUT, self._settings.grace)

    def _read(self, watched: _Watched, source: Any, stderr: Any) -> bool:
        """Take what has come; False at its end."""
        if source is stderr:
            data = os.read(stderr.fileno(), READ_SIZE)
            watched.tail.add(data)
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sys.stderr.buffer.write(data)
                sys.stderr.flush()
            return bool(data)
        try:
            report = wire.decode(source.recv_bytes())
        except (EOFError, OSError):
            return False
        self._take_report(watched, *report)
        return True

    def _take_report(self, watched: _Watched, kind: int, *content: Any) -> None:
        if kind == wire.STARTED:
            watched.run._started(*content)
            return
        *outcome, peak, cpu = content
        facts = watched.facts._replace(peak_memory=peak * 1024 or None, cpu_time=cpu)
        if kind == wire.FAILURE:
            facts = facts._replace(failure=RunError(*outcome))
        elif outcome[0]:
            facts = facts._replace(load_result=functools.partial(wire.decode, outcome[0]))
        watched.facts = facts
