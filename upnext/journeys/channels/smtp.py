"""The email channel: one kept-open SMTP connection."""

import ipaddress
import re
import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from upnext.errors import UpnextError
from upnext.journeys.channels.channel import Answer, Outcome
from upnext.journeys.copy.message import Rendered

# Without an enhanced status code: no such mailbox, not here, not allowed as a name.
_NO_SUCH_ADDRESS = (550, 551, 553)
# Enhanced ones: of the others, 5.1.7 and 5.1.8 are about the sender, and 5.1.0 may be.
_DEAD = ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10")
# Without an enhanced code, such words are about the sender, or the server that the mail came from.
_NOT_OF_THE_ADDRESS = re.compile(
    rb"\b(relay\w*|denied|not (permitted|allowed)|prohibited|authenti\w+|(un)?authori[sz]\w+"
    rb"|blocked|(block|black) ?list\w*|spam\w*|policy)\b",
    re.IGNORECASE,
)
_ADDRESSES = re.compile(rb"<[^>]*>|\S+@\S+")
_LINE_OF_DOTS = re.compile(rb"^\.", re.MULTILINE)


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

    def __init__(self, address: SmtpAddress, timeout_seconds: float) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._client: smtplib.SMTP | None = None

    def send(self, message: Rendered) -> Answer:
        """Hand one message over. After its text, only a reply of 2xx, 4xx or 5xx shows whether the server accepted it.

        Raises `UpnextError` where the server cannot be reached, before anything was handed over.
        """
        client = self._connected()
        try:
            for command, address in ((client.mail, message.sender), (client.rcpt, message.recipient)):
                code, words = command(address)
                if code >= 400:
                    return self._refused(code, words, is_of_recipient=command == client.rcpt)
            # The mail is the user's: a copy that the server refuses does not stop it.
            for address in message.cc:
                client.rcpt(address)
            code, words = client.docmd("DATA")
            if code != 354:
                return self._refused(code, words)
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            return Answer(Outcome.RETRY, f"smtp: {type(error).__name__}")
        return self._send_text(client, message.content)

    def _send_text(self, client: smtplib.SMTP, content: bytes) -> Answer:
        try:
            client.send(_LINE_OF_DOTS.sub(b"..", content) + b".\r\n")
            code, words = client.getreply()
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            return Answer(Outcome.UNKNOWN, f"smtp: {type(error).__name__} after DATA")
        if 400 <= code < 600:
            return self._refused(code, words)
        if 200 <= code < 300:
            return Answer(Outcome.SENT)
        self.close()
        return Answer(Outcome.UNKNOWN, "smtp: an unclear answer after DATA")

    def open(self) -> None:
        """Connect and log in, where there is no connection. Raises `UpnextError` where that fails."""
        self._connected()

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._client is not None:
            with suppress(OSError, smtplib.SMTPException):
                self._client.quit()
            self._client = None

    def _connected(self) -> smtplib.SMTP:
        if self._client is None:
            try:
                self._client = self._connect()
            except (OSError, smtplib.SMTPException) as error:
                place = f"{self._address.host}:{self._address.port}"
                raise UpnextError(
                    f"the mail server at {place} cannot be used ({type(error).__name__}): what is due waits"
                ) from None
        return self._client

    def _refused(self, code: int, words: bytes, *, is_of_recipient: bool = False) -> Answer:
        """Keep the codes alone: the server's words may repeat the address."""
        if code == 421:
            self.close()
        with suppress(OSError, smtplib.SMTPException):
            if self._client is not None:
                self._client.rset()
        enhanced = re.match(rb"([45]\.\d{1,3}\.\d{1,3})\b", words)
        status = enhanced[1].decode() if enhanced else ""
        is_dead = status in _DEAD or (
            is_of_recipient
            and not enhanced
            and code in _NO_SUCH_ADDRESS
            and _NOT_OF_THE_ADDRESS.search(_ADDRESSES.sub(b"", words)) is None
        )
        return Answer(
            Outcome.RETRY if code < 500 else Outcome.FAILED,
            f"smtp {code} {status}".rstrip(),
            is_address_dead=code >= 500 and is_dead,
        )

    def _connect(self) -> smtplib.SMTP:
        address = self._address
        if address.is_tls:
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                address.host, address.port, timeout=self._timeout_seconds, context=ssl.create_default_context()
            )
        else:
            client = smtplib.SMTP(address.host, address.port, timeout=self._timeout_seconds)
        client.ehlo()
        is_private = address.is_tls
        if not is_private and client.has_extn("starttls"):
            client.starttls(context=ssl.create_default_context())
            client.ehlo()
            is_private = True
        if address.user is not None:
            if not is_private and not _is_loopback(address.host):
                raise UpnextError(f"UPNEXT_SMTP_URL: {address.host} offers no TLS, so no password is sent to it")
            client.login(address.user, address.password or "")
        return client


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
