"""Alerts to people outside, by an HTTP call with JSON, as chat tools accept it, and by mail."""

import json
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from urllib.request import Request, urlopen

from upnext.errors import UpnextError
from upnext.journeys.channels.channel import Outcome
from upnext.journeys.channels.connections import mail
from upnext.journeys.copy.message import Rendered
from upnext.settings import Settings

TIMEOUT_SECONDS = 15


@dataclass(frozen=True)
class Alert:
    """What is wrong: a line, and more of it."""

    subject: str
    text: str


def send(settings: Settings, alert: Alert) -> None:
    """Send an alert wherever the settings say. Raises `UpnextError` if nobody accepts it."""
    failures, ways = [], 0
    for way, to in ((_call, settings.alerts_url), (_mail, settings.alerts_to)):
        if to is None:
            continue
        ways += 1
        try:
            way(settings, to, alert)
        except UpnextError as error:
            failures.append(str(error))
    if failures and len(failures) == ways:
        raise UpnextError("; ".join(failures))


def _call(_settings: Settings, url: str, alert: Alert) -> None:
    body = json.dumps({"text": f"{alert.subject}\n{alert.text}"}).encode()
    if not url.startswith(("https://", "http://")):
        raise UpnextError("UPNEXT_ALERTS_URL is not an address such as https://hooks.example/alerts")
    request = Request(url, data=body, headers={"content-type": "application/json"})  # noqa: S310 - checked above
    try:
        with urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310 - the operator's own address
            pass
    except OSError as error:
        raise UpnextError(f"UPNEXT_ALERTS_URL does not take the alert ({type(error).__name__})") from None


def _mail(settings: Settings, to: str, alert: Alert) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.sender_address, to, alert.subject
    message.set_content(alert.text)
    sender = parseaddr(settings.sender_address)[1]
    connection = mail(settings, timeout_seconds=TIMEOUT_SECONDS)()
    try:
        connection.open()
        answer = connection.send(Rendered("alert", message.as_bytes(policy=SMTP), sender, parseaddr(to)[1]))
    finally:
        connection.close()
    if answer.outcome is not Outcome.SENT:
        raise UpnextError(f"the mail server does not take the alert ({answer.reason})")
