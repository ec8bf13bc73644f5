from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_scheduler.durations import describe_duration, parse_duration, seconds_to_wait


@pytest.mark.parametrize(("value", "seconds"), [(1, 1), (0.5, 0.5), (timedelta(minutes=2), 120)])
def test_numbers_are_seconds(value, seconds):
    assert parse_duration(value).total_seconds() == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("30m", 1800),
        ("2h32m", 9120),
        ("16:00", 960),
        (":01", 1),
        ("0:00:01", 1),
        ("2 days, 4:13:02", 187_982),
        ("2:04:13:02", 187_982),
        ("1.24 days", 107_136),
        ("  5 MINUTES ", 300),
        ("1w3d2h32m", 873_120),
        ("0.5s", 0.5),
        ("1 hour, 30 mins", 5400),
    ],
)
def test_a_string_carries_its_unit(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, timedelta(0), timedelta(-1), float("nan"), float("inf"), 1e20, 10**400),
        *(True, None, [1], b"1s", timedelta.max, 32e9),
        *("5", "1h2", "", " ", "s", "nan", "inf", "1 fortnight", "1e3s", "1 day 2", "1m 1m"),
        *("0s", "-1s", ":00", "-2:00", "9" * 30 + "d", "\u0663s", "1s; rm", "None"),
    ],
)
def test_what_is_no_length_of_time_is_refused_by_name(value):
    with pytest.raises(ValueError, match="timeout is ") as caught:
        parse_duration(value, "timeout")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [0, 0.0, timedelta(0), "0s", ":00"])
def test_nothing_at_all_is_a_length_where_that_makes_sense(value):
    assert parse_duration(value, zero=True) == timedelta(0)
    with pytest.raises(ValueError, match="must be more than zero"):
        parse_duration(value)


def test_less_than_nothing_never_is():
    with pytest.raises(ValueError, match=r"delay is '-1s'; it must be zero or more"):
        parse_duration("-1s", "delay", zero=True)


def test_what_cannot_be_read_is_told_with_what_can():
    with pytest.raises(
        ValueError, match="frequency is '1h2', which cannot be read; give"
    ) as caught:
        parse_duration("1h2", "frequency")
    assert "'16:00', which is 16 minutes" in str(caught.value)
    assert str(caught.value).endswith(", a number of seconds, or a timedelta")
    with pytest.raises(ValueError, match=r"a number of seconds, or 'startup'$"):
        parse_duration("soon", "initial_delay", or_else="'startup'")


@pytest.mark.parametrize("text", ["1w" + " " * 97 + "x", "1w " * 33, "1" * 101, " " * 10**6])
def test_a_text_made_to_be_slow_is_refused_at_once(text):
    started = time.thread_time()
    with pytest.raises(ValueError, match="timeout is "):
        parse_duration(text, "timeout")
    assert time.thread_time() - started < 2


def test_a_text_that_is_too_long_is_not_repeated():
    with pytest.raises(ValueError, match=r"^frequency is a text of 1,000 characters; 100 are the"):
        parse_duration("1" * 1000, "frequency")


@given(st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(days=300_000)))
def test_a_duration_in_words_is_read_as_the_same(duration):
    whole = timedelta(duration.days, duration.seconds)
    if whole:
        assert parse_duration(describe_duration(whole)) == whole
    assert parse_duration(duration) is duration


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1, "1 second"),
        (960, "16 minutes"),
        (5400, "1 hour 30 minutes"),
        (90_061, "1 day 1 hour 1 minute 1 second"),
        (0.25, "0.25 seconds"),
        (60.5, "1 minute 0.5 seconds"),
        (0, "0 seconds"),
    ],
)
def test_words(value, words):
    assert describe_duration(timedelta(seconds=value)) == words


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
