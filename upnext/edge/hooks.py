"""Hooks: what mail providers tell of messages. A bounce stops the next mail before the provider is answered."""

import asyncio
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import falcon
import msgspec
import psycopg
from falcon.asgi import Request, Response

from upnext.clock import utc_now
from upnext.edge import signatures
from upnext.edge.refusal import Refused
from upnext.edge.requests import body_of
from upnext.edge.warehouse import Warehouse
from upnext.events.event import Reject
from upnext.events.providers import decode_provider

SECRETS: dict[str, str] = {
    "ses": "UPNEXT_HOOK_SES_TOPICS", "sendgrid": "UPNEXT_HOOK_SENDGRID_KEY", "postmark": "UPNEXT_HOOK_POSTMARK_LOGIN",
    "mailgun": "UPNEXT_HOOK_MAILGUN_KEY", "resend": "UPNEXT_HOOK_RESEND_SECRET",
}  # fmt: skip
"""The variable that says how a provider's calls are verified."""
FETCHED_WITHIN = 5
LARGEST_DOCUMENT = 64 * 1024
_SUCCESS = b'{"success":true}'
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(frozen=True)
class Hook:
    """How a provider is heard: the source that its lines belong to, and what verifies its calls."""

    source: str
    secret: str


class Hooks:
    """The paths of providers."""

    def __init__(self, warehouse: Warehouse, hooks: Mapping[str, Hook]) -> None:
        self._warehouse = warehouse
        self._hooks = hooks
        self._certificates: dict[str, bytes] = {}

    async def on_post(self, request: Request, response: Response, provider: str) -> None:
        """Store what a provider tells, with what it stops, in one transaction; then answer."""
        hook = self._hooks.get(provider)
        if hook is None:
            raise Refused(404, "unknown_hook", _missing(provider))
        body, now = await body_of(request), utc_now()
        headers = {name.lower(): value for name, value in request.headers.items()}
        lines = await self._verified(provider, hook.secret, headers, body, now)
        heard = [told for line in lines if (told := _heard(line, provider, now)) is not None]
        try:
            await self._warehouse.ask(
                "hear", source=hook.source, provider=provider, now=now, lines=lines,
                events=[told.event for told in heard], messages=[told.message_id for told in heard],
                kinds=[told.kind for told in heard],
            )  # fmt: skip
        except (psycopg.Error, OSError):
            raise Refused(503, "unavailable", "this cannot be stored now", retry_after=2) from None
        response.data = _SUCCESS
        response.content_type = falcon.MEDIA_JSON

    async def _verified(
        self, provider: str, secret: str, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> list[bytes]:
        """Return the lines of a call that a provider has signed. Raises `Refused`."""
        match provider:
            case "sendgrid":
                signatures.check_sendgrid(secret, headers, body, now)
            case "postmark":
                signatures.check_postmark(secret, headers)
            case "resend":
                signatures.check_standard(secret, headers, body)
        try:
            if provider == "sendgrid":
                return [bytes(one) for one in _raws(body)]
            payload = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refused(400, "invalid_json", f"the body is not what {provider} sends") from None
        if provider == "mailgun":
            signatures.check_mailgun(secret, payload, now)
        if provider == "ses":
            await signatures.check_sns(secret.replace(",", " ").split(), payload, self._certificate)
            if payload["Type"] == "SubscriptionConfirmation":
                await fetch(signatures.of_amazon(payload["SubscribeURL"]))
                return []
        return [body]

    async def _certificate(self, address: str) -> bytes:
        if address not in self._certificates:
            self._certificates = {address: await fetch(address)}
        return self._certificates[address]


def _missing(provider: str) -> str:
    if provider not in SECRETS:
        return f"there are hooks for {', '.join(SECRETS)}"
    return f"set {SECRETS[provider]}, and declare a source of format: {provider}"


class Heard(NamedTuple):
    """An event about a message, and the kind where it is a bounce."""

    event: str
    message_id: str
    kind: str | None


def _heard(line: bytes, provider: str, now: datetime) -> Heard | None:
    """Return what a line tells of a message; None for one that the drain rejects."""
    try:
        event = decode_provider(line, provider=provider, loaded_at=now)
    except Reject:
        return None
    properties = msgspec.json.decode(event.properties)
    return Heard(str(event.event), properties["message_id"], properties.get("kind"))


async def fetch(address: str) -> bytes:
    """Return a document by its address, without following it elsewhere. Raises `Refused` where there is none."""
    try:
        return await asyncio.to_thread(_fetch, address)
    except (OSError, http.client.HTTPException):
        raise Refused(503, "unavailable", "Amazon cannot be asked now", retry_after=60) from None


def _fetch(address: str) -> bytes:
    parts = urlsplit(address)
    connection = http.client.HTTPSConnection(parts.netloc, timeout=FETCHED_WITHIN)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise http.client.HTTPException
        return answer.read(LARGEST_DOCUMENT)
    finally:
        connection.close()
