"""What the log tells of a run's parameters."""

from __future__ import annotations

from job_scheduler.service.run_log import _parameters


def test_nothing_of_none():
    assert _parameters({}) == ""


def test_whom_and_what_come_first_however_long_the_rest_is():
    given = {"body": "b" * 5000, "subject": "s" * 5000, "recipient": "a@example.com", "z": [1]}
    said = _parameters(given)
    assert said.startswith(": subject='sss")
    assert "recipient='a@example.com'" in said
    assert "body='bbb" in said
    assert "z=[1]" in said
    assert len(said) < 600


def test_many_are_cut():
    said = _parameters({f"name {number}": number for number in range(1000)} | {"dataset": "d"})
    assert said.startswith(": dataset='d', name 0=0, ")
    assert said.endswith("...")


def test_no_secrets_and_no_line_breaks():
    said = _parameters({"password": "hunter2", "a\nb": "c\nd\x1b"})
    assert said == r": password='***', a\nb='c\nd\x1b'"
