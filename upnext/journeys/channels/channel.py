"""The interface of channels: a connection that stays open, and the outcome of each message on it."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Protocol

from upnext.journeys.copy.message import Rendered


class Outcome(Enum):
    """The outcome of one message at the receiver."""

    SENT = "sent"
    RETRY = "retry"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Answer:
    """The receiver's answer. `retry_after` is the requested wait; a dead or gone address gets no more messages.

    `kept` are fields of it that later steps can read.
    """

    outcome: Outcome
    reason: str | None = None
    retry_after: timedelta | None = None
    is_address_dead: bool = False
    is_endpoint_gone: bool = False
    kept: dict[str, Any] | None = None


class Connection(Protocol):
    """One connection of a channel; it is used by one sender."""

    def open(self) -> None:
        """Connect, where there is no connection. Raises `UpnextError` where nothing can be sent at all."""

    def send(self, message: Rendered) -> Answer:
        """Hand one message over. Raises `UpnextError` where nothing was handed over, and it can be tried later."""

    def close(self) -> None:
        """End the connection, if there is one."""
