"""Payloads as mail providers document them, and what they say of a message."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from upnext.events.event import Event, Reject
from upnext.events.providers import PROVIDERS, decode_provider

ID = "0a1b2c3d-1111-2222-3333-444455556666"
HEADER = f"<{ID}@otto.example>"
LOADED = datetime(2026, 4, 2, tzinfo=UTC)
AT = "2026-04-01T10:11:12.000Z"
SECONDS = 1775038272


def ses(kind: str, detail: dict[str, Any], **mail: Any) -> dict[str, Any]:
    mail = {"timestamp": AT, "messageId": "010001", "commonHeaders": {"messageId": HEADER}, **mail}
    return {"eventType": kind, "mail": mail, kind.lower(): {"timestamp": AT, **detail}}


def sendgrid(event: str, **values: Any) -> dict[str, Any]:
    return {
        "email": "a@b.example",
        "timestamp": SECONDS,
        "smtp-id": HEADER,
        "sg_event_id": "sg-1",
        "event": event,
        **values,
    }


def postmark(kind: str, **values: Any) -> dict[str, Any]:
    return {"RecordType": kind, "MessageID": "883953f4", "Metadata": {"message_id": ID}, "ReceivedAt": AT,
            "BouncedAt": AT, "ChangedAt": AT, **values}  # fmt: skip


def mailgun(event: str, **values: Any) -> dict[str, Any]:
    data = {
        "event": event,
        "id": "mg-1",
        "timestamp": SECONDS,
        "message": {"headers": {"message-id": HEADER[1:-1]}},
        **values,
    }
    return {"signature": {"token": "t"}, "event-data": data}


def resend(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": f"email.{kind}", "created_at": AT, "data": {"email_id": "re-1", "headers": [
        {"name": "Message-ID", "value": HEADER}], **data}}  # fmt: skip


CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("ses", ses("Bounce", {"bounceType": "Permanent", "feedbackId": "f-1"}), "bounced", {"kind": "hard"}),
    ("ses", ses("Bounce", {"bounceType": "Transient", "feedbackId": "f-2"}), "bounced", {"kind": "soft"}),
    ("ses", ses("Complaint", {"feedbackId": "f-3"}), "complained", {}),
    ("ses", ses("Open", {"ipAddress": "192.0.2.1"}), "opened", {}),
    ("ses", ses("Click", {"link": "https://otto.example/"}), "clicked", {"url": "https://otto.example/"}),
    ("ses", {"Type": "Notification", "Message": json.dumps(ses("Complaint", {"feedbackId": "f-4"}))}, "complained", {}),
    ("ses", ses("Open", {}, commonHeaders={}, headers=[{"name": "Message-ID", "value": HEADER}]), "opened", {}),
    ("sendgrid", sendgrid("bounce", type="bounce"), "bounced", {"kind": "hard"}),
    ("sendgrid", sendgrid("bounce", type="blocked"), "bounced", {"kind": "soft"}),
    ("sendgrid", sendgrid("dropped", reason="Bounced Address"), "bounced", {"kind": "hard"}),
    ("sendgrid", sendgrid("dropped", reason="Recipient List over Package Quota"), "bounced", {"kind": "soft"}),
    ("sendgrid", sendgrid("dropped", reason="Spam Reporting Address"), "bounced", {"kind": "hard"}),
    ("sendgrid", sendgrid("dropped", reason="Unsubscribed Address"), "unsubscribed", {}),
    ("sendgrid", sendgrid("spamreport"), "complained", {}),
    ("sendgrid", sendgrid("unsubscribe"), "unsubscribed", {}),
    ("sendgrid", sendgrid("open"), "opened", {}),
    ("sendgrid", sendgrid("click", url="https://otto.example/"), "clicked", {"url": "https://otto.example/"}),
    ("postmark", postmark("Bounce", ID=692560173, Type="HardBounce"), "bounced", {"kind": "hard"}),
    ("postmark", postmark("Bounce", ID=692560174, Type="SoftBounce"), "bounced", {"kind": "soft"}),
    ("postmark", postmark("SpamComplaint", ID=42), "complained", {}),
    ("postmark", postmark("SubscriptionChange", SuppressionReason="ManualSuppression"), "unsubscribed", {}),
    ("postmark", postmark("SubscriptionChange", SuppressionReason="HardBounce"), "bounced", {"kind": "hard"}),
    ("postmark", postmark("SubscriptionChange", SuppressionReason="SpamComplaint"), "complained", {}),
    ("postmark", postmark("Open"), "opened", {}),
    ("postmark", postmark("Click", OriginalLink="https://otto.example/"), "clicked", {"url": "https://otto.example/"}),
    ("mailgun", mailgun("failed", severity="permanent"), "bounced", {"kind": "hard"}),
    ("mailgun", mailgun("failed", severity="temporary"), "bounced", {"kind": "soft"}),
    ("mailgun", mailgun("complained"), "complained", {}),
    ("mailgun", mailgun("unsubscribed"), "unsubscribed", {}),
    ("mailgun", mailgun("opened")["event-data"], "opened", {}),
    ("mailgun", mailgun("clicked", url="https://otto.example/"), "clicked", {"url": "https://otto.example/"}),
    ("resend", resend("bounced", bounce={"type": "Permanent"}), "bounced", {"kind": "hard"}),
    ("resend", resend("bounced", bounce={"type": "Transient"}), "bounced", {"kind": "soft"}),
    ("resend", resend("complained"), "complained", {}),
    ("resend", resend("opened", headers=None, tags=[{"name": "message_id", "value": ID}]), "opened", {}),
    ("resend", resend("clicked", headers=[], tags={"message_id": ID}, click={"link": "https://otto.example/"}),
     "clicked", {"url": "https://otto.example/"}),
]  # fmt: skip


def decode(provider: str, payload: Any) -> Event:
    return decode_provider(json.dumps(payload).encode(), provider=provider, loaded_at=LOADED)


@pytest.mark.parametrize(("provider", "payload", "name", "properties"), CASES)
def test_what_a_payload_says(provider: str, payload: dict[str, Any], name: str, properties: dict[str, Any]) -> None:
    event = decode(provider, payload)
    assert (event.type, event.event) == ("track", f"message {name}")
    assert event.occurred_at == datetime(2026, 4, 1, 10, 11, 12, tzinfo=UTC)
    assert json.loads(event.properties) == {"message_id": ID, "source": provider, **properties}
    assert (event.user_id, event.anonymous_id) == (None, f"mail provider {provider}")
    assert decode(provider, payload).message_id == event.message_id, "the same again has the same id"


def test_ids_tell_events_apart() -> None:
    ids = [decode(provider, payload).message_id for provider, payload, *_ in CASES if provider == "ses"]
    assert len(set(ids)) == len(ids) - 1, "two opens at one instant are one"


REJECTS: list[tuple[str, Any, str]] = [
    ("ses", ses("Delivery", {}), "not_needed"),
    ("ses", {"eventType": "Bounce", "mail": {}}, "invalid_shape"),
    ("ses", ses("Open", {}, commonHeaders={"messageId": "<abc@elsewhere.example>"}), "no_message"),
    ("ses", {"Type": "Notification", "Message": "no json"}, "invalid_shape"),
    ("sendgrid", sendgrid("processed"), "not_needed"),
    ("sendgrid", [sendgrid("open")], "invalid_shape"),
    ("sendgrid", sendgrid("open", timestamp="yesterday"), "invalid_timestamp"),
    ("sendgrid", sendgrid("open", timestamp=-5), "invalid_timestamp"),
    ("sendgrid", sendgrid("open", timestamp=1e20), "invalid_timestamp"),
    ("sendgrid", sendgrid("open", timestamp=1_790_000_000_000), "invalid_timestamp"),
    ("sendgrid", sendgrid("open", timestamp=-99_999_999_999), "invalid_timestamp"),
    ("postmark", postmark("Open", Metadata={}), "no_message"),
    ("postmark", postmark("SubscriptionChange", SuppressSending=False, SuppressionReason=None), "not_needed"),
    ("postmark", {"RecordType": "Bounce"}, "invalid_shape"),
    ("mailgun", mailgun("failed"), "invalid_shape"),
    ("mailgun", {}, "invalid_shape"),
    ("resend", {"type": "email.opened", "data": 5, "created_at": AT}, "invalid_shape"),
    ("resend", {"type": ["email.opened"]}, "invalid_shape"),
]


@pytest.mark.parametrize(("provider", "payload", "reason"), REJECTS)
def test_what_says_nothing_is_rejected_with_a_reason(provider: str, payload: Any, reason: str) -> None:
    with pytest.raises(Reject) as rejected:
        decode(provider, payload)
    assert rejected.value.reason == reason


def test_every_provider_is_tested() -> None:
    assert {provider for provider, *_ in CASES} == set(PROVIDERS)
