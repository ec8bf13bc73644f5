"""A real server with the webhook of ``examples``: started, posted to, and seen to its end."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.conftest import ROOT, eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EXAMPLES = ROOT / "examples"
SECRET = "whsec_the_new_one"
OLD_SECRET = "whsec_the_old_one"

FLASK = ("stripe_webhook.py",)
GUNICORN = (
    *("-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:0"),
    "stripe_webhook:create_app()",
)
PRELOADED = (*GUNICORN, "--preload")


class Answer(NamedTuple):
    status: int
    json: dict[str, Any]


class Printed(NamedTuple):
    payment: str
    money: str
    pid: int


class Server:
    """A server in a process group of its own; leaving it checks that no process is left."""

    def __init__(
        self,
        folder: Path,
        command: Iterable[str] = FLASK,
        *,
        examples: Path = EXAMPLES,
        stdout: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.receipts = folder / "receipts"
        self._output = folder / "output.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=examples,
                env=environment(folder, settings),
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=output,
                start_new_session=True,
            )
        try:
            self.port = eventually(self._find_port, what="the server's address")
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def output(self) -> str:
        return self._output.read_text()

    def _find_port(self) -> int:
        assert self.process.poll() is None, self.output
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.output)
        return int(found[1]) if found else 0

    def post(self, body: bytes, signature: str | None = None) -> Answer:
        """Post a body with its signature, or with another one."""
        header = {"Stripe-Signature": sign(body) if signature is None else signature}
        return self.request("POST", body=body, headers=header)

    def request(self, method: str, path: str = "/stripe/webhook", **options: Any) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, **options)
            response = connection.getresponse()
            assert response.getheader("Content-Type") == "application/json"
            return Answer(response.status, json.loads(response.read()))
        finally:
            connection.close()

    def printed(self) -> list[Printed]:
        """What the jobs have printed until now."""
        found = re.findall(r"^receipt for (\S+): (.+) \(pid (\d+)\)$", self.output, re.MULTILINE)
        return [Printed(payment, money, int(pid)) for payment, money, pid in found]

    def wait_for_job(self, payment: str) -> Printed:
        """Wait until the job for this payment has printed its line."""
        return eventually(
            lambda: next((each for each in self.printed() if each.payment == payment), None),
            what=f"the job for {payment}",
        )

    def kill(self) -> None:
        """Kill the server and its workers, if there are any left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End the server, and wait until all that it has started has left by itself."""
        self.process.terminate()
        self.process.wait(20)
        self.wait_until_all_left()

    def wait_until_all_left(self) -> None:
        setting = f"RECEIPTS_DIR={self.receipts}"
        eventually(lambda: not processes_with(setting), what="the end of all processes")


def environment(folder: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a server that keeps all its files in the folder."""
    return {
        **os.environ,
        "STRIPE_WEBHOOK_SECRET": f"{SECRET}, {OLD_SECRET}",
        "RECEIPTS_DIR": str(folder / "receipts"),
        "PORT": "0",
        "PYTHONUNBUFFERED": "1",  # as in most containers; jobs' lines must not be torn by it
        "HOME": str(folder),  # gunicorn makes a socket there, or in the next one
        "XDG_RUNTIME_DIR": str(folder),
        **(settings or {}),
    }


def sign(body: bytes, secret: str = SECRET, *, age: int = 0, scheme: str = "v1") -> str:
    """Return the header Stripe-Signature, as Stripe's documentation says to compute it."""
    timestamp = int(time.time()) - age
    signed = str(timestamp).encode() + b"." + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={timestamp},{scheme}={digest}"


def event(payment: str, event_type: str = "payment_intent.succeeded", **changes: Any) -> bytes:
    """Return an event like those of Stripe, with their nulls; the changes are to the payment."""
    intent = {
        "id": payment,
        "object": "payment_intent",
        "amount": 4900,
        "amount_received": 4900,
        "currency": "eur",
        "customer": "cus_9",
        "receipt_email": None,
        "metadata": {},
        **changes,
    }
    head = {"id": f"evt_{payment}", "object": "event", "type": event_type, "account": None}
    return json.dumps({**head, "data": {"object": intent}}).encode()


def processes_with(setting: str) -> list[int]:
    """The processes that have this setting in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            settings = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another user's
            continue
        if setting.encode() in settings:
            found.append(int(entry.name))
    return found
