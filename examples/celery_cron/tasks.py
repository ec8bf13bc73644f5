"""The tasks, which a Celery worker imports, and so does whatever schedules them."""

import os

from celery import Celery

from job_scheduler.celery import SETTINGS

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

app = Celery("tasks", broker=REDIS_URL, backend=REDIS_URL)
app.conf.update(SETTINGS)


@app.task
def sample_task(text: str) -> str:
    """Print a text, and return it."""
    print(text, flush=True)
    return text
