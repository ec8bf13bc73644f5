"""Rows of the stores on disk: what is written there is read again as it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from job_scheduler.errors import ArgumentsError, InvalidOptionError
from job_scheduler.retry import RetryPolicy
from job_scheduler.run import Ending, RunError, RunState
from job_scheduler.schedule import Missed, Schedule
from job_scheduler.stores import rows
from job_scheduler.stores.base import Claim, NewRun
from job_scheduler.triggers import Cron, Interval, Once, Trigger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "trigger",
    [
        Cron("0 9 * * 1", "Europe/Berlin"),
        Cron("@daily"),
        Interval(0.000001),
        Interval("2h32m", start=NOON),
        Once(NOON + timedelta(microseconds=1)),
    ],
)
def test_every_trigger(trigger):
    schedule = Schedule(id="s", job="j", trigger=trigger)
    assert rows.schedule_of(rows.definition_of(schedule)) == schedule


def test_every_policy():
    schedule = Schedule(
        id="s",
        job="j",
        trigger=Interval(60),
        args=(1, "two"),
        kwargs={"three": [3]},
        misfire_grace_time=timedelta(seconds=5),
        catch_up="all",
        overlap=3,
        jitter=timedelta(seconds=1),
        start=NOON,
        end=NOON + timedelta(days=1),
        pause_on_failures=2,
        counts_from_end=True,
        relative=True,
        retry=RetryPolicy(5, delay="2s", factor=3, retry_on=[OSError, "MyError"]),
        timeout=7.5,
        priority=1,
        place="process",
        about={"name": "a name", "more": [1e300]},
        generation=12,
    )
    assert rows.schedule_of(rows.definition_of(schedule)) == schedule


def test_what_json_does_not_have_is_refused():
    with pytest.raises(ArgumentsError, match=r"args\[0\]"):
        rows.definition_of(Schedule(id="s", job="j", trigger=Interval(1), args=(b"x",)))


def test_a_trigger_of_ones_own_is_refused():
    class Never(Trigger):
        def next_after(self, instant):
            return None

        def describe(self):
            return "never"

    with pytest.raises(InvalidOptionError, match="only Once, Interval and Cron"):
        rows.definition_of(Schedule(id="s", job="j", trigger=Never()))


def test_options():
    plain = NewRun(id="a", job="j", at=NOON)
    assert rows.options_text(plain) is None
    assert rows.options_of(None, 0) == (None, None, None)
    assert rows.options_of(None, 3) == (RetryPolicy(3), None, None)
    retry = RetryPolicy(2, give_up_on="ValueError")
    run = NewRun(id="a", job="j", at=NOON, retry=retry, timeout=1.5, place="thread")
    assert rows.options_of(rows.options_text(run), 2) == (retry, 1.5, "thread")


def test_endings_and_attempts_also_of_texts_that_no_database_takes():
    error = RunError("E", "a\0b \ud800 \\u0000", "trace\0back", ("ValueError",))
    ending = Ending(RunState.FAILED, error, -9, 12.5, 1000, 0.5, "oh\0")
    text = rows.ending_text(ending)
    assert text.encode()
    assert "\0" not in text
    found = rows.ending_of(text, RunState.FAILED)
    assert found.error == RunError("E", "a\ufffdb ? \\u0000", "trace\ufffdback", ("ValueError",))
    assert (found.exitcode, found.peak_memory, found.cpu_time) == (-9, 1000, 0.5)
    assert found.stderr == "oh\ufffd"
    assert rows.ending_text(Ending(RunState.COMPLETED, ended_at=1.0)) is None
    assert rows.message_of(error) == "E: a\ufffdb ? \\u0000"

    claim = Claim("r", "j", (), {}, None, None, None, NOON, "w", 3, 2)
    attempt = rows.attempt_text(claim, "crash", ending, 11.0)
    [record] = rows.attempts_of(f"[{attempt}]")
    assert (record.number, record.reason, record.worker) == (2, "crash", "w")
    assert (record.exitcode, record.error) == (-9, found.error)
    assert record.ended_at - record.started_at == timedelta(seconds=1.5)


def test_gaps():
    gaps = (Missed(NOON, NOON, 1, "late"), Missed(NOON, NOON, None, "overlap"))
    assert rows.gaps_of(rows.gaps_text(gaps)) == gaps
    assert rows.gaps_of(None) == ()
