from __future__ import annotations

import enum
import os
import socket
import sys
from collections import OrderedDict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_scheduler.launcher import wire

Pair = namedtuple("Pair", "left right")


class Number(int):
    pass


class Level(enum.IntEnum):
    HIGH = 1


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=30,
)


def same(one, other):
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@given(PLAIN)
def test_plain_values_travel_unchanged_and_without_pickle(value):
    data = wire.encode(value)
    assert data[:1] == b"m"
    assert same(wire.decode(data), value)


@pytest.mark.parametrize(
    "value",
    [
        bytearray(b"x"),
        {1, 2},
        Number(5),
        Level.HIGH,
        Pair(1, 2),
        OrderedDict(b=1, a=2),
        [{"deep": (bytearray(b"x"),)}],
        list(range(1000)),
        1 + 2j,
        ...,
    ],
)
def test_what_marshal_would_change_is_pickled(value):
    data = wire.encode(value)
    assert data[:1] == b"p"
    assert same(wire.decode(data), value)


def test_identity_within_a_value_is_kept():
    shared = [1]
    one, other = wire.decode(wire.encode([shared, shared]))
    assert one is other


def test_what_cannot_be_sent_raises():
    with pytest.raises((TypeError, AttributeError)):
        wire.encode({"bad": lambda: 0})


class InMain:
    """Pickled by reference, as a class of the main module is."""


@pytest.fixture
def main_has_a_class(monkeypatch):
    monkeypatch.setattr(InMain, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "InMain", InMain, raising=False)


@pytest.mark.parametrize(
    "value",
    [InMain, [InMain(), InMain], {"__main__": InMain()}, (Number(1), "__main__", InMain())],
)
@pytest.mark.usefixtures("main_has_a_class")
def test_references_to_the_main_module_are_seen(value):
    assert wire.refers_to_main(wire.encode(value))


@pytest.mark.parametrize(
    "value",
    [
        "__main__",
        bytearray(b"__main__"),
        (Number(1), "__main__"),
        ["__main__", Pair("__main__", "__main__"), Level.HIGH],
        [Number(1), "x" * 300, "__main__", *range(300), Number(2)],
    ],
)
def test_a_text_that_names_the_main_module_is_no_reference(value):
    assert not wire.refers_to_main(wire.encode(value))


@pytest.fixture
def ends():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


@pytest.mark.parametrize("size", [0, 10, wire.INLINE_LIMIT, wire.INLINE_LIMIT + 1, 3_000_000])
def test_a_packet_of_any_size(ends, size):
    left, right = ends
    payload = os.urandom(size)
    packet, attachment = wire.pack(7, "id", None, payload=payload)
    assert (attachment is not None) == (size > wire.INLINE_LIMIT)
    wire.send(left, packet, attachment)
    (kind, run_id, nothing, inline), received = wire.receive(right)
    assert (kind, run_id, nothing) == (7, "id", None)
    if received is not None:
        assert not os.get_inheritable(received)
    assert wire.take_payload(inline, received) == payload


def test_nothing_there_the_end_and_a_lost_descriptor(ends):
    left, right = ends
    with pytest.raises(BlockingIOError):
        wire.receive(right)
    with pytest.raises(OSError, match="no file descriptor was free"):
        wire.take_payload(None, -1)
    left.close()
    assert wire.receive(right) is None
