"""A job in a process of its own, in five lines: ``python examples/hello.py``."""

from job_scheduler import Job, JobScheduler


class Hello(Job):
    def process(self, name: str) -> None:
        print(f"Hello, {name}!")


if __name__ == "__main__":
    JobScheduler(jobs={"Hello": Hello}).run("Hello", name="World")
