-- The statements of the PostgreSQL store, each under its name; see statements() in postgres_rows.py.
-- No schema is named anywhere: search_path decides. A constant LIMIT and "unnest((SELECT $1))" hide
-- the size of a batch from the planner, so that it always walks the index and never the table.

-- name: has_versions
SELECT to_regclass('job_scheduler_versions') IS NOT NULL

-- name: version
SELECT coalesce(max(version), 0) FROM job_scheduler_versions

-- name: lock_versions
SELECT pg_advisory_xact_lock(7301942086114)

-- name: create_versions
CREATE TABLE IF NOT EXISTS job_scheduler_versions (
    version INTEGER PRIMARY KEY,
    migrated_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP
)

-- name: add_version
INSERT INTO job_scheduler_versions (version) VALUES ($1)

-- name: migration_1
CREATE TABLE IF NOT EXISTS scheduled_jobs (
    job_id TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
    job_name TEXT NOT NULL,
    execution_time TIMESTAMPTZ NOT NULL,
    status TEXT DEFAULT 'pending',
    task_data JSONB,
    created_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP,
    last_heartbeat TIMESTAMPTZ,
    lease_until TIMESTAMPTZ,
    priority INTEGER DEFAULT 5,
    retry_count INTEGER DEFAULT 0,
    max_retries INTEGER DEFAULT 0,
    worker_id TEXT,
    error_message TEXT
);
ALTER TABLE scheduled_jobs
    ADD COLUMN IF NOT EXISTS token BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS attempt INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS crashes INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS held BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS admitted BOOLEAN NOT NULL DEFAULT true,
    ADD COLUMN IF NOT EXISTS to_stop BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS schedule_id TEXT,
    ADD COLUMN IF NOT EXISTS beside BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS keep_until TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS options JSONB,
    ADD COLUMN IF NOT EXISTS started_at TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS ended_at TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS result JSONB,
    ADD COLUMN IF NOT EXISTS ending JSONB,
    ADD COLUMN IF NOT EXISTS attempts JSONB;
UPDATE scheduled_jobs SET ended_at = coalesce(last_heartbeat, created_at, now())
    WHERE status IN ('completed', 'failed', 'cancelled') AND ended_at IS NULL;
UPDATE scheduled_jobs SET priority = 5 WHERE priority IS NULL;
UPDATE scheduled_jobs SET created_at = execution_time WHERE created_at IS NULL;
-- Room on each page for the heartbeats; dead rows are taken away before there are many.
ALTER TABLE scheduled_jobs
    ALTER COLUMN priority SET NOT NULL,
    ALTER COLUMN created_at SET NOT NULL;
ALTER TABLE scheduled_jobs SET (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX IF NOT EXISTS scheduled_jobs_due ON scheduled_jobs (
    priority, execution_time, created_at
) WHERE status = 'pending' AND NOT held;
-- For the rescue alone, which says NOT held: whoever has an id is to find its row by that, since the
-- planner takes this index for short, and it is not, as long as it is full of what has ended.
CREATE INDEX IF NOT EXISTS scheduled_jobs_running ON scheduled_jobs (job_id)
    WHERE status = 'running' AND NOT held;
CREATE INDEX IF NOT EXISTS scheduled_jobs_ended ON scheduled_jobs (ended_at)
    WHERE status IN ('completed', 'failed', 'cancelled');
-- For lists alone, which say COLLATE "C": a claim that took it would sort all that waits.
CREATE INDEX IF NOT EXISTS scheduled_jobs_listed ON scheduled_jobs (
    job_name COLLATE "C", status COLLATE "C", created_at
) WHERE status IN ('completed', 'failed', 'cancelled');
CREATE INDEX IF NOT EXISTS scheduled_jobs_active ON scheduled_jobs (schedule_id)
    WHERE schedule_id IS NOT NULL AND status IN ('pending', 'running');
CREATE INDEX IF NOT EXISTS scheduled_jobs_of_schedule ON scheduled_jobs (
    schedule_id, status, created_at
) WHERE schedule_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS schedules (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schedule_id TEXT NOT NULL UNIQUE,
    job_name TEXT NOT NULL,
    task_data JSONB,
    trigger TEXT NOT NULL,
    timezone TEXT,
    policies JSONB NOT NULL DEFAULT '{}',
    generation BIGINT NOT NULL DEFAULT 0,
    label TEXT NOT NULL DEFAULT '',
    next_at TIMESTAMPTZ,
    last_at TIMESTAMPTZ,
    paused BOOLEAN NOT NULL DEFAULT false,
    failures INTEGER NOT NULL DEFAULT 0,
    completed BIGINT NOT NULL DEFAULT 0,
    failed BIGINT NOT NULL DEFAULT 0,
    cancelled BIGINT NOT NULL DEFAULT 0,
    missed BIGINT NOT NULL DEFAULT 0,
    gaps JSONB NOT NULL DEFAULT '[]',
    last_run TEXT,
    last_run_at TIMESTAMPTZ
);
CREATE INDEX IF NOT EXISTS schedules_due ON schedules (next_at) WHERE NOT paused

-- name: clock
SELECT clock_timestamp()

-- name: notify
SELECT pg_notify('job_scheduler', $1)

-- name: exchange
-- Ends claimed runs and claims due ones. The LATERAL part is walked level by level, and no further
-- than the LIMIT: nothing is locked that is not claimed.
WITH RECURSIVE ended AS (
    UPDATE scheduled_jobs AS r SET
        status = e.status,
        started_at = coalesce(to_timestamp(e.started_at), r.started_at),
        ended_at = to_timestamp(e.ended_at),
        lease_until = NULL,
        error_message = e.message,
        ending = e.ending::jsonb,
        result = e.result::jsonb
    FROM unnest(
        (SELECT $6::text[]), (SELECT $7::bigint[]), (SELECT $8::text[]), (SELECT $9::float8[]),
        (SELECT $10::float8[]), (SELECT $11::text[]), (SELECT $12::text[]), (SELECT $13::text[])
    ) AS e (id, token, status, started_at, ended_at, message, ending, result)
    WHERE r.job_id = e.id AND r.token = e.token AND r.worker_id = $1 AND r.status = 'running'
    RETURNING r.job_id
), {levels}, picked AS (
    SELECT p.job_id FROM levels AS l, LATERAL (
        SELECT r.job_id FROM scheduled_jobs AS r
        WHERE r.status = 'pending' AND NOT r.held
            AND r.priority = l.priority AND r.execution_time <= $2
            AND (r.execution_time, r.created_at) >= (l.since, l.created)
            AND ($5::text[] IS NULL OR r.job_name = ANY ($5))
        ORDER BY r.execution_time, r.created_at
        LIMIT 500
        FOR UPDATE SKIP LOCKED
    ) AS p
    LIMIT $3
), claimed AS (
    UPDATE scheduled_jobs AS r SET
        status = 'running',
        worker_id = $1,
        token = r.token + 1,
        attempt = r.attempt + 1,
        started_at = $2,
        last_heartbeat = coalesce($14::timestamptz, statement_timestamp()),
        lease_until = coalesce($14::timestamptz, clock_timestamp()) + make_interval(secs => $4)
    WHERE r.job_id = ANY (ARRAY(SELECT job_id FROM picked))
    RETURNING r.job_id, r.job_name, r.execution_time, r.task_data, r.options, r.max_retries,
        r.retry_count, r.crashes, r.token, r.attempt, r.priority, r.created_at, r.schedule_id,
        r.admitted
)
SELECT NULL AS job_id, NULL AS job_name, NULL AS execution_time, NULL AS task_data,
    NULL AS options, NULL AS max_retries, NULL AS retry_count, NULL AS crashes, NULL AS token,
    NULL AS attempt, NULL AS priority, NULL AS created_at,
    (SELECT array_agg(job_id) FROM ended) AS texts,
    (SELECT array_agg(l.priority) FROM levels AS l WHERE l.priority IS NOT NULL) AS levels
UNION ALL
SELECT c.job_id, c.job_name, c.execution_time, c.task_data::text, c.options::text, c.max_retries,
    c.retry_count, c.crashes, c.token, c.attempt, c.priority, c.created_at,
    CASE WHEN d.id IS NOT NULL THEN ARRAY[
        d.schedule_id, d.job_name, d.task_data::text, d.trigger, d.timezone, d.policies::text,
        d.generation::text
    ] END,
    NULL
FROM claimed AS c LEFT JOIN schedules AS d ON d.schedule_id = c.schedule_id AND c.admitted

-- name: levels_known
-- The priorities that are known, each from the last claimed run on.
levels (priority, since, created) AS (
    SELECT * FROM unnest(
        (SELECT $15::int[]), (SELECT $16::timestamptz[]), (SELECT $17::timestamptz[])
    )
)

-- name: levels_all
-- All priorities of runs that wait, from one to the next: a step costs one look into the index.
levels (priority, since, created) AS (
    (
        SELECT r.priority, '-infinity'::timestamptz, '-infinity'::timestamptz FROM scheduled_jobs AS r
        WHERE r.status = 'pending' AND NOT r.held ORDER BY r.priority LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT r.priority FROM scheduled_jobs AS r
        WHERE r.status = 'pending' AND NOT r.held AND r.priority > l.priority
        ORDER BY r.priority LIMIT 1
    ), l.since, l.created
    FROM levels AS l WHERE l.priority IS NOT NULL
)

-- name: next_instant
WITH RECURSIVE {levels}
SELECT least(
    (SELECT min(d.next_at) FROM schedules AS d WHERE NOT d.paused),
    (
        SELECT min(p.execution_time) FROM levels AS l, LATERAL (
            SELECT r.execution_time FROM scheduled_jobs AS r
            WHERE r.status = 'pending' AND NOT r.held AND r.priority = l.priority
                AND ($1::text[] IS NULL OR r.job_name = ANY ($1))
            ORDER BY r.execution_time
            LIMIT 1
        ) AS p
    )
), (SELECT min(d.next_at) FROM schedules AS d WHERE NOT d.paused)

-- name: settle
-- Ends claimed runs, or puts them back if they have an instant; not if their schedule was removed:
-- its runs are the only ones that go on without being admitted.
UPDATE scheduled_jobs AS r SET
    status = CASE WHEN e.at IS NOT NULL AND r.admitted THEN 'pending' ELSE e.status END,
    held = e.at IS NOT NULL AND r.admitted AND e.held AND NOT r.beside,
    execution_time = CASE WHEN e.at IS NOT NULL AND r.admitted THEN e.at ELSE r.execution_time END,
    worker_id = CASE WHEN e.at IS NOT NULL AND r.admitted THEN NULL ELSE r.worker_id END,
    lease_until = NULL,
    last_heartbeat = CASE WHEN e.at IS NULL OR NOT r.admitted THEN r.last_heartbeat END,
    started_at = coalesce(to_timestamp(e.started_at), r.started_at),
    ended_at = CASE WHEN e.at IS NULL OR NOT r.admitted THEN to_timestamp(e.ended_at) END,
    attempt = r.attempt - (e.at IS NOT NULL AND r.admitted AND e.reason = 'release')::int,
    retry_count = coalesce(r.retry_count, 0)
        + (e.at IS NOT NULL AND r.admitted AND e.reason = 'failure')::int,
    crashes = r.crashes + coalesce(e.reason = 'crash', false)::int,
    error_message = CASE
        WHEN e.at IS NOT NULL AND r.admitted AND e.reason = 'release' THEN r.error_message
        ELSE e.message
    END,
    ending = CASE
        WHEN e.at IS NOT NULL AND r.admitted AND (e.reason = 'release' OR e.ending IS NULL)
        THEN r.ending
        ELSE e.ending::jsonb
    END,
    attempts = CASE
        WHEN e.at IS NULL OR NOT r.admitted OR e.attempt IS NULL THEN r.attempts
        WHEN jsonb_array_length(r.attempts) >= $14 THEN (r.attempts - 0) || e.attempt::jsonb
        ELSE coalesce(r.attempts, '[]') || e.attempt::jsonb
    END,
    result = e.result::jsonb
FROM unnest(
    (SELECT $1::text[]), (SELECT $2::bigint[]), (SELECT $3::text[]), (SELECT $4::float8[]),
    (SELECT $5::float8[]), (SELECT $6::text[]), (SELECT $7::text[]), (SELECT $8::text[]),
    (SELECT $9::text[]), (SELECT $10::timestamptz[]), (SELECT $11::text[]), (SELECT $12::text[]),
    (SELECT $13::bool[])
) AS e (
    id, token, status, started_at, ended_at, message, ending, result, worker, at, reason, attempt,
    held
)
WHERE r.job_id = e.id AND r.token = e.token AND r.worker_id = e.worker AND r.status = 'running'
RETURNING r.job_id, r.status, r.schedule_id, r.beside, r.admitted, r.priority, r.execution_time,
    r.started_at

-- name: renew
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS real, coalesce($4::timestamptz, clock_timestamp()) AS now
), renewed AS (
    UPDATE scheduled_jobs AS r SET
        last_heartbeat = (SELECT now FROM clock),
        lease_until = (SELECT now FROM clock) + make_interval(secs => $5)
    FROM unnest((SELECT $2::text[]), (SELECT $3::bigint[])) AS h (id, token)
    WHERE r.job_id = h.id AND r.token = h.token AND r.worker_id = $1 AND r.status = 'running'
    RETURNING r.job_id, r.token, r.to_stop
)
SELECT (SELECT real FROM clock) AS real, n.job_id, n.token, n.to_stop
FROM (SELECT 1) AS one LEFT JOIN renewed AS n ON true

-- name: lost
-- Runs whose lease has ended, and what time it is.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS real, coalesce($1::timestamptz, clock_timestamp()) AS now
)
SELECT (SELECT real FROM clock) AS real, (SELECT now FROM clock) AS now, l.job_id, l.schedule_id
FROM (SELECT 1) AS one LEFT JOIN LATERAL (
    SELECT r.job_id, r.schedule_id FROM scheduled_jobs AS r
    WHERE r.status = 'running' AND NOT r.held AND r.lease_until < (SELECT now FROM clock)
    LIMIT 1000
) AS l ON true

-- name: take_lost
SELECT r.job_id, r.job_name, r.execution_time, r.token, r.worker_id, r.attempt, r.crashes, r.started_at, r.to_stop,
    r.schedule_id, r.admitted, r.beside
FROM scheduled_jobs AS r
WHERE r.job_id = ANY ($1::text[]) AND r.status = 'running' AND r.lease_until < $2
FOR UPDATE SKIP LOCKED

-- name: insert_runs
-- {unless} is empty, or keeps all away if one is there.
WITH clock AS MATERIALIZED (
    SELECT coalesce($14::timestamptz, clock_timestamp()) AS now
), added AS (
    INSERT INTO scheduled_jobs AS r (
        job_id, job_name, execution_time, task_data, priority, max_retries, options, keep_until,
        schedule_id, beside, admitted, held, created_at
    )
    SELECT e.id, e.job, e.at, e.data::jsonb, e.priority, e.max_retries, e.options::jsonb,
        e.keep_until, e.schedule_id, coalesce(e.beside, false), coalesce(e.admitted, true),
        coalesce(e.held, false), (SELECT now FROM clock) + (e.place - 1) * interval '1 microsecond'
    FROM unnest(
        (SELECT $1::text[]), $2::text[], $3::timestamptz[], $4::text[], $5::int[], $6::int[],
        $7::text[], $8::timestamptz[], $9::text[], $10::bool[], $11::bool[], $12::bool[]
    ) WITH ORDINALITY AS e (
        id, job, at, data, priority, max_retries, options, keep_until, schedule_id, beside,
        admitted, held, place
    )
    {unless}
    ORDER BY e.id
    {conflict}
    RETURNING r.job_id
)
SELECT (SELECT array_agg(job_id) FROM added),
    CASE WHEN $13 THEN pg_notify('job_scheduler', 'due')::text END

-- name: unless_taken
WHERE NOT EXISTS (SELECT FROM scheduled_jobs AS t WHERE t.job_id = ANY ($1))

-- name: conflict_nothing
ON CONFLICT (job_id) DO NOTHING

-- name: conflict_over
-- A row that has ended, and whose id is to be kept no longer, makes room; so does one without a
-- status, which counts as nothing. The token stays, so that no old claim ever holds again.
ON CONFLICT (job_id) DO UPDATE SET
    job_name = excluded.job_name, execution_time = excluded.execution_time,
    task_data = excluded.task_data, priority = excluded.priority,
    max_retries = excluded.max_retries, options = excluded.options,
    keep_until = excluded.keep_until, schedule_id = excluded.schedule_id,
    beside = excluded.beside, admitted = excluded.admitted, held = excluded.held,
    created_at = excluded.created_at, status = 'pending', attempt = 0,
    crashes = 0, retry_count = 0, to_stop = false, worker_id = NULL, last_heartbeat = NULL,
    lease_until = NULL, error_message = NULL, started_at = NULL, ended_at = NULL, result = NULL,
    ending = NULL, attempts = NULL
WHERE $15::bool OR r.status IS NULL OR (
    r.status IN ('completed', 'failed', 'cancelled')
    AND r.keep_until <= (SELECT now FROM clock)
)

-- name: states
SELECT r.job_id, r.status FROM scheduled_jobs AS r
WHERE r.job_id = ANY ($1::text[]) AND r.status IS NOT NULL

-- name: schedules_of
SELECT DISTINCT r.schedule_id FROM scheduled_jobs AS r
WHERE r.job_id = ANY ($1::text[]) AND r.schedule_id IS NOT NULL

-- name: take_rows
SELECT r.job_id, r.status, r.schedule_id, r.beside, r.admitted,
    r.status IN ('completed', 'failed', 'cancelled')
        AND r.keep_until <= (SELECT coalesce($2::timestamptz, clock_timestamp())) AS is_over
FROM scheduled_jobs AS r
WHERE r.job_id = ANY ($1::text[]) AND r.status IS NOT NULL
ORDER BY r.job_id FOR UPDATE

-- name: lock_schedules
SELECT d.id, d.schedule_id, d.job_name, d.task_data::text, d.trigger, d.timezone,
    d.policies::text, d.generation, d.next_at, d.paused, d.failures, d.completed, d.failed,
    d.cancelled, d.missed, d.gaps::text, d.last_run, d.last_run_at
FROM schedules AS d WHERE d.schedule_id = ANY ($1::text[]) ORDER BY d.id FOR UPDATE

-- name: admitted
SELECT r.schedule_id, count(*) FROM scheduled_jobs AS r
WHERE r.schedule_id = ANY ($1::text[]) AND r.status IN ('pending', 'running')
    AND r.admitted AND NOT r.beside
GROUP BY r.schedule_id

-- name: admit
UPDATE scheduled_jobs AS r SET admitted = true, held = false
WHERE r.job_id = ANY (ARRAY(
    SELECT w.job_id FROM unnest($1::text[], $2::int[]) AS d (schedule_id, most), LATERAL (
        SELECT h.job_id FROM scheduled_jobs AS h
        WHERE h.schedule_id = d.schedule_id AND h.status IN ('pending', 'running')
            AND h.status = 'pending' AND NOT h.admitted AND NOT h.beside
        ORDER BY h.created_at
        LIMIT greatest(0, d.most - (
            SELECT count(*) FROM scheduled_jobs AS a
            WHERE a.schedule_id = d.schedule_id AND a.status IN ('pending', 'running')
                AND a.admitted AND NOT a.beside
        ))
    ) AS w
))
RETURNING r.priority, r.execution_time

-- name: update_books
UPDATE schedules AS d SET
    next_at = e.next_at, failures = e.failures, completed = e.completed, failed = e.failed,
    cancelled = e.cancelled, last_run = e.last_run, last_run_at = e.last_run_at
FROM unnest(
    $1::bigint[], $2::timestamptz[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[],
    $7::text[], $8::timestamptz[]
) AS e (id, next_at, failures, completed, failed, cancelled, last_run, last_run_at)
WHERE d.id = e.id

-- name: move_on
UPDATE schedules AS d SET
    next_at = e.next_at, last_at = e.last_at, missed = e.missed, gaps = e.gaps::jsonb
FROM unnest(
    $1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::bigint[], $5::text[]
) AS e (id, next_at, last_at, missed, gaps)
WHERE d.id = e.id

-- name: add_schedule
-- One that is there already is looked for first, so that it costs no number.
INSERT INTO schedules (
    schedule_id, job_name, task_data, trigger, timezone, policies, generation, label, next_at,
    paused
)
SELECT $1::text, $2::text, $3::text::jsonb, $4::text, $5::text, $6::text::jsonb, $7::bigint,
    $8::text, $9::timestamptz, $10::boolean
WHERE NOT EXISTS (SELECT FROM schedules AS d WHERE d.schedule_id = $1)
ON CONFLICT (schedule_id) DO NOTHING
RETURNING id

-- name: change_schedule
-- With a generation: only if it is still that, and due at the same instant.
UPDATE schedules SET
    job_name = $2, task_data = $3::text::jsonb, trigger = $4, timezone = $5,
    policies = $6::text::jsonb, generation = $7, label = $8, next_at = $9
WHERE schedule_id = $1 AND (
    $10::bigint IS NULL OR (generation = $10 AND next_at IS NOT DISTINCT FROM $11::timestamptz)
)
RETURNING paused

-- name: pause_schedule
UPDATE schedules SET paused = true WHERE schedule_id = $1 RETURNING id

-- name: hold_waiting
UPDATE scheduled_jobs SET held = true
WHERE schedule_id = $1 AND status IN ('pending', 'running') AND status = 'pending'
    AND NOT beside AND NOT held

-- name: resume_schedule
UPDATE schedules SET
    paused = false, failures = 0, next_at = $2, missed = $3, gaps = $4::text::jsonb
WHERE schedule_id = $1

-- name: let_go
UPDATE scheduled_jobs SET held = false
WHERE schedule_id = $1 AND status IN ('pending', 'running') AND status = 'pending'
    AND admitted AND held
RETURNING priority, execution_time

-- name: cancel_waiting
UPDATE scheduled_jobs SET status = 'cancelled', held = false, ended_at = $2
WHERE schedule_id = $1 AND status IN ('pending', 'running') AND status = 'pending'
RETURNING job_id

-- name: disown
UPDATE scheduled_jobs SET admitted = false
WHERE schedule_id = $1 AND status IN ('pending', 'running')

-- name: remove_schedule
DELETE FROM schedules WHERE schedule_id = $1

-- name: due
-- At least the next one, so that it is known when to look again.
SELECT d.schedule_id, d.job_name, d.task_data::text, d.trigger, d.timezone, d.policies::text,
    d.generation, d.next_at, (
        SELECT count(*) FROM scheduled_jobs AS r
        WHERE r.schedule_id = d.schedule_id AND r.status IN ('pending', 'running')
            AND NOT r.beside AND (r.admitted OR r.status = 'pending')
    ) AS active
FROM schedules AS d
WHERE NOT d.paused
    AND d.next_at <= greatest($1, (SELECT min(f.next_at) FROM schedules AS f WHERE NOT f.paused))
ORDER BY d.next_at, d.id
LIMIT $2

-- name: schedules
-- {which} is conditions, and perhaps a limit.
SELECT d.schedule_id, d.job_name, d.task_data::text, d.trigger, d.timezone, d.policies::text,
    d.generation, d.next_at, d.paused, c.active, c.running, d.failures, d.completed, d.failed,
    d.cancelled, d.missed, d.gaps::text, d.id AS number, l.job_id AS last_run,
    greatest(d.last_run_at, l.started_at) AS last_run_at
FROM (SELECT * FROM schedules AS s WHERE {which}) AS d
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE r.admitted OR r.status = 'pending') AS active,
        count(*) FILTER (WHERE r.admitted AND r.status = 'running') AS running
    FROM scheduled_jobs AS r
    WHERE r.schedule_id = d.schedule_id AND r.status IN ('pending', 'running') AND NOT r.beside
) AS c ON true
LEFT JOIN LATERAL (
    SELECT r.job_id, r.started_at FROM scheduled_jobs AS r
    WHERE r.job_id IN (d.last_run, (
        SELECT g.job_id FROM scheduled_jobs AS g
        WHERE g.schedule_id = d.schedule_id AND g.status IN ('pending', 'running')
            AND g.status = 'running' AND g.admitted
        ORDER BY g.started_at DESC NULLS LAST LIMIT 1
    ))
    ORDER BY r.started_at DESC NULLS LAST LIMIT 1
) AS l ON true
ORDER BY d.id

-- name: runs
-- {ids} is an array of them.
SELECT r.job_id, r.job_name, r.schedule_id, r.status, r.attempt, r.execution_time, r.started_at,
    r.ended_at, r.ending::text, r.result::text, r.task_data::text, r.created_at, r.priority,
    coalesce(r.retry_count, 0) AS retry_count, coalesce(r.max_retries, 0) AS max_retries,
    r.crashes, r.worker_id, r.lease_until, r.last_heartbeat, r.attempts::text, r.error_message,
    r.options::text
FROM scheduled_jobs AS r
WHERE r.status IN ('pending', 'running', 'completed', 'failed', 'cancelled')
    AND r.job_id = ANY ({ids})
ORDER BY r.created_at DESC, r.job_id DESC

-- name: newest_ids
-- {newest} are the newest runs that were asked for, and perhaps some more.
ARRAY(SELECT p.job_id FROM ({newest}) AS p ORDER BY p.created_at DESC, p.job_id DESC LIMIT $2)

-- name: newest_runs
-- The index has the ended runs of each job and state in the order in which they came; each step from
-- one name to the next costs one look into it, and the newest of all are in those groups whose own
-- newest are. Those that wait are sorted, so that neither to add a run nor to claim it costs an
-- entry.
WITH RECURSIVE {jobs}, newest AS (
    SELECT j.name, s.status, h.created_at, h.job_id
    FROM jobs AS j, unnest($1::text[]) AS s (status), LATERAL (
        SELECT n.created_at, n.job_id FROM scheduled_jobs AS n
        WHERE n.job_name COLLATE "C" = j.name AND n.status COLLATE "C" = s.status
            AND n.status IN ('completed', 'failed', 'cancelled'){which}
        ORDER BY n.created_at DESC LIMIT 1
    ) AS h
), parts AS (
    SELECT g.name, g.status FROM newest AS g
    ORDER BY g.created_at DESC FETCH FIRST $2 ROWS WITH TIES
)
SELECT m.created_at, m.job_id FROM parts AS g, LATERAL (
    SELECT n.created_at, n.job_id FROM scheduled_jobs AS n
    WHERE n.job_name COLLATE "C" = g.name AND n.status COLLATE "C" = g.status
        AND n.status IN ('completed', 'failed', 'cancelled'){which}
    ORDER BY n.created_at DESC FETCH FIRST $2 ROWS WITH TIES
) AS m
UNION ALL (
    SELECT n.created_at, n.job_id FROM scheduled_jobs AS n
    WHERE 'pending' = ANY ($1) AND n.status = 'pending' AND NOT n.held{which}
    ORDER BY n.created_at DESC FETCH FIRST $2 ROWS WITH TIES
)
UNION ALL (
    SELECT n.created_at, n.job_id FROM scheduled_jobs AS n
    WHERE 'pending' = ANY ($1) AND n.status = 'pending' AND n.held
        AND n.schedule_id IS NOT NULL{which}
    ORDER BY n.created_at DESC FETCH FIRST $2 ROWS WITH TIES
)
UNION ALL
SELECT n.created_at, n.job_id FROM scheduled_jobs AS n
WHERE 'running' = ANY ($1) AND n.status = 'running' AND NOT n.held{which}

-- name: jobs_all
jobs (name) AS (
    (
        SELECT n.job_name FROM scheduled_jobs AS n
        WHERE n.status IN ('completed', 'failed', 'cancelled') ORDER BY n.job_name COLLATE "C" LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT n.job_name FROM scheduled_jobs AS n
        WHERE n.status IN ('completed', 'failed', 'cancelled') AND n.job_name COLLATE "C" > j.name
        ORDER BY n.job_name COLLATE "C" LIMIT 1
    )
    FROM jobs AS j WHERE j.name IS NOT NULL
)

-- name: newest_runs_of_schedule
SELECT m.created_at, m.job_id FROM unnest($1::text[]) AS s (status), LATERAL (
    SELECT n.created_at, n.job_id FROM scheduled_jobs AS n
    WHERE n.status = s.status{which}
    ORDER BY n.created_at DESC FETCH FIRST $2 ROWS WITH TIES
) AS m

-- name: outcomes
-- So many of each state, and of them the newest.
SELECT g.schedule_id, r.job_id, r.status, r.execution_time, r.started_at, r.ended_at
FROM unnest((SELECT $1::text[])) AS g (schedule_id), LATERAL (
    SELECT m.* FROM unnest($3::text[]) AS s (status), LATERAL (
        SELECT n.job_id, n.status, n.execution_time, n.started_at, n.ended_at, n.created_at
        FROM scheduled_jobs AS n WHERE n.schedule_id = g.schedule_id AND n.status = s.status
        ORDER BY n.created_at DESC FETCH FIRST $2 ROWS WITH TIES
    ) AS m
    ORDER BY m.created_at DESC, m.job_id DESC LIMIT $2
) AS r
ORDER BY r.created_at DESC, r.job_id DESC

-- name: counts
SELECT d.number AS due, d.oldest AS oldest_due, (
    SELECT count(*) FROM scheduled_jobs AS r WHERE r.status = 'running' AND NOT r.held
) AS running, (
    SELECT count(*) FROM schedules
) AS schedules, (
    SELECT min(s.next_at) FROM schedules AS s WHERE NOT s.paused AND s.next_at IS NOT NULL
) AS next_at
FROM (
    SELECT count(*) AS number, min(r.execution_time) AS oldest FROM scheduled_jobs AS r
    WHERE r.status = 'pending' AND NOT r.held AND r.execution_time <= $1
) AS d

-- name: cancel
UPDATE scheduled_jobs SET status = 'cancelled', ended_at = $2
WHERE job_id = $1 AND status = 'pending' AND (schedule_id IS NULL OR $3)
RETURNING admitted, beside, schedule_id

-- name: waits_for_schedule
SELECT schedule_id FROM scheduled_jobs
WHERE job_id = $1 AND status = 'pending' AND schedule_id IS NOT NULL

-- name: ask_to_stop
WITH asked AS (
    UPDATE scheduled_jobs SET to_stop = true WHERE job_id = $1 AND status = 'running'
    RETURNING job_id
)
SELECT job_id, pg_notify('job_scheduler', 'stop')::text FROM asked

-- name: forget_old
DELETE FROM scheduled_jobs
WHERE status IN ('completed', 'failed', 'cancelled') AND job_id = ANY (ARRAY(
    SELECT r.job_id FROM scheduled_jobs AS r
    WHERE r.status IN ('completed', 'failed', 'cancelled') AND r.ended_at <= $1::timestamptz - $2::interval
        AND (r.keep_until IS NULL OR r.keep_until <= $1)
    ORDER BY r.ended_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
))
RETURNING job_id

-- name: forget_many
DELETE FROM scheduled_jobs
WHERE status IN ('completed', 'failed', 'cancelled') AND job_id = ANY (ARRAY(
    SELECT r.job_id FROM (
        SELECT a.job_id, a.keep_until FROM scheduled_jobs AS a
        WHERE a.status IN ('completed', 'failed', 'cancelled')
        ORDER BY a.ended_at DESC OFFSET $2
    ) AS r
    WHERE r.keep_until IS NULL OR r.keep_until <= $1
    LIMIT 1000
))
RETURNING job_id

-- name: waiting_for_others
SELECT r.job_name, count(*) FROM scheduled_jobs AS r
WHERE r.status = 'pending' AND NOT r.held AND r.execution_time <= $1
    AND NOT r.job_name = ANY ($2::text[])
GROUP BY r.job_name
