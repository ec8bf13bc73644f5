"""Run work outside the request: from one line in a web handler to a fleet of machines.

>>> from job_scheduler import Job, JobScheduler
>>> class Greet(Job):
...     def process(self, name):
...         return f"Hello, {name}!"
>>> scheduler = JobScheduler(jobs={"Greet": Greet}, eager=True)
>>> scheduler.run("Greet", name="World").result
'Hello, World!'

Names are loaded when they are first used (PEP 562), so that ``import job_scheduler`` costs
next to nothing: the process that launches the jobs imports this package too.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from job_scheduler.config import load_jobs as load_jobs
    from job_scheduler.job import Job as Job
    from job_scheduler.job_scheduler import CronScheduler as CronScheduler
    from job_scheduler.job_scheduler import JobScheduler as JobScheduler
    from job_scheduler.retry import RetryPolicy as RetryPolicy
    from job_scheduler.run import Run as Run
    from job_scheduler.schedule import ConflictResolution as ConflictResolution
    from job_scheduler.scheduler import JobPriority as JobPriority
    from job_scheduler.scheduler import Scheduler as Scheduler
    from job_scheduler.triggers import Cron as Cron
    from job_scheduler.triggers import Interval as Interval
    from job_scheduler.triggers import Once as Once

__version__ = "0.1.0"

__all__ = [
    "ConflictResolution",
    "Cron",
    "CronScheduler",
    "Interval",
    "Job",
    "JobPriority",
    "JobScheduler",
    "Once",
    "RetryPolicy",
    "Run",
    "Scheduler",
    "load_jobs",
]

_HOME = {
    "Cron": "job_scheduler.triggers",
    "CronScheduler": "job_scheduler.job_scheduler",
    "Interval": "job_scheduler.triggers",
    "Job": "job_scheduler.job",
    "JobPriority": "job_scheduler.scheduler",
    "JobScheduler": "job_scheduler.job_scheduler",
    "Scheduler": "job_scheduler.scheduler",
    "ConflictResolution": "job_scheduler.schedule",
    "Once": "job_scheduler.triggers",
    "RetryPolicy": "job_scheduler.retry",
    "Run": "job_scheduler.run",
    "load_jobs": "job_scheduler.config",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(_HOME[name], fromlist=[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
