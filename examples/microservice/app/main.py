"""The service, on port 8000: ``python -m app.main``; ``app`` is for other servers, and tests."""

import sys

from app.job_executor import JobExecutor
from job_scheduler.service.app import create_app
from job_scheduler.service.server import main

app = create_app(JobExecutor)

if __name__ == "__main__":
    sys.exit(main(JobExecutor))
