"""Why did this user get it, or not: the path of one user through one journey, in words."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from upnext.journeys.definition import Journey

_CHANGES = sa.text("""
    select change, as_of from segments.membership_changes
    where
        segment = :segment and user_id = :user_id
        and tick_id in (select tick_id from segments.published_ticks)
    order by change_id
""")
_ENTRIES = sa.text("""
    select entry_id, version, entered_at, status, reason, step, next_due_at, shifted, goal_reached_at, ended_at,
        is_in_both_arms
    from journeys.entries
    where journey = :journey and user_id = :user_id
    order by entered_at, entry_id
""")
_MESSAGES = sa.text("""
    select messages.step, messages.channel, messages.variant, messages.due_at, messages.status, messages.reason,
        messages.sent_at, messages.not_before, messages.retry_at, messages.attempts
    from journeys.messages
    where messages.entry_id = :entry_id
    order by messages.due_at, messages.visit
""")
_SUPPRESSIONS = sa.text(
    "select channel, reason, since from journeys.suppressions where user_id = :user_id order by since"
)
_SURVIVOR = sa.text(
    "select user_id from events.identity_links where kind = 'user' and id = :user_id and user_id is not null"
)


class Line(NamedTuple):
    """One thing that happened, or did not; `at` is None for what holds at any time."""

    at: datetime | None
    text: str


def explain(connection: Connection, name: str, journey: Journey, user_id: str) -> list[Line]:
    """Return what became of a user in a journey, in the order of time; what holds at any time comes first."""
    lines = _lines(connection, name, journey, user_id)
    return sorted(lines, key=lambda line: line.at or datetime.min.replace(tzinfo=UTC))


def _lines(connection: Connection, name: str, journey: Journey, user_id: str) -> Iterator[Line]:
    survivor = connection.scalar(_SURVIVOR, {"user_id": user_id})
    if survivor is not None and survivor != user_id:
        yield Line(None, f"this user is {survivor} now, and all of this is about {survivor}")
        user_id = survivor
    if journey.segment is not None:
        changes = connection.execute(_CHANGES, {"segment": journey.segment, "user_id": user_id}).all()
        if not changes:
            yield Line(None, f"has never been in the segment {journey.segment}, which lets people in")
        for change in changes:
            yield Line(change.as_of, f"{change.change} the segment {journey.segment}")
    entries = connection.execute(_ENTRIES, {"journey": name, "user_id": user_id}).all()
    if not entries:
        yield Line(None, _why_no_entry(connection, name, journey, user_id))
    for suppression in connection.execute(_SUPPRESSIONS, {"user_id": user_id}):
        yield Line(suppression.since, f"gets nothing by {suppression.channel} since then: {suppression.reason}")
    for entry in entries:
        yield from _path(connection, entry)


def _why_no_entry(connection: Connection, name: str, journey: Journey, user_id: str) -> str:
    known = connection.scalar(
        sa.text("select tick_id from segments.consumer_offsets where consumer = :consumer"),
        {"consumer": f"journey:{name}"},
    )
    is_started = connection.scalar(sa.text("select 1 from upnext.started where name = :name"), {"name": name})
    if is_started is None:
        return f"the journey is not started: `upnext journeys start {name}`"
    if known is None:
        return "the journey has not been dispatched yet"
    if journey.segment is None:
        return "has had no event that lets people in since the journey was first dispatched"
    is_member = connection.scalar(
        sa.text("select 1 from segments.members where segment = :segment and user_id = :user_id"),
        {"segment": journey.segment, "user_id": user_id},
    )
    if is_member and journey.existing_members == "ignore":
        return (
            "was in the segment before the journey began, or before the segment was edited: existing_members is ignore"
        )
    if is_member:
        return "is in the segment, and enters with the next dispatch"
    return "has not entered"


def _path(connection: Connection, entry: sa.Row[Any]) -> Iterator[Line]:
    yield Line(entry.entered_at, f"entered the journey (version {entry.version})")
    if entry.status == "held_out":
        yield Line(entry.entered_at, f"was drawn to get nothing: {entry.reason}")
    if entry.status == "excluded":
        yield Line(entry.entered_at, f"had no place: {entry.reason}")
    if entry.is_in_both_arms:
        yield Line(None, "is one person with somebody of the other arm, by a merge")
    for message in connection.execute(_MESSAGES, {"entry_id": entry.entry_id}):
        copy = f", variant {message.variant}" if message.variant else ""
        yield Line(message.due_at, f"{message.step} ({message.channel}{copy}) was due: {_became(message)}")
    if entry.shifted:
        yield Line(None, f"steps follow {entry.shifted} later than planned, after a pause or a delay")
    if entry.goal_reached_at is not None:
        yield Line(
            entry.goal_reached_at, f"reached the goal{f': {entry.reason}' if entry.status == 'converted' else ''}"
        )
    if entry.status in ("left", "completed"):
        yield Line(entry.ended_at, entry.reason or "came to the end of the journey")
    if entry.status == "active" and entry.step is not None:
        yield Line(entry.next_due_at, f"{entry.step} is next")


def _became(message: sa.Row[Any]) -> str:
    if message.status == "sent":
        return f"sent at {message.sent_at:%Y-%m-%d %H:%M}"
    if message.status == "pending":
        waits = [at for at in (message.not_before, message.retry_at) if at is not None]
        until = f", not before {max(waits):%Y-%m-%d %H:%M}" if waits else ""
        tried = f" after {message.attempts} tries ({message.reason})" if message.attempts else ""
        return f"waits to be sent{tried}{until}"
    if message.status == "unknown":
        return f"nobody knows whether it arrived ({message.reason}), and it is not sent again"
    return f"{message.status}: {message.reason}"
