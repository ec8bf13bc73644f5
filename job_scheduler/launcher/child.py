"""What a forked child does: become a process of its own, run one job, report, leave.

The child says STARTED to the program itself, before any code of the user's runs. So the program
knows which jobs have begun even when the zygote has died, and may start all others again. It
leaves by ``os._exit``, because finalising the interpreter would cost more than the job.
"""

from __future__ import annotations

import _socket
import gc
import marshal
import os
import sys
import time

from job_scheduler.launcher import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable
    from typing import Any, NoReturn
else:
    import _signal

_PF_EXITING = 0x4
_LONGEST_TEXT = 64 * 1024
_OURS = "job_scheduler."


class Assignment:
    """What a child has to do, and for whom."""

    __slots__ = ("job_class", "memory_file", "memory_limit", "name", "payload", "run_id")

    def __init__(
        self,
        run_id: str,
        name: str,
        job_class: type,
        memory_limit: int | None,
        payload: bytes | None,
        memory_file: int | None,
    ) -> None:
        self.run_id = run_id
        self.name = name
        self.job_class = job_class
        self.memory_limit = memory_limit
        self.payload = payload
        self.memory_file = memory_file


def live(
    assignment: Assignment,
    reports: _socket.socket,
    stderr: int,
    foreign_descriptors: Iterable[int],
    zygote_pid: int,
) -> NoReturn:
    """Be the child from right after the fork to the end; never returns."""
    code = 1
    try:
        os.setsid()
        os.dup2(stderr, 2)
        os.close(stderr)
        for descriptor in foreign_descriptors:
            os.close(descriptor)
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        # The zygote blocks signals, so one sent to this process meanwhile is delivered here.
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        packet = marshal.dumps((wire.STARTED, assignment.run_id, os.getpid(), time.time(), b""))
        try:
            reports.send(packet)
        except OSError:
            # Nobody listens. If the zygote lives, the program has died, and the job is to be
            # done. If not, the program has closed this zygote's books and gives the job to the
            # next one: it must not run here.
            if not _lives(zygote_pid):
                os._exit(0)
        gc.enable()
        code = _work(assignment, reports)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _flush()
        os._exit(code)


def _lives(zygote_pid: int) -> bool:
    """Whether our parent is still the zygote, and the zygote is not on its way out.

    An exiting process closes its sockets, which the program sees at once, before its children
    get another parent; in between, only the kernel's flag tells (PF_EXITING, see proc(5)).
    """
    if os.getppid() != zygote_pid:
        return False
    with open(f"/proc/{zygote_pid}/stat") as file:
        flags = int(file.read().rsplit(")", 1)[1].split()[6])
    return not flags & _PF_EXITING


def _work(assignment: Assignment, reports: _socket.socket) -> int:
    """Run the job and report what came of it; returns the exit code."""
    name_process(assignment.name)
    if assignment.memory_limit is not None:
        limit_memory(assignment.memory_limit)
    try:
        result = _call(assignment)
    except SystemExit as exit_request:
        _settle_threads_and_children()
        return _exit_code(exit_request)
    except BaseException as error:
        if assignment.memory_limit is not None:
            lift_memory_limit()
        _settle_threads_and_children()
        _report_failure(assignment, reports, error)
        return 1
    _settle_threads_and_children()
    if result is not None:
        payload = encode_result(assignment.name, result)
        _report(reports, wire.RESULT, assignment.run_id, payload=payload)
    return 0


def _call(assignment: Assignment) -> Any:
    data = wire.payload_of(assignment.payload, assignment.memory_file)
    if assignment.memory_file is not None:
        os.close(assignment.memory_file)
    return call_process(assignment.job_class, wire.decode(data))


def call_process(job_class: Any, arguments: dict[str, Any]) -> Any:
    """Run the job in this process: a fresh object, ``process``, and its coroutine if it is one."""
    result = job_class().process(**arguments)
    if type(result).__name__ == "coroutine":
        import asyncio

        result = asyncio.run(result)
    return result


def describe_failure(error: BaseException, memory_limit: int | None) -> tuple[str, str, str]:
    """The name of the error, its message, and its traceback below our own frames."""
    import traceback

    text = "".join(traceback.format_exception(type(error), error, _user_frames(error)))
    if isinstance(error, MemoryError) and memory_limit is not None:
        return "MemoryLimitExceeded", f"the job needed more than {memory_limit:,} bytes", text
    name, message = type(error).__qualname__, _message_of(error)
    return name[:200], message[:_LONGEST_TEXT], text[-_LONGEST_TEXT:]


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as also_broken:
        return f"<its message cannot be shown: {type(also_broken).__name__}>"


def _user_frames(error: BaseException) -> Any:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals["__name__"].startswith(_OURS):
        frames = frames.tb_next
    return frames


def _report_failure(assignment: Assignment, reports: _socket.socket, error: BaseException) -> None:
    name, message, text = describe_failure(error, assignment.memory_limit)
    payload = wire.encode((message, text))
    if not _report(reports, wire.FAILURE, assignment.run_id, name, payload=payload):
        print(f"job {assignment.name!r}, run {assignment.run_id}, failed:\n{text}", file=sys.stderr)


def encode_result(name: str, result: Any) -> bytes:
    """The return value as bytes; one that cannot be sent is dropped, with a line that says so."""
    try:
        return wire.encode(result)
    except Exception as error:
        print(
            f"job {name!r}: its return value, a {type(result).__qualname__}, cannot be sent to "
            f"the program that started it, and is dropped: {error}",
            file=sys.stderr,
        )
        return wire.encode(None)


def _report(reports: _socket.socket, *header: Any, payload: bytes) -> bool:
    """Send a report; False if nobody listens any more."""
    packet, memory_file = wire.pack(*header, payload=payload)
    try:
        wire.send(reports, packet, memory_file)
    except OSError:
        return False
    return True


def name_process(name: str) -> None:
    """Make ``multiprocessing.current_process().name`` the job's, at no cost if unused."""
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        sys.meta_path.insert(0, _NamingFinder(name))
    else:
        _name_current(process, name)


def _name_current(process: Any, name: str) -> None:
    process.current_process()._name = name
    process._children.clear()
    util = sys.modules.get("multiprocessing.util")
    if util is not None:  # as multiprocessing does in each child that it forks
        util._finalizer_registry.clear()
        util._run_after_forkers()


class _NamingFinder:
    """Imports ``multiprocessing.process`` as usual, then names the current process."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != "multiprocessing.process":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(fullname)
        loader: Any = spec.loader if spec else None
        execute = loader.exec_module

        def execute_and_name(module: Any) -> None:
            execute(module)
            _name_current(module, self._name)

        loader.exec_module = execute_and_name
        return spec


def limit_memory(limit: int) -> None:
    """Let this process have no more private memory than ``limit`` bytes."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def lift_memory_limit() -> None:
    """Undo :func:`limit_memory`, so that there is room to report."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _settle_threads_and_children() -> None:
    """Wait for what an interpreter would wait for at its exit, where those modules are loaded."""
    for module, function in (
        ("multiprocessing.util", "_exit_function"),
        ("threading", "_shutdown"),
    ):
        if module in sys.modules:
            try:
                getattr(sys.modules[module], function)()
            except BaseException:
                _print_exception()


def _exit_code(exit_request: SystemExit) -> int:
    if exit_request.code is None:
        return 0
    if isinstance(exit_request.code, int):
        return exit_request.code & 0xFF
    print(exit_request.code, file=sys.stderr)
    return 1


def _print_exception() -> None:
    sys.excepthook(*sys.exc_info())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            continue  # closed or replaced by the job: there is nothing left to flush into
