"""What this service can run. To add a job type, add a method."""

import logging
import sys
from typing import Any

from job_scheduler.service.job_types.data_processing import DataProcessing
from job_scheduler.service.job_types.email_notification import EmailNotification
from job_scheduler.service.job_types.methods import MethodJobs

logger = logging.getLogger(__name__)


class JobExecutor(MethodJobs):
    """Each public method is a job type under its name, plain or ``async``.

    What is posted as ``parameters`` are its keyword arguments: others than it takes are refused,
    unless it has ``**others``. What it returns is the run's result, if it is JSON, what it prints
    and logs the run's output, what it raises the run's error.
    """

    def __init__(self) -> None:
        # Here, since an object is made for each run, in the process of that run.
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

    def email_notification(
        self, *, recipient: str | None = None, subject: str | None = None, **others: Any
    ) -> dict[str, Any]:
        """Sends an e-mail by SMTP; shows it where SMTP_HOST is not set."""
        logger.info("e-mail to %r: %r", recipient, subject)
        return EmailNotification().process(recipient=recipient, subject=subject, **others)

    def data_processing(self, *, dataset: str | None = None, **others: Any) -> dict[str, Any]:
        """Reads a dataset, CSV or JSON, and returns a summary of its columns."""
        logger.info("processing the dataset %r", dataset)
        return DataProcessing().process(dataset=dataset, **others)
