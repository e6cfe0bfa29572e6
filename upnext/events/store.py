"""Storing decoded events in `raw.events`: each id once, the first wins.

The ids of a batch that are stored already are looked up first; the other events are copied straight into the table.
If the table's key reports a conflict, another loader has stored an id meanwhile, and they are looked up again. If a
batch had no known id, the next is assumed to have none either, and is looked up only after a conflict.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec
from psycopg import DataError
from psycopg.errors import NumericValueOutOfRange, UniqueViolation
from sqlalchemy.engine import Connection

from upnext.events.event import Event, Reject, said_by
from upnext.events.providers import ABOUT_MESSAGES, message_of
from upnext.events.records import Rejected
from upnext.warehouse.locks import hold

_FIELDS = Event.__struct_fields__
_TYPES = {
    **dict.fromkeys(_FIELDS, "text"),
    **dict.fromkeys((field for field in _FIELDS if field.endswith("_at") or "timestamp" in field), "timestamptz"),
    # Postgres takes JSON in binary as a version, 1, and the text.
    **dict.fromkeys(("properties", "context"), "bytea"),
    "flags": "text[]",
}
_JSONB = b"\x01"
_KNOWN = """
    select message_id from raw.events
    where source = %s and message_id = any(array(select jsonb_array_elements_text(%s::jsonb)))
"""
_STATE = "select upnext.is_spread('raw.events'), to_regclass('events.identity_links') is not null"
_LINKED = """
    select upnext.person(kind, id), coalesce(max(user_id), case when kind = 'user' then id else '' end)
    from events.identity_links
    where (kind = 'user' and id = any(%s)) or (kind = 'visitor' and id = any(%s))
    group by kind, id
"""
_MESSAGES = "select message_id, user_id, journey, step, variant from journeys.messages where message_id = any(%s)"
_COPY = f"copy raw.events (source, load_id, person_id, {', '.join(_TYPES)}) from stdin (format binary)"
_STAGE = """
    create temporary table if not exists repeated_events on commit drop
    as select 0::bigint as line, * from raw.events with no data
"""
_COPY_REPEATED = f"copy repeated_events (source, line, {', '.join(_TYPES)}) from stdin (format binary)"
# The same message sent again may have other times of sending and receipt, and so another corrected timestamp.
_CONFLICTS = """
    with repeated as materialized (
        select * from repeated_events
    )

    select repeated.line, stored.load_id
    from repeated
    inner join raw.events as stored on stored.source = repeated.source and stored.message_id = repeated.message_id
    where
        (repeated.type, repeated.event, repeated.user_id, repeated.anonymous_id, repeated.account_id,
            repeated.previous_id, repeated.original_timestamp, repeated.properties)
        is distinct from
        (stored.type, stored.event, stored.user_id, stored.anonymous_id, stored.account_id,
            stored.previous_id, stored.original_timestamp, stored.properties)
        or (
            repeated.timestamp is distinct from stored.timestamp
            and num_nulls(
                repeated.original_timestamp, repeated.sent_at, repeated.received_at, stored.sent_at, stored.received_at
            ) > 0
        )
"""
_COPY_REJECTS = (
    "copy raw.rejected_events (source, load_id, line, reason, detail, payload, payload_bytes)"
    " from stdin (format binary)"
)


@dataclass(frozen=True)
class Stored:
    """The outcome of a batch: the stored events, and the lines that cannot be stored. The rest are duplicates."""

    count: int
    rejects: dict[int, Reject]


class Store:
    """Writes the events of one load within the connection's transaction."""

    def __init__(self, connection: Connection, *, source: str, load_id: int, is_of_provider: bool = False) -> None:
        driver: Any = connection.connection.driver_connection
        self._driver = driver
        self._cursor = driver.cursor()
        self._source = source
        self._load_id = load_id
        self._is_of_provider = is_of_provider
        self._expects_new = False
        # The key of a spread table has the person too, and cannot tell that another loader stored an id meanwhile.
        self._is_alone, self._has_links = self._cursor.execute(_STATE).fetchone()
        if self._is_alone:
            hold(connection, "message ids")

    def add(self, events: list[tuple[int, Event]]) -> Stored:
        """Store events, each with the number of its line; an id that is stored already is left as it is.

        Halving the batch isolates events that Postgres cannot hold, so that their neighbours are stored.
        """
        events = self._about_messages(events)
        try:
            with self._driver.transaction():
                return self._add(events)
        except DataError as error:
            if len(events) == 1:
                reason = "number_out_of_range" if isinstance(error, NumericValueOutOfRange) else "not_storable"
                return Stored(0, {events[0][0]: Reject(reason, str(error).splitlines()[0])})
        half = len(events) // 2
        first, second = self.add(events[:half]), self.add(events[half:])
        return Stored(first.count + second.count, first.rejects | second.rejects)

    def _about_messages(self, events: list[tuple[int, Event]]) -> list[tuple[int, Event]]:
        """Return the events with the journey, step and variant of the messages that they are about, where known.

        Those of mail providers become events of the users whom the messages went to.
        """
        ids = {line: message_of(event) for line, event in events if event.event in ABOUT_MESSAGES}
        if not ids:
            return events
        known = {row[0]: row[1:] for row in self._cursor.execute(_MESSAGES, (list(filter(None, ids.values())),))}
        return [
            (line, self._about(event, *known[ids[line]]) if ids.get(line) in known else event) for line, event in events
        ]

    def _about(self, event: Event, user_id: str, journey: str, step: str, variant: str | None) -> Event:
        of = {"journey": journey, "step": step, **({"variant": variant} if variant is not None else {})}
        properties = msgspec.json.encode({**of, **msgspec.json.decode(event.properties)})
        event = msgspec.structs.replace(event, properties=properties)
        if not self._is_of_provider:
            return event
        return msgspec.structs.replace(event, user_id=user_id, anonymous_id=None)

    def _add(self, events: list[tuple[int, Event]]) -> Stored:
        repeated = self._copy_unless_stored(events, set()) if self._expects_new else None
        while repeated is None:
            ids = msgspec.json.encode([event.message_id for _, event in events]).decode()
            known = {message_id for (message_id,) in self._cursor.execute(_KNOWN, (self._source, ids))}
            self._expects_new = not known and not self._is_alone
            repeated = self._copy_unless_stored(events, known)
        return Stored(len(events) - len(repeated), self._conflicts(repeated) if repeated else {})

    def reject(self, rejected: Collection[Rejected]) -> None:
        """Keep lines that did not fit, with their payload and the reason."""
        if not rejected:
            return
        with self._cursor.copy(_COPY_REJECTS) as copy:
            copy.set_types(["text", "int8", "int8", "text", "text", "text", "bytea"])
            for line, payload, reject in rejected:
                text = shown(payload)
                exact = None if text.encode() == payload else payload
                copy.write_row((self._source, self._load_id, line, reject.reason, reject.detail, text, exact))

    def _copy_unless_stored(self, events: list[tuple[int, Event]], known: set[str]) -> list[tuple[int, Event]] | None:
        """Copy events whose ids are not `known`; return None, and copy nothing, if another one is stored already."""
        try:
            with self._driver.transaction():
                return self._copy(events, known)
        except UniqueViolation:
            return None

    def _copy(self, events: list[tuple[int, Event]], seen: set[str]) -> list[tuple[int, Event]]:
        """Copy the first event of each id that is not among `seen`, and return the others."""
        linked = self._linked(events)
        repeated: list[tuple[int, Event]] = []
        with self._cursor.copy(_COPY) as copy:
            copy.set_types(["text", "int8", "text", *_TYPES.values()])
            for line, event in events:
                if event.message_id in seen:
                    repeated.append((line, event))
                else:
                    seen.add(event.message_id)
                    said = said_by(event)
                    copy.write_row(_row(self._source, self._load_id, linked.get(said, said), event=event))
        return repeated

    def _linked(self, events: list[tuple[int, Event]]) -> dict[str, str]:
        """Return whose the events are, by whom they name, where that is somebody else."""
        if not self._has_links:
            return {}
        users = {event.user_id for _, event in events if event.user_id is not None}
        visitors = {event.anonymous_id for _, event in events if event.user_id is None}
        return dict(self._cursor.execute(_LINKED, (list(users), list(visitors))).fetchall())

    def _conflicts(self, repeated: list[tuple[int, Event]]) -> dict[int, Reject]:
        """Return those of these lines, whose ids are stored, that differ from the stored events."""
        self._cursor.execute(_STAGE)
        self._cursor.execute("truncate repeated_events")
        with self._cursor.copy(_COPY_REPEATED) as copy:
            copy.set_types(["text", "int8", *_TYPES.values()])
            for line, event in repeated:
                copy.write_row(_row(self._source, line, event=event))
        return {
            line: Reject("conflict", f"load {load_id} stored this message id with other contents; the first wins")
            for line, load_id in self._cursor.execute(_CONFLICTS)
        }


def _row(*of_load: str | int, event: Event) -> tuple[Any, ...]:
    *before_json, properties, context, flags = msgspec.structs.astuple(event)
    return (*of_load, *before_json, _JSONB + properties, _JSONB + context, flags)


def shown(payload: bytes) -> str:
    """Return bytes as text that Postgres can store: what is no UTF-8, and NUL, as `\\x..`."""
    return payload.decode(errors="backslashreplace").replace("\x00", "\\x00")
