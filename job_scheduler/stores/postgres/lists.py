"""What a question selects in PostgreSQL: the conditions of it, with their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from job_scheduler.run import RunState
from job_scheduler.stores import rows
from job_scheduler.stores.postgres.rows import statements

if TYPE_CHECKING:
    from job_scheduler.stores.base import RunQuery, ScheduleQuery

STATES: Final = [state.value for state in RunState]


def schedules_asked(query: ScheduleQuery) -> tuple[str, list[Any]]:
    """The statement that lists schedules, and its values."""
    values: list[Any] = [query.after, query.limit]
    conditions = "s.id > $1"
    for condition, value in (
        (" AND s.id = ANY ({})", None if query.numbers is None else list(query.numbers)),
        (" AND s.schedule_id = ANY ({})", None if query.ids is None else list(query.ids)),
        (" AND s.job_name = {}", query.job),
        (" AND s.paused = {}", query.paused),
        (" AND strpos(s.label, {}) > 0", None if query.text is None else rows.folded(query.text)),
    ):
        if value is not None:
            values.append(value)
            conditions += condition.format(f"${len(values)}")
    which = f"{conditions} ORDER BY s.id LIMIT $2"
    return statements()["schedules"].format(which=which), values


def runs_asked(query: RunQuery) -> tuple[str, list[Any]]:
    """The statement that lists runs, and its values."""
    states = STATES if query.state is None else [query.state.value]
    values: list[Any] = [states, query.limit]
    found = statements()
    conditions, jobs = "", found["jobs_all"]
    if query.job is not None:
        values.append(query.job)
        conditions, jobs = " AND n.job_name = $3", "jobs (name) AS (SELECT $3::text)"
    for condition, value in (
        (" AND n.schedule_id = {}", query.schedule_id),
        (_BEFORE, query.before),
    ):
        if value is not None:
            values.append(value)
            conditions += condition.format(f"${len(values)}")
    which = "newest_runs" if query.schedule_id is None else "newest_runs_of_schedule"
    newest = found[which].format(jobs=jobs, which=conditions)
    return found["runs"].format(ids=found["newest_ids"].format(newest=newest)), values


_BEFORE: Final = """
    AND n.created_at <= (SELECT b.created_at FROM scheduled_jobs AS b WHERE b.job_id = {0})
    AND (n.created_at, n.job_id) < (
        SELECT b.created_at, b.job_id FROM scheduled_jobs AS b WHERE b.job_id = {0})"""
