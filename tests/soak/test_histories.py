"""The long form of the random histories in ``tests/package/test_leases.py``."""

from __future__ import annotations

import pytest

from tests.package.test_leases import random_histories


@pytest.mark.parametrize("part", range(10))
@pytest.mark.timeout(600)
def test_a_hundred_thousand_histories_lose_nothing(part, seeded, long):
    random_histories(seeded.randrange(10**9), 10_000 if long else 20)
