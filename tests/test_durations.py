from __future__ import annotations

from datetime import timedelta

import pytest

from job_scheduler.durations import parse_duration


@pytest.mark.parametrize(("value", "seconds"), [(1, 1), (0.5, 0.5), (timedelta(minutes=2), 120)])
def test_numbers_are_seconds(value, seconds):
    assert parse_duration(value).total_seconds() == seconds


def test_zero_where_it_is_allowed():
    assert parse_duration(0, zero=True).total_seconds() == 0
    with pytest.raises(ValueError, match="must be zero or more"):
        parse_duration(-1, zero=True)


@pytest.mark.parametrize(
    "value", [0, -1, timedelta(0), float("nan"), float("inf"), 1e20, True, None, "5", [1]]
)
def test_what_is_no_length_of_time_is_refused_by_name(value):
    with pytest.raises(ValueError, match="timeout is ") as caught:
        parse_duration(value, "timeout")
    assert repr(value) in str(caught.value)
