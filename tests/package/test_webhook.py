"""The Stripe webhook of ``examples``: real servers, real signatures, real jobs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from job_scheduler import JobScheduler
from tests.conftest import ROOT, eventually
from tests.webhook_helpers import (
    EXAMPLES,
    FLASK,
    GUNICORN,
    OLD_SECRET,
    PRELOADED,
    SECRET,
    Answer,
    Server,
    environment,
    event,
    sign,
)

REFUSED = Answer(400, {"error": "Bad Request"})
TOO_LARGE = Answer(413, {"error": "Request Entity Too Large"})
BODY = event("pi_refused")
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("webhook")
    with Server(folder) as server:
        yield server
    assert "pi_refused" not in server.output
    assert not (server.receipts / "pi_refused.txt").exists()
    for secret in (SECRET, OLD_SECRET, "v1=", "Traceback"):
        assert secret not in server.output


class TestAccepts:
    def test_runs_the_job_and_writes_the_receipt(self, server):
        answer = server.post(event("pi_first"))
        assert answer.status == 200
        assert answer.json == {"received": True, "run": answer.json["run"]}
        printed = server.wait_for_job("pi_first")
        assert printed.money == "49.00 EUR"
        assert printed.pid != server.process.pid
        assert (server.receipts / "pi_first.txt").read_text() == (
            "payment:  pi_first\namount:   49.00 EUR\ncustomer: cus_9\nevent:    evt_pi_first\n"
        )

    @pytest.mark.parametrize(
        ("currency", "amount", "money"),
        [
            ("usd", 5, "0.05 USD"),
            ("jpy", 4900, "4900 JPY"),
            ("kwd", 4950, "4.950 KWD"),
            ("isk", 500, "5.00 ISK"),
            ("eur", 10**12 + 1, "10000000000.01 EUR"),
        ],
    )
    def test_counts_in_the_smallest_unit_of_the_currency(self, server, currency, amount, money):
        payment = f"pi_in_{currency}"
        body = event(payment, currency=currency, amount=amount, amount_received=amount)
        assert server.post(body).status == 200
        assert server.wait_for_job(payment).money == money

    def test_counts_what_was_received_if_only_a_part_was_captured(self, server):
        assert server.post(event("pi_part", amount_received=1000)).status == 200
        assert server.wait_for_job("pi_part").money == "10.00 EUR"

    @pytest.mark.parametrize("customer", [None, {"id": "cus_9"}])
    def test_does_without_what_is_not_needed(self, server, customer):
        payment = f"pi_bare_{type(customer).__name__}"
        assert server.post(event(payment, customer=customer, amount_received=None)).status == 200
        assert server.wait_for_job(payment).money == "49.00 EUR"
        assert "customer: -\n" in (server.receipts / f"{payment}.txt").read_text()

    def test_keeps_the_receipt_in_its_folder(self, server):
        assert server.post(event("../pi_outside")).status == 200
        server.wait_for_job("../pi_outside")
        assert not (server.receipts.parent / "pi_outside.txt").exists()
        assert (server.receipts / ".._pi_outside.txt").exists()

    def test_ignores_other_types(self, server):
        answer = server.post(event("pi_refused", "charge.refunded"))
        assert answer == Answer(200, {"received": True, "ignored": "charge.refunded"})

    @pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
    @pytest.mark.parametrize("age", [-290, 0, 290])
    def test_takes_each_secret_within_the_tolerance(self, server, secret, age):
        body = event("pi_any", "charge.refunded")
        assert server.post(body, sign(body, secret, age=age)).status == 200

    def test_takes_one_good_signature_among_others(self, server):
        body = event("pi_any", "charge.refunded")
        timestamp, good = sign(body).split(",")
        header = f"{timestamp},v1={'0' * 64},v0=x,{good}"
        assert server.post(body, header).status == 200

    def test_runs_a_repeated_event_once(self, tmp_path):
        body = event("pi_many")
        with Server(tmp_path) as server, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(server.post, [body] * 24))
        # The server and all its processes have left: nothing can be printed any more.
        assert {answer.status for answer in answers} == {200}
        assert len({answer.json["run"] for answer in answers}) == 1
        assert len(server.printed()) == 1
        assert [file.name for file in server.receipts.iterdir()] == ["pi_many.txt"]


class TestRefuses:
    @pytest.mark.parametrize(
        "header",
        [
            pytest.param(lambda: "", id="empty"),
            pytest.param(lambda: "nonsense", id="malformed"),
            pytest.param(lambda: "t=,v1=", id="without values"),
            pytest.param(lambda: "t=soon,v1=" + "0" * 64, id="no number for a time"),
            pytest.param(lambda: "t=" + "9" * 5000 + ",v1=" + "0" * 64, id="too large a time"),
            pytest.param(lambda: sign(BODY).split(",")[0], id="without a signature"),
            pytest.param(lambda: sign(BODY).split(",")[1], id="without a time"),
            pytest.param(lambda: sign(BODY, scheme="v0"), id="another scheme"),
            pytest.param(lambda: sign(BODY)[:-1], id="cut off"),
            pytest.param(lambda: sign(BODY) + "é", id="not ASCII"),
            pytest.param(lambda: sign(event("pi_other")), id="of another body"),
            pytest.param(lambda: sign(BODY, "whsec_wrong"), id="wrong secret"),
            pytest.param(lambda: sign(BODY, f"{SECRET}, {OLD_SECRET}"), id="both secrets as one"),
            pytest.param(lambda: sign(BODY, ""), id="empty secret"),
            pytest.param(lambda: sign(BODY, age=3600), id="stale"),
            pytest.param(lambda: sign(BODY, age=-3600), id="from the future"),
        ],
    )
    def test_signatures(self, server, header):
        assert server.post(BODY, header()) == REFUSED

    @pytest.mark.parametrize("age", [310, -310])
    def test_times_just_beyond_the_tolerance(self, server, age):
        assert server.post(BODY, sign(BODY, age=age)) == REFUSED

    def test_a_time_added_to_a_signature_from_the_future(self, server):
        header = sign(BODY, age=-3600)
        now = sign(BODY).split(",")[0]
        assert server.post(BODY, f"{header},{now}") == REFUSED
        assert server.post(BODY, f"{now},{header}") == REFUSED

    def test_no_signature(self, server):
        assert server.request("POST", body=BODY) == REFUSED

    def test_a_body_that_was_tampered_with(self, server):
        assert server.post(BODY.replace(b"4900", b"4901"), sign(BODY)) == REFUSED

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\xff" + BODY, id="not UTF-8"),
            pytest.param(b"\xef\xbb\xbf" + BODY, id="byte order mark"),
            pytest.param(BODY[:-1], id="not JSON"),
            pytest.param(b"[" * 100_000, id="nested too deep"),
            pytest.param(b'{"id": ' + b"9" * 5000 + b"}", id="too large a number"),
            pytest.param(b"null", id="null"),
            pytest.param(b"7", id="number"),
            pytest.param(b'"text"', id="text"),
            pytest.param(b"[" + BODY + b"]", id="list"),
            pytest.param(b"{}", id="no event"),
            pytest.param(b'{"type": "charge.refunded"}', id="no id"),
            pytest.param(b'{"id": null, "type": "charge.refunded"}', id="null as id"),
            pytest.param(b'{"id": 7, "type": "charge.refunded"}', id="number as id"),
            pytest.param(b'{"id": "", "type": "charge.refunded"}', id="empty id"),
            pytest.param(b'{"id": "evt_1"}', id="no type"),
            pytest.param(b'{"id": "evt_1", "type": null}', id="null as type"),
            pytest.param(b'{"id": "evt_1", "type": ["charge.refunded"]}', id="list as type"),
        ],
    )
    def test_signed_bodies_that_are_no_event(self, server, body):
        assert server.post(body) == REFUSED

    @pytest.mark.parametrize(
        "changes",
        [{"id": None}, {"amount": None}, {"amount": "4900"}, {"amount": 49.0}, {"currency": None}],
        ids=str,
    )
    def test_payments_that_lack_what_the_receipt_needs(self, server, changes):
        assert server.post(event("pi_refused", **changes)) == REFUSED

    @pytest.mark.parametrize("data", [None, [], {}, {"object": None}, {"object": "pi_refused"}])
    def test_payments_without_an_object(self, server, data):
        body = {"id": "evt_1", "type": "payment_intent.succeeded", "data": data}
        assert server.post(json.dumps(body).encode()) == REFUSED
        del body["data"]
        assert server.post(json.dumps(body).encode()) == REFUSED

    def test_bodies_above_one_megabyte(self, server):
        body = event("pi_large", "charge.refunded")
        largest = body + b" " * (MEGABYTE - len(body))
        assert server.post(largest).status == 200
        assert server.post(largest + b" ") == TOO_LARGE

    def test_bodies_above_one_megabyte_without_a_length(self, server):
        body = BODY + b" " * MEGABYTE
        headers = {"Stripe-Signature": sign(body), "Transfer-Encoding": "chunked"}
        answer = server.request("POST", body=iter([body]), headers=headers, encode_chunked=True)
        # Some versions of Werkzeug cut it at the limit instead, which breaks the signature.
        assert answer in (TOO_LARGE, REFUSED)

    def test_other_methods_and_places(self, server):
        assert server.request("GET").status == 405
        assert server.request("POST", "/").status == 404


def test_asks_for_a_retry_while_the_job_cannot_be_started(tmp_path):
    """A broken deployment: the server runs, but the job's file cannot be imported any more."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    source = tmp_path / "jobs" / "payment_succeeded.py"
    whole = source.read_text()
    body = event("pi_retried")
    settings = {"PYTHONPATH": str(tmp_path)}
    with Server(tmp_path, examples=tmp_path / "examples", settings=settings) as server:
        source.write_text("raise RuntimeError('half of a deployment')\n")
        for _ in range(2):
            assert server.post(body) == Answer(503, {"error": "Service Unavailable"})
        source.write_text(whole)
        assert server.post(body).status == 200
        server.wait_for_job("pi_retried")
    assert "event evt_pi_retried was not accepted" in server.output
    assert SECRET not in server.output
    assert len(server.printed()) == 1


@pytest.mark.parametrize("secrets", [None, "", " , "])
def test_does_not_start_without_a_secret(tmp_path, secrets):
    settings = environment(tmp_path)
    del settings["STRIPE_WEBHOOK_SECRET"]
    settings |= {} if secrets is None else {"STRIPE_WEBHOOK_SECRET": secrets}
    script = EXAMPLES / "stripe_webhook.py"
    done = subprocess.run(
        [sys.executable, script], env=settings, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "STRIPE_WEBHOOK_SECRET is not set: the signing secret, whsec_..."
    ]


@pytest.mark.parametrize("command", [GUNICORN, PRELOADED], ids=["gunicorn", "gunicorn-preload"])
def test_gunicorn_does_not_start_without_a_secret(tmp_path, command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=EXAMPLES,
        env=environment(tmp_path, {"STRIPE_WEBHOOK_SECRET": ""}),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode != 0
    assert "STRIPE_WEBHOOK_SECRET is not set" in done.stderr


@pytest.mark.parametrize("command", [GUNICORN, PRELOADED], ids=["gunicorn", "gunicorn-preload"])
def test_all_gunicorn_workers_run_jobs(tmp_path, command):
    runs = []
    with Server(tmp_path, command) as server, ThreadPoolExecutor(4) as pool:

        def both_have_answered():
            bodies = [event(f"pi_{len(runs) + number}") for number in range(8)]
            answers = list(pool.map(server.post, bodies))
            assert {answer.status for answer in answers} == {200}
            runs.extend(answer.json["run"] for answer in answers)
            return len({run.partition("-")[0] for run in runs}) == 2  # a prefix for each worker

        eventually(both_have_answered, what="an answer from each worker")
        assert server.post(BODY, "nonsense") == REFUSED
        headers = {"Content-Length": str(MEGABYTE + 1)}
        assert server.request("POST", headers=headers) == TOO_LARGE
    printed = server.printed()
    payments = sorted(f"pi_{number}" for number in range(len(runs)))
    assert sorted(each.payment for each in printed) == payments
    assert len({each.pid for each in printed}) == len(runs)
    assert sorted(file.stem for file in server.receipts.iterdir()) == payments


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    "command", [FLASK, GUNICORN, PRELOADED], ids=["flask", "gunicorn", "gunicorn-preload"]
)
def test_a_job_outlives_the_server_and_does_not_hold_its_port(tmp_path, command, number):
    """The job hangs in its ``print``, since nobody reads; meanwhile the server is ended."""
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "wb") as writer:
        server = Server(tmp_path, command, stdout=writer.fileno())
        try:
            fill(writer.fileno())
            assert server.post(event("pi_outlives")).status == 200
            eventually((server.receipts / "pi_outlives.txt").exists, what="the receipt")
            os.killpg(server.process.pid, number)
            server.process.wait(20)  # gunicorn itself would wait for 30 s
            eventually(lambda: is_free(server.port), what="a free port")
        finally:
            server.kill()
        writer.close()
        printed = reader.read().splitlines()[-1].decode()
    assert printed.startswith("receipt for pi_outlives: 49.00 EUR (pid ")
    server.wait_until_all_left()


def is_free(port):
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def fill(pipe):
    """Fill a pipe, without making it non-blocking for those who share it."""
    own = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(own, b"\n" * 4096)
    except BlockingIOError:
        pass
    finally:
        os.close(own)


class TestWithAStore:
    @pytest.mark.parametrize(
        "command", [FLASK, GUNICORN, PRELOADED], ids=["flask", "gunicorn", "preload"]
    )
    def test_an_event_runs_once_over_workers_and_restarts(self, tmp_path, command):
        settings = {"STORE": f"sqlite:///{tmp_path}/payments.db"}
        with Server(tmp_path, command, settings=settings) as server:
            with ThreadPoolExecutor(8) as threads:
                answers = list(threads.map(server.post, [event("pi_kept")] * 16))
            assert {answer.status for answer in answers} == {200}
            [run] = {answer.json["run"] for answer in answers}
            server.wait_for_job("pi_kept")
            # Printed is not recorded: a server that ended in between would have it run again.
            scheduler = JobScheduler(store=settings["STORE"], workers=0)
            assert scheduler.get_run(run).wait(20)
            scheduler.shutdown()
        with Server(tmp_path, command, settings=settings) as again:
            assert again.post(event("pi_kept")).json["run"] == run
            again.post(event("pi_other"))
            again.wait_for_job("pi_other")
            assert [each.payment for each in again.printed()] == ["pi_other"]

    def test_killed_right_after_the_answer_the_job_still_runs(self, tmp_path):
        settings = {"STORE": f"sqlite:///{tmp_path}/payments.db"}
        server = Server(tmp_path, settings=settings)
        payments = [f"pi_{number}" for number in range(5)]
        for payment in payments:
            assert server.post(event(payment)).status == 200
        server.kill()
        server.wait_until_all_left()
        with Server(tmp_path, settings=settings):
            receipts = [server.receipts / f"{payment}.txt" for payment in payments]
            eventually(lambda: all(map(os.path.exists, receipts)), 60, "the receipts")

    def test_a_store_that_is_away_is_answered_with_503(self, tmp_path):
        settings = {"STORE": f"sqlite:///{tmp_path}/no/such/folder/payments.db"}
        with Server(tmp_path, settings=settings) as server:
            answer = server.post(event("pi_away"))
            assert answer.status == 503
            assert not server.printed()
