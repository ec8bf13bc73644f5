"""The zygote: a small single-threaded process that forks one child per job.

It holds the one queue of waiting runs, so this is where they are ordered, limited, cancelled
and counted. One loop polls for requests, children's ends, their stderr and deadlines; nothing
in it blocks. It ends when no run can come any more and all it accepted have ended.
"""

from __future__ import annotations

import _socket
import _thread
import gc
import os
import select
import sys
import time

from job_scheduler.job import Job
from job_scheduler.launcher import child, main_module, wire
from job_scheduler.launcher.naming import NAMING
from job_scheduler.launcher.outbox import RETRY_SECONDS, Outbox
from job_scheduler.launcher.queue import Assignment, JobClass, Queue, Waiting
from job_scheduler.launcher.stderr import READ_SIZE, Sink, Tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from functools import partial
    from typing import Any, NoReturn
else:
    import _signal
    from _functools import partial

_REQUESTS_PER_TURN = 512
"""Requests taken before the children are looked at again."""

_STARTS_PER_TURN = 8
"""Jobs started before requests are looked at again."""

_LONGEST_WAIT = 3600.0
"""Seconds after which the loop looks up in any case; poll takes no more than 24 days."""

_FORK_PATIENCE = 10.0
"""Seconds for which it may refuse, with no child running, before the run fails."""

_PACKAGE = os.path.dirname(os.path.dirname(__file__))


class Child:
    """A running process."""

    __slots__ = ("deadline", "of", "pid", "reason", "run_id", "stderr", "stderr_open", "tail")

    def __init__(self, pid: int, run_id: str, of: JobClass, stderr: int) -> None:
        self.pid = pid
        self.run_id = run_id
        self.of = of
        self.deadline = 0.0
        """When to go on, for those that are timed: to TERM while ``reason`` is empty, to KILL
        after."""
        self.reason = ""
        """Why it is being stopped; empty while it is not."""
        self.stderr = stderr
        self.stderr_open = True
        self.tail: Tail | None = None


def main(control: _socket.socket, settings: dict[str, Any], reports: int, caller: int) -> NoReturn:
    """Prepare this process as a zygote, serve until there is nothing left to do, and leave.

    It leaves without an interpreter's exit: what imported modules have registered for that is
    the program's business, and the program does it itself.

    ``reports`` is a descriptor of the socket to the program, ``caller`` a pidfd of the program
    or -1 where the kernel has none.
    """
    gc.disable()
    NAMING.install()
    _reset_ignored_signals()
    # TERM and its like end the program and the jobs; the zygote is there to see and report it.
    _signal.pthread_sigmask(_signal.SIG_SETMASK, (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP))
    zygote = Zygote(control, _socket.socket(fileno=reports), caller, settings)
    code = 1
    try:
        if zygote.prepare(settings["initializer"]):
            zygote.serve()
            code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        child.flush()
        os._exit(code)


class Zygote:
    """The queue, the children, and the loop over both."""

    def __init__(
        self,
        control: _socket.socket,
        reports: _socket.socket,
        caller: int,
        settings: dict[str, Any],
    ) -> None:
        self._control = control
        self._control_descriptor = control.fileno()
        self._reports = reports
        self._caller = caller
        self._max_processes: int = settings["max_processes"]
        self._grace: float = settings["grace"]
        self._finish_orphans: bool = settings["on_parent_exit"] == "finish"
        self._queue = Queue()
        self._children: dict[int, Child] = {}  # by pid
        self._by_run: dict[str, Child] = {}
        self._by_stderr: dict[int, Child] = {}
        self._timed: dict[int, Child] = {}  # by pid: those with a deadline
        self._stopping = 0  # how many are being stopped
        self._outbox = Outbox(reports)
        self._sink = Sink(2)
        self._retired = False  # not to fork any more: runs are handed back
        self._closing = False  # the program said that no run will come
        self._orphaned = False  # the program is gone
        self._refused_since: float | None = None
        self._next_fork: float | None = None
        self._descriptor_limits: tuple[int, int] | None = None  # the old ones, once raised
        self._pid = os.getpid()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._buffers = [memoryview(bytearray(READ_SIZE))]  # a list, as readv wants it
        self._poll = select.poll()
        self._watched: set[int] = set()
        own = (control.fileno(), self._wake_read, self._wake_write, caller, self._sink.own)
        self._own_descriptors = [descriptor for descriptor in own if descriptor >= 0]

    def prepare(self, initializer: str | None) -> bool:
        """Run the initializer and report; False if it failed."""
        self._outbox.add(wire.BOOTED, self._pid)
        self._outbox.flush()
        try:
            if initializer is not None:
                main_module.call_by_name(initializer)
        except BaseException as error:
            self._outbox.add(wire.BROKEN, payload=wire.encode(_explain(error)))
            self._outbox.finish()
            return False
        _freeze()
        self._outbox.add(wire.READY, _thread._count())
        self._outbox.flush()
        return True

    # The loop

    def serve(self) -> None:
        """Loop until no run can come and every accepted one has ended."""
        self._catch_sigchld()
        for descriptor in (self._control_descriptor, self._wake_read, self._caller):
            self._watch(descriptor, select.POLLIN, descriptor >= 0)
        while not (self._closing or self._orphaned) or self._queue.ready or self._children:
            self._turn()
        self._sink.write(self._outbox.finish().encode())
        self._sink.finish()

    def _turn(self) -> None:
        """Take what has happened, then start a few jobs.

        Whatever is called here between two forks costs a copied page or two, at 2 µs each: so
        what has nothing to do is not called.
        """
        more_requests = False
        for descriptor, event in self._poll.poll(self._milliseconds_to_wait()):
            if descriptor in self._by_stderr:
                self._read_stderr(self._by_stderr[descriptor], event)
            elif descriptor == self._wake_read:
                os.readv(descriptor, self._buffers)
                self._reap()
            elif descriptor == self._control_descriptor:
                more_requests = self._receive()
            elif descriptor == self._caller:
                self._lose_caller()
        if self._timed:
            self._enforce_deadlines()
        if self._queue.ready and len(self._children) < self._max_processes:
            # A burst is taken in first: meanwhile its sender waits, and the jobs do not.
            self._start_some(1 if more_requests else _STARTS_PER_TURN)
        if self._outbox.waiting:
            self._flush_outbox()
        if self._sink.pending or self._sink.watched:
            self._yield_to_full_sink()

    def _milliseconds_to_wait(self) -> int | None:
        may_start = bool(self._queue.ready) and len(self._children) < self._max_processes
        if may_start and self._next_fork is None:
            return 0
        if not may_start and not self._timed and not self._outbox.starved:
            return None
        deadlines = [running.deadline for running in self._timed.values()]
        if may_start and self._next_fork is not None:
            deadlines.append(self._next_fork)
        if self._outbox.starved:
            deadlines.append(time.monotonic() + RETRY_SECONDS)
        seconds = min(min(deadlines) - time.monotonic(), _LONGEST_WAIT)
        return max(0, int(seconds * 1000) + 1)

    def _watch(self, descriptor: int, event: int, wanted: bool) -> None:
        if wanted and descriptor not in self._watched:
            self._poll.register(descriptor, event)
            self._watched.add(descriptor)
        elif not wanted and descriptor in self._watched:
            self._poll.unregister(descriptor)
            self._watched.remove(descriptor)

    # Requests

    def _receive(self) -> bool:
        """Obey some of the requests that have arrived; whether there may be more."""
        for _ in range(_REQUESTS_PER_TURN):
            try:
                received = wire.receive(self._control)
            except BlockingIOError:
                return False
            except ConnectionError:
                received = None
            if received is None:
                self._lose_caller()
                return False
            self._obey(*received)
        return True

    def _obey(self, request: Any, memory_file: int | None) -> None:
        kind = request[0]
        if kind == wire.RUN:
            self._accept(memory_file, *request[1:])
        elif kind == wire.STOP:
            self._cancel(request[1])
        elif kind == wire.SIGNAL:
            self._signal(request[1], request[2])
        elif kind == wire.LOAD:
            self._load(*request[1:-1])
        elif kind == wire.LOAD_MAIN:
            self._load_main(request[1], request[2])
        elif kind == wire.HAND_BACK:
            self._hand_back(request[1])
        elif kind == wire.CLOSE:
            self._closing = True

    def _load(
        self,
        number: int,
        class_id: int,
        module: str,
        qualname: str,
        max_running: int | None,
        memory_limit: int | None,
        main: main_module.MainSource | None,
    ) -> None:
        try:
            job_class = main_module.find_class(module, qualname, main)
            if memory_limit is not None:
                import resource  # noqa: F401  # so that the children find it loaded
        except BaseException as error:
            self._refuse(number, error)
            return
        self._queue.add_class(class_id, JobClass(_maker_of(job_class), max_running, memory_limit))
        _freeze()
        self._outbox.add(wire.LOADED, number, _thread._count())

    def _load_main(self, number: int, main: main_module.MainSource | None) -> None:
        """Import the main module, since a pickled argument refers to it."""
        try:
            main_module.import_main(main)
        except BaseException as error:
            self._refuse(number, error)
            return
        _freeze()
        self._outbox.add(wire.LOADED, number, _thread._count())

    def _refuse(self, number: int, error: BaseException) -> None:
        child.flush()
        self._outbox.add(wire.REFUSED, number, payload=wire.encode(_explain(error)))

    def _accept(
        self,
        memory_file: int | None,
        run_id: str,
        class_id: int,
        name: str,
        timeout: float | None,
        payload: bytes | None,
    ) -> None:
        of = self._queue.job_class(class_id)
        assignment = Assignment(run_id, name, of.make, of.memory_limit, payload, memory_file)
        self._queue.add(Waiting(assignment, of, timeout))
        if memory_file is not None and self._descriptor_limits is None:
            self._allow_more_descriptors(memory_file)
        if self._retired:
            self._hand_back()

    def _cancel(self, run_id: str) -> None:
        waiting = self._queue.take(run_id)
        if waiting is not None:
            self._queue.close_memory_file(waiting)
            self._report_ended(run_id, None, wire.CANCELLED)
        elif run_id in self._by_run:
            self._stop(self._by_run[run_id], wire.CANCELLED)

    def _allow_more_descriptors(self, used: int) -> None:
        """Make room for many large arguments before it is needed; the jobs get the old limit."""
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if used < 0 or used > soft // 2:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            self._descriptor_limits = soft, hard

    def _hand_back(self, number: int = 0) -> None:
        """Give all waiting runs back to the program, and later those that may still arrive."""
        self._retired = True
        taken = self._queue.take_all()
        for waiting in taken:
            self._queue.close_memory_file(waiting)
        run_ids = [waiting.assignment.run_id for waiting in taken]
        self._outbox.add(wire.HANDED_BACK, number, payload=wire.encode(run_ids))

    def _lose_caller(self) -> None:
        """The program is gone: take what it had sent, then finish or stop, as it had asked."""
        if self._orphaned:
            return
        self._orphaned = True
        while self._receive():
            pass
        self._watch(self._control_descriptor, select.POLLIN, wanted=False)
        self._watch(self._caller, select.POLLIN, wanted=False)
        if not self._finish_orphans:
            self._hand_back()
            for running in self._children.values():
                self._stop(running, wire.CANCELLED)

    # Starting

    def _start_some(self, most: int) -> None:
        """Start a few jobs in a row: what the zygote touches between two forks is copied.

        SIGCHLD is at its default meanwhile, so that the children need not see to that.
        """
        if self._next_fork is not None and time.monotonic() < self._next_fork:
            return
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        for _ in range(min(most, self._max_processes - len(self._children))):
            if not self._queue.ready:
                break
            waiting = self._queue.next()
            try:
                self._fork(waiting)
            except OSError as error:
                self._endure_refusal(waiting, error)
                break
        self._catch_sigchld()
        self._reap()

    def _catch_sigchld(self) -> None:
        _signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, _ignore)

    def _fork(self, waiting: Waiting) -> None:
        assignment = waiting.assignment
        assignment.arguments = wire.decode_ahead(assignment.payload)
        read_end, write_end = os.pipe()
        foreign = [read_end, *self._by_stderr, *self._own_descriptors]
        if self._queue.memory_files:
            foreign += self._queue.memory_files - {assignment.memory_file}
        # Sets the collector's counts to zero, so that the child's first allocation collects
        # nothing: a collection would write to, and so copy, every page it looks at.
        gc.freeze()
        try:
            pid = child.fork_child(
                assignment, self._reports, write_end, foreign, self._pid, self._descriptor_limits
            )
        except BaseException:
            os.close(read_end)
            os.close(write_end)
            raise
        os.close(write_end)
        os.set_blocking(read_end, False)
        self._queue.close_memory_file(waiting)
        self._next_fork = self._refused_since = None
        started = Child(pid, assignment.run_id, waiting.of, read_end)
        self._queue.one_started(waiting.of)
        self._children[pid] = self._by_run[started.run_id] = self._by_stderr[read_end] = started
        if waiting.timeout is not None:
            self._set_deadline(started, waiting.timeout)
        if not self._sink.watched:
            self._poll.register(read_end, select.POLLIN)
            self._watched.add(read_end)

    def _endure_refusal(self, waiting: Waiting, error: OSError) -> None:
        """The system refuses processes or descriptors: wait for some to be free, in order."""
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        if not self._children and now - self._refused_since > _FORK_PATIENCE:
            self._queue.close_memory_file(waiting)
            run_id = waiting.assignment.run_id
            self._report_ended(run_id, None, wire.NO_PROCESS, tail=str(error).encode())
        else:
            self._queue.put_back(waiting)
            self._next_fork = now + RETRY_SECONDS

    # Stopping

    def _signal(self, run_id: str, number: int) -> None:
        if run_id in self._by_run:
            _signal_one(self._by_run[run_id].pid, number)

    def _stop(self, running: Child, reason: str) -> None:
        """TERM now; KILL when the grace is over, or when the process itself has ended."""
        if running.reason:
            return
        running.reason = reason
        self._stopping += 1
        self._set_deadline(running, self._grace)
        _signal_group(running.pid, _signal.SIGTERM)

    def _set_deadline(self, running: Child, seconds: float) -> None:
        running.deadline = time.monotonic() + seconds
        self._timed[running.pid] = running

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        for running in [late for late in self._timed.values() if late.deadline <= now]:
            del self._timed[running.pid]
            if running.reason:
                _signal_group(running.pid, _signal.SIGKILL)
            else:
                self._stop(running, wire.TIMEOUT)

    # Ends

    def _reap(self) -> None:
        """Take the ended children.

        The group of a job that was stopped is killed while its leader is still a zombie, so
        that the group's id cannot have been given to anyone else.
        """
        while self._children:
            any_or_one = -1
            if self._stopping:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None:
                    return
                any_or_one = ended.si_pid
                stopped = self._children.get(any_or_one)
                if stopped is not None and stopped.reason:
                    _signal_group(any_or_one, _signal.SIGKILL)
            pid, status, usage = os.wait4(any_or_one, os.WNOHANG)
            if not pid:
                return
            gone = self._children.get(pid)
            if gone is not None:
                self._bury(gone, status, usage)

    def _bury(self, gone: Child, status: int, usage: Any) -> None:
        if gone.stderr_open:
            self._read_stderr(gone, select.POLLIN)
            self._watch(gone.stderr, select.POLLIN, wanted=False)
        os.close(gone.stderr)
        del self._children[gone.pid], self._by_run[gone.run_id], self._by_stderr[gone.stderr]
        self._timed.pop(gone.pid, None)
        if gone.reason:
            self._stopping -= 1
        self._queue.one_ended(gone.of)
        self._report_ended(
            gone.run_id,
            status,
            gone.reason,
            usage.ru_maxrss,
            usage.ru_utime + usage.ru_stime,
            gone.tail.bytes() if gone.tail is not None else b"",
        )

    def _report_ended(
        self,
        run_id: str,
        status: int | None,
        reason: str,
        peak_kilobytes: int = 0,
        cpu_seconds: float = 0.0,
        tail: bytes = b"",
    ) -> None:
        complaint = ""
        if reason or (status is not None and os.WIFSIGNALED(status)):
            code = None if status is None else os.waitstatus_to_exitcode(status)
            complaint = f"run {run_id} ended: {reason or 'killed'}, exit code {code}\n"
        header = (run_id, status, reason, peak_kilobytes, cpu_seconds, time.time())
        self._outbox.add(wire.ENDED, *header, payload=tail, complaint=complaint)

    # Stderr of the jobs

    def _read_stderr(self, running: Child, event: int) -> None:
        if event & select.POLLIN:
            try:
                size = os.readv(running.stderr, self._buffers)
            except BlockingIOError:
                return
            if size:
                data = bytes(self._buffers[0][:size])
                if running.tail is None:
                    running.tail = Tail()
                running.tail.add(data)
                self._sink.write(data)
                return
        # It is closed: the job ends, or goes on without; poll would report that for ever.
        running.stderr_open = False
        self._watch(running.stderr, select.POLLIN, wanted=False)

    def _yield_to_full_sink(self) -> None:
        """While the program's stderr is full, wait for it and let the jobs wait with us."""
        self._sink.flush()
        full = bool(self._sink.pending)
        if full != self._sink.watched:
            self._sink.watched = full
            self._watch(self._sink.descriptor, select.POLLOUT, full)
            for running in self._children.values():
                self._watch(running.stderr, select.POLLIN, running.stderr_open and not full)

    # Reports

    def _flush_outbox(self) -> None:
        complaints = self._outbox.flush()
        if complaints:
            self._sink.write(complaints.encode())
        full = bool(self._outbox.waiting) and not self._outbox.starved
        self._watch(self._outbox.descriptor, select.POLLOUT, full)


def _reset_ignored_signals() -> None:
    """Do not inherit what the program ignores, except for what Python itself ignores."""
    for number in range(1, _signal.NSIG):
        kept = (_signal.SIGPIPE, _signal.SIGXFSZ)
        if number not in kept and _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _ignore(*_: object) -> None:
    """Make SIGCHLD interrupt poll by way of the wake-up descriptor, and do nothing else."""


def _maker_of(job_class: type) -> Callable[[], Any]:
    """The class, or for one without a constructor of its own what makes the same object sooner.

    ``Job`` has one in Python, which does nothing for a job that is made without arguments, and
    which each child would copy pages to run.
    """
    constructor: tuple[Any, Any] = (job_class.__new__, job_class.__init__)  # type: ignore[misc]
    if constructor == (Job.__new__, Job.__init__):
        make = partial(object.__new__, job_class)
        try:
            make()
        except TypeError:  # its layout is that of another built-in type
            return job_class
        return make
    return job_class


def _signal_group(pid: int, number: int) -> None:
    """Signal the process group of an unreaped child, or the child if it has none yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        _signal_one(pid, number)
    except PermissionError:
        pass  # as below


def _signal_one(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except PermissionError:
        return  # the job has become another user, which only root may signal


def _freeze() -> None:
    """Have what was imported leave its output now, and be no business of a child's collector."""
    child.flush()
    gc.collect()
    gc.freeze()


def _explain(error: BaseException) -> str:
    """The traceback of what failed, with only those frames that are not of this package."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_PACKAGE)]
    lines = traceback.format_list(theirs) + traceback.format_exception_only(error)
    return "".join(lines).rstrip()
