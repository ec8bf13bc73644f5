"""The job type ``email_notification``: send an e-mail by SMTP, or show it where there is none.

=============  =====================================================================
variable       what it says
=============  =====================================================================
SMTP_HOST      the mail server; without it nothing is sent
SMTP_SECURITY  ``starttls``, ``tls`` or ``none``; default: ``tls`` for port 465, ``none`` for a
               server on this machine, ``starttls`` for any other
SMTP_PORT      default: 465 for ``tls``, 587 for ``starttls``, 25 for ``none``
SMTP_USER      whom to log in as, with SMTP_PASSWORD; default: nobody
SMTP_FROM      the sender where a job names none; default: SMTP_USER
=============  =====================================================================
"""

from __future__ import annotations

import os
import re
import smtplib
import ssl
from email.errors import MessageError, NonASCIILocalPartDefect
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Final, NamedTuple

from job_scheduler.job import Job
from job_scheduler.texts import one_line

_TIMEOUT: Final = 30.0
"""Seconds for which the mail server may be silent."""

_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}

_LINE_BREAK: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_ADDRESS: Final = re.compile(r".@[^@\s]+$")

_MOST_RECIPIENTS: Final = 1_000

_FINE: Final = NonASCIILocalPartDefect
"""What is wrong with an address only for servers that cannot do SMTPUTF8."""


class EmailNotification(Job):
    """Sends an e-mail by SMTP; prints it, and says so, where SMTP_HOST is not set.

    Args:
        recipient: who gets it: an address, several with commas between, or a list of them.
        subject: what it is about, on one line.
        body: the text.
        message: the text, if there is no body.
        sender: whom it is from; by default SMTP_FROM.
        others: taken, and not used.
    """

    timeout = 300

    def process(
        self,
        *,
        recipient: str | list[str] | None = None,
        subject: str | None = None,
        body: str | None = None,
        message: str | None = None,
        sender: str | None = None,
        **others: Any,
    ) -> dict[str, Any]:
        recipients = read_addresses("recipient", recipient, "user@example.com")
        title = read_line("subject", subject, "Daily report")
        text = read_text(body if body is not None else message)
        server = MailServer.read()
        if server is None:
            show(recipients, title, text)
            return {"sent": False, "recipients": recipients, "reason": "SMTP_HOST is not set"}
        author = sender if sender is not None else server.default_sender
        [from_whom] = read_addresses("sender", author, "reports@example.com", most=1)
        email = EmailMessage()
        email["From"] = from_whom
        email["To"] = ", ".join(recipients)
        email["Subject"] = title
        email["Date"] = formatdate(localtime=True)
        email["Message-ID"] = make_msgid(domain=from_whom.rpartition("@")[2].strip("> "))
        email.set_content(text)
        refused = send(email, server)
        accepted = [each for each in recipients if address_of(each) not in refused]
        said = f"sent '{one_line(title)}' to {', '.join(map(one_line, accepted))}"
        for address, why in refused.items():
            said += f"; {one_line(address)} was refused: {why}"
        print(f"{said} (by {server.host})\n", end="", flush=True)
        return {
            "sent": True,
            "recipients": accepted,
            "refused": refused,
            "message_id": str(email["Message-ID"]),
        }


class MailServer(NamedTuple):
    """Where mail is handed over, as the environment says."""

    host: str
    port: int
    security: str
    user: str | None
    password: str
    sender: str | None

    @classmethod
    def read(cls) -> MailServer | None:
        """The server that is meant; None if there is none. Raises ``ValueError``."""
        host = os.environ.get("SMTP_HOST", "").strip()
        if not host:
            return None
        port = os.environ.get("SMTP_PORT", "").strip()
        if port and not (port.isascii() and port.isdigit() and 0 < int(port[:9]) <= 65_535):
            raise ValueError(f"SMTP_PORT is {port!r}; it must be a whole number from 1 to 65535")
        security = os.environ.get("SMTP_SECURITY", "").strip().lower()
        if not security:
            is_here = host == "localhost" or host.startswith("127.") or host == "::1"
            security = "tls" if port == "465" else "none" if is_here else "starttls"
        if security not in _PORTS:
            listed = ", ".join(_PORTS)
            raise ValueError(f"SMTP_SECURITY is {security!r}; it must be one of {listed}")
        user = os.environ.get("SMTP_USER") or None
        password = os.environ.get("SMTP_PASSWORD", "")
        if user and not password:
            raise ValueError("SMTP_USER is set, but SMTP_PASSWORD is not: set both, or none")
        sender = os.environ.get("SMTP_FROM") or None
        return cls(host, int(port) if port else _PORTS[security], security, user, password, sender)

    @property
    def default_sender(self) -> str | None:
        """Whom mail is from where a job does not say it."""
        by_user = self.user if self.user and "@" in self.user else None
        return self.sender or by_user

    @property
    def place(self) -> str:
        return f"the mail server {self.host}:{self.port}"


def read_addresses(
    name: str, value: object, example: str, most: int = _MOST_RECIPIENTS
) -> list[str]:
    """The addresses of a parameter; raises ``ValueError`` with what is wrong."""
    texts = value if isinstance(value, list) else [value]
    if not texts or texts == [None]:
        also = "" if name == "recipient" else ", or set SMTP_FROM"
        raise ValueError(f"{name} is missing: give it, as in {{{name!r}: {example!r}}}{also}")
    found: list[str] = []
    for text in texts:
        line = read_line(name, text, example)
        addresses = parse_addresses(line)
        if not addresses:
            raise ValueError(f"{name} {_shown(line)} is no address: give one as {example!r}")
        found += addresses
    if len(found) > most:
        raise ValueError(f"{name} has {len(found):,} addresses; {most:,} are the most")
    return list(dict.fromkeys(found))


def parse_addresses(line: str) -> list[str]:
    """The addresses of a header; none if anything in it is not one."""
    email = EmailMessage()
    try:
        email["To"] = line
        header = email["To"]
        parsed = [str(each) for each in header.addresses]
    except (MessageError, ValueError, IndexError, AttributeError):  # what its parser raises
        return []
    is_good = all(isinstance(defect, _FINE) for defect in header.defects)
    is_good &= all(_ADDRESS.search(address_of(each)) for each in parsed)
    return parsed if is_good else []


def address_of(text: str) -> str:
    """``ada@example.com`` for ``Ada <ada@example.com>``."""
    return text.rpartition("<")[2].rstrip("> ")


def read_line(name: str, value: object, example: str) -> str:
    """A text without line breaks; raises ``ValueError``.

    What follows a line break would be a header of its own: more recipients, another content.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{name} is missing: give it, as in {{{name!r}: {example!r}}}")
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_shown(value)}; it must be a text: {example!r}")
    found = _LINE_BREAK.search(value)
    if found:
        raise ValueError(
            f"{name} {_shown(value)} has {one_line(found[0])} after {found.start()} "
            f"characters: it must be one line, without control characters"
        )
    return value.strip()


def read_text(value: object) -> str:
    """The content; raises ``ValueError``."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"body is {_shown(value)}; it must be a text")
    return value


def show(recipients: list[str], title: str, text: str) -> None:
    """Print the message in place of sending it."""
    lines = [
        "nothing was sent, since SMTP_HOST is not set; this is the message:",
        f"    To: {', '.join(map(one_line, recipients))}",
        f"    Subject: {one_line(title)}",
        *(f"    {one_line(line)}" for line in text.splitlines()),
    ]
    print("\n".join(lines) + "\n", end="", flush=True)


def send(email: EmailMessage, server: MailServer) -> dict[str, str]:
    """Hand it over; tells which addresses were refused, if others were taken.

    Raises ``ConnectionError`` for a server that cannot be reached, and ``RuntimeError`` for one
    that refuses.
    """
    try:
        with _connected(server) as connection:
            refused = connection.send_message(email)
    except smtplib.SMTPRecipientsRefused as error:
        why = "; ".join(f"{each}: {_reply(*said)}" for each, said in error.recipients.items())
        raise RuntimeError(f"{server.place} refused every recipient: {why}") from None
    except smtplib.SMTPResponseException as error:
        said = _reply(error.smtp_code, error.smtp_error)
        doing = {
            smtplib.SMTPAuthenticationError: "the login of SMTP_USER",
            smtplib.SMTPSenderRefused: f"the sender {email['From']}",
        }.get(type(error), "the message")
        raise RuntimeError(f"{server.place} refused {doing}: {said}") from None
    except smtplib.SMTPNotSupportedError as error:
        hint = "; see SMTP_SECURITY" if server.security == "starttls" else ""
        raise RuntimeError(f"{server.place} cannot do it: {one_line(error)}{hint}") from None
    except (OSError, smtplib.SMTPException) as error:
        raise ConnectionError(f"{server.place} cannot be reached: {_why(error, server)}") from None
    return {address: _reply(*said) for address, said in refused.items()}


def _connected(server: MailServer) -> smtplib.SMTP:
    """Encrypted, and logged in, as far as that is wanted."""
    if server.security == "tls":
        context = ssl.create_default_context()
        connection: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, timeout=_TIMEOUT, context=context
        )
    else:
        connection = smtplib.SMTP(server.host, server.port, timeout=_TIMEOUT)
    try:
        if server.security == "starttls":
            connection.starttls(context=ssl.create_default_context())
        if server.user:
            connection.login(server.user, server.password)
    except BaseException:
        connection.close()
        raise
    return connection


def _reply(code: int, text: bytes | str) -> str:
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return one_line(f"{code} {shown}", 300)


def _why(error: Exception, server: MailServer) -> str:
    said = one_line(getattr(error, "strerror", None) or error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"{said}; SMTP_SECURITY is {server.security}, does the port fit?"
    return said or type(error).__name__


def _shown(value: object) -> str:
    return one_line(repr(value), 100)
