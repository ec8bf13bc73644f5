from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from job_scheduler.durations import parse_duration, seconds_to_wait


@pytest.mark.parametrize(("value", "seconds"), [(1, 1), (0.5, 0.5), (timedelta(minutes=2), 120)])
def test_numbers_are_seconds(value, seconds):
    assert parse_duration(value).total_seconds() == seconds


@pytest.mark.parametrize(
    "value", [0, -1, timedelta(0), float("nan"), float("inf"), 1e20, True, None, "5", [1]]
)
def test_what_is_no_length_of_time_is_refused_by_name(value):
    with pytest.raises(ValueError, match="timeout is ") as caught:
        parse_duration(value, "timeout")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (0.5, 0.5),
        (timedelta(minutes=2), 120.0),
        (1e10, threading.TIMEOUT_MAX),
        (10**400, threading.TIMEOUT_MAX),
        (float("inf"), threading.TIMEOUT_MAX),
        (timedelta.max, threading.TIMEOUT_MAX),
    ],
)
def test_a_wait_is_no_longer_than_a_lock_allows(value, seconds):
    assert seconds_to_wait(value) == seconds
    assert type(seconds_to_wait(value)) is float


@pytest.mark.parametrize("value", [-1, -0.5, timedelta(days=-1), -(10**400), float("-inf")])
def test_a_wait_of_less_than_nothing_is_none(value):
    assert seconds_to_wait(value) == 0


def test_a_wait_of_less_than_nothing_may_be_refused():
    assert seconds_to_wait(0, negative=False) == 0
    with pytest.raises(ValueError, match="timeout is -1; it must be zero or more"):
        seconds_to_wait(-1, negative=False)


@pytest.mark.parametrize("value", [float("nan"), True, None, "5", [1]])
def test_what_nobody_can_wait_for_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"timeout is .*; give seconds or a timedelta") as caught:
        seconds_to_wait(value)
    assert repr(value) in str(caught.value)
