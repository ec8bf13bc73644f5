"""What happens inside a measured parent: the peers, the parents, and the measuring.

Each peer is measured in a parent of its own, a fresh process that ``launch.py`` starts. This
module imports little, so that a bare parent is bare; a peer imports what it needs in ``start``.

To add a peer, write a subclass of :class:`Peer` and put it into ``PEERS``; to add a parent,
write a function and put it into ``PARENTS``.
"""

from __future__ import annotations

import gc
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess

    from job_scheduler import Run

IN_FLIGHT = 16
_WARM_UP = 20
_MOST_STAMPS = 500
_MOST_JOBS = 5000
_HEAVY_OBJECTS = 800_000  # about 300 MB
_PATIENCE = 30_000  # milliseconds

# Peers


class Peer:
    """One way to start a process per job; the jobs are ``stamp`` and ``nothing``."""

    name = ""
    has_first_line = True
    """Whether it runs Python, so that a job can tell when it started."""

    def start(self) -> None:
        """Prepare everything that is done once, however many jobs follow."""

    def submit(self, job: str, **arguments: str) -> None:
        """Start a job: the call that is timed. Waits if ``IN_FLIGHT`` are running."""
        raise NotImplementedError

    def wait_all(self) -> None:
        """Wait until all jobs have ended and are reaped; raises if one did not succeed."""
        raise NotImplementedError


class Ours(Peer):
    name = "job_scheduler"

    def start(self) -> None:
        from launch_jobs import Nothing, Stamp

        from job_scheduler import JobScheduler

        jobs = {"stamp": Stamp, "nothing": Nothing}
        self._scheduler = JobScheduler(jobs, max_processes=IN_FLIGHT)
        self._runs: list[Run] = []

    def submit(self, job: str, **arguments: str) -> None:
        self._runs.append(self._scheduler.run(job, **arguments))

    def wait_all(self) -> None:
        for run in self._runs:
            run.wait()
            _expect(run.state == "completed", run)
        self._runs.clear()


class Multiprocessing(Peer):
    """A ``multiprocessing.Process`` per job."""

    method = ""

    def start(self) -> None:
        import multiprocessing
        import multiprocessing.connection

        import launch_functions

        self._functions = launch_functions
        self._wait = multiprocessing.connection.wait
        self._context: BaseContext = multiprocessing.get_context(self.method)
        if self.method == "forkserver":
            self._context.set_forkserver_preload(["launch_functions"])
        self._running: dict[object, BaseProcess] = {}

    def submit(self, job: str, **arguments: str) -> None:
        if len(self._running) >= IN_FLIGHT:
            self._reap_some()
        function = getattr(self._functions, job)
        process = self._context.Process(target=function, kwargs=arguments)  # type: ignore[attr-defined]
        process.start()
        self._running[process.sentinel] = process

    def _reap_some(self) -> None:
        for sentinel in self._wait(list(self._running)):  # type: ignore[arg-type]
            process = self._running.pop(sentinel)
            process.join()
            _expect(process.exitcode == 0, process)
            process.close()

    def wait_all(self) -> None:
        while self._running:
            self._reap_some()


class Fork(Multiprocessing):
    name = "multiprocessing fork"
    method = "fork"


class Spawn(Multiprocessing):
    name = "multiprocessing spawn"
    method = "spawn"


class ForkServer(Multiprocessing):
    name = "forkserver, preloaded"
    method = "forkserver"


class PosixSpawn(Peer):
    """The limit: what the system needs to start a small program that does nothing."""

    name = "posix_spawn /bin/true"
    has_first_line = False

    def start(self) -> None:
        self._running = 0

    def submit(self, job: str, **arguments: str) -> None:
        if self._running >= IN_FLIGHT:
            self._reap_one()
        os.posix_spawn("/bin/true", ["true"], os.environ)
        self._running += 1

    def _reap_one(self) -> None:
        _, status = os.waitpid(-1, 0)
        self._running -= 1
        _expect(status == 0, status)

    def wait_all(self) -> None:
        while self._running:
            self._reap_one()


PEERS = {peer.name: peer for peer in (Ours, Fork, Spawn, ForkServer, PosixSpawn)}


def _expect(succeeded: bool, job: object) -> None:
    if not succeeded:
        raise RuntimeError(f"a job failed, so nothing was measured: {job}")


# Parents: each makes this process what it shall be and returns what has to stay alive.


def bare() -> object:
    """A program that has imported nothing but the peer."""
    return None


def heavy() -> object:
    """A web process: flask, and a heap of small objects."""
    import flask

    gc.disable()
    objects = [{"id": i, "name": f"name {i}", "at": (i * 0.5, i)} for i in range(_HEAVY_OBJECTS)]
    gc.enable()
    return flask, objects


PARENTS = {parent.__name__: parent for parent in (bare, heavy)}

# Measuring


def measure_calls(peer: Peer, fifo: str, seconds: float) -> tuple[list[int], list[int]]:
    """Nanoseconds until the call returned, and until the job's first line; one after another."""
    stamps = os.open(fifo, os.O_RDWR)
    poll = select.poll()
    poll.register(stamps, select.POLLIN)
    returns: list[int] = []
    starts: list[int] = []
    end = time.monotonic() + seconds
    while len(returns) < _MOST_STAMPS and time.monotonic() < end:
        before = time.monotonic_ns()
        peer.submit("stamp", fifo=fifo)
        after = time.monotonic_ns()
        returns.append(after - before)
        if peer.has_first_line:
            _expect(bool(poll.poll(_PATIENCE)), "no first line")
            starts.append(int.from_bytes(os.read(stamps, 8), "little") - before)
        peer.wait_all()
    os.close(stamps)
    return returns, starts


def measure_rate(peer: Peer, seconds: float) -> float:
    """No-op jobs per second: as many as are likely done in ``seconds``, submitted at once."""
    estimate = 4 * IN_FLIGHT / _time_jobs(peer, 4 * IN_FLIGHT)
    count = max(4 * IN_FLIGHT, min(_MOST_JOBS, int(estimate * seconds)))
    return count / _time_jobs(peer, count)


def _time_jobs(peer: Peer, count: int) -> float:
    before = time.monotonic()
    for _ in range(count):
        peer.submit("nothing")
    peer.wait_all()
    return time.monotonic() - before


def main() -> None:
    peer_name, parent_name, fifo, seconds = sys.argv[1:]
    kept_alive = PARENTS[parent_name]()
    peer = PEERS[peer_name]()
    peer.start()
    for _ in range(_WARM_UP):
        peer.submit("nothing")
    peer.wait_all()
    returns, starts = measure_calls(peer, fifo, float(seconds))
    rate = measure_rate(peer, float(seconds))
    del kept_alive
    import json

    print(json.dumps({"return": returns, "start": starts, "rate": rate}))
