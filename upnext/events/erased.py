"""What is loaded of people who were erased: nothing."""

from upnext.erased import USER, VISITOR, Tombstones
from upnext.events.event import Event, Reject
from upnext.events.records import Rejected

ERASED = "erased"


def without_erased(event: Event, erased: Tombstones) -> Event:
    """Return an event without the visitor's id of somebody who was erased. Raises `Reject` for an event of theirs.

    The event of another user of the same device stays.
    """
    is_theirs = erased.names(VISITOR, event.anonymous_id)
    if (
        erased.names(USER, event.user_id)
        or (is_theirs and event.user_id is None)
        or erased.names(USER, event.previous_id)
        or erased.names(VISITOR, event.previous_id)
    ):
        raise Reject(ERASED, "of somebody who was erased")
    return event._replace(anonymous_id=None) if is_theirs else event


def without_payload(rejected: Rejected, erased: Tombstones) -> Rejected:
    """Return a rejected line, and no payload where it names somebody who was erased."""
    if rejected.reject.reason == ERASED or erased.are_in(rejected.payload):
        return rejected._replace(payload=b"")
    return rejected
