"""Dispatch: users enter and exit journeys, and due steps run.

Moving people is set-based SQL, in one transaction for the journeys of an exclusive group; it processes
membership changes in the order of the ticks, so the number of ticks since the last dispatch does not matter.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from upnext.journeys.channels.outbox import RETRIES, record_consent, stop_parameters
from upnext.journeys.definition import Broadcast, Journey, Reentry, version
from upnext.journeys.plan import by_own_clock, limits, longest, plan, stored
from upnext.journeys.policy import Policy
from upnext.journeys.sql import SQL
from upnext.switches import started, switch
from upnext.ticks.lifecycle import newest_published
from upnext.ticks.offsets import Consumed, consumed, record_consumed
from upnext.warehouse.locks import transaction

MERGES = "merges"
_JSON = ("variants", "arms", "asks", "definition")
MERGE = ("find_merged", "move_entries", "move_messages", "merge_suppressions", "merge_consents", "end_double_entries")
CHECKS = {
    "steps_are_not_overdue": "Steps and messages of journeys that are not paused go out within an hour of their time.",
    "outcomes_are_known": "The fate of no message of the last week is unknown.",
    "channels_do_not_fail": "Of a channel's messages of the last day not more than one in twenty fail.",
}


@dataclass
class DispatchResult:
    """What one dispatch did: rows of `journeys.entries` and `journeys.messages` that it moved."""

    enrolled: int = 0
    held_out: int = 0
    excluded: int = 0
    converted: int = 0
    left: int = 0
    completed: int = 0
    due: int = 0
    messages: dict[str, int] = field(default_factory=dict)


def consumer_of(journey: str) -> str:
    """Return the name under which a journey's offset is stored."""
    return f"journey:{journey}"


def begins_at(journey: Journey) -> datetime:
    """Return the instant before which a journey does nothing."""
    return journey.begins_at if isinstance(journey, Broadcast) else datetime.min.replace(tzinfo=UTC)


def groups(journeys: Mapping[str, Journey], only: set[str]) -> list[list[str]]:
    """Return the journeys that have to be moved together, the strongest first: an exclusive group, or one alone.

    A request for one journey of a group moves the whole group.
    """
    by_group: dict[str, list[str]] = {}
    for name, journey in journeys.items():
        by_group.setdefault(journey.exclusive_group or f"only {name}", []).append(name)
    return [
        sorted(names, key=lambda name: (-journeys[name].priority, name))
        for names in by_group.values()
        if only.intersection(names)
    ]


@dataclass(frozen=True)
class Preview:
    """What the next dispatch would do in a journey: entries by status, and messages by step and channel."""

    enrolled: int
    held_out: int
    excluded: int
    messages: dict[str, int]
    entering_ids: list[str]


def preview(engine: Engine, policy: Policy, journeys: Mapping[str, Journey], name: str, *, as_of: datetime) -> Preview:
    """Dispatch a journey, count, and roll back. `journeys` are the started ones and the journey itself."""
    (group,) = groups(journeys, {name})
    with transaction(engine, "dispatch") as connection:
        before = connection.scalar(SQL["newest_entry"])
        _merge(connection, as_of)
        _move_group(connection, policy, {one: journeys[one] for one in group}, as_of, False, DispatchResult())
        values = {"journey": name, "before": before}
        entered = connection.execute(SQL["entered_since"], values).one()
        messages = {row.step: row.messages for row in connection.execute(SQL["messages_of_entered"], values)}
        connection.rollback()
    return Preview(entered.enrolled, entered.held_out, entered.excluded, messages, list(entered.ids))


def end(connection: Connection, journeys: list[str], *, reason: str, at: datetime) -> int:
    """End every entry of stopped journeys, and return the number; waiting messages are skipped."""
    return int(connection.scalar(SQL["end"], {"journeys": journeys, "reason": reason, "at": at}) or 0)


def begin_anew(connection: Connection, journey: str) -> None:
    """Reset a journey's offset, so that it starts from the current state and skips the changes during its stop."""
    connection.execute(SQL["forget_consumed"], {"consumer": consumer_of(journey)})


def end_removed(engine: Engine, declared: Collection[str], *, at: datetime) -> int:
    """Stop journeys no longer declared, end their entries, and return how many; a restored file stays stopped."""
    with transaction(engine, "dispatch") as connection:
        removed = list(connection.scalars(SQL["removed"], {"declared": list(declared)}))
        ended = end(connection, removed, reason="journey removed", at=at) if removed else 0
        for name in removed:
            switch(connection, name, is_started=False, at=at, by="journey removed")
    return ended


def dispatch(
    engine: Engine,
    policy: Policy,
    journeys: Mapping[str, Journey],
    *,
    only: set[str],
    as_of: datetime,
    is_replay: bool = False,
) -> DispatchResult:
    """Move every user in the journeys to the step due at `as_of`; due messages wait in the outbox.

    In a replay they are written as `skipped`. Source of every decision: published ticks, loaded events, and `as_of`;
    before the first tick there are no users to move. A journey stopped in the meantime does not change.
    """
    done = DispatchResult()
    with transaction(engine, "dispatch") as connection:
        if newest_published(connection) == 0:
            return done
        _merge(connection, as_of)
        record_consent(connection)
    while only:
        for names in groups(journeys, only):
            with transaction(engine, "dispatch") as connection:
                at_work = started(connection)
                group = {name: journeys[name] for name in names if name in at_work}
                _move_group(connection, policy, group, as_of, is_replay, done)
        # No journey starts itself, by way of others either, so this ends.
        with engine.connect() as connection:
            only = set(connection.scalars(SQL["started_by_steps"])) & set(journeys)
    return done


def complete(engine: Engine, journeys: list[str], *, as_of: datetime, done: DispatchResult) -> None:
    """End the entries that have no step and no message left."""
    with engine.begin() as connection:
        ended = connection.scalars(SQL["complete"], {"journeys": journeys, "as_of": as_of})
        done.completed += sum(status == "completed" for status in ended)


def journeys_with_work(engine: Engine, names: set[str], *, now: datetime) -> set[str]:
    """Return the journeys in which a step is due at `now`, or a message waits for a sender; none that is paused."""
    with engine.connect() as connection:
        rows = connection.execute(SQL["journeys_with_work"], {"journeys": list(names), "now": now})
        return set(rows.scalars())


def pause(engine: Engine, journey: str, *, at: datetime) -> bool:
    """Pause all users in a journey; False if it is paused already."""
    with engine.begin() as connection:
        return connection.execute(SQL["pause"], {"journey": journey, "at": at}).rowcount == 1


def resume(engine: Engine, journey: str, *, at: datetime) -> int | None:
    """Resume a journey, with every step delayed by the length of the pause; None if it is not paused."""
    with transaction(engine, "dispatch") as connection:
        done = connection.execute(SQL["resume"], {"journey": journey, "at": at}).one()
    return done.entries if done.ended else None


def expire_leases(engine: Engine, journeys: list[str]) -> None:
    """Release the messages whose sender has died."""
    with engine.begin() as connection:
        values = {"journeys": journeys, "most_retries": len(RETRIES["webhook"])}
        connection.execute(SQL["expire_leases"], values)


def run_checks(engine: Engine, *, now: datetime) -> dict[str, dict[str, int]]:
    """Return what is wrong with the outbox at `now`, by check: how many of what, nothing where all is well."""
    with engine.connect() as connection:
        return {
            check: {row.name: row.found for row in connection.execute(SQL[check], {"now": now})} for check in CHECKS
        }


def _merge(connection: Connection, as_of: datetime) -> None:
    published = newest_published(connection)
    since = consumed(connection, MERGES)
    values = {"consumed_tick": since.tick_id if since else 0, "as_of": as_of}
    if since is None or since.tick_id < published:
        for statement in MERGE:
            connection.execute(SQL[statement], values)
        record_consumed(connection, MERGES, published, as_of)


def _move_group(
    connection: Connection,
    policy: Policy,
    journeys: Mapping[str, Journey],
    as_of: datetime,
    is_replay: bool,
    done: DispatchResult,
) -> None:
    # A tick that was published since then may have merged users, who have not been moved yet.
    merged = consumed(connection, MERGES)
    published = merged.tick_id if merged is not None else 0
    journeys = {name: by_own_clock(journey) for name, journey in journeys.items() if begins_at(journey) <= as_of}
    since = {name: _consumed_by(connection, name, journey, published, as_of) for name, journey in journeys.items()}
    values = {name: _values(name, journey, journeys, policy, as_of) for name, journey in journeys.items()}
    for name, journey in journeys.items():
        _record(connection, name, journey, values[name])
        values[name]["events"] = connection.scalars(SQL["events_of"], {"journey": name}).all()
        followed = connection.execute(SQL["followed"], {"journey": name}).one()
        values[name].update(
            followed=followed.segments, follows_users=followed.users, has_rules=followed.has_rules
        )  # fmt: skip
    newcomers = [name for name in journeys if since[name] is None]
    first = min((known.tick_id for known in since.values() if known is not None), default=published)
    span = {"consumed_tick": first, "published_tick": published}
    for tick in connection.execute(SQL["published_since"], span).all():
        for name, journey in journeys.items():
            known = since[name]
            if known is not None and tick.tick_id > known.tick_id:
                at = {**values[name], "tick_id": tick.tick_id, "as_of": tick.as_of}
                _enter_and_leave(connection, journey, at, known, done)
    for name in newcomers:
        if journeys[name].existing_members == "enroll":
            at = {**values[name], "tick_id": published, "consumed_tick": published, "consumed_as_of": as_of}
            if isinstance(journeys[name], Broadcast):
                at["as_of"] = begins_at(journeys[name])
            _find_affected(connection, at)
            _count(done, connection.execute(SQL["enroll"], {**at, "entering_by": "membership"}).all())
    for name, journey in journeys.items():
        known = since[name] or Consumed(published, as_of)
        at = {**values[name], "consumed_tick": known.tick_id, "consumed_as_of": known.as_of or as_of}
        _find_affected(connection, at)
        if journey.event is not None:
            by_event = {**at, "entering_by": "event", "tick_id": None}
            _count(done, connection.execute(SQL["enroll"], by_event).all())
            done.excluded += connection.execute(SQL["note_events_inside"], at).rowcount
        _count(done, connection.execute(SQL["enroll"], {**at, "entering_by": "start", "tick_id": None}).all())
        connection.execute(SQL["take_starts"], at)
        done.converted += connection.execute(SQL["convert"], at).rowcount
        if at["has_rules"]:
            done.left += _left(connection, "leave_by_rule", at)
        if connection.scalar(SQL["is_paused"], at) is None:
            _advance(connection, {**at, "is_replay": is_replay}, done)
        connection.execute(SQL["skip_ended"], at)
        connection.execute(SQL["refuse_starts"], at)
        record_consumed(connection, consumer_of(name), published, as_of)


def _consumed_by(
    connection: Connection, name: str, journey: Journey, published: int, as_of: datetime
) -> Consumed | None:
    """Return how far a journey has read; None before its first dispatch, but events let users in from its start on."""
    known = consumed(connection, consumer_of(name))
    if known is None and journey.event is not None:
        at_work = started(connection)
        known = Consumed(published, min(at_work[name].since, as_of) if name in at_work else as_of)
        record_consumed(connection, consumer_of(name), published, known.as_of or as_of)
    return known


def _enter_and_leave(
    connection: Connection, journey: Journey, at: dict[str, Any], known: Consumed, done: DispatchResult
) -> None:
    """Process one tick: entries, then reached goals, then exits."""
    at = {**at, "consumed_tick": known.tick_id, "consumed_as_of": known.as_of or at["as_of"]}
    _find_affected(connection, at)
    if journey.segment is not None and not isinstance(journey, Broadcast):
        _count(done, connection.execute(SQL["enroll"], {**at, "entering_by": "change"}).all())
    done.converted += connection.execute(SQL["convert"], at).rowcount
    if at["has_rules"]:
        done.left += _left(connection, "leave_by_rule", at)
    done.left += _left(connection, "leave", at)


def _left(connection: Connection, statement: str, at: dict[str, Any]) -> int:
    """End entries, and return how many left: those that are held out were never inside."""
    return connection.scalars(SQL[statement], at).all().count("left")


def _advance(connection: Connection, at: dict[str, Any], done: DispatchResult) -> None:
    """Advance users step by step until no step is due."""
    steps = connection.execute(SQL["steps_of"], at).one()
    has_ctas = False
    while True:
        if steps.can_wait:
            connection.execute(SQL["wake"], at)
        moved = connection.execute(SQL["advance"], {**at, "can_come_round": steps.can_come_round}).one()
        done.due += moved.due
        has_ctas = has_ctas or moved.has_ctas
        if not moved.moved:
            break
    while has_ctas and connection.execute(SQL["show_ctas"], at).rowcount:
        pass


def _find_affected(connection: Connection, at: dict[str, Any]) -> None:
    for statement in ("create_affected_users", "forget_affected_users", "find_affected_users"):
        connection.execute(SQL[statement], at)


def _count(done: DispatchResult, drawn: Sequence[sa.Row[Any]]) -> None:
    counts = {row.status: row.entries for row in drawn}
    done.enrolled += counts.get("active", 0)
    done.held_out += counts.get("held_out", 0)
    done.excluded += counts.get("excluded", 0)


def _record(connection: Connection, name: str, journey: Journey, values: dict[str, Any]) -> None:
    """Keep the definition and its steps, so that users who enter keep this version."""
    definition = msgspec.json.encode(stored(journey)).decode()
    is_new = connection.scalar(SQL["record_definition"], {**values, "definition": definition}) is not None
    if is_new:
        steps = [
            {
                **step,
                "journey": name,
                "version": values["version"],
                **{key: msgspec.json.encode(step[key]).decode() if step[key] is not None else None for key in _JSON},
            }
            for step in plan(journey)
        ]
        connection.execute(SQL["record_step"], steps)
    connection.execute(SQL["put_in_force"], values)
    limited = limits(journey)
    if limited is None:
        connection.execute(SQL["forget_limits"], {"journey": name})
    else:
        pauses = msgspec.json.encode(limited["pauses"]).decode() if limited["pauses"] is not None else None
        connection.execute(SQL["record_limits"], {**values, **limited, "pauses": pauses})
    if not connection.scalar(SQL["has_view"], {"journey": name}):
        # What the journey's key in the graph points to. The name of a journey is checked when it is read.
        columns = "entry_id, user_id, entered_at, status, reason, ended_at"
        connection.exec_driver_sql(
            f"create view journeys.{name} as select {columns} from journeys.entries where journey = '{name}'"  # noqa: S608
        )


def _values(
    name: str, journey: Journey, group: Mapping[str, Journey], policy: Policy, as_of: datetime
) -> dict[str, Any]:
    others = [other for other in group if other != name]
    weaker = [other for other in others if journey.takes_over and group[other].priority < journey.priority]
    return {
        **stop_parameters(policy, as_of),
        **policy.clock,
        "journey": name,
        "version": version(journey),
        "segment": journey.segment,
        "entry": msgspec.json.encode(journey.event).decode(),
        "keyed_by": journey.keyed_by,
        "audience": msgspec.json.encode(journey.audience).decode() if journey.audience is not None else None,
        "holdout": journey.holdout,
        "global_holdout": 0 if journey.transactional else policy.global_holdout,
        "is_enrolling_members": journey.existing_members == "enroll",
        "starts_on": journey.starts_on,
        "ends_on": journey.ends_on,
        "reentry": "after" if isinstance(journey.reentry, Reentry) else journey.reentry,
        "reentry_after": journey.reentry.after if isinstance(journey.reentry, Reentry) else None,
        "longest": f"{longest(journey)} minutes",
        "stronger": [other for other in others if other not in weaker],
        "weaker": weaker,
    }
