"""A store in an SQLite file.

============  =====================================================================
module        what it does
============  =====================================================================
``store``     the store itself: each verb is a step on the writer's thread
``writer``    that thread: steps of many callers become one transaction
``file``      the connection, the file's mode, the tables and their versions
``runs``      steps on runs
``plans``     steps on schedules
``lists``     what is listed, and what is deleted after its time
``rows``      rows of the tables as the contract's records
============  =====================================================================
"""

from job_scheduler.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
