"""The job types that ship with the service, and those of its ``jobs/``.

Nothing is imported before it is asked for: processes that run one of these jobs load this too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from job_scheduler.job import Job


def built_in() -> dict[str, type[Job]]:
    """The job types that ship with the service, by the names under which they are registered."""
    from job_scheduler.service.job_types.data_processing import DataProcessing
    from job_scheduler.service.job_types.email_notification import EmailNotification

    return {"email_notification": EmailNotification, "data_processing": DataProcessing}
