"""Jobs for the tests; importable, as a job's own process needs it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from job_scheduler import Job


def wait_for(fifo: str) -> str:
    """Block until the test writes into the FIFO and closes it."""
    with open(fifo) as file:
        return file.read()


def append(path: str, line: str) -> None:
    """Write a line so that lines of several processes never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


class Noop(Job):
    def process(self):
        pass


class Echo(Job):
    def process(self, value=None, **more):
        return {"value": value, **more} if more else value


class Pid(Job):
    def process(self):
        return os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0)


class Log(Job):
    """Appends its tag to a file: at most one line per run, whatever happens."""

    def process(self, path, tag=""):
        append(path, f"{tag} {os.getpid()}")


class Gate(Job):
    """Says that it has started, then blocks until the test opens the gate."""

    def process(self, fifo, log=None, tag=""):
        if log:
            append(log, f"{tag}")
        return wait_for(fifo)


class OneAtATime(Gate):
    max_running = 1


class Sleep(Job):
    def process(self, seconds):
        time.sleep(seconds)


class Impatient(Sleep):
    timeout = 0.2


class Stubborn(Job):
    """Ignores SIGTERM and has a child in its group that does so too."""

    def process(self, log):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        grandchild = os.fork()
        append(log, str(os.getpid()))
        while True:
            time.sleep(60) if grandchild else time.sleep(61)


class Orderly(Job):
    """Ends by itself with code 0 when it gets SIGTERM."""

    def process(self, log):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        append(log, "ready")
        while True:
            time.sleep(60)


class Exit(Job):
    def process(self, code=None):
        sys.exit(code)


class HardExit(Job):
    def process(self, code):
        os._exit(code)


class Unexpected(BaseException):
    pass


class Raise(Job):
    def process(self, kind):
        if kind == "base":
            raise Unexpected("not even an Exception")
        if kind == "chained":
            try:
                raise KeyError("inner")
            except KeyError as error:
                raise ValueError("outer") from error
        if kind == "unprintable":
            raise Unprintable
        raise ValueError(f"a {kind} problem")


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no message")


class Signal(Job):
    def process(self, number):
        os.kill(os.getpid(), number)
        time.sleep(10)


class Segfault(Job):
    def process(self):
        import ctypes

        ctypes.string_at(0)


class Say(Job):
    def process(self, err="", size=0):
        print(err + "x" * size, file=sys.stderr)


class Prints(Job):
    def process(self):
        print("one")
        print("two", file=sys.stderr)
        os.system("echo three")


class PrintsAndWaits(Job):
    def process(self):
        print("begun")
        time.sleep(60)


class CloseStderr(Job):
    def process(self, fifo):
        os.close(2)
        wait_for(fifo)
        return "went on"


class WriteEverywhere(Job):
    """Writes on each descriptor, as a program does that has closed one twice."""

    def process(self):
        for descriptor in range(3, 20):
            with contextlib.suppress(OSError):
                os.write(descriptor, b"garbage")


class CloseEverything(Job):
    """What code that daemonises does."""

    def process(self):
        os.closerange(3, 1000)
        return "done"


class ChangeDirectory(Job):
    def process(self, path):
        os.chdir(path)
        return os.getcwd()


class WorkingDirectory(Job):
    def process(self):
        return os.getcwd()


class Fork(Job):
    """Forks by itself; the child leaves by its own way out."""

    def process(self, log):
        child = os.fork()
        if child == 0:
            append(log, "child")
            os._exit(0)
        os.waitpid(child, 0)
        return "parent"


class LeaveProgramBehind(Job):
    """Ends while a program that it has started lives on."""

    def process(self):
        import subprocess

        return subprocess.Popen(["sleep", "600"], close_fds=False).pid


class LeaveBehind(Job):
    """Ends while a child of its own lives on, holding what it inherited."""

    def process(self, fifo, log):
        if os.fork() == 0:
            wait_for(fifo)
            append(log, "left behind, done")
            os._exit(0)
        return "gone"


class Threads(Job):
    """Returns while a thread that is no daemon still works."""

    def process(self, log):
        import threading

        def work():
            time.sleep(0.05)
            append(log, "thread")

        threading.Thread(target=work).start()
        return threading.current_thread() is threading.main_thread()


class Multiprocessing(Job):
    """Has children of its own, and knows its name."""

    def process(self):
        import multiprocessing

        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool:
            doubled = pool.map(abs, [-1, -2, -3])
        return doubled, multiprocessing.current_process().name


class Unsendable(Job):
    def process(self):
        return (each for each in "abc")


class Asynchronous(Job):
    async def process(self, value):
        return value


class HoldMemory(Job):
    memory_limit = 200 * 1024 * 1024

    def process(self, size):
        return len(bytearray(size))


class EatMemory(Job):
    def process(self, size):
        return len(bytearray(b"x") * size)


class EatMemoryIn(Job):
    """Joins a control group, then needs more memory than that may have."""

    def process(self, group, size):
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
        return len(bytearray(b"x") * size)


class SignalState(Job):
    def process(self):
        return (
            sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
            signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,
            signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        )


class Descriptors(Job):
    def process(self):
        return {int(fd): _target(fd) for fd in os.listdir("/proc/self/fd")}


def _target(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


class DescriptorLimits(Job):
    def process(self, padding):
        import resource

        return resource.getrlimit(resource.RLIMIT_NOFILE)


class LargeResultWithoutDescriptors(Job):
    """Returns what travels as a memory file, and has no descriptor left to make one."""

    def process(self):
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        return b"x" * 100_000


class Nested(Job):
    """Starts a run of its own, from its own process."""

    def process(self, log):
        from job_scheduler import JobScheduler

        run = JobScheduler(jobs={"Log": Log}).run("Log", path=log, tag="nested")
        run.wait()
        return run.state.value


class InThread(Job):
    def run(self, value=None, fail=False):
        if fail:
            raise ValueError("in a thread")
        import threading

        return value, threading.current_thread().name


class OnLoop(Job):
    async def run(self, value=None, fail=False):
        import asyncio

        if fail:
            raise ValueError("on the loop")
        await asyncio.sleep(0)
        return value


class Forever(Job):
    async def run(self):
        import asyncio

        await asyncio.Event().wait()


class Both(Job):
    def process(self):
        return "process", os.getpid()

    def run(self):
        return "thread", os.getpid()


class BothInThread(Both):
    executor = "thread"


def find_main():
    """An initializer: marks the process that jobs are forked from."""
    os.environ["INITIALIZED_BY"] = str(os.getpid())


class Initialized(Job):
    def process(self):
        return os.environ.get("INITIALIZED_BY")


class Noticed(Job):
    """Leaves a line when an object of it is no more."""

    def __del__(self):
        with open(os.environ["NOTICED_LOG"], "a") as file:
            print(os.getpid(), file=file)

    def process(self):
        return os.getpid()


def endless_initializer():
    time.sleep(600)


def broken_initializer():
    raise RuntimeError("this initializer is broken")
