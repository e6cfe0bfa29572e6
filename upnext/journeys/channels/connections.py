"""The channels that send, by name: how each opens its connections."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Engine

from upnext.journeys.channels.inbox import InboxConnection
from upnext.journeys.channels.smtp import SmtpConnection, mail_server
from upnext.journeys.channels.webhook import WebhookConnection, parse_networks, targets
from upnext.journeys.policy import Policy
from upnext.settings import Settings

Connections = Callable[[], AbstractContextManager[Callable[[], Any]]]
"""Opens a channel, and yields what makes one connection more."""


def channels(
    engine: Engine, settings: Settings, policy: Policy, *, clock: Callable[[], datetime]
) -> dict[str, Connections]:
    """Return the channels that send, by name. A channel that cannot be used raises `UpnextError` when it is opened."""

    @contextmanager
    def email() -> Iterator[Callable[[], SmtpConnection]]:
        with mail_server(settings.smtp_url, settings.maildir) as address:
            yield lambda: SmtpConnection(address, policy.email.timeout_seconds)

    @contextmanager
    def webhook() -> Iterator[Callable[[], WebhookConnection]]:
        endpoints, networks = targets(policy.endpoints), parse_networks(settings.webhook_networks)
        yield lambda: WebhookConnection(endpoints, networks, policy.webhook.timeout_seconds, clock)

    @contextmanager
    def event() -> Iterator[Callable[[], InboxConnection]]:
        yield lambda: InboxConnection(engine)

    return {"event": event, "email": email, "webhook": webhook}
