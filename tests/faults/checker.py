"""What must hold whatever went wrong: reads the log of the jobs, and what the store has become.

The log has a line for each accepted run (``ack``), and for each start and end of an execution. A
journal in the database, kept by a trigger and not by the package, has a row for each claim, and for
each end of a claim, with the name of the connection that said so.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from tests.postgres import execute

_TABLE = """
CREATE TABLE journal (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    job_id TEXT NOT NULL,
    what TEXT NOT NULL,
    who TEXT NOT NULL DEFAULT current_setting('application_name'),
    lease_was_over BOOLEAN NOT NULL
)
"""

_FUNCTION = """
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was_over BOOLEAN := false;
    what TEXT := CASE
        WHEN TG_OP = 'INSERT' THEN 'add'
        WHEN new.created_at IS DISTINCT FROM old.created_at THEN 'replace'
        WHEN new.token <> old.token AND old.status = 'pending' THEN 'claim'
        WHEN new.token <> old.token THEN 'seize'
        WHEN old.status = 'running' AND new.status <> 'running' THEN CASE
            WHEN new.crashes > old.crashes THEN 'crash'
            WHEN new.status <> 'pending' THEN 'end'
            WHEN new.retry_count > old.retry_count THEN 'failure'
            ELSE 'release' END
        WHEN old.status IN ('completed', 'failed', 'cancelled')
            AND (new.status, new.result) IS DISTINCT FROM (old.status, old.result) THEN 'overwrite'
    END;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        was_over := coalesce(old.lease_until < clock_timestamp(), false);
    END IF;
    IF what IS NOT NULL THEN
        INSERT INTO journal (job_id, what, lease_was_over) VALUES (new.job_id, what, was_over);
    END IF;
    RETURN NULL;
END $$
"""

_TRIGGER = """
CREATE TRIGGER note_change AFTER INSERT OR UPDATE ON scheduled_jobs
FOR EACH ROW EXECUTE FUNCTION note_change()
"""

WAITING = ("pending", "running")
_PUT_BACK = frozenset({"crash", "failure", "release", "replace"})


def keep_journal(dsn):
    """From now on note what becomes of runs; the tables must be there."""
    execute(dsn, _TABLE, _FUNCTION, _TRIGGER)


class Counts(NamedTuple):
    """How often what must never be was found."""

    lost: int
    """Accepted, and not completed."""
    duplicates: int
    """Executions for which there was no claim, or one that nothing explains."""
    stale: int
    """Ends told by whoever did not hold the claim any more, and taken."""
    stuck: int
    """Neither ended nor, by now, about to."""


class Execution(NamedTuple):
    """What the log says of one."""

    name: str
    started_at: float
    ended: bool


def read_log(path):
    """The accepted ids, and the executions by their marks."""
    accepted, executions = set(), {}
    for line in Path(path).read_text().splitlines():
        what, name, mark, instant = line.split()
        if what == "ack":
            accepted.add(name)
        elif what == "start":
            executions[mark] = Execution(name, float(instant), ended=False)
        else:
            executions[mark] = executions[mark]._replace(ended=True)
    return accepted, executions


class History:
    """The log, the rows and the journal, side by side.

    Args:
        dsn: where the store is.
        log: the file of the jobs.
        doomed: accepted runs that are to fail.
    """

    def __init__(self, dsn, log, doomed=()):
        self.doomed = set(doomed)
        self.accepted, self.executions = read_log(log)
        found = execute(dsn, "SELECT job_id, schedule_id, status, result FROM scheduled_jobs")
        self.rows = {row["job_id"]: row for row in found}
        self.journal = defaultdict(list)
        for row in execute(dsn, "SELECT * FROM journal ORDER BY id"):
            self.journal[row["job_id"]].append(row)

    def mark_of(self, job_id):
        """The execution whose end the store has taken; None if there is none."""
        row = self.rows.get(job_id)
        if row is None or row["status"] != "completed" or row["result"] is None:
            return None
        return json.loads(row["result"])[0]

    def lost(self):
        for job_id in self.accepted - self.doomed:
            execution = self.executions.get(self.mark_of(job_id))
            if execution is None or not execution.ended:
                yield job_id

    def duplicates(self):
        started, ended, may_start, may_end = Counter(), Counter(), Counter(), Counter()
        for execution in self.executions.values():
            started[execution.name] += 1
            ended[execution.name] += execution.ended
        for job_id, entries in self.journal.items():
            name = self.rows[job_id]["schedule_id"] or job_id
            is_held = False
            for entry in entries:
                if entry["what"] in ("claim", "seize"):
                    may_start[name] += 1
                    if is_held:
                        yield job_id
                is_held = entry["what"] in ("claim", "seize")
                may_end[name] += entry["what"] in _PUT_BACK
            may_end[name] += self.rows[job_id]["status"] == "completed"
        for name in started:
            for _ in range(max(started[name] - may_start[name], ended[name] - may_end[name])):
                yield name

    def stale(self):
        taken = Counter()
        for job_id, entries in self.journal.items():
            claim = None
            for entry in entries:
                if entry["what"] == "claim":
                    claim = entry
                elif _is_foreign(entry, claim):
                    yield job_id
            mark = self.mark_of(job_id)
            if mark is not None:
                taken[mark] += 1
                started_at = self.executions[mark].started_at
                if claim is None or started_at < claim["at"].timestamp():
                    yield job_id
        yield from (mark for mark, number in taken.items() if number > 1)

    def stuck(self):
        return [job_id for job_id, row in self.rows.items() if row["status"] in WAITING]

    def put_back(self):
        """How often what was given back for what reason."""
        entries = [entry for entries in self.journal.values() for entry in entries]
        return Counter(entry["what"] for entry in entries if entry["what"] in _PUT_BACK)


def _is_foreign(entry, claim):
    """Whether this was said by whoever did not hold the claim, and had no right to it."""
    if entry["what"] in ("add", "replace"):
        return False
    if entry["what"] == "overwrite" or claim is None:
        return True
    return entry["who"] != claim["who"] and not (
        entry["what"] == "crash" and entry["lease_was_over"]
    )


def check(dsn, log, doomed=()):
    """Count what must never be, and print it."""
    history = History(dsn, log, doomed)
    found = [list(each()) for each in (history.lost, history.duplicates, history.stale)]
    found.append(history.stuck())
    counts = Counts(*map(len, found))
    put_back = ", ".join(f"{what} {number}" for what, number in sorted(history.put_back().items()))
    print(
        f"{len(history.accepted)} accepted, {len(history.executions)} executions; put back: "
        f"{put_back or 'none'}; {counts}"
    )
    for field, each in zip(Counts._fields, found, strict=True):
        for job_id in each[:3]:
            print(f"{field}: {job_id}")
            for entry in history.journal.get(job_id, ()):
                print("   ", *entry.values())
    return counts
