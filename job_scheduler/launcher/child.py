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

from job_scheduler.launcher import wire
from job_scheduler.launcher.naming import NAMING
from job_scheduler.launcher.work import (
    await_result,
    describe_failure,
    encode_result,
    flush,
    lift_memory_limit,
    limit_descriptors,
    limit_memory,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from signal import SIG_SETMASK, pthread_sigmask
    from typing import Any

    from job_scheduler.launcher.queue import Assignment
    from job_scheduler.launcher.works import Work
else:
    from _signal import SIG_SETMASK, pthread_sigmask

_PF_EXITING = 0x4


def fork_child(  # noqa: C901  # see its docstring
    works: Iterable[Work],
    reports: _socket.socket,
    stderr: int,
    captured: tuple[int, ...],
    foreign_descriptors: list[int],
    kept: int | None,
    zygote_pid: int,
    descriptor_limits: tuple[int, int] | None,
) -> int:
    """Fork a child; the zygote gets its pid, and in the child this never returns.

    It does the one real work among ``works``: the first, or after the rehearsal of a spare.

    It is one long function on purpose. After a fork each page that is written to is copied, at
    2 µs, and to call a function or to look at an object writes its reference count: with one
    small function per step the child would copy twice as many.
    """
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        setsid()
        for descriptor in captured:
            dup2(stderr, descriptor)
        for descriptor in foreign_descriptors:
            if descriptor != kept:
                close(descriptor)
        # The zygote blocks signals, so one sent to this process meanwhile is delivered here.
        pthread_sigmask(SIG_SETMASK, ())
        for assignment, announcement, real in works:  # none left: a spare that is dismissed
            announcement += getpid().to_bytes(4, "little")
            if real:
                try:
                    reports.send(announcement)
                except OSError:
                    # Nobody listens. If the zygote lives, the program has died, and the job is
                    # to be done. If not, the program has closed this zygote's books and gives
                    # the job to the next one: it must not run here.
                    if not _lives(zygote_pid):
                        _exit(0)
                if "multiprocessing.process" in modules:
                    NAMING.apply(modules["multiprocessing.process"])
                if descriptor_limits is not None:
                    limit_descriptors(descriptor_limits)
            enable_gc()
            memory_limit = assignment.memory_limit
            if memory_limit is not None:
                limit_memory(memory_limit)
            try:
                arguments = assignment.arguments
                if arguments is None:
                    arguments = _decode_arguments(assignment)
                result = assignment.make().process(**arguments)
                if result is not None:
                    result = await_result(result)
            except BaseException as error:
                code = _fail(assignment, reports, error)
                break
            if real:
                if "threading" in modules:
                    _settle_threads_and_children()
                if result is not None:
                    _report_result(reports, assignment, result)
                code = 0
                break
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            flush()
        _exit(code)


def _lives(zygote_pid: int) -> bool:
    """Whether our parent is still the zygote, and the zygote is not on its way out.

    An exiting process closes its sockets, which the program sees at once, before its children
    get another parent; in between, only the kernel's flag tells (PF_EXITING, see proc(5)).
    """
    if os.getppid() != zygote_pid:
        return False
    try:
        with open(f"/proc/{zygote_pid}/stat") as file:
            flags = int(file.read().rsplit(")", 1)[1].split()[6])
    except OSError:  # it was gone meanwhile
        return False
    return not flags & _PF_EXITING


def _decode_arguments(assignment: Assignment) -> dict[str, Any]:
    data = wire.take_payload(assignment.payload, assignment.memory_file)
    arguments: dict[str, Any] = wire.decode(data)
    return arguments


def _fail(assignment: Assignment, reports: _socket.socket, error: BaseException) -> int:
    """Report what the job has raised; returns the exit code."""
    if assignment.memory_limit is not None:
        lift_memory_limit()
    _settle_threads_and_children()
    if isinstance(error, SystemExit):
        return _exit_code(error)
    _report_failure(assignment, reports, error)
    return 1


def _report_failure(assignment: Assignment, reports: _socket.socket, error: BaseException) -> None:
    name, *rest = describe_failure(error, assignment.memory_limit)
    text = rest[1]
    packet, attachment = wire.pack(wire.FAILURE, assignment.run_id, name, payload=wire.encode(rest))
    try:
        wire.send(reports, packet, attachment)
    except OSError:
        print(f"job {assignment.name!r}, run {assignment.run_id}, failed:\n{text}", file=sys.stderr)


def _report_result(reports: _socket.socket, assignment: Assignment, result: Any) -> None:
    name = assignment.name
    payload = encode_result(name, result)
    try:
        wire.send(reports, *wire.pack(wire.RESULT, assignment.run_id, payload=payload))
    except ConnectionError:
        pass  # the program is gone, and with it everyone who could ask for the result
    except OSError as error:
        print(f"job {name!r}: its return value is dropped: {error}", file=sys.stderr)


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
