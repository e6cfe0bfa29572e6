"""Events of mail providers, by the payloads that they document: what became of a message. Pure.

A provider tells of a message by its Message-ID header, or by metadata that it sends along. Upnext's own id of the
message is the part of the Message-ID before the @.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from upnext.events.event import (
    FUTURE,
    MAIL_PROVIDER,
    Event,
    Reject,
    check_line,
    content_id,
    instant,
    json_object,
    short,
)

_ID = re.compile(r"<?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:@[^>]*)?>?", re.IGNORECASE)


class Told(NamedTuple):
    """What a payload tells: the event, the id of the event (None: none), the time, and where our id may stand."""

    event: str
    provider_id: Any
    at: Any
    ids: list[Any]
    kind: str | None = None
    url: Any = None


def decode_provider(line: bytes, *, provider: str, loaded_at: datetime) -> Event:
    """Turn one JSON object of a provider into a track event about a message, without a user. Raises `Reject`."""
    check_line(line)
    payload = msgspec.json.decode(line)
    if not isinstance(payload, dict):
        raise Reject("invalid_shape", "not an object")
    try:
        told = PROVIDERS[provider](payload)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise Reject("invalid_shape", f"not a payload that {provider} documents: {error}") from None
    message_id = next((found[1].lower() for one in told.ids if (found := _ID.fullmatch(str(one)))), None)
    if message_id is None:
        raise Reject("no_message", "names no message of a journey: its Message-ID is not one that Upnext gave")
    flags: list[str] = []
    moment = instant(_moment(told.at), field="the time", flags=flags)
    if moment is None:
        raise Reject("invalid_timestamp", "the time is neither a number of seconds nor an RFC 3339 time")
    if moment > loaded_at:
        flags.append(FUTURE)
    named = {"message_id": message_id, "kind": told.kind, "url": told.url, "source": provider}
    properties = {name: value for name, value in named.items() if value is not None}
    return Event(
        message_id=short(f"{told.event}:{told.provider_id}", field="the id of the event")
        if told.provider_id is not None
        else content_id(line),
        type="track",
        event=told.event,
        user_id=None,
        anonymous_id=f"{MAIL_PROVIDER}{provider}",
        account_id=None,
        previous_id=None,
        occurred_at=moment,
        timestamp=moment,
        original_timestamp=None,
        sent_at=None,
        received_at=None,
        properties=json_object(msgspec.Raw(msgspec.json.encode(properties)), field="properties"),
        context=b"{}",
        flags=flags or None,
    )


def _moment(value: Any) -> datetime | None:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        return msgspec.convert(value, datetime)
    except (msgspec.ValidationError, ValueError, OverflowError, OSError):
        return None


def _name(names: Mapping[str, str], stated: Any) -> str:
    if stated not in names:
        raise Reject("not_needed", f"tells of '{stated}', which no journey asks about")
    return names[stated]


def _ses(payload: dict[str, Any]) -> Told:
    """Amazon SES by event publishing, also in the envelope of SNS."""
    if payload.get("Type") == "Notification":
        payload = msgspec.json.decode(payload["Message"])
    stated = payload.get("eventType", payload.get("notificationType"))
    names = {"Bounce": "bounced", "Complaint": "complained", "Open": "opened", "Click": "clicked"}
    name = _name(names, stated)
    mail, detail = payload["mail"], payload[str(stated).lower()]
    headers = [header["value"] for header in mail.get("headers", []) if header["name"].lower() == "message-id"]
    kind = None
    if name == "bounced":
        kind = "hard" if detail["bounceType"] == "Permanent" else "soft"
    provider_id = detail.get("feedbackId", f"{mail['messageId']}:{detail['timestamp']}")
    ids = [mail.get("commonHeaders", {}).get("messageId"), *headers]
    return Told(f"message {name}", provider_id, detail["timestamp"], ids, kind, detail.get("link"))


def _sendgrid(payload: dict[str, Any]) -> Told:
    """An event of SendGrid's event webhook, which sends lists of them: one a line."""
    names = {
        "bounce": "bounced", "dropped": "bounced", "spamreport": "complained", "unsubscribe": "unsubscribed",
        "group_unsubscribe": "unsubscribed", "open": "opened", "click": "clicked",
    }  # fmt: skip
    name = _name(names, payload["event"])
    kind = None
    if payload["event"] == "dropped":
        name, kind = _dropped(str(payload.get("reason")))
    elif name == "bounced":
        kind = "soft" if payload.get("type") == "blocked" else "hard"
    ids = [payload.get("message_id"), payload.get("smtp-id")]
    return Told(f"message {name}", payload["sg_event_id"], payload["timestamp"], ids, kind, payload.get("url"))


def _dropped(reason: str) -> tuple[str, str | None]:
    """Return what became of a message that SendGrid did not send: it knows the address, or has no more to give."""
    known = {
        "Bounced Address": ("bounced", "hard"), "Invalid": ("bounced", "hard"),
        # Nobody complained of this message.
        "Spam Reporting Address": ("bounced", "hard"), "Unsubscribed Address": ("unsubscribed", None),
    }  # fmt: skip
    return known.get(reason, ("bounced", "soft"))


def _postmark(payload: dict[str, Any]) -> Told:
    """A webhook of Postmark; our id is the metadata `message_id`."""
    stated = payload["RecordType"]
    names = {"Bounce": "bounced", "SpamComplaint": "complained", "Open": "opened", "Click": "clicked"}
    if stated == "SubscriptionChange":
        # Whoever is mailed again was made so in Postmark itself, which is no word of the user's.
        suppressed = {"HardBounce": "bounced", "SpamComplaint": "complained", "ManualSuppression": "unsubscribed"}
        name, at = _name(suppressed, payload.get("SuppressionReason")), payload["ChangedAt"]
        kind = "hard" if name == "bounced" else None
    else:
        name = _name(names, stated)
        at = payload["BouncedAt" if name in ("bounced", "complained") else "ReceivedAt"]
        is_hard = name == "bounced" and payload["Type"] in ("HardBounce", "BadEmailAddress", "ManuallyDeactivated")
        kind = ("hard" if is_hard else "soft") if name == "bounced" else None
    provider_id = payload.get("ID", f"{payload['MessageID']}:{at}")
    return Told(
        f"message {name}", provider_id, at, [payload.get("Metadata", {}).get("message_id")], kind,
        payload.get("OriginalLink"),
    )  # fmt: skip


def _mailgun(payload: dict[str, Any]) -> Told:
    """A webhook of Mailgun, or what it calls event-data alone."""
    data = payload.get("event-data", payload)
    names = {
        "failed": "bounced", "complained": "complained", "unsubscribed": "unsubscribed", "opened": "opened",
        "clicked": "clicked",
    }  # fmt: skip
    name = _name(names, data["event"])
    kind = ("hard" if data["severity"] == "permanent" else "soft") if name == "bounced" else None
    ids = [data["message"]["headers"]["message-id"]]
    return Told(f"message {name}", data["id"], data["timestamp"], ids, kind, data.get("url"))


def _resend(payload: dict[str, Any]) -> Told:
    """A webhook of Resend; our id is the Message-ID header, or the tag `message_id`."""
    names = {
        "email.bounced": "bounced", "email.complained": "complained", "email.opened": "opened",
        "email.clicked": "clicked",
    }  # fmt: skip
    name = _name(names, payload["type"])
    data = payload["data"]
    tags = data.get("tags") or {}
    stated = tags.items() if isinstance(tags, dict) else [(tag["name"], tag["value"]) for tag in tags]
    headers = [one["value"] for one in data.get("headers") or [] if one["name"].lower() == "message-id"]
    ids = [data.get("message_id"), *headers, *(value for key, value in stated if key == "message_id")]
    kind = None
    if name == "bounced":
        kind = "soft" if data.get("bounce", {}).get("type") in ("Transient", "Temporary") else "hard"
    provider_id = f"{data['email_id']}:{payload['created_at']}"
    return Told(f"message {name}", provider_id, payload["created_at"], ids, kind, (data.get("click") or {}).get("link"))


PROVIDERS: dict[str, Callable[[dict[str, Any]], Told]] = {
    "ses": _ses,
    "sendgrid": _sendgrid,
    "postmark": _postmark,
    "mailgun": _mailgun,
    "resend": _resend,
}
"""The providers by the `format` of a source."""


ABOUT_MESSAGES = frozenset(
    f"message {what}" for what in ("opened", "clicked", "bounced", "complained", "unsubscribed", "resubscribed")
)
"""The events about a message of a journey, which their property `message_id` names."""


def message_of(event: Event) -> str | None:
    """Return the id of the message that an event is about; None where it names none."""
    named = msgspec.json.decode(event.properties).get("message_id")
    return named if isinstance(named, str) else None
