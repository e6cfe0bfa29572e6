"""Storing decoded events: COPY into a staging table, from there into `raw.events`, each id once, the first wins."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from assets.events.event import Event, Reject
from assets.events.records import Rejected

_COLUMNS = ", ".join(Event._fields)
_TYPES = {
    **dict.fromkeys(Event._fields, "text"),
    **dict.fromkeys((field for field in Event._fields if field.endswith("_at") or "timestamp" in field), "timestamptz"),
    "flags": "text[]",
}
# JSON is staged as text: it is parsed once, on its way into the events.
_STAGE = (
    "create temporary table staged_events (line bigint, "
    + ", ".join(f"{field} {kind}" for field, kind in _TYPES.items())
    + ") on commit drop"
)
_COPY = f"copy staged_events (line, {_COLUMNS}) from stdin (format binary)"
# Rows of a fresh table are read in the order in which they were copied, so the first of two equal ids is stored.
_STORE = f"""
    insert into raw.events (source, load_id, {_COLUMNS})
    select %(source)s, %(load_id)s, {_COLUMNS.replace("properties, context", "properties::jsonb, context::jsonb")}
    from staged_events
    on conflict (source, message_id) do nothing
"""  # noqa: S608 - names of our own
# The same message sent again may have other times of sending and receipt, and so another corrected timestamp.
_CONFLICTS = """
    select staged.line, stored.load_id
    from staged_events as staged
    inner join raw.events as stored on stored.source = %(source)s and stored.message_id = staged.message_id
    where
        (staged.type, staged.event, staged.user_id, staged.anonymous_id, staged.account_id, staged.previous_id)
        is distinct from
        (stored.type, stored.event, stored.user_id, stored.anonymous_id, stored.account_id, stored.previous_id)
        or staged.original_timestamp is distinct from stored.original_timestamp
        or (
            staged.timestamp is distinct from stored.timestamp
            and num_nulls(
                staged.original_timestamp, staged.sent_at, staged.received_at, stored.sent_at, stored.received_at
            ) > 0
        )
        or staged.properties::jsonb is distinct from stored.properties
    order by staged.line
"""
_COPY_REJECTS = (
    "copy raw.rejected_events (source, load_id, line, reason, detail, payload, payload_bytes)"
    " from stdin (format binary)"
)


@dataclass(frozen=True)
class Stored:
    """What came of a batch: how many events were stored, and the lines whose id another event has."""

    count: int
    conflicts: dict[int, Reject]


class Store:
    """Writes the events of one load within the connection's transaction."""

    def __init__(self, connection: Connection, *, source: str, load_id: int) -> None:
        driver: Any = connection.connection.driver_connection
        self._cursor = driver.cursor()
        self._load = {"source": source, "load_id": load_id}
        self._cursor.execute("drop table if exists pg_temp.staged_events")
        self._cursor.execute(_STAGE)

    def add(self, events: list[tuple[int, Event]]) -> Stored:
        """Store events, each with the number of its line; an id that is stored already is left as it is."""
        if not events:
            return Stored(0, {})
        self._cursor.execute("truncate staged_events")
        with self._cursor.copy(_COPY) as copy:
            copy.set_types(["int8", *_TYPES.values()])
            for line, event in events:
                copy.write_row((line, *event))
        self._cursor.execute(_STORE, self._load)
        count: int = self._cursor.rowcount
        if count == len(events):
            return Stored(count, {})
        conflicts = {
            line: Reject("conflict", f"load {load_id} stored this message id with other contents; the first wins")
            for line, load_id in self._cursor.execute(_CONFLICTS, self._load)
        }
        return Stored(count, conflicts)

    def reject(self, rejected: Collection[Rejected]) -> None:
        """Keep lines that did not fit, with their payload and the reason."""
        if not rejected:
            return
        with self._cursor.copy(_COPY_REJECTS) as copy:
            copy.set_types(["text", "int8", "int8", "text", "text", "text", "bytea"])
            for line, payload, reject in rejected:
                text = shown(payload)
                exact = None if text.encode() == payload else payload
                copy.write_row((*self._load.values(), line, reject.reason, reject.detail, text, exact))


def shown(payload: bytes) -> str:
    """Return bytes as text that Postgres can store: what is no UTF-8, and NUL, as `\\x..`."""
    return payload.decode(errors="backslashreplace").replace("\x00", "\\x00")
