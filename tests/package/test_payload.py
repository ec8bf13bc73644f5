"""Arguments as the stores on disk keep them."""

from __future__ import annotations

import enum
import json
import uuid
from collections import namedtuple
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_scheduler.errors import ArgumentsError
from job_scheduler.stores.payload import decode, encode, encode_result

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=10,
)


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


Point = namedtuple("Point", "x y")


@given(st.lists(VALUES), st.dictionaries(TEXTS, VALUES))
def test_what_is_taken_comes_back_as_it_was(args, kwargs):
    found = decode(encode(tuple(args), kwargs))
    assert repr(found) == repr((tuple(args), kwargs))


@given(st.floats(min_value=1e16, allow_infinity=False))
def test_a_large_float_is_no_whole_number_to_any_reader(value):
    text = encode((value, -value), {})
    assert "e" not in text.removeprefix('{"args"')
    assert text.count(".0") == 2


def test_tuples_become_lists_and_members_their_values():
    args, kwargs = decode(encode(((1, (2,)),), {"color": Color.RED, "level": Level.HIGH}))
    assert args == ([1, [2]],)
    assert kwargs == {"color": "red", "level": 3}
    assert type(kwargs["color"]) is str
    assert type(kwargs["level"]) is int


def test_nothing_is_an_empty_object():
    assert encode((), {}) == "{}"
    assert decode("{}") == ((), {})


@pytest.mark.parametrize(
    ("by_hand", "arguments"),
    [
        (None, ((), {})),
        ("null", ((), {})),
        ("5", ((), {})),
        ("[1, 2]", ((1, 2), {})),
        ('{"to": "Ada"}', ((), {"to": "Ada"})),
        ('{"args": [1], "to": 2}', ((), {"args": [1], "to": 2})),
        ('{"args": null, "kwargs": {"a": 1}}', ((), {"a": 1})),
    ],
)
def test_what_was_put_there_by_hand_is_read_as_it_is_meant(by_hand, arguments):
    assert decode(by_hand) == arguments


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), "send value.isoformat()"),
        (date(2026, 1, 1), "send value.isoformat()"),
        (time(9), "send value.isoformat()"),
        (timedelta(1), "send value.total_seconds()"),
        (uuid.UUID(int=1), "send str(value)"),
        (Decimal("1.5"), "send str(value)"),
        (b"x", "send base64.b64encode(value).decode()"),
        ({1}, "send sorted(value)"),
        (Point(1, 2), "send value._asdict()"),
        (object(), "send what the job needs to find it"),
        (float("nan"), "no number that JSON has"),
        (float("inf"), "no number that JSON has"),
        (10**4000, "send str(value)"),
        ({1: 2}, "has the key 1, a int"),
        ("a\0b", "NUL"),
        ("\ud800", "half a character"),
        ({"a\0": 1}, "NUL"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_does_not_have_is_refused_with_its_path(value, said):
    with pytest.raises(ArgumentsError) as refused:
        encode((), {"order": {"lines": [1, value]}})
    assert "kwargs['order']['lines'][1]" in str(refused.value)
    assert said in str(refused.value)


def test_what_is_nested_too_deep_is_refused():
    deep = []
    deep.append(deep)
    with pytest.raises(ArgumentsError, match=r"args\[0\]\[0\].* more than 100 levels deep"):
        encode((deep,), {})


def test_a_long_value_is_named_shortly():
    with pytest.raises(ArgumentsError) as refused:
        encode((b"x" * 10_000,), {})
    assert len(str(refused.value)) < 300


def test_a_result_is_any_value():
    assert json.loads(encode_result([1, (2,)])) == [1, [2]]
    with pytest.raises(ArgumentsError, match="result is "):
        encode_result(object())
