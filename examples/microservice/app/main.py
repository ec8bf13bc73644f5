"""The service, on port 8000: ``python -m app.main``."""

import sys

from app.job_executor import JobExecutor
from job_scheduler.service.server import main

if __name__ == "__main__":
    sys.exit(main(JobExecutor))
