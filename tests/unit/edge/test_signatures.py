"""Messages of SNS, signed by a certificate of our own in the place of Amazon's."""

import asyncio
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from upnext.edge.refusal import Refused
from upnext.edge.signatures import check_sns, of_amazon

TOPIC = "arn:aws:sns:eu-west-1:123:mails"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
CERTIFICATE = (
    x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(KEY.public_key()).serial_number(1)
    .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2027, 1, 1, tzinfo=UTC) + timedelta(1))
    .sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)
)  # fmt: skip
URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"


def envelope(signed: str, **values: str) -> dict[str, Any]:
    signature = KEY.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return {"TopicArn": TOPIC, "SignatureVersion": "2", "SigningCertURL": URL, "MessageId": "m", "Message": "{}",
            "Timestamp": "2026-03-31T12:00:00Z", "Signature": b64encode(signature).decode(), **values}  # fmt: skip


NOTIFICATION = f"Message\n{{}}\nMessageId\nm\nTimestamp\n2026-03-31T12:00:00Z\nTopicArn\n{TOPIC}\nType\nNotification\n"
WITH_SUBJECT = NOTIFICATION.replace("Timestamp\n", "Subject\nHi\nTimestamp\n")
CONFIRMATION = (
    "Message\n{}\nMessageId\nm\nSubscribeURL\nhttps://sns.eu-west-1.amazonaws.com/?Token=t\nTimestamp\n"
    f"2026-03-31T12:00:00Z\nToken\nt\nTopicArn\n{TOPIC}\nType\nSubscriptionConfirmation\n"
)


def check(message: dict[str, Any], document: bytes = CERTIFICATE) -> None:
    asked = []

    async def fetch(address: str) -> bytes:
        asked.append(address)
        return document

    asyncio.run(check_sns([TOPIC], message, fetch))
    assert asked == [URL]


@pytest.mark.parametrize("message", [
    envelope(NOTIFICATION, Type="Notification"), envelope(WITH_SUBJECT, Type="Notification", Subject="Hi"),
    envelope(CONFIRMATION, Type="SubscriptionConfirmation", Token="t",
             SubscribeURL="https://sns.eu-west-1.amazonaws.com/?Token=t"),
])  # fmt: skip
def test_what_amazon_signs_is_heard(message: dict[str, Any]) -> None:
    check(message)
    for change in ({"Message": '{"a":1}'}, {"Timestamp": "2026-03-31T12:00:01Z"}, {"Signature": "no base64!"}):
        with pytest.raises(Refused, match="bad_signature"):
            check({**message, **change})
    with pytest.raises(Refused, match="bad_signature"):
        check(message, b"no certificate")


@pytest.mark.parametrize(
    "address",
    [
        "http://sns.eu-west-1.amazonaws.com/x", "https://sns.eu-west-1.amazonaws.com@evil.example/x",
        "https://evil.example/sns.eu-west-1.amazonaws.com/", "https://sns.a.b.amazonaws.com/x",
        "https://sns.s3.amazonaws.com/x", "https://sns.s3-us-west-2.amazonaws.com/x",
        "https://sns.eu-west-1.amazonaws.com:8443/x", "https://s3.eu-west-1.amazonaws.com/x", "",
    ],
)  # fmt: skip
def test_nobody_else_is_asked(address: str) -> None:
    with pytest.raises(Refused):
        of_amazon(address)
