"""The service, whose job types are the tasks beside this file, with one of them on its plan.

What is given on the command line goes on to ``job-scheduler serve``.
"""

import os
import sys

import tasks

from job_scheduler import JobScheduler
from job_scheduler.cli.main import main as job_scheduler
from job_scheduler.errors import SchedulerError
from job_scheduler.service.settings import Settings, load_dotenv


def main(arguments: list[str]) -> int:
    try:
        declare()
    except SchedulerError as error:  # a setting that cannot be used, say
        print(error, file=sys.stderr)
        return 1
    return job_scheduler(["serve", "--jobs", "tasks", *arguments])


def declare() -> None:
    """Have job1 in the store of the service; if it is there, it stays what the users made of it."""
    load_dotenv()
    store = Settings.read(os.environ).database_url
    with JobScheduler(store=store, workers=0) as scheduler:
        scheduler.add_job(
            "job1",
            tasks.sample_task,
            cron="*/10 * * * * *",  # the first of six fields are the seconds
            kwargs={"text": "Hello, world!"},
            conflict_resolution="ignore",
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
