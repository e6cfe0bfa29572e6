"""What is not loaded, though it is well formed: events of people who were erased, and those older than is kept."""

from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy.engine import Connection

from upnext.erased import USER, VISITOR, Keys, Tombstones, tombstones
from upnext.events.event import KEPT_CALLS, Event, Reject
from upnext.events.records import Rejected
from upnext.events.source import SEGMENT_IDS
from upnext.events.sql import SQL

ERASED = "erased"
TOO_OLD = "older_than_kept"


NOBODY = Tombstones()


@dataclass(frozen=True)
class Admission:
    """Who was erased, and from when on events are kept: None where all are. Events of the names `kept` are older.

    `id_fields` are those of the source whose lines are judged.
    """

    erased: Tombstones = NOBODY
    since: datetime | None = None
    kept: frozenset[str] = frozenset()
    id_fields: frozenset[str] = SEGMENT_IDS

    def __bool__(self) -> bool:
        return bool(self.erased) or self.since is not None

    def admit(self, event: Event) -> Event:
        """Return an event, without the visitor's id of somebody who was erased. Raises `Reject` for what is not loaded.

        The event of another user of the same device stays. An event that was deleted for its age would else count
        twice: its message id is no longer known.
        """
        at = event.occurred_at
        is_theirs = self.erased.names(VISITOR, event.anonymous_id, at=at)
        if (
            self.erased.names(USER, event.user_id, at=at)
            or (is_theirs and event.user_id is None)
            or self.erased.names(USER, event.previous_id, at=at)
            or self.erased.names(VISITOR, event.previous_id, at=at)
        ):
            raise Reject(ERASED, "of somebody who was erased")
        if (
            self.since is not None
            and event.occurred_at < self.since
            and event.type not in KEPT_CALLS
            and event.event not in self.kept
        ):
            raise Reject(TOO_OLD, f"occurred before {self.since:%Y-%m-%d}, from when on events are kept")
        return msgspec.structs.replace(event, anonymous_id=None) if is_theirs else event

    def without_payload(self, rejected: Rejected) -> Rejected:
        """Return a rejected line, and no payload where it names somebody who was erased."""
        if rejected.reject.reason == ERASED or self.erased.are_in(rejected.payload, self.id_fields):
            return rejected._replace(payload=b"")
        return rejected


def admission(connection: Connection, keys: Keys) -> Admission:
    """Return what is loaded. Raises `UpnextError` where the key of a tombstone is not at hand."""
    kept = connection.execute(SQL["events_kept"]).one()
    return Admission(tombstones(connection, keys), kept.since, frozenset(kept.events))
