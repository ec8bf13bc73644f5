"""One instant, and instants at a fixed distance."""

from __future__ import annotations

import itertools
import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_scheduler.triggers import Cron, Interval, Once

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)

instants = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
periods = st.timedeltas(timedelta(microseconds=1), timedelta(days=40_000))


class TestOnce:
    def test_it_fires_once(self):
        trigger = Once(START)
        assert trigger.next_after(START - SECOND) == START
        assert trigger.next_after(START) is None
        assert trigger.next_after(START + SECOND) is None
        assert trigger.preview(5, START - SECOND) == [START]

    def test_it_is_utc_inside(self):
        trigger = Once(datetime(2026, 1, 1, 5, 30, tzinfo=timezone(timedelta(hours=5.5))))
        assert trigger == Once(START)
        assert trigger.instant.tzinfo is UTC
        assert Once(datetime(2026, 1, 1)).instant == datetime(2026, 1, 1).astimezone(UTC)

    def test_it_tells_when(self):
        assert Once(START).describe() == "once, at 2026-01-01 00:00:00+00:00"

    @pytest.mark.parametrize("value", ["2026-01-01", 17, None])
    def test_what_is_no_instant_is_refused(self, value):
        with pytest.raises(ValueError, match="give a datetime"):
            Once(value)

    def test_it_is_a_value(self):
        assert pickle.loads(pickle.dumps(Once(START))) == Once(START)
        with pytest.raises(AttributeError):
            Once(START).instant = START


class TestInterval:
    def test_it_is_one_period_after(self):
        assert Interval("30m").next_after(START) == START + timedelta(minutes=30)

    def test_with_a_start_it_keeps_its_beat(self):
        trigger = Interval(10, start=START)
        assert trigger.next_after(START - timedelta(days=1)) == START
        assert trigger.next_after(START) == START + 10 * SECOND
        assert trigger.next_after(START + 9 * SECOND) == START + 10 * SECOND
        assert trigger.next_after(START + 25 * SECOND) == START + 30 * SECOND

    def test_the_end_of_the_calendar(self):
        last = datetime.max.replace(tzinfo=UTC)
        assert Interval("1s").next_after(last) is None
        assert Interval("1s", start=START).next_after(last) is None

    @pytest.mark.parametrize("period", [0, -1, "0s", "5", "", None, float("nan"), "1e9 days"])
    def test_what_is_no_period_is_refused(self, period):
        with pytest.raises(ValueError, match="period is ") as caught:
            Interval(period)
        assert repr(period) in str(caught.value)

    def test_it_tells_how_often(self):
        assert Interval("16:00").describe() == "every 16 minutes"
        assert Interval(1).describe() == "every 1 second"

    def test_it_is_a_value(self):
        trigger = Interval("1m", start=START)
        assert pickle.loads(pickle.dumps(trigger)) == trigger == Interval(60, start=START)
        assert trigger != Interval("1m")

    @given(instants, periods, st.none() | instants)
    def test_it_is_strictly_later_and_none_is_left_out(self, instant, period, start):
        trigger = Interval(period, start)
        found = trigger.next_after(instant)
        assert found > instant
        if start is not None:
            assert (found - start) % period == timedelta(0)
            assert found == start or found - period <= instant


@given(instants, st.integers(1, 30))
def test_a_preview_is_what_comes_one_after_another(instant, count):
    trigger = Cron("*/7 3 * * *", "Europe/Berlin")
    preview = trigger.preview(count, instant)
    assert len(preview) == count
    assert preview[0] == trigger.next_after(instant)
    assert all(trigger.next_after(one) == two for one, two in itertools.pairwise(preview))


def test_a_preview_from_now_on():
    before = datetime.now(UTC)
    assert before < Cron("* * * * *").preview(1)[0] <= datetime.now(UTC) + timedelta(minutes=1)
