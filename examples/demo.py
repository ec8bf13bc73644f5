"""The main job of this project, from end to end: ``make demo``.

Starts ``stripe_webhook.py`` with Flask's server, posts signed events to it as Stripe would, shows
what the jobs did in which processes, and checks all of it. Nothing leaves this machine.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import signal
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

BURST = 50
AT_ONE_TIME = 5
PATIENCE = 10.0  # seconds, for whatever should take a fraction of one


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]
    milliseconds: float


class Webhook:
    """The server in a process of its own, its address, and what it and its jobs print."""

    def __init__(self, secret: str, receipts: Path) -> None:
        self.secret = secret
        self.lines: list[str] = []
        settings = {"STRIPE_WEBHOOK_SECRET": secret, "RECEIPTS_DIR": str(receipts), "PORT": "0"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("stripe_webhook.py"))],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        # To the end: which comes when the server and the last of its jobs have left.
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip())

    def port(self) -> int:
        """Wait until the server listens."""
        ...
