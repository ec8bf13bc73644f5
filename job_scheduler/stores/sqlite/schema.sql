-- Times are whole microseconds since 1970 (UTC), as exact as the instants that come in.
-- The statements are separated by a semicolon at the end of a line.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

-- label: the name, or the id, as a text is looked for in it.
CREATE TABLE schedules (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    schedule_id TEXT NOT NULL UNIQUE,
    job_name TEXT NOT NULL,
    task_data TEXT,
    trigger TEXT NOT NULL,
    timezone TEXT,
    policies TEXT NOT NULL DEFAULT '{}',
    generation INTEGER NOT NULL DEFAULT 0,
    label TEXT NOT NULL DEFAULT '',
    next_at INTEGER,
    last_at INTEGER,
    paused INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    missed INTEGER NOT NULL DEFAULT 0,
    gaps TEXT,
    last_run TEXT,
    last_run_at INTEGER
);

CREATE INDEX schedules_due ON schedules (next_at) WHERE NOT paused AND next_at IS NOT NULL;

-- schedule_number is that of the schedule, until the run has ended or the schedule is removed.
-- held: not admitted, or of a schedule that pauses; the claim passes over it.
-- kept: keep_until is set, and forget() has not found it to be over.
-- lease_until is there to be read; lease_ends decides, by a clock that nobody sets.
CREATE TABLE scheduled_jobs (
    job_id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    job_name TEXT NOT NULL,
    execution_time INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending',
    task_data TEXT,
    created_at INTEGER DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)),
    last_heartbeat INTEGER,
    lease_until INTEGER,
    priority INTEGER NOT NULL DEFAULT 5,
    retry_count INTEGER NOT NULL DEFAULT 0,
    max_retries INTEGER NOT NULL DEFAULT 0,
    worker_id TEXT,
    error_message TEXT,
    token INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    admitted INTEGER NOT NULL DEFAULT 1,
    to_stop INTEGER NOT NULL DEFAULT 0,
    schedule_id TEXT,
    schedule_number INTEGER,
    beside INTEGER NOT NULL DEFAULT 0,
    keep_until INTEGER,
    kept INTEGER NOT NULL DEFAULT 0,
    options TEXT,
    started_at INTEGER,
    ended_at INTEGER,
    lease_ends INTEGER,
    ending TEXT,
    result TEXT,
    attempts TEXT,
    CHECK (typeof(execution_time) = 'integer'),
    CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled'))
);

-- One for each question.
CREATE INDEX runs_due ON scheduled_jobs (priority, execution_time)
    WHERE status = 'pending' AND NOT held;
CREATE INDEX runs_held ON scheduled_jobs (schedule_number) WHERE status = 'pending' AND held;
CREATE INDEX runs_going ON scheduled_jobs (lease_ends) WHERE status = 'running';
CREATE INDEX runs_to_stop ON scheduled_jobs (job_id) WHERE status = 'running' AND to_stop;
CREATE INDEX runs_of_schedules ON scheduled_jobs (schedule_number, beside, admitted)
    WHERE schedule_number IS NOT NULL;
CREATE INDEX runs_listed ON scheduled_jobs (schedule_id, status) WHERE schedule_id IS NOT NULL;
CREATE INDEX runs_of_job ON scheduled_jobs (job_name);
CREATE INDEX runs_not_completed ON scheduled_jobs (status)
    WHERE status IN ('failed', 'cancelled');
CREATE INDEX runs_to_forget ON scheduled_jobs (ended_at) WHERE ended_at IS NOT NULL AND NOT kept;
CREATE INDEX runs_to_keep ON scheduled_jobs (keep_until) WHERE ended_at IS NOT NULL AND kept;
