"""The job whose runs are asked for."""

from job_scheduler import Job


class Nothing(Job):
    """Does nothing, on the loop of the server."""

    async def run(self, **anything: object) -> None:
        pass
