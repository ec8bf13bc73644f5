"""What a forked child does: become a process of its own, run one job, report, leave.

The child says STARTED to the program itself, before any code of the user's runs. So the program
knows which jobs have begun even when the zygote has died, and may start all others again. It
leaves by ``os._exit``, because finalising the interpreter would cost more than the job.
"""

from __future__ import annotations

import _socket
import os
import sys
from gc import enable as enable_gc
from os import _exit, close, dup2, fork, getpid, setsid
from sys import modules
from time import time as now

from job_scheduler.launcher import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from signal import SIG_SETMASK, pthread_sigmask
    from typing import Any
else:
    from _signal import SIG_SETMASK, pthread_sigmask

_PF_EXITING = 0x4
_LONGEST_TEXT = 64 * 1024
_OURS = "job_scheduler."


class Assignment:
    """What a child has to do."""

    __slots__ = (
        "arguments",
        "make",
        "memory_file",
        "memory_limit",
        "name",
        "payload",
        "run_id",
    )

    def __init__(
        self,
        run_id: str,
        name: str,
        make: Callable[[], Any],
        memory_limit: int | None,
        payload: bytes | None,
        memory_file: int | None,
    ) -> None:
        self.run_id = run_id
        self.name = name
        self.make = make
        self.memory_limit = memory_limit
        self.payload = payload
        self.memory_file = memory_file
        self.arguments: dict[str, Any] | None = None
        """The arguments, if they could be decoded ahead; else they are in the payload."""


def fork_child(  # noqa: C901  # see its docstring
    assignment: Assignment,
    reports: _socket.socket,
    stderr: int,
    foreign_descriptors: Iterable[int],
    zygote_pid: int,
) -> int:
    """Fork a child for the job; the zygote gets its pid, and in the child this never returns.

    It is one long function on purpose. After a fork each page that is written to is copied, at
    2 µs, and to call a function or to look at an object writes its reference count: with one
    small function per step the child would copy twice as many. What it needs is fetched before.
    """
    run_id, name, make = assignment.run_id, assignment.name, assignment.make
    memory_limit, arguments = assignment.memory_limit, assignment.arguments
    announcement = wire.announcement(run_id, now())
    send = reports.send
    _naming.name = name
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        setsid()
        dup2(stderr, 2)
        close(stderr)
        for descriptor in foreign_descriptors:
            close(descriptor)
        # The zygote blocks signals, so one sent to this process meanwhile is delivered here.
        pthread_sigmask(SIG_SETMASK, ())
        try:
            send(announcement + getpid().to_bytes(4, "little"))
        except OSError:
            # Nobody listens. If the zygote lives, the program has died, and the job is to be
            # done. If not, the program has closed this zygote's books and gives the job to the
            # next one: it must not run here.
            if not _lives(zygote_pid):
                _exit(0)
        enable_gc()
        if "multiprocessing.process" in modules:
            _naming.apply(modules["multiprocessing.process"])
        if memory_limit is not None:
            limit_memory(memory_limit)
        try:
            if arguments is None:
                arguments = _decode_arguments(assignment)
            result = make().process(**arguments)
            if result is not None:
                result = _await(result)
        except BaseException as error:
            code = _fail(assignment, reports, error)
        else:
            if "threading" in modules:
                _settle_threads_and_children()
            if result is not None:
                _report(reports, wire.RESULT, run_id, payload=encode_result(name, result))
            code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            _flush()
        _exit(code)


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


def _decode_arguments(assignment: Assignment) -> dict[str, Any]:
    data = wire.payload_of(assignment.payload, assignment.memory_file)
    if assignment.memory_file is not None:
        close(assignment.memory_file)
    arguments: dict[str, Any] = wire.decode(data)
    return arguments


def _await(result: Any) -> Any:
    """What the job returned; if that is a coroutine, what this returns."""
    if type(result).__name__ != "coroutine":
        return result
    import asyncio

    return asyncio.run(result)


def _fail(assignment: Assignment, reports: _socket.socket, error: BaseException) -> int:
    """Report what the job has raised; returns the exit code."""
    if assignment.memory_limit is not None:
        lift_memory_limit()
    _settle_threads_and_children()
    if isinstance(error, SystemExit):
        return _exit_code(error)
    _report_failure(assignment, reports, error)
    return 1


def call_process(job_class: Any, arguments: dict[str, Any]) -> Any:
    """Run the job in this process: a fresh object, ``process``, and its coroutine if it is one."""
    return _await(job_class().process(**arguments))


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


class _Naming:
    """Makes ``multiprocessing.current_process().name`` the job's, whenever that is imported.

    It stands in the zygote's ``sys.meta_path``, imports ``multiprocessing.process`` as usual,
    and then names the current process. Jobs that never import it do not pay for it.
    """

    name = ""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != "multiprocessing.process" or not self.name:
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(fullname)
        loader: Any = spec.loader if spec else None
        execute = loader.exec_module

        def execute_and_apply(module: Any) -> None:
            execute(module)
            self.apply(module)

        loader.exec_module = execute_and_apply
        return spec

    def apply(self, process: Any) -> None:
        process.current_process()._name = self.name
        process._children.clear()
        util = modules.get("multiprocessing.util")
        if util is not None:  # as multiprocessing does in each child that it forks
            util._finalizer_registry.clear()
            util._run_after_forkers()


_naming = _Naming()


def install_naming() -> None:
    """Prepare the zygote for jobs that import ``multiprocessing``."""
    sys.meta_path.insert(0, _naming)


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
    """Flush each stream that can be, whatever the job has done to the other."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            continue  # closed or replaced by the job: there is nothing left to flush into
