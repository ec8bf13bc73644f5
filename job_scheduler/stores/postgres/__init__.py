"""A store in PostgreSQL.

================  =================================================================
module            what it does
================  =================================================================
``store``         the store itself: each verb is a statement or a transaction
``exchange``      the statement that ends runs and claims the next
``marks``         how far the queue was claimed, so that it is not read from its start
``queue``         new runs on their way in
``books``         schedules whose runs begin and end
``hints``         NOTIFY and LISTEN
``link``          connections, and errors that say what is wrong
``rows``          rows of the tables as the contract's records
``statements``    all SQL, by name (``statements.sql``)
================  =================================================================
"""

from job_scheduler.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
