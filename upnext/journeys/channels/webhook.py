"""The webhook channel, by the Standard Webhooks specification (https://www.standardwebhooks.com).

Upnext resolves and checks an endpoint's address before a call. It refuses internal networks, unless
`UPNEXT_WEBHOOK_NETWORKS` names them. It follows no redirect, and keeps of an answer what the endpoint names.
"""

import http.client
import ipaddress
import os
import re
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec
from standardwebhooks import Webhook

from upnext.errors import UpnextError
from upnext.journeys.channels.channel import Answer, Outcome
from upnext.journeys.copy.message import Rendered
from upnext.journeys.policy import Endpoint

MAX_RETRY_AFTER = timedelta(days=1)
_READ_BYTES = 65_536
_VARIABLE = re.compile(r"\$\{(UPNEXT_[A-Z0-9_]+)\}")
# What no column of Postgres can hold, as JSON has it.
_NUL = rb"\u0000"
_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Target:
    """An endpoint with its secrets; `has_own_body` where its calls are not those of Standard Webhooks."""

    url: SplitResult
    secret: str | None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    keep: Mapping[str, str] = field(default_factory=dict)
    has_own_body: bool = False


def targets(endpoints: Mapping[str, Endpoint], environment: Mapping[str, str] = os.environ) -> dict[str, Target]:
    """Return the endpoints with their secrets. Raises `UpnextError` for a secret that is not there or none."""
    return {name: _target(name, endpoint, environment) for name, endpoint in endpoints.items()}


def _target(name: str, endpoint: Endpoint, environment: Mapping[str, str]) -> Target:
    def value(variable: str) -> str:
        if not environment.get(variable):
            raise UpnextError(f"endpoint '{name}': the environment variable {variable} is not set")
        return environment[variable]

    def filled(text: str) -> str:
        return _VARIABLE.sub(lambda found: value(found[1]), text)

    secret = None
    if endpoint.secret is not None:
        secret = environment.get(endpoint.secret, "")
        if not _SECRET.fullmatch(secret):
            raise UpnextError(
                f"endpoint '{name}': {endpoint.secret} is not a secret such as whsec_<base64 of 24 to 64 bytes>"
            )
    headers = {key.lower(): filled(text) for key, text in endpoint.headers.items()}
    if endpoint.login is not None:
        login = f"{value(endpoint.login.user)}:{value(endpoint.login.password)}"
        headers["authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    for text in headers.values():
        if not text.isprintable() or not text.isascii():
            raise UpnextError(f"endpoint '{name}': a header would hold what no header can, such as a line break")
    return Target(
        urlsplit(filled(endpoint.url)), secret, endpoint.method, headers, endpoint.keep, endpoint.body is not None
    )


def kept(content: bytes, keep: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the fields of an answer in JSON that are to be kept, by name; None for none."""
    try:
        answer = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = {}
    for name, path in keep.items():
        value: Any = answer
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and _NUL not in msgspec.json.encode(value):
            found[name] = value
    return found or None


def parse_networks(text: str) -> list[Network]:
    """Parse networks such as `10.1.0.0/16, 127.0.0.1/32`. Raises `UpnextError`."""
    try:
        return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UpnextError(f"UPNEXT_WEBHOOK_NETWORKS: {error}") from None


def mistake_of(url: str, networks: list[Network]) -> str | None:
    """Return what is wrong with an endpoint's address, as far as it can be told without looking it up."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is not an address such as https://hooks.example/upnext"
    if parts.scheme not in ("https", "http") or not parts.hostname or not url.isprintable() or " " in url:
        return "is not an address such as https://hooks.example/upnext"
    if parts.username or parts.password:
        return "has a password in it; requests are signed"
    if parts.scheme == "http" and not networks:
        return "is not https, which only networks of UPNEXT_WEBHOOK_NETWORKS may go without"
    literal = _literal(parts.hostname)
    if (literal is not None and not is_allowed(literal, networks)) or (
        parts.hostname.rstrip(".") == "localhost" and not networks
    ):
        return (
            f"leads into one's own network ({literal or parts.hostname}), which UPNEXT_WEBHOOK_NETWORKS does not name"
        )
    return None


def is_allowed(address: IpAddress, networks: list[Network]) -> bool:
    """Whether an endpoint may be at this address: anywhere in the internet, or in a network that is named."""
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    address = mapped or address
    return (address.is_global and not address.is_multicast) or any(
        address in network for network in networks if network.version == address.version
    )


def retry_after(header: str | None, *, now: datetime) -> timedelta | None:
    """Return how long a server asks to wait, seconds or a date, a day at the most; None for what is neither."""
    if header is None:
        return None
    with suppress(ValueError):
        seconds = int(header.strip())
        return timedelta(seconds=min(seconds, MAX_RETRY_AFTER.total_seconds())) if seconds >= 0 else None
    with suppress(ValueError, TypeError, OverflowError):
        at = parsedate_to_datetime(header)
        return min(max((at if at.tzinfo else at.replace(tzinfo=UTC)) - now, timedelta(0)), MAX_RETRY_AFTER)
    return None


class WebhookConnection:
    """Calls endpoints; a connection to each is kept open as long as the other side keeps it."""

    def __init__(
        self,
        endpoints: Mapping[str, Target],
        networks: list[Network],
        timeout_seconds: float,
        clock: Callable[[], datetime],
    ) -> None:
        self._endpoints = endpoints
        self._networks = networks
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._open: dict[str, http.client.HTTPConnection] = {}

    def open(self) -> None:
        """Connections are opened when something is sent."""

    def send(self, message: Rendered) -> Answer:
        """Call the endpoint. Nothing is left unknown: the receiver knows a message that comes again by its id."""
        target = self._endpoints.get(message.recipient)
        if target is None:
            return Answer(Outcome.FAILED, f"no endpoint is called '{message.recipient}' any more")
        now = self._clock()
        headers = {
            "host": target.url.netloc,
            "content-type": message.content_type,
            "user-agent": "Upnext",
            "webhook-id": message.message_id,
            **target.headers,
        }
        if target.secret is not None:
            signature = Webhook(target.secret).sign(message.message_id, now, message.content.decode())
            headers |= {"webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
        try:
            open_one = self._open.pop(message.recipient, None)
            try:
                if open_one is None:
                    raise http.client.NotConnected
                response, body = self._call(open_one, target, message, headers)
            except (http.client.NotConnected, http.client.RemoteDisconnected, ConnectionError):
                response, body = self._call(self._connect(target.url), target, message, headers)
        except (_NotAllowedError, UnicodeError) as error:
            is_ours = isinstance(error, _NotAllowedError)
            return Answer(Outcome.FAILED, str(error) if is_ours else "the address has a part that no request can have")
        except (OSError, http.client.HTTPException) as error:
            return Answer(Outcome.RETRY, f"webhook: {type(error).__name__}")
        if 200 <= response.status < 300:
            return Answer(Outcome.SENT, kept=kept(body, target.keep) if target.keep else None)
        reason = f"http {response.status}"
        if response.status == http.client.GONE:
            # To an endpoint with a body of its own, such as a CRM, it is what the call is about that is gone.
            return Answer(Outcome.FAILED, reason, is_endpoint_gone=not target.has_own_body)
        return Answer(Outcome.RETRY, reason, retry_after=retry_after(response.getheader("retry-after"), now=now))

    def close(self) -> None:
        """End all connections."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()

    def _call(
        self, connection: http.client.HTTPConnection, target: Target, message: Rendered, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send one request and read the beginning of its answer, in the time there is for both together."""
        late = threading.Timer(self._timeout_seconds, _hang_up, [connection.sock])
        late.start()
        try:
            path = target.url.path or "/"
            connection.request(
                target.method, f"{path}?{target.url.query}" if target.url.query else path, message.content, headers
            )
            response = connection.getresponse()
            body = b""
            with suppress(OSError, http.client.HTTPException):
                body = response.read(_READ_BYTES)
        except BaseException:
            connection.close()
            raise
        finally:
            late.cancel()
        if response.isclosed() and not response.will_close:
            self._open[message.recipient] = connection
        else:
            connection.close()
        return response, body

    def _connect(self, url: SplitResult) -> http.client.HTTPConnection:
        """Connect to the checked address, not to a name that can resolve to another address a moment later."""
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(address[0]) for *_, address in found]
        if not addresses or not all(is_allowed(ipaddress.ip_address(one), self._networks) for one in addresses):
            raise _NotAllowedError("webhook: the endpoint's name leads into one's own network")
        connected = socket.create_connection((addresses[0], port), timeout=self._timeout_seconds)
        if url.scheme == "https":
            connected = ssl.create_default_context().wrap_socket(connected, server_hostname=host)
        connection = http.client.HTTPConnection(host, port, timeout=self._timeout_seconds)
        connection.sock = connected
        return connection


class _NotAllowedError(Exception):
    """The endpoint is where nothing may be sent."""


def _hang_up(connected: socket.socket | None) -> None:
    if connected is not None:
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)


def _literal(host: str) -> IpAddress | None:
    """Return the address that a host writes out, in decimal, octal or hexadecimal too; None for a name."""
    with suppress(ValueError):
        return ipaddress.ip_address(host)
    with suppress(OSError):
        return ipaddress.IPv4Address(socket.inet_aton(host))
    return None
