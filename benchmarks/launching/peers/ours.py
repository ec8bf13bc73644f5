"""``job_scheduler``, with three sets of jobs that differ in what their module imports."""

from __future__ import annotations

from launching.peers.base import EVERY_PARENT, IN_FLIGHT, Peer, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from job_scheduler import Run


class Ours(Peer):
    key = "ours"
    title = "job_scheduler"
    parents: tuple[str, ...] = EVERY_PARENT
    takes_bursts = True
    jobs_module = "launching.jobs.plain"

    def start(self, folder: str) -> None:
        from importlib import import_module

        from job_scheduler import JobScheduler

        jobs = import_module(self.jobs_module).JOBS
        self._scheduler = JobScheduler(jobs, max_processes=IN_FLIGHT)
        self._runs: list[Run] = []

    def submit(self, job: str, **arguments: str) -> None:
        self._runs.append(self._scheduler.run(job, **arguments))

    def wait_all(self) -> None:
        for run in self._runs:
            run.wait()
            expect(run.state == "completed", (run, run.error))
        self._runs.clear()

    def stop(self) -> None:
        self._scheduler.shutdown()


class OursLogging(Ours):
    key = "ours-logging"
    title = "logging"
    group = "job sets"
    parents = ("bare",)
    takes_bursts = False
    jobs_module = "launching.jobs.with_logging"


class OursLibraries(OursLogging):
    key = "ours-libraries"
    title = "requests and SQLAlchemy"
    needs = ("requests", "sqlalchemy")
    jobs_module = "launching.jobs.with_libraries"
