"""The email channel: one kept-open SMTP connection, and the local catcher where no server is configured."""

import ipaddress
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from enum import Enum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox

from orchestration.errors import UpnextError

TIMEOUT_SECONDS = 30


class Outcome(Enum):
    """What became of one message at the server."""

    SENT = "sent"
    RETRY = "retry"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class SmtpAddress:
    """Where and how to connect; `smtps` speaks TLS from the start."""

    host: str
    port: int
    user: str | None
    password: str | None
    is_tls: bool


def parse_smtp_url(url: str) -> SmtpAddress:
    """Parse `smtp://[user:password@]host:port` or `smtps://...`. Raises `UpnextError`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise UpnextError("UPNEXT_SMTP_URL is not a URL; expected smtp://[user:password@]host:port or smtps://...")
    return SmtpAddress(
        host=parts.hostname,
        port=port or (465 if parts.scheme == "smtps" else 25),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        is_tls=parts.scheme == "smtps",
    )


class SmtpConnection:
    """Sends messages one by one; connects when needed, and again after the server hung up."""

    def __init__(self, address: SmtpAddress) -> None:
        self._address = address
        self._client: smtplib.SMTP | None = None

    def send(self, message: EmailMessage) -> tuple[Outcome, str | None]:
        """Hand one message over. Only an end of connection after DATA leaves it unknown whether it was accepted.

        Raises `UpnextError` where the server cannot be reached, before anything was handed over.
        """
        content = message.as_bytes()
        sender, recipient = (message[header].addresses[0].addr_spec for header in ("From", "To"))
        client = self.open()
        try:
            for command, address in ((client.mail, sender), (client.rcpt, recipient)):
                code, _ = command(address)
                if code >= 400:
                    self._reset()
                    return _refused(code)
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            return Outcome.RETRY, f"smtp: {type(error).__name__}"
        try:
            code, _ = client.data(content)
        except smtplib.SMTPDataError as error:
            self._reset()
            return _refused(error.smtp_code)
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            return Outcome.UNKNOWN, f"smtp: {type(error).__name__} after DATA"
        return (Outcome.SENT, None) if code == 250 else _refused(code)

    def open(self) -> smtplib.SMTP:
        """Connect and log in, where there is no connection. Raises `UpnextError` where that fails."""
        if self._client is None:
            try:
                self._client = self._connect()
            except (OSError, smtplib.SMTPException) as error:
                place = f"{self._address.host}:{self._address.port}"
                raise UpnextError(
                    f"the mail server at {place} cannot be used ({type(error).__name__}): what is due waits"
                ) from None
        return self._client

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._client is not None:
            with suppress(OSError, smtplib.SMTPException):
                self._client.quit()
            self._client = None

    def _reset(self) -> None:
        with suppress(OSError, smtplib.SMTPException):
            if self._client is not None:
                self._client.rset()

    def _connect(self) -> smtplib.SMTP:
        address = self._address
        tls = ssl.create_default_context()
        if address.is_tls:
            client: smtplib.SMTP = smtplib.SMTP_SSL(address.host, address.port, timeout=TIMEOUT_SECONDS, context=tls)
        else:
            client = smtplib.SMTP(address.host, address.port, timeout=TIMEOUT_SECONDS)
        client.ehlo()
        is_private = address.is_tls
        if not is_private and client.has_extn("starttls"):
            client.starttls(context=tls)
            client.ehlo()
            is_private = True
        if address.user is not None:
            if not is_private and not _is_loopback(address.host):
                raise UpnextError(f"UPNEXT_SMTP_URL: {address.host} offers no TLS, so no password is sent to it")
            client.login(address.user, address.password or "")
        return client


@contextmanager
def local_catcher(maildir: Path) -> Iterator[SmtpAddress]:
    """Run an SMTP server on loopback that writes each message into a Maildir."""
    maildir.parent.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:  # aiosmtpd cannot choose a port by itself
        port = probe.getsockname()[1]
    controller = Controller(Mailbox(maildir), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield SmtpAddress("127.0.0.1", port, None, None, is_tls=False)
    finally:
        controller.stop()


@contextmanager
def mail_connection(smtp_url: str | None, maildir: Path) -> Iterator[SmtpConnection]:
    """Yield a connection to the configured server, or to the local catcher."""
    if smtp_url is not None:
        connection = SmtpConnection(parse_smtp_url(smtp_url))
        try:
            yield connection
        finally:
            connection.close()
        return
    with local_catcher(maildir) as address:
        connection = SmtpConnection(address)
        try:
            yield connection
        finally:
            connection.close()


def _refused(code: int) -> tuple[Outcome, str]:
    """Keep the code alone: the server's words may repeat the address."""
    return (Outcome.RETRY if code < 500 else Outcome.FAILED), f"smtp {code}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
