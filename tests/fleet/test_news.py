"""What is made of the records that Celery writes; no Redis is needed."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from job_scheduler.executors.celery import news
from job_scheduler.executors.celery.flight import Worker

LONG_AGO = "2020-01-01T00:00:00"


def failure(kind, message, module="builtins", traceback="Traceback ..."):
    result = {"exc_type": kind, "exc_message": message, "exc_module": module}
    return {"status": "FAILURE", "result": result, "traceback": traceback, "date_done": LONG_AGO}


@pytest.mark.parametrize(
    ("said", "words", "bases"),
    [
        (failure("KeyError", ["x"]), "KeyError: 'x'", ("LookupError", "Exception")),
        (failure("OSError", [2, "gone"]), "OSError: [Errno 2] gone", ("Exception",)),
        (failure("Own", ["a", 1], "not.known"), "Own: a, 1", ()),
        (failure("Own.Inner", ["a"], "not.known"), "Inner: a", ()),
        (failure("ValueError", []), "ValueError", ("Exception",)),
        (failure("UnicodeDecodeError", ["odd"]), "UnicodeDecodeError: odd", ("UnicodeError",)),
        (failure("path", ["x"], "os"), "path: x", ()),  # no exception, and not called
        ({"status": "FAILURE", "result": None}, "Failure", ()),
        ({"status": "FAILURE", "result": "what?"}, "Failure: what?", ()),
        ({"status": "REJECTED", "result": None}, "Rejected", ()),
    ],
)
def test_failures(said, words, bases):
    came_of_it = news.ending_of(said, None)
    assert came_of_it.state == "failed"
    assert str(came_of_it.error) == words
    assert came_of_it.error.bases[: len(bases)] == bases


def test_what_has_another_name_here():
    lost = news.ending_of(failure("WorkerLostError", ["exited"], "billiard.exceptions"), None)
    assert str(lost.error) == "JobLost: its worker was lost: exited"
    late = failure("TimeLimitExceeded", [5], "billiard.exceptions")
    assert str(news.ending_of(late, 5).error) == "JobTimeout: not done after 5 s"
    assert news.ending_of(late, None).error.type == "TimeLimitExceeded"  # not a limit of ours


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (["terminated"], "the run was cancelled"),
        (["revoked"], "the run was cancelled"),
        (["expired"], "it was revoked: expired"),
    ],
)
def test_revoked(message, words):
    said = failure("TaskRevokedError", message, "celery.exceptions") | {"status": "REVOKED"}
    came_of_it = news.ending_of(said, None)
    assert (came_of_it.state, came_of_it.error.message) == ("cancelled", words)
    assert not news.has_run(said)


def test_success_and_when_it_was():
    def ended_at(text):
        said = {"status": "SUCCESS", "result": [1], "date_done": text}
        came_of_it = news.ending_of(said, None)
        assert came_of_it.load_result() == [1]
        return came_of_it.ended_at

    assert ended_at(LONG_AGO) == datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    assert ended_at("2020-01-01T02:00:00+02:00") == ended_at(LONG_AGO)
    for odd in ("9999-01-01T00:00:00", "soon", None):  # never later than now
        assert abs(ended_at(odd) - time.time()) < 60


def test_where_it_started():
    said = {"status": "STARTED", "result": {"hostname": "celery@a", "pid": 7}}
    assert news.worker_of(said) == Worker("celery@a", 7)
    for other in ({"status": "PROGRESS", "result": {"hostname": "x"}},
                  {"status": "STARTED", "result": None}):  # fmt: skip
        assert news.worker_of(other) is None
