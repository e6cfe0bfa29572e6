"""What mail providers tell over HTTP, signed as they document it: it stops the next mail before they are answered."""

import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from standardwebhooks import Webhook

from tests.conftest import AS_OF, SmtpServer, rows
from tests.integration.test_edge import Answer, Edge, running
from tests.journeys import DAY, HOUR, Journeys, journey, mail
from upnext.clock import utc_now
from upnext.edge.config import Config
from upnext.errors import UpnextError
from upnext.loop import ingest_landing
from upnext.project import Project

SENDGRID = ec.generate_private_key(ec.SECP256R1())
PUBLIC = SENDGRID.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
RESEND, MAILGUN, LOGIN = "whsec_" + b64encode(b"k" * 24).decode(), "a key of mailgun", "otto:pass word"
TOPIC = "arn:aws:sns:eu-west-1:123:mails"
ENVIRONMENT = {
    "UPNEXT_HOOK_SENDGRID_KEY": b64encode(PUBLIC).decode(), "UPNEXT_HOOK_RESEND_SECRET": RESEND,
    "UPNEXT_HOOK_MAILGUN_KEY": MAILGUN, "UPNEXT_HOOK_POSTMARK_LOGIN": LOGIN, "UPNEXT_HOOK_SES_TOPICS": TOPIC,
}  # fmt: skip
Call = tuple[Any, dict[str, str]]


def at(age: timedelta = timedelta()) -> int:
    return int((utc_now() - age).timestamp())


def sendgrid(message: str, age: timedelta = timedelta()) -> Call:
    event = {"event": "bounce", "sg_event_id": f"e-{message}", "timestamp": at(), "message_id": message}
    body = json.dumps([event, {**event, "event": "delivered"}]).encode()
    signature = SENDGRID.sign(f"{at(age)}".encode() + body, ec.ECDSA(hashes.SHA256()))
    return body, {
        "X-Twilio-Email-Event-Webhook-Signature": b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": f"{at(age)}",
    }


def postmark(message: str, _: timedelta = timedelta()) -> Call:
    body = {"RecordType": "SpamComplaint", "ID": 1, "MessageID": "x", "BouncedAt": utc_now().isoformat(),
            "Metadata": {"message_id": message}}  # fmt: skip
    return json.dumps(body).encode(), {"Authorization": f"Basic {b64encode(LOGIN.encode()).decode()}"}


def mailgun(message: str, age: timedelta = timedelta()) -> Call:
    data = {"event": "failed", "severity": "permanent", "id": f"e-{message}", "timestamp": at(),
            "message": {"headers": {"message-id": f"{message}@otto.example"}}}  # fmt: skip
    signed = hmac.new(MAILGUN.encode(), f"{at(age)}token".encode(), hashlib.sha256).hexdigest()
    signature = {"timestamp": f"{at(age)}", "token": "token", "signature": signed}
    return json.dumps({"signature": signature, "event-data": data}).encode(), {}


def resend(message: str, age: timedelta = timedelta()) -> Call:
    body = {"type": "email.complained", "created_at": utc_now().isoformat(),
            "data": {"email_id": "x", "message_id": message}}  # fmt: skip
    sent_at, content = utc_now() - age, json.dumps(body)
    signature = Webhook(RESEND).sign("msg_1", sent_at, content)
    stated = {"id": "msg_1", "timestamp": f"{int(sent_at.timestamp())}", "signature": signature}
    return content.encode(), {f"svix-{name}": value for name, value in stated.items()}


CALLS: dict[str, tuple[Callable[..., Call], str]] = {
    "sendgrid": (sendgrid, "bounced"), "postmark": (postmark, "complained"), "mailgun": (mailgun, "bounced"),
    "resend": (resend, "complained"),
}  # fmt: skip


@pytest.fixture
def edge(content: Path, journeys: Journeys, smtp: SmtpServer) -> Iterator[Edge]:
    """An edge that hears of all providers, and `ann` and `bob`, who got a mail and are to get another."""
    for provider in ("ses", *CALLS):
        (content / "sources" / f"{provider}.yml").write_text(f"description: Mails.\nformat: {provider}\n")
    journeys.project.__dict__.pop("sources", None)
    journeys.person("ann", "bob")
    journeys.declare(spring=journey(mail("hello"), mail("again", wait="1 day"), existing_members="enroll"))
    journeys.tick(AS_OF + HOUR, "entered", "ann", "bob")
    journeys.dispatch(AS_OF + HOUR)
    with running(journeys.project, UPNEXT_CONTENT=str(content), **ENVIRONMENT) as edge:
        yield edge


def tell(edge: Edge, provider: str, body: bytes, headers: dict[str, str]) -> Answer:
    return edge.ask("POST", f"/hooks/mail/{provider}", body, **headers)


def message_of(journeys: Journeys, user: str) -> str:
    sent = "select message_id from journeys.messages where step = 'hello' and user_id = :user"
    return str(rows(journeys.project, sent, user=user)[0][0])


@pytest.mark.parametrize("provider", CALLS)
def test_what_a_provider_tells_stops_the_next_mail_at_once(edge: Edge, journeys: Journeys, provider: str) -> None:
    call, reason = CALLS[provider]
    body, headers = call(message_of(journeys, "ann"))
    for _ in range(2):
        assert tell(edge, provider, body, headers).status == 200
    stopped = "select user_id, channel, address, reason, source from journeys.suppressions"
    said = [("ann", "email", "ann@customer.example", reason, provider)]
    assert rows(journeys.project, stopped) == said
    journeys.dispatch(AS_OF + 2 * DAY)
    assert journeys.sent("again") == ["bob"], "before any tick has read the line"
    done = ingest_landing(journeys.project)
    assert (done.stored, done.duplicate) == (1, 1)
    told = rows(journeys.project, "select event, user_id, source from raw.events where event like 'message %'")
    assert told == [(f"message {reason}", "ann", provider)]
    journeys.dispatch(AS_OF + 3 * DAY)
    assert rows(journeys.project, stopped) == said

    changed = {name: value[:-3] + "AA=" for name, value in headers.items() if "ignature" in name}
    forged: list[tuple[bytes, dict[str, str]]] = [(body, {}), (body, {**headers, **changed})]
    if provider == "mailgun":
        forged = [(body.replace(b'"token": "token"', b'"token": "other"'), {}), (b'{"event-data": {}}', {})]
    if provider == "postmark":
        forged = [(body, {}), (body, {"Authorization": f"Basic {b64encode(b'otto:wrong').decode()}"})]
    for content, stated in forged:
        assert tell(edge, provider, content, stated).status == 401
    if provider != "postmark":
        for age in (timedelta(minutes=6), -timedelta(minutes=6)):
            assert tell(edge, provider, *call(message_of(journeys, "bob"), age)).status == 400
    assert rows(journeys.project, stopped) == said


def test_a_soft_bounce_stops_nothing_and_what_no_journey_sent_is_rejected(edge: Edge, journeys: Journeys) -> None:
    login = {"Authorization": f"Basic {b64encode(LOGIN.encode()).decode()}"}
    stated = {
        "RecordType": "Bounce",
        "Type": "Transient",
        "ID": 2,
        "MessageID": "x",
        "BouncedAt": utc_now().isoformat(),
    }
    of = {"Metadata": {"message_id": message_of(journeys, "ann")}}
    for body in ({**stated, **of}, {**stated, "Type": "HardBounce"}, {"RecordType": "Delivery"}):
        assert tell(edge, "postmark", json.dumps(body).encode(), login).status == 200
    for broken in (b"", b"[]", b"{", b'{"a":' * 2000):
        assert tell(edge, "postmark", broken, login).status == 400
    assert rows(journeys.project, "select * from journeys.suppressions") == []
    done = ingest_landing(journeys.project)
    assert (done.stored, done.rejected) == (1, 2)


def test_sns_is_heard_of_its_own_topics_and_nobody_makes_the_edge_ask_elsewhere(edge: Edge) -> None:
    envelope = {"Type": "Notification", "TopicArn": TOPIC, "SignatureVersion": "2", "Signature": "AA==", "Message": "",
                "MessageId": "1", "Timestamp": "2026-03-31T12:00:00Z"}  # fmt: skip
    for change in (
        {"TopicArn": "arn:aws:sns:eu-west-1:666:mails"}, {"SignatureVersion": "1"}, {"Type": "Other"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com.evil.example/c.pem"},
        {"SigningCertURL": f"http://127.0.0.1:{edge.port}/c.pem"}, {"SigningCertURL": None}, {"Message": 5},
    ):  # fmt: skip
        assert tell(edge, "ses", json.dumps({**envelope, **change}).encode(), {}).status == 401, change
    assert edge.waiting() == 0


def test_a_hook_that_is_not_set_up_says_what_to_do(project: Project) -> None:
    with running(project) as edge:
        missing = edge.ask("POST", "/hooks/mail/resend", b"{}")
        assert (missing.status, missing.body["message"]) == (
            404, "set UPNEXT_HOOK_RESEND_SECRET, and declare a source of format: resend",
        )  # fmt: skip
        assert "there are hooks for ses, sendgrid" in edge.ask("POST", "/hooks/mail/pigeon", b"{}").body["message"]
    with pytest.raises(UpnextError, match="UPNEXT_HOOK_MAILGUN_KEY: no source has `format: mailgun`; declare one in"):
        Config.from_environment({"UPNEXT_HOOK_MAILGUN_KEY": "x"})
