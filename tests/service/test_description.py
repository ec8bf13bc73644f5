"""The API does what its description says, for requests that nobody would think of.

A program makes them from ``/openapi.json``, good and bad ones, in all its phases, and checks each
answer: that it is described, that good requests are taken and bad ones refused, that what was
deleted is gone, and that nothing is ever a server error.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.service.test_serve import Server

MOST_SECONDS = 100


@pytest.mark.timeout(3 * MOST_SECONDS)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_the_description_holds(store, tmp_path, request, seeded):
    url = "sqlite:///s.db" if store == "sqlite" else request.getfixturevalue("database")
    server = Server(tmp_path, DATABASE_URL=url, MAX_CONCURRENT_JOBS="2")
    try:
        server.ready()
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"), "run",
                f"{server.url}/openapi.json", "--checks", "all",
                "--max-examples", "5", "--seed", str(seeded.randrange(2**31)),
                "--no-shrink", "--suppress-health-check", "all",
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "SCHEMATHESIS_HOOKS": "tests.service.formats",
            },
            capture_output=True,
            text=True,
            timeout=2 * MOST_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert not re.search(r"(GET|POST|PUT|PATCH|DELETE) \S+ has failed", server.text)
        assert server.ask("GET", "/readyz") == {"status": "ready"}
        assert server.end() == 0
    finally:
        server.process.kill()
        server.process.wait()
