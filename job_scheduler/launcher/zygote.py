"""The zygote: a small single-threaded process that forks one child per job.

It holds the one queue of waiting runs, so this is where they are ordered, limited, cancelled
and counted. One loop polls for requests, children's ends, their stderr and deadlines; nothing
in it blocks. It ends when no run can come any more and all it accepted have ended.
"""

from __future__ import annotations

import _socket
import _thread
import faulthandler
import gc
import os
import select
import sys
import time

from job_scheduler.launcher import main_module, wire
from job_scheduler.launcher.children import Child, Children
from job_scheduler.launcher.importing import explain, freeze_imports, maker_of
from job_scheduler.launcher.naming import NAMING
from job_scheduler.launcher.nursery import Nursery
from job_scheduler.launcher.outbox import RETRY_SECONDS, Outbox
from job_scheduler.launcher.queue import Assignment, JobClass, Queue, Waiting
from job_scheduler.launcher.stderr import READ_SIZE, Sink, Tail
from job_scheduler.launcher.work import flush
from job_scheduler.launcher.works import NOTHING, REHEARSAL, REHEARSED, order

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any, NoReturn
else:
    import _signal

_REQUESTS_PER_TURN = 512
"""Requests taken before the children are looked at again."""

_STARTS_PER_TURN = 8
"""Jobs started before requests are looked at again."""

_MOST_HANDED_BACK = 1000
"""Runs in one report; a packet holds more."""

_LONGEST_WAIT = 3600.0
"""Seconds after which the loop looks up in any case; poll takes no more than 24 days."""

_MOMENT = 0.00015
"""Seconds in which a job that was just given to a spare has begun."""

_LOOK_SECONDS = 1.0
"""How often to look for children that others may have reaped."""

_FORK_PATIENCE = 10.0
"""Seconds for which it may refuse, with no child running, before waiting runs fail."""


def main(control: _socket.socket, settings: dict[str, Any], reports: int, caller: int) -> NoReturn:
    """Prepare this process as a zygote, serve until there is nothing left to do, and leave.

    It leaves without an interpreter's exit: what imported modules have registered for that is
    the program's business, and the program does it itself.

    ``reports`` is a descriptor of the socket to the program, ``caller`` a pidfd of the program
    or -1 where the kernel has none.
    """
    gc.disable()
    control = _renumbered(control)
    NAMING.install()
    main_module.runs_jobs = True
    faulthandler.enable(file=2)  # in the jobs too: it leads to their own stderr there
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
        flush()
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
        self._finish_orphans: bool = settings["on_parent_exit"] == "finish"
        self._queue = Queue()
        self._children = Children(settings["grace"], self._bury)
        self._outbox = Outbox(reports)
        self._queue.add_class(REHEARSED)
        self._stage, self._audience = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._rehearsal, _ = wire.pack(wire.RUN, *REHEARSAL, None, payload=NOTHING)
        self._sink = Sink(2)
        self._retired = False  # not to fork any more: runs are handed back
        self._closing = False  # the program said that no run will come
        self._orphaned = False  # the program is gone
        self._refused_since: float | None = None
        self._next_fork: float | None = None
        self._buffers = [memoryview(bytearray(READ_SIZE))]  # a list, as readv wants it
        self._poll = select.poll()
        self._watched: set[int] = set()
        wakes = (self._children.wake_read, self._children.wake_write)
        stage = (self._stage.fileno(), self._audience.fileno())
        own = [fd for fd in (control.fileno(), *wakes, caller, self._sink.own, *stage) if fd >= 0]
        limits = settings["spares"], settings["spare_seconds"]
        self._captured = tuple(settings["captured"])
        self._nursery = Nursery(self._queue, self._children, reports, own, self._captured, *limits)

    def prepare(self, initializer: str | None) -> bool:
        """Run the initializer and report; False if it failed."""
        self._outbox.add(wire.BOOTED, os.getpid())
        self._outbox.flush()
        try:
            if initializer is not None:
                main_module.call_by_name(initializer)
            if 1 in self._captured:
                sys.stdout = sys.stderr  # unbuffered: in order, and there also after a kill
        except BaseException as error:
            self._outbox.add(wire.BROKEN, payload=wire.encode(explain(error)))
            self._outbox.finish()
            return False
        freeze_imports()
        self._outbox.add(wire.READY, _thread._count())
        self._outbox.flush()
        return True

    # The loop

    def serve(self) -> None:
        """Loop until no run can come and every accepted one has ended."""
        self._children.notice_ends()
        for descriptor in (self._control_descriptor, self._children.wake_read, self._caller):
            self._watch(descriptor, select.POLLIN, descriptor >= 0)
        while not (self._closing or self._orphaned) or self._queue.ready or self._children.by_run:
            self._turn()
        self._sink.write(self._outbox.finish().encode())
        self._sink.finish()

    def _turn(self) -> None:
        """Take what has happened, then start a few jobs, or use a quiet moment for a spare.

        Whatever is called here between two forks costs a copied page or two, at 2 µs each: so
        what has nothing to do is not called.
        """
        more_requests = self._take_events()
        if self._retired:
            self._children.bury_missing()  # a thread that an import has started may reap them
        if self._children.timed:
            self._children.enforce_deadlines(wire.TIMEOUT)
        if self._outbox.waiting:  # before the starts, which take longer
            self._flush_outbox()
        if self._queue.ready and self._room() > 0:
            # A burst is taken in first: meanwhile its sender waits, and the jobs do not.
            self._start_some(1 if more_requests else _STARTS_PER_TURN)
            if self._outbox.waiting:
                self._flush_outbox()
        if self._sink.pending or self._sink.watched:
            self._yield_to_full_sink()
        if not more_requests and not self._queue.ready:
            self._see_to_spares()

    def _take_events(self) -> bool:
        """Wait for something to happen, and see to it; whether there may be more requests."""
        requested = False
        for descriptor, event in self._poll.poll(self._milliseconds_to_wait()):
            if descriptor in self._children.by_stderr:
                self._read_stderr(self._children.by_stderr[descriptor], event)
            elif descriptor == self._children.wake_read:
                os.readv(descriptor, self._buffers)
                self._children.reap()
            elif descriptor == self._control_descriptor:
                requested = True
            elif descriptor == self._caller:
                self._lose_caller()
        # Last: it may start jobs, whose descriptors may have the numbers of others above.
        return requested and not self._orphaned and self._receive()

    def _room(self) -> int:
        """How many jobs more may run."""
        return self._max_processes - len(self._children.by_run)

    def _may_start(self) -> bool:
        return self._room() > 0 and (self._finish_orphans or not self._orphaned)

    def _rehearse(self) -> None:
        """Do once what the next run needs, with one that is not real.

        The fork has made all memory shared; what is touched now is not copied when it counts.
        """
        if self._queue.ready:
            return
        try:
            self._stage.send(self._rehearsal, _socket.MSG_DONTWAIT)
            received = wire.receive(self._audience)
            assert received is not None
            self._obey(*received)
            waiting = self._queue.next()
            assert waiting.of is REHEARSED
            wire.pass_on(self._stage, order(waiting), None, _socket.MSG_DONTWAIT)
            wire.receive(self._audience)
        except OSError:  # the system lacks memory for a packet: the next run takes longer, then
            self._queue.take(REHEARSAL[0])

    def _milliseconds_to_wait(self) -> int | None:
        may_start = bool(self._queue.ready) and self._room() > 0
        if may_start and self._next_fork is None:
            return 0
        instants = [self._children.next_deadline()]
        if may_start:
            instants.append(self._next_fork)
        if not self._queue.ready:
            instants.append(self._nursery.next_change())
        if self._outbox.starved:
            instants.append(time.monotonic() + RETRY_SECONDS)
        if self._retired and self._children.by_run:
            instants.append(time.monotonic() + _LOOK_SECONDS)
        known = [instant for instant in instants if instant is not None]
        if not known:
            return None
        seconds = min(min(known) - time.monotonic(), _LONGEST_WAIT)
        return max(0, int(seconds * 1000) + 1)

    def _see_to_spares(self) -> None:
        """Fork a spare, if one is wanted, once nothing else has happened for a moment.

        Without the moment the fork would hold up the job that was just started, and the next.
        """
        due = self._nursery.next_change()
        if due is None or due > time.monotonic():
            return
        waited_for = (self._control_descriptor, self._children.wake_read)
        if not select.select(waited_for, (), (), _MOMENT)[0]:
            self._nursery.change()
            self._children.reap()  # those that have ended during the fork
            self._rehearse()
            if self._outbox.waiting:
                self._flush_outbox()

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
            if self._queue.ready and self._nursery.has_spare and self._may_start():
                self._start_some(1)  # at once: to look for more requests first would take longer
        return True

    def _obey(self, request: Any, memory_file: int | None) -> None:
        kind = request[0]
        if kind == wire.RUN:
            self._accept(memory_file, *request[1:])
        elif kind == wire.STOP:
            self._cancel(request[1])
        elif kind == wire.SIGNAL:
            self._children.signal(request[1], request[2])
        elif kind == wire.LOAD:
            self._load(*request[1:-1])
        elif kind == wire.LOAD_MAIN:
            self._load_main(request[1], request[2])
        elif kind == wire.HAND_BACK:
            self._hand_back(last=True)
        elif kind == wire.CLOSE:
            self._closing = True
            self._nursery.want_no_spares()

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
        self._nursery.dismiss_spares()  # they would lack the class, and must not be inherited
        try:
            job_class = main_module.find_class(module, qualname, main)
            if memory_limit is not None:
                import resource  # noqa: F401  # so that the children find it loaded
        except BaseException as error:
            self._refuse(number, error)
            return
        make = maker_of(job_class)
        self._queue.add_class(JobClass(class_id, make, max_running, memory_limit))
        self._finish_import()
        self._outbox.add(wire.LOADED, number, _thread._count())

    def _load_main(self, number: int, main: main_module.MainSource | None) -> None:
        """Import the main module, since a pickled argument refers to it."""
        self._nursery.dismiss_spares()
        try:
            main_module.import_main(main)
        except BaseException as error:
            self._refuse(number, error)
            return
        self._finish_import()
        self._outbox.add(wire.LOADED, number, _thread._count())

    def _finish_import(self) -> None:
        self._children.notice_ends()  # the import may have taken the signal for itself
        self._children.reap()
        self._children.bury_missing()
        freeze_imports()

    def _refuse(self, number: int, error: BaseException) -> None:
        self._finish_import()
        self._outbox.add(wire.REFUSED, number, payload=wire.encode(explain(error)))

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
        if memory_file is not None and self._nursery.descriptor_limits is None:
            self._allow_more_descriptors(memory_file)
        if self._retired:
            self._hand_back()

    def _cancel(self, run_id: str) -> None:
        waiting = self._queue.take(run_id)
        if waiting is not None:
            self._queue.close_memory_file(waiting)
            self._report_ended(run_id, None, wire.CANCELLED)
        elif run_id in self._children.by_run:
            self._children.stop(self._children.by_run[run_id], wire.CANCELLED)

    def _allow_more_descriptors(self, used: int) -> None:
        """Make room for many large arguments before it is needed; the jobs get the old limit."""
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if used < 0 or used > soft // 2:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            self._nursery.descriptor_limits = soft, hard

    def _hand_back(self, *, last: bool = False) -> None:
        """Give all waiting runs back to the program, and later those that may still arrive."""
        self._retired = True
        self._nursery.want_no_spares()
        taken = self._queue.take_all()
        for waiting in taken:
            self._queue.close_memory_file(waiting)
        run_ids = [waiting.assignment.run_id for waiting in taken]
        while len(run_ids) > _MOST_HANDED_BACK:
            payload = wire.encode(run_ids[:_MOST_HANDED_BACK])
            self._outbox.add(wire.HANDED_BACK, False, payload=payload)
            del run_ids[:_MOST_HANDED_BACK]
        self._outbox.add(wire.HANDED_BACK, last, payload=wire.encode(run_ids))

    def _lose_caller(self) -> None:
        """The program is gone: take what it had sent, then finish or stop, as it had asked."""
        if self._orphaned:
            return
        self._orphaned = True
        self._nursery.want_no_spares()
        while self._receive():
            pass
        self._watch(self._control_descriptor, select.POLLIN, wanted=False)
        self._watch(self._caller, select.POLLIN, wanted=False)
        if not self._finish_orphans:
            self._hand_back()
            for child in self._children.by_run.values():
                self._children.stop(child, wire.CANCELLED)

    # Starting

    def _start_some(self, most: int) -> None:
        """Start a few jobs in a row."""
        if self._next_fork is not None and time.monotonic() < self._next_fork:
            return
        batch: list[Waiting] = []
        most = min(most, self._room())
        while self._queue.ready and len(batch) < most:
            batch.append(self._queue.next())
            self._queue.one_started(batch[-1].of)
        started, refusal = self._nursery.start(batch)
        for child, waiting in zip(started, batch, strict=False):
            self._queue.close_memory_file(waiting)
            if not self._sink.watched:
                self._watch(child.stderr, select.POLLIN, wanted=True)
        if started:
            self._next_fork = self._refused_since = None
        if refusal is not None:
            self._endure_refusal(batch[len(started) :], refusal)
        self._children.reap()

    def _endure_refusal(self, left: list[Waiting], error: OSError) -> None:
        """The system refuses processes or descriptors: wait for some to be free, in order."""
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        self._next_fork = now + RETRY_SECONDS
        for waiting in reversed(left):
            self._queue.one_ended(waiting.of)
            self._queue.put_back(waiting)
        if not self._children.by_run and now - self._refused_since > _FORK_PATIENCE:
            waiting = self._queue.next()
            self._queue.close_memory_file(waiting)
            run_id = waiting.assignment.run_id
            self._report_ended(run_id, None, wire.NO_PROCESS, tail=str(error).encode())

    # Ends

    def _bury(self, gone: Child, status: int | None, usage: Any) -> None:
        """Report the end of a child that had a job, before it is taken out of the books."""
        if gone.stderr_open:
            self._read_stderr(gone, select.POLLIN)
            self._watch(gone.stderr, select.POLLIN, wanted=False)
        if gone.of is None:
            self._nursery.forget(gone)
            return
        self._queue.one_ended(gone.of)
        tail = gone.tail.bytes() if gone.tail is not None else b""
        if status is None:
            self._report_ended(gone.run_id, None, wire.UNSEEN, tail=tail)
            return
        cpu_seconds = usage.ru_utime + usage.ru_stime
        self._report_ended(gone.run_id, status, gone.reason, usage.ru_maxrss, cpu_seconds, tail)

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
            for child in self._children.by_run.values():
                self._watch(child.stderr, select.POLLIN, child.stderr_open and not full)

    # Reports

    def _flush_outbox(self) -> None:
        complaints = self._outbox.flush()
        if complaints:
            self._sink.write(complaints.encode())
        full = bool(self._outbox.waiting) and not self._outbox.starved
        self._watch(self._outbox.descriptor, select.POLLOUT, full)


def _renumbered(given: _socket.socket) -> _socket.socket:
    """The same socket under a low number: select takes none above 1023, and poll no microseconds.

    It has the number that it had in the program, which may have thousands open.
    """
    control = _socket.socket(fileno=os.dup(given.fileno()))
    given.close()
    return control


def _reset_ignored_signals() -> None:
    """Do not inherit what the program ignores, except for what Python itself ignores."""
    for number in range(1, _signal.NSIG):
        kept = (_signal.SIGPIPE, _signal.SIGXFSZ)
        if number not in kept and _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
