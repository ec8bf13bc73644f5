"""The long form of what is done to the file of an SQLite store."""

from __future__ import annotations

import pytest

from tests.faults.test_sqlite_faults import kill_writers, path, start

__all__ = ["path", "start"]


@pytest.mark.timeout(600)
def test_what_was_accepted_outlives_many_kills(path, start, seeded, long):
    kill_writers(path, start, 500 if long else 3, seeded)
