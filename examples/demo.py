"""The main job of this project from end to end, as ``make demo`` shows it.

Starts ``stripe_webhook.py`` on Flask's server, posts signed events to it as Stripe would, shows
what the jobs did and in which processes, and checks it all. Nothing leaves this machine.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

BURST = 50
AT_A_TIME = 5
PATIENCE = 10.0  # seconds for what should take a fraction of one
RECEIPT = re.compile(r"receipt for (\S+): .+ \(pid (\d+)\)")


class Answer(NamedTuple):
    status: int
    text: str
    milliseconds: float


class Answers(NamedTuple):
    first: Answer
    again: Answer
    tampered: Answer
    other: Answer
    burst: list[Answer]


class Webhook:
    """The server, running in a process of its own, and what it and its jobs print."""

    def __init__(self, secret: str, receipts: Path) -> None:
        self.secret = secret
        self.receipts = receipts
        self.port = 0
        self.lines: list[str] = []
        settings = {
            "STRIPE_WEBHOOK_SECRET": secret,
            "RECEIPTS_DIR": str(receipts),
            "PORT": "0",  # any that is free
        }
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("stripe_webhook.py"))],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip())

    def wait_until_it_listens(self) -> None:
        wait_for(lambda: self._find_port() or self.process.poll() is not None)
        if not self.port:
            raise RuntimeError("the server did not start")

    def _find_port(self) -> bool:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", "\n".join(self.lines))
        self.port = int(found[1]) if found else 0
        return found is not None

    def printed(self) -> list[re.Match[str]]:
        """The lines that the jobs have printed until now."""
        found = [RECEIPT.fullmatch(line) for line in tuple(self.lines)]
        return [match for match in found if match]

    def post(self, body: str, signed: str | None = None) -> Answer:
        """Post a body with its own signature, or with that of another body."""
        header = {"Stripe-Signature": sign(signed or body, self.secret)}
        begun = time.perf_counter()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("POST", "/stripe/webhook", body.encode(), header)
            response = connection.getresponse()
            text = response.read().decode().strip()
        finally:
            connection.close()
        return Answer(response.status, text, (time.perf_counter() - begun) * 1000)

    def stop(self) -> bool:
        """Stop the server; whether its jobs and all other processes have left after it."""
        self.process.terminate()
        self.process.wait()
        self.reader.join(PATIENCE)  # it reads until nobody is left who could print
        return not self.reader.is_alive()


def sign(body: str, secret: str) -> str:
    """Return the header Stripe-Signature, made as Stripe makes it."""
    timestamp = int(time.time())
    digest = hmac.new(secret.encode(), f"{timestamp}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def event(number: int, event_type: str = "payment_intent.succeeded") -> str:
    intent = {"id": f"pi_{number}", "amount": 4900 + number, "currency": "eur", "customer": None}
    return json.dumps({"id": f"evt_{number}", "type": event_type, "data": {"object": intent}})


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def post_all(webhook: Webhook) -> Answers:
    """Post everything and print the answers."""
    payment = event(0)
    answers = Answers(
        first=show("a payment", webhook.post(payment)),
        again=show("the same again", webhook.post(payment)),
        tampered=show("tampered with", webhook.post(payment.replace("4900", "1"), signed=payment)),
        other=show("another type", webhook.post(event(-1, "charge.refunded"))),
        burst=[],
    )
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        answers.burst.extend(pool.map(webhook.post, map(event, range(1, BURST + 1))))
    accepted = sum(answer.status == 200 for answer in answers.burst)
    times = [answer.milliseconds for answer in answers.burst]
    print(
        f"  {f'{BURST} payments':<16}{accepted} answered 200, {AT_A_TIME} at a time: "
        f"median {statistics.median(times):.1f} ms, maximum {max(times):.1f} ms"
    )
    return answers


def show(what: str, answer: Answer) -> Answer:
    print(f"  {what:<16}{answer.milliseconds:6.1f} ms  {answer.status}  {answer.text}")
    return answer


def check(webhook: Webhook, answers: Answers, all_left: bool) -> dict[str, bool]:
    """Return what should hold, and whether it does."""
    server = str(webhook.process.pid)
    jobs = [match[1] for match in webhook.printed()]
    processes = {match[2] for match in webhook.printed()}
    payments = sorted(f"pi_{number}" for number in range(BURST + 1))
    files = sorted(file.stem for file in webhook.receipts.glob("*"))
    count = len(payments)
    first, again, tampered, other, burst = answers
    return {
        f"{count} payments were accepted": {each.status for each in (first, *burst)} == {200},
        "the same event again got the first run": again[:2] == first[:2],
        "the one that was tampered with was refused": tampered.status == 400,
        "the other type was ignored": other.status == 200 and "ignored" in other.text,
        f"{count} jobs ran, one for each payment": sorted(jobs) == payments,
        f"they ran in {count} processes": len(processes) == count,
        "none of these is the server": server not in processes,
        f"{count} receipts were written": files == payments,
        "no process is left": all_left,
    }


def demonstrate(webhook: Webhook) -> bool:
    """Show it all; whether all checks hold."""
    webhook.wait_until_it_listens()
    print(f"A Stripe webhook in process {webhook.process.pid}, port {webhook.port}\n")
    print("Events and their answers (the first also starts the process that forks the jobs)")
    answers = post_all(webhook)

    wait_for(lambda: len(webhook.printed()) > BURST)
    all_left = webhook.stop()
    lines = [match[0] for match in webhook.printed()]
    print("\nWhat the jobs printed")
    for line in lines[:4]:
        print(f"  {line}")
    print(f"  ... and {len(lines[4:])} more lines like these\n\nChecks")

    checks = check(webhook, answers, all_left)
    for what, holds in checks.items():
        print(f"  {'ok' if holds else 'FAILED':<8}{what}")
    return all(checks.values())


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it cleans up then too
    begun = time.perf_counter()
    with TemporaryDirectory() as folder, Webhook(secrets.token_hex(), Path(folder)) as webhook:
        try:
            good = demonstrate(webhook)
        except KeyboardInterrupt:
            print("\nInterrupted.")
            return 130
        except Exception as error:
            print(f"\n{type(error).__name__}: {error}")
            good = False
    if not good:
        print("\nNot all was well. The server's last lines:", *webhook.lines[-20:], sep="\n  ")
        return 1
    print(f"\nAll was well, in {time.perf_counter() - begun:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
