"""What a job's process does when it was started by a clean exec; see ``spawn``."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from job_scheduler.launcher import main_module, wire, work

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def live(
    module: str,
    qualname: str,
    memory_limit: int | None,
    initializer: str | None,
    captured: tuple[int, ...],
    payload: bytes,
    reports: Connection,
    stderr: Connection | None,
) -> None:
    """Run one job and report like a zygote's child, over a pipe of its own."""
    if hasattr(os, "setsid"):
        os.setsid()
    if stderr is not None:
        for descriptor in captured:
            os.dup2(stderr.fileno(), descriptor)
        stderr.close()
        if 1 in captured:
            sys.stdout = sys.stderr  # unbuffered: in order, and there also after a kill
    main_module.runs_jobs = True
    faulthandler.enable(file=2)
    _report(reports, wire.STARTED, os.getpid(), time.time())
    if memory_limit is not None and sys.platform != "win32":
        work.limit_memory(memory_limit)
    try:
        if initializer is not None:
            main_module.call_by_name(initializer)
        job_class = _find_class(module, qualname)
        result = work.call_process(job_class, wire.decode(payload))
    except SystemExit:
        raise
    except BaseException as error:
        if memory_limit is not None and sys.platform != "win32":
            work.lift_memory_limit()
        failure = work.describe_failure(error, memory_limit)
        if not _report(reports, wire.FAILURE, *failure, *_usage()):
            print(failure[2], file=sys.stderr)
        sys.exit(1)
    data = b"" if result is None else work.encode_result(qualname, result)
    _report(reports, wire.RESULT, data, *_usage())


def _find_class(module: str, qualname: str) -> type:
    if module not in main_module.MAIN_NAMES:
        return main_module.find_class(module, qualname, None)
    # multiprocessing has imported the script here
    return main_module.class_in(sys.modules["__main__"], qualname)


def _report(reports: Connection, *report: Any) -> bool:
    try:
        reports.send_bytes(wire.encode(report))
    except OSError:
        return False
    return True


def _usage() -> tuple[int, float]:
    """Peak memory in kB and seconds of processor time so far."""
    if sys.platform == "win32":
        return 0, time.process_time()
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    kilobytes = usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    return kilobytes, usage.ru_utime + usage.ru_stime
