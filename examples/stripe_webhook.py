"""A Stripe webhook that answers at once and does the work in other processes.

Run it with Flask's own server, or with gunicorn (``--preload`` works too)::

    export STRIPE_WEBHOOK_SECRET=whsec_...        # while you rotate it: both, with a comma
    python examples/stripe_webhook.py             # http://127.0.0.1:8000/stripe/webhook
    gunicorn --chdir examples --workers 4 'stripe_webhook:create_app()'

The work is in ``jobs/payment_succeeded.py``. Its processes import that file, not this one.

With a store, Stripe is answered only once the event is on disk: then it survives a crash, also one
right after the answer, and an event that comes again is refused over all workers and restarts::

    export STORE=sqlite:///payments.db            # or postgresql://user@host/database
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from flask import Flask, jsonify, request
from stripe import SignatureVerificationError, WebhookSignature
from werkzeug.exceptions import BadRequest, HTTPException, ServiceUnavailable
from werkzeug.wrappers import Response

from job_scheduler import JobScheduler
from job_scheduler.registry import discover

JOBS = Path(__file__).resolve().parent.parent / "jobs"
TOLERANCE = 300  # seconds between the time of the signature and ours
LARGEST_BODY = 1024 * 1024


class SettingError(Exception):
    """A setting is missing."""


def create_app() -> Flask:
    secrets = read_secrets()
    # Without a store this starts nothing before the first run; with one, each of gunicorn's
    # workers gets an engine of its own, with --preload at its first request.
    store = os.environ.get("STORE")
    scheduler = JobScheduler(jobs=discover(JOBS), wait_at_exit=False, store=store)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.register_error_handler(HTTPException, as_json)

    @app.post("/stripe/webhook")
    def stripe_webhook() -> dict[str, Any]:
        event = read_event(request.get_data(), request.headers.get("Stripe-Signature", ""), secrets)
        if event["type"] != "payment_intent.succeeded":
            return {"received": True, "ignored": event["type"]}
        payment = read_payment(event)
        try:
            # The key: an event that comes again gets its first run; without a store, that of its
            # worker process.
            run = scheduler.options(key=event["id"]).run("PaymentSucceeded", **payment)
        except Exception:
            app.logger.exception("event %s was not accepted; Stripe will retry", event["id"])
            raise ServiceUnavailable from None
        return {"received": True, "run": run.id}

    return app


def read_secrets() -> list[str]:
    given = os.environ.get("STRIPE_WEBHOOK_SECRET", "")
    secrets = [secret.strip() for secret in given.split(",") if secret.strip()]
    if not secrets:
        # Not SystemExit: after that, gunicorn would start the worker again and again.
        raise SettingError("STRIPE_WEBHOOK_SECRET is not set: the signing secret, whsec_...")
    return secrets


def read_event(body: bytes, signature: str, secrets: list[str]) -> dict[str, Any]:
    """Return the event; answer 400 unless Stripe has signed it within the tolerance."""
    try:
        text = body.decode()
        genuine = any(is_signed(text, signature, secret) for secret in secrets)
        event: Any = json.loads(text) if genuine else None
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or nested too deep
        raise BadRequest from None
    match event:
        case {"id": str(event_id), "type": str()} if event_id:
            return dict(event)
    raise BadRequest


def is_signed(text: str, signature: str, secret: str) -> bool:
    try:
        WebhookSignature.verify_header(text, signature, secret, TOLERANCE)
    except (SignatureVerificationError, TypeError):  # TypeError: a signature that is not ASCII
        return False
    # The library refuses old timestamps, but not those of the future.
    timestamp = next(part[2:] for part in signature.split(",") if part.startswith("t="))
    return int(timestamp) <= time.time() + TOLERANCE


def read_payment(event: dict[str, Any]) -> dict[str, str | int]:
    """Return what the job needs, as plain text and numbers; answer 400 if something is missing."""
    match event.get("data"):
        case {"object": {"id": str(id_), "amount": int(amount), "currency": str(currency), **more}}:
            received, customer = more.get("amount_received"), more.get("customer")
            return {
                "event_id": event["id"],
                "payment_id": id_,
                # Less was received than the amount if only a part of it was captured.
                "amount": received if isinstance(received, int) else amount,
                "currency": currency,
                "customer": customer if isinstance(customer, str) else "",
            }
    raise BadRequest


def as_json(error: HTTPException) -> Response:
    response = error.get_response()
    response.data = jsonify(error=error.name).data
    response.content_type = "application/json"
    return response


def main() -> None:
    try:
        app = create_app()
    except SettingError as error:
        sys.exit(str(error))
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), threaded=True, debug=False)


if __name__ == "__main__":
    main()
