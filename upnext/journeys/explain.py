"""Why did this user get it, or not: the path of one user through one journey, in words."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from upnext.errors import UpnextError
from upnext.journeys.channels.outbox import stop_parameters
from upnext.journeys.definition import Journey
from upnext.journeys.policy import Policy
from upnext.journeys.sql import SQL


class Line(NamedTuple):
    """One thing that happened, or did not; `at` is None for what holds at any time."""

    at: datetime | None
    text: str


def explain(
    connection: Connection, policy: Policy, name: str, journey: Journey, user_id: str, *, as_of: datetime
) -> list[Line]:
    """Return the history of a user in a journey, ordered by time; lines without a time come first.

    A waiting message has the reason why it would be skipped at `as_of`, if any. Raises `UpnextError` for a user of whom
    nothing is known.
    """
    lines = _lines(connection, policy, name, journey, user_id, as_of)
    return sorted(lines, key=lambda line: line.at or datetime.min.replace(tzinfo=UTC))


def _lines(
    connection: Connection, policy: Policy, name: str, journey: Journey, user_id: str, as_of: datetime
) -> Iterator[Line]:
    survivor = connection.scalar(SQL["survivor_of"], {"user_id": user_id})
    if survivor is not None and survivor != user_id:
        yield Line(None, f"this user is {survivor} now, and all of this is about {survivor}")
        user_id = survivor
    entries = connection.execute(SQL["entries_of_user"], {"journey": name, "user_id": user_id}).all()
    if journey.segment is not None:
        changes = connection.execute(SQL["changes_of_user"], {"segment": journey.segment, "user_id": user_id}).all()
        if not changes and not entries:
            yield Line(None, f"has never been in the segment {journey.segment}, which lets people in")
        for change in changes:
            yield Line(change.as_of, f"{change.change} the segment {journey.segment}")
    if not entries:
        yield Line(None, _why_no_entry(connection, name, journey, user_id))
    for suppression in connection.execute(SQL["suppressions_of_user"], {"user_id": user_id}):
        yield Line(suppression.since, f"gets nothing by {suppression.channel} since then: {suppression.reason}")
    for consent in connection.execute(SQL["consents_of_user"], {"user_id": user_id}):
        what = "subscribed to" if consent.is_granted else "unsubscribed from"
        yield Line(consent.since, f"{what} the topic {consent.topic} ({consent.source})")
    for entry in entries:
        yield from _path(connection, entry, stop_parameters(policy, as_of))


def _why_no_entry(connection: Connection, name: str, journey: Journey, user_id: str) -> str:
    state = connection.execute(SQL["state_of_journey"], {"journey": name}).one()
    if not state.is_started:
        return f"the journey is not started: `upnext journeys start {name}`"
    if not state.is_dispatched:
        return "the journey has not been dispatched yet"
    if not connection.scalar(SQL["is_known_user"], {"user_id": user_id}):
        raise UpnextError(f"no user has the id '{user_id}' at the newest tick")
    if journey.segment is None:
        event = "has had no event that lets people in since the journey was started"
        return event if journey.event is not None else "no step of another journey has let this user in"
    is_member = connection.scalar(SQL["is_member"], {"segment": journey.segment, "user_id": user_id})
    if is_member and journey.existing_members == "ignore":
        return (
            "was in the segment before the journey began, or before the segment was edited: existing_members is ignore"
        )
    if is_member:
        return "is in the segment, and enters with the next dispatch"
    return "has not entered"


def _path(connection: Connection, entry: sa.Row[Any], judged_by: dict[str, Any]) -> Iterator[Line]:
    key = f", {entry.key}" if entry.key is not None else ""
    if entry.status == "excluded" and entry.step is None and entry.ended_at == entry.entered_at:
        yield Line(entry.entered_at, f"had no place in the journey: {entry.reason}{key}")
        return
    yield Line(entry.entered_at, f"entered the journey (version {entry.version}{key})")
    if entry.status == "held_out":
        yield Line(entry.entered_at, f"gets nothing: {entry.reason}")
    if entry.status == "excluded":
        yield Line(entry.ended_at, f"lost its place: {entry.reason}{key}")
    if entry.is_in_both_arms:
        yield Line(None, "is one person with somebody of the other arm, by a merge")
    for message in connection.execute(SQL["messages_of_entry"], {**judged_by, "entry_id": entry.entry_id}):
        copy = f", variant {message.variant}" if message.variant else ""
        yield Line(message.due_at, f"{message.step} ({message.channel}{copy}{key}) was due: {_became(message)}")
    if entry.shifted:
        yield Line(None, f"steps follow {entry.shifted} later than planned, after a pause or a delay")
    if entry.goal_reached_at is not None:
        yield Line(
            entry.goal_reached_at, f"reached the goal{f': {entry.reason}' if entry.status == 'converted' else ''}{key}"
        )
    if entry.status in ("left", "completed"):
        yield Line(entry.ended_at, f"{entry.reason or 'came to the end of the journey'}{key}")
    if entry.status == "active" and entry.step is not None:
        yield Line(entry.next_due_at or entry.reached_at, f"{_next(entry)}{key}")


def _next(entry: sa.Row[Any]) -> str:
    """Return where an entry is: at a step that waits, or before one that is due later."""
    since = f"since {entry.reached_at:%Y-%m-%d %H:%M}"
    until = f", until {entry.next_due_at:%Y-%m-%d %H:%M}" if entry.next_due_at is not None else ""
    match entry.kind:
        case "wait":
            return f"waits at {entry.step} for what it asks, {since}{until} at the latest"
        case "delay":
            return f"waits at {entry.step} {since}{until}"
        case _:
            return f"{entry.step} is next"


def _became(message: sa.Row[Any]) -> str:
    if message.status == "sent":
        return f"sent at {message.sent_at:%Y-%m-%d %H:%M}"
    if message.status == "pending":
        waits = [at for at in (message.not_before, message.retry_at) if at is not None]
        until = f", not before {max(waits):%Y-%m-%d %H:%M}" if waits else ""
        tried = f" after {message.attempts} tries ({message.reason})" if message.attempts else ""
        skipped = f"; it would be skipped now: {message.stopped_by}" if message.stopped_by else ""
        return f"waits to be sent{tried}{until}{skipped}"
    if message.status == "unknown":
        return f"nobody knows whether it arrived ({message.reason}), and it is not sent again"
    return f"{message.status}: {message.reason}"
