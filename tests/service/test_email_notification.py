"""The job type ``email_notification``, against a mail server that speaks SMTP."""

from __future__ import annotations

import asyncio
import ssl
import threading
from email import message_from_bytes, policy

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult

from job_scheduler import JobScheduler
from job_scheduler.service.job_types import built_in
from job_scheduler.service.job_types.email_notification import EmailNotification

PARAMETERS = {"recipient": "ada@example.com", "subject": "Daily report", "sender": "me@example.com"}


class Letters:
    """What arrives; nobody is refused but ``nobody@...``, and no text but one with ``spam``."""

    def __init__(self):
        self.letters = []
        self.envelopes = []
        self.users = []

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if address.startswith("nobody@"):
            return "550 5.1.1 no such\x1b[31m user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_MAIL(self, server, session, envelope, address, options):  # noqa: N802
        if address.startswith("stranger@"):
            return "553 5.7.1 not yours"
        envelope.mail_from = address
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        if b"spam" in envelope.content:
            return "554 5.6.0 looks like spam"
        self.letters.append(message_from_bytes(envelope.content, policy=policy.default))
        self.envelopes.append(
            (
                envelope.mail_from,
                envelope.rcpt_tos,
                server.transport.get_extra_info("ssl_object") is not None,
            )
        )
        return "250 OK"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def loop():
    """An event loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    asyncio.run_coroutine_threadsafe(leave(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def leave():
    """End what the mail servers still do."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def serve(authority, loop, monkeypatch, tmp_path):
    """Starts a mail server and has the environment name it."""
    running = []
    for name in ("HOST", "PORT", "SECURITY", "USER", "PASSWORD", "FROM"):
        monkeypatch.delenv(f"SMTP_{name}", raising=False)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    def serve(security="none", *, login=False, name="localhost", **variables):
        letters = Letters()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)

        def check(server, session, envelope, mechanism, auth_data):
            letters.users.append(auth_data.login.decode())
            return AuthResult(success=auth_data.password == b"pass word", handled=False)

        def speak():
            return SMTP(
                letters,
                hostname="localhost",
                enable_SMTPUTF8=True,
                tls_context=context if security == "starttls" else None,
                require_starttls=security == "starttls",
                authenticator=check if login else None,
                auth_required=login,
                auth_require_tls=login,
                loop=loop,
            )

        listening = loop.create_server(
            speak, "127.0.0.1", 0, ssl=context if security == "tls" else None
        )
        server = asyncio.run_coroutine_threadsafe(listening, loop).result(20)
        running.append(server)
        port = server.sockets[0].getsockname()[1]
        given = {"HOST": "localhost", "PORT": port, "SECURITY": security, **variables}
        for each, value in given.items():
            monkeypatch.setenv(f"SMTP_{each}", str(value))
        return letters

    yield serve
    for server in running:
        loop.call_soon_threadsafe(server.close)


def send(**parameters):
    return EmailNotification().process(**{**PARAMETERS, **parameters})


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_a_letter_arrives(serve, capsys, security):
    letters = serve(security)
    result = send(body="Grüße,\nAda", priority="high", other=[1])
    [letter], [envelope] = letters.letters, letters.envelopes
    assert envelope == ("me@example.com", ["ada@example.com"], security != "none")
    assert (letter["From"], letter["To"]) == ("me@example.com", "ada@example.com")
    assert letter["Subject"] == "Daily report"
    assert letter.get_content() == "Grüße,\r\nAda\r\n"
    assert result == {
        "sent": True,
        "recipients": ["ada@example.com"],
        "refused": {},
        "message_id": letter["Message-ID"],
    }
    assert letter["Date"]
    assert capsys.readouterr().out == (
        "sent 'Daily report' to ada@example.com (by localhost)\n"
    )  # fmt: skip


def test_several_recipients_and_names_and_unicode(serve):
    letters = serve()
    given = [
        "Ada Lovelace <ada@example.com>",
        "bob@example.com, eve@example.com",
        "bob@example.com",
    ]
    result = send(recipient=given, subject="Überblick 👩‍🚀 " + "x" * 200, message="text")
    [letter] = letters.letters
    assert letters.envelopes[0][1] == ["ada@example.com", "bob@example.com", "eve@example.com"]
    assert letter["Subject"] == "Überblick 👩‍🚀 " + "x" * 200
    assert letter["To"].addresses[0].display_name == "Ada Lovelace"
    assert letter.get_content() == "text\r\n"
    assert result["recipients"] == [
        "Ada Lovelace <ada@example.com>", "bob@example.com", "eve@example.com"
    ]  # fmt: skip


def test_an_address_in_unicode(serve):
    letters = serve()
    send(recipient="grüße@exämple.com", subject="hi")
    assert letters.envelopes[0][1] == ["grüße@exämple.com"]


def test_the_login(serve):
    letters = serve("starttls", login=True, USER="me@example.com", PASSWORD="pass word")
    send(sender=None)
    assert letters.users == ["me@example.com"]
    assert letters.letters[0]["From"] == "me@example.com"
    send(sender=None, recipient="bob@example.com")


def test_a_wrong_password_is_told_and_not_shown(serve):
    serve("starttls", login=True, USER="me", PASSWORD="wrong one", FROM="me@example.com")
    with pytest.raises(RuntimeError, match=r"refused the login of SMTP_USER: 535") as told:
        send()
    assert "wrong one" not in str(told.value)


def test_who_is_refused_is_told(serve, capsys):
    letters = serve()
    result = send(recipient=["nobody@example.com", "ada@example.com"])
    assert result["recipients"] == ["ada@example.com"]
    assert result["refused"] == {"nobody@example.com": r"550 5.1.1 no such\x1b[31m user"}
    assert len(letters.letters) == 1
    assert "nobody@example.com was refused: 550" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match=r"refused every recipient: nobody@example.com: 550"):
        send(recipient="nobody@example.com")
    with pytest.raises(RuntimeError, match=r"refused the sender stranger@example.com: 553"):
        send(sender="stranger@example.com")
    with pytest.raises(RuntimeError, match=r"refused the message: 554"):
        send(body="spam")


def test_a_server_that_is_away(serve, monkeypatch):
    serve()
    monkeypatch.setenv("SMTP_PORT", "1")
    with pytest.raises(ConnectionError, match=r"localhost:1 cannot be reached: Connection refused"):
        send()
    monkeypatch.setenv("SMTP_HOST", "no-such-host.invalid")
    with pytest.raises(ConnectionError, match=r"no-such-host\.invalid:1 cannot be reached: "):
        send()


def test_encryption_that_is_not_there(serve):
    serve("none", SECURITY="starttls")
    with pytest.raises(RuntimeError, match=r"cannot do it: STARTTLS .* see SMTP_SECURITY"):
        send()
    serve("none", SECURITY="tls")
    with pytest.raises(ConnectionError, match="SMTP_SECURITY is tls, does the port fit"):
        send()


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_of_somebody_else(serve, security):
    letters = serve(security, name="other.example.com")
    with pytest.raises(ConnectionError, match="its certificate is not good: Hostname mismatch"):
        send()
    assert letters.letters == []


def test_without_a_server_the_message_is_shown(monkeypatch, capsys):
    monkeypatch.delenv("SMTP_HOST", raising=False)
    result = send(sender=None, body="first\n\x1b[2Jsecond\nERROR forged")
    assert result == {
        "sent": False,
        "recipients": ["ada@example.com"],
        "reason": "SMTP_HOST is not set",
    }
    assert capsys.readouterr().out == (
        "nothing was sent, since SMTP_HOST is not set; this is the message:\n"
        "    To: ada@example.com\n"
        "    Subject: Daily report\n"
        "    first\n"
        "    \\x1b[2Jsecond\n"
        "    ERROR forged\n"
    )


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"recipient": None}, r"recipient is missing: give it, as in \{'recipient': 'user@example"),
        ({"recipient": []}, "recipient is missing"),
        ({"recipient": " "}, "recipient is missing"),
        ({"recipient": 7}, "recipient is 7; it must be a text"),
        ({"recipient": ["ada@example.com", None]}, "recipient is missing"),
        ({"recipient": {"a": 1}}, "it must be a text"),
        ({"recipient": "ada"}, "recipient 'ada' is no address"),
        ({"recipient": "ada@"}, "recipient 'ada@' is no address"),
        ({"recipient": "@example.com"}, "is no address"),
        ({"recipient": "ada@example.com; eve@example.com"}, "is no address"),
        ({"recipient": "a b@example.com"}, "is no address"),
        ({"recipient": "a@example.com\nBcc: eve@example.com"}, r"has \\n after 13 characters: it"),
        ({"recipient": ["a@example.com\r\nBcc: e@example.com"]}, "it must be one line"),
        ({"recipient": [f"a{n}@example.com" for n in range(1_001)]}, "1,000 are the most"),
        ({"subject": None}, r"subject is missing: give it, as in \{'subject': 'Daily report'\}"),
        ({"subject": "hi\nBcc: eve@example.com"}, r"subject 'hi.*' has \\n after 2 characters"),
        ({"subject": "hi\u2028x"}, "it must be one line"),
        ({"subject": "hi\x0bx"}, "it must be one line"),
        ({"subject": 5}, "subject is 5; it must be a text"),
        ({"body": {"a": 1}}, "body is .* it must be a text"),
    ],
)
def test_what_is_needed_is_told_in_a_sentence(serve, parameters, said):
    letters = serve()
    with pytest.raises(ValueError, match=said) as told:
        send(**parameters)
    assert len(str(told.value).splitlines()) == 1
    assert letters.letters == []


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PORT": "http"}, "SMTP_PORT is 'http'; it must be a whole number"),
        ({"SECURITY": "ssl"}, "SMTP_SECURITY is 'ssl'; it must be one of starttls, tls, none"),
        ({"USER": "me"}, "SMTP_PASSWORD is not"),
        ({}, "sender is missing: .* or set SMTP_FROM"),
        ({"FROM": "me@example.com, you@example.com"}, "sender has 2 addresses; 1 are the most"),
        ({"FROM": "me@example.com\nX: y"}, "sender .* it must be one line"),
    ],
)
def test_variables_that_are_wrong(serve, variables, said):
    serve(**variables)
    with pytest.raises(ValueError, match=said):
        send(sender=None)


def test_it_runs_in_a_process(serve, capfd):
    letters = serve("starttls", FROM="reports@example.com")
    with JobScheduler(built_in()) as scheduler:
        run = scheduler.run("email_notification", recipient="ada@example.com", subject="Hi", x=1)
        assert run.wait(60)
        assert run.state == "completed", run.error
        assert run.result["sent"] is True
        failed = scheduler.run("email_notification", subject="Hi")
        assert failed.wait(60)
    assert failed.state == "failed"
    assert "ValueError: recipient is missing" in str(failed.error)
    assert letters.letters[0]["From"] == "reports@example.com"
    assert "sent 'Hi' to ada@example.com" in capfd.readouterr().out
