"""The channels that send, by name: how each opens its connections."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy.engine import Engine

from upnext.journeys.channels.channel import Connection
from upnext.journeys.channels.inbox import InboxConnection
from upnext.journeys.channels.maildir import MaildirConnection
from upnext.journeys.channels.smtp import SmtpConnection, parse_smtp_url
from upnext.journeys.channels.webhook import WebhookConnection, parse_networks, targets
from upnext.journeys.policy import Policy
from upnext.settings import Settings

Connections = Callable[[], Connection]
"""Makes one connection more of a channel."""


def channels(
    engine: Engine, settings: Settings, policy: Policy, *, clock: Callable[[], datetime]
) -> dict[str, Callable[[], Connections]]:
    """Return the channels that send, by name. A channel that cannot be used raises `UpnextError` when it is opened."""

    def email() -> Connections:
        return mail(settings, timeout_seconds=policy.email.timeout_seconds)

    def webhook() -> Connections:
        endpoints, networks = targets(policy.endpoints), parse_networks(settings.webhook_networks)
        return lambda: WebhookConnection(endpoints, networks, policy.webhook.timeout_seconds, clock)

    def event() -> Connections:
        return lambda: InboxConnection(engine)

    return {"event": event, "email": email, "webhook": webhook}


def mail(settings: Settings, *, timeout_seconds: float) -> Connections:
    """Return what connects to the configured mail server, or to the local catcher. Raises `UpnextError`."""
    if settings.smtp_url is None:
        return lambda: MaildirConnection(settings.maildir)
    address = parse_smtp_url(settings.smtp_url)
    return lambda: SmtpConnection(address, timeout_seconds)
