"""Fixtures of tests that have a short form and, with ``--soak``, a long one."""

from __future__ import annotations

import pytest

from tests.faults.conftest import start_caller

__all__ = ["start_caller"]


@pytest.fixture
def long(request):
    """Whether to take the time that it needs."""
    return request.config.getoption("--soak")
