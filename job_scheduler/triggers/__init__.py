"""When something is due: once, at intervals, or as cron says.

A trigger is frozen and keeps no state: from one instant it tells the next. It does not know
whether anything ran; what happens to instants that were missed is the schedule's business.
"""

from job_scheduler.triggers.base import Trigger
from job_scheduler.triggers.cron import Cron
from job_scheduler.triggers.interval import Interval
from job_scheduler.triggers.once import Once

__all__ = ["Cron", "Interval", "Once", "Trigger"]
