"""Who calls a hook: the signatures of mail providers, as they document them.

Each check raises `Refused` with 401 for a call that the provider has not signed, and with 400 for one that is too old.
Times that are part of a signature hold for five minutes, as those of Standard Webhooks do. SNS repeats a call with its
first time for hours, and Postmark states none; an event that comes again is stored once anyway.
"""

import hashlib
import hmac
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import load_pem_x509_certificate
from standardwebhooks import Webhook, WebhookVerificationError

from upnext.edge.refusal import Refused
from upnext.edge.requests import login_of

HOLDS_FOR = timedelta(minutes=5)
# By regions, such as eu-central-1. What looks alike and has none may be anybody's: a bucket of S3, for one.
_AMAZON = re.compile(r"https://sns\.[a-z]{2}(-[a-z]+)+-\d\.amazonaws\.com(\.cn)?/[^\s]*")
_SIGNED_BY_SNS = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
Fetch = Callable[[str], Awaitable[bytes]]


def _unsigned() -> Refused:
    return Refused(401, "bad_signature", "the signature is not the provider's")


def _check_age(stated: object, now: datetime) -> None:
    try:
        at = datetime.fromtimestamp(int(str(stated)), now.tzinfo)
    except (ValueError, OverflowError, OSError):
        raise _unsigned() from None
    if abs(now - at) > HOLDS_FOR:
        raise Refused(400, "too_old", "the call is older than five minutes, or a clock is wrong")


def check_standard(secret: str, headers: Mapping[str, str], body: bytes) -> None:
    """Check a call by Standard Webhooks, which Resend signs by too, under headers of another name."""
    named = {
        f"webhook-{part}": headers.get(f"webhook-{part}") or headers.get(f"svix-{part}") or ""
        for part in ("id", "timestamp", "signature")
    }
    try:
        Webhook(secret).verify(body, named)
    except WebhookVerificationError as error:
        if "timestamp too" in str(error):
            raise Refused(400, "too_old", "the call is older than five minutes, or a clock is wrong") from None
        raise _unsigned() from None
    except ValueError:
        raise _unsigned() from None


def check_mailgun(secret: str, payload: Mapping[str, Any], now: datetime) -> None:
    """Check a call of Mailgun, which signs a time and a token within its body."""
    stated = payload.get("signature")
    if not isinstance(stated, dict):
        raise _unsigned()
    signed = f"{stated.get('timestamp')}{stated.get('token')}".encode()
    if not hmac.compare_digest(
        hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode(), str(stated.get("signature")).encode()
    ):
        raise _unsigned()
    _check_age(stated.get("timestamp"), now)


def check_postmark(login: str, headers: Mapping[str, str]) -> None:
    """Check a call of Postmark, which signs nothing and logs in by basic authentication."""
    given = login_of(headers.get("authorization"))
    if given is None or not hmac.compare_digest(":".join(given).encode(), login.encode()):
        raise _unsigned()


def check_sendgrid(key: str, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Check a call of SendGrid, whose public key verifies a time and the body."""
    stated = headers.get("x-twilio-email-event-webhook-timestamp", "")
    try:
        public = load_der_public_key(b64decode(key))
        signature = b64decode(headers.get("x-twilio-email-event-webhook-signature", ""), validate=True)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise _unsigned()
        public.verify(signature, stated.encode() + body, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, Base64Error, ValueError):
        raise _unsigned() from None
    _check_age(stated, now)


async def check_sns(topics: list[str], envelope: Mapping[str, Any], fetch: Fetch) -> None:
    """Check a message of SNS: of one of our topics, signed by Amazon's certificate, in version 2.

    `fetch` gets a document of Amazon's by its address.
    """
    names = _SIGNED_BY_SNS.get(str(envelope.get("Type")))
    if names is None or not all(isinstance(value, str | None) for value in envelope.values()):
        raise _unsigned()
    if envelope.get("TopicArn") not in topics:
        raise Refused(401, "unknown_topic", "the topic is not one of UPNEXT_HOOK_SES_TOPICS")
    if envelope.get("SignatureVersion") != "2":
        raise Refused(401, "bad_signature", "set the topic's SignatureVersion to 2; version 1 signs by SHA-1")
    signed = "".join(f"{name}\n{envelope[name]}\n" for name in names if envelope.get(name) is not None)
    try:
        certificate = load_pem_x509_certificate(await fetch(of_amazon(str(envelope.get("SigningCertURL")))))
        public = certificate.public_key()
        if not isinstance(public, rsa.RSAPublicKey):
            raise _unsigned()
        signature = b64decode(str(envelope.get("Signature")), validate=True)
        public.verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, Base64Error, ValueError):
        raise _unsigned() from None


def of_amazon(address: str) -> str:
    """Return an address of SNS itself. Raises `Refused` for any other, so that nobody makes the edge ask elsewhere."""
    if not _AMAZON.fullmatch(address):
        raise _unsigned()
    return address
