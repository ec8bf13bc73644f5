"""The smallest job: copy this file, rename the class, and write your own ``process``."""

from job_scheduler import Job


class MyAwesomeJob(Job):
    def process(self, *, name: str = "World") -> None:
        print(f"Awesome, {name}!", flush=True)
