"""``python -m job_scheduler`` is the command ``job-scheduler``."""

import sys

from job_scheduler.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
