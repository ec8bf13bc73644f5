"""``python -m job_scheduler.service``: as ``job-scheduler serve``."""

import sys

from job_scheduler.cli.main import main

sys.exit(main(["serve", *sys.argv[1:]]))
