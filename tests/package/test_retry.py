"""Whether, when and for which errors a run is tried again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_scheduler.retry import RetryPolicy, retry_policy


def delays(policy, chance=0.5):
    return [policy.delay_before(n, lambda: chance).total_seconds() for n in range(1, 6)]


def test_delays_grow_up_to_a_cap():
    assert delays(RetryPolicy(5, delay="2s", factor=3, max_delay="1m")) == [2, 6, 18, 54, 60]
    assert delays(RetryPolicy(5, delay=4, factor=1)) == [4, 4, 4, 4, 4]
    assert delays(RetryPolicy(5, delay=0)) == [0, 0, 0, 0, 0]


def test_jitter_makes_them_shorter_or_longer():
    policy = RetryPolicy(5, delay=10, factor=1, jitter=0.2)
    assert delays(policy, 0.0)[0] == 8
    assert delays(policy, 1.0)[0] == 12
    assert 8 <= policy.delay_before(1).total_seconds() <= 12


@given(st.integers(1, 10**6), st.floats(1, 1e6), st.floats(0, 1))
def test_no_delay_is_too_long_for_a_calendar(retry, factor, chance):
    policy = RetryPolicy(10**9, delay="1d", factor=factor, max_delay="30 days")
    assert policy.delay_before(retry, lambda: chance) <= timedelta(days=33)


KEY_ERROR = ("KeyError", "LookupError", "Exception", "BaseException", "object")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RetryPolicy(), True),
        (RetryPolicy(0), False),
        (RetryPolicy(retry_on=KeyError), True),
        (RetryPolicy(retry_on=[OSError, LookupError]), True),
        (RetryPolicy(retry_on="KeyError"), True),
        (RetryPolicy(retry_on=OSError), False),
        (RetryPolicy(give_up_on=LookupError), False),
        (RetryPolicy(retry_on=LookupError, give_up_on=KeyError), False),
        (RetryPolicy(retry_on=KeyError, give_up_on=OSError), True),
    ],
)
def test_errors(policy, expected):
    assert policy.wants(0, KEY_ERROR) is expected


def test_it_ends():
    policy = RetryPolicy(3)
    assert [policy.wants(retries, ["JobKilled"]) for retries in range(5)] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_retries": -1}, "max_retries is -1; it must be a whole number from 0"),
        ({"max_retries": 2**31}, "max_retries is 2147483648; it must be at most"),
        ({"max_retries": 1.5}, "max_retries is 1.5"),
        ({"max_retries": True}, "max_retries is True"),
        ({"max_retries": None}, "max_retries is None"),
        ({"factor": 0.5}, "factor is 0.5; it must be a number from 1"),
        ({"factor": float("inf")}, "factor is inf"),
        ({"factor": float("nan")}, "factor is nan"),
        ({"jitter": 2}, "jitter is 2; it must be from 0 to 1"),
        ({"delay": "soon"}, "delay is 'soon'"),
        ({"max_delay": -1}, "max_delay is -1"),
        ({"retry_on": [5]}, "retry_on has 5; give an exception's class or its name"),
        ({"give_up_on": int}, "give_up_on has <class 'int'>"),
    ],
)
def test_what_is_no_policy_is_refused(arguments, words):
    with pytest.raises(ValueError, match=r"is|has") as caught:
        RetryPolicy(**arguments)
    assert words in str(caught.value)


def test_a_number_is_a_policy():
    assert retry_policy(None, "retry") is None
    assert retry_policy(0, "retry") == RetryPolicy(0)
    assert retry_policy(3, "retry") == RetryPolicy(3)
    assert retry_policy(RetryPolicy(delay=7), "retry") == RetryPolicy(delay=7)
    for wrong in (True, -1, "3", 1.5):
        with pytest.raises(ValueError, match=r"X\.retry is .*; give a RetryPolicy or a number"):
            retry_policy(wrong, "X.retry")
