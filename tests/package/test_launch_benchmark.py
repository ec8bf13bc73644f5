"""The pure parts of ``benchmarks/launching``: what becomes of measurements, and their choice."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "launching"]:
        del sys.modules[name]


def test_times_become_a_median_and_a_percentile_in_microseconds():
    from launching.rounds import figures_of

    nanoseconds = [number * 1000 for number in range(1, 102)]
    assert figures_of({"return": nanoseconds, "start": [], "rate": 7.0}) == {
        "return": 51,
        "return_p99": 100,
        "rate": 7.0,
    }


def test_each_round_begins_with_another_row():
    from launching.rounds import rotated

    assert [rotated("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]
    assert sorted(rotated("abc", 2)) == ["a", "b", "c"]


def test_medians_are_taken_column_by_column():
    from launching.rounds import medians

    assert medians([{"a": 1, "b": 9}, {"a": 5, "b": 2}, {"a": 3, "b": 4}]) == {"a": 3, "b": 4}


def test_a_heading_does_not_widen_the_columns():
    from launching.tables import align

    lines = [["name", "x"], ["a heading that is long"], ["a", "123"]]
    assert align(lines) == "name    x\na heading that is long\na     123"


def test_a_row_without_figures_says_why():
    from launching.tables import all_tables

    assert "no C compiler" in all_tables({"bare": {"c-fork": [{}]}})


def test_a_tree_has_its_root_first():
    import os

    from launching.memory import occupied, tree

    assert tree(os.getpid())[0] == os.getpid()
    assert occupied(os.getpid()) > 1000


def test_rows_are_chosen_by_name_and_parent():
    from launching.rows import UnknownNameError, choose

    plan = choose(["fork", "ours-logging"], ["bare"])
    assert {parent: [row.key for row in rows] for parent, rows in plan.items()} == {
        "bare": ["fork", "ours-logging"]
    }
    with pytest.raises(UnknownNameError, match="no peer 'forc'"):
        choose(["forc"], [])
    with pytest.raises(UnknownNameError, match="none of c-fork"):
        choose(["c-fork"], ["hog"])


def test_what_is_not_installed_is_named(monkeypatch):
    import importlib.util

    from launching.rows import NotInstalledError, choose

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotInstalledError, match=r"pebble.*make bench-launch"):
        choose(["pebble"], ["bare"])
