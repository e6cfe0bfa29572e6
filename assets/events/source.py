"""Source mappings: how one's own lines become events. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

import msgspec

from assets.events.event import EARLIEST, LATEST, Event, Reject, check_line, decode_segment, instant, short
from orchestration.declarations import Declaration

UNITS = {
    "seconds": timedelta(seconds=1),
    "milliseconds": timedelta(milliseconds=1),
    "microseconds": timedelta(microseconds=1),
}


class EventName(Declaration, frozen=True):
    """The field that names the event, and the names to store for some of its values; others stay as they are."""

    field: str
    names: dict[str, str] = {}


class EventTime(Declaration, frozen=True):
    """The field that says when: a number of `unit` since 1970 UTC, or an RFC 3339 text."""

    field: str
    unit: Literal["seconds", "milliseconds", "microseconds", "rfc3339"]


class Source(Declaration, frozen=True):
    """One file of `sources/`. `format: segment` needs nothing else; `json` needs the rest."""

    description: str
    format: Literal["segment", "json"]
    message_id: list[str] = []
    user_id: str | None = None
    anonymous_id: str | None = None
    account_id: str | None = None
    occurred_at: EventTime | None = None
    event: EventName | None = None
    properties: list[str] = []

    def __post_init__(self) -> None:
        if self.format == "json" and not (self.message_id and self.user_id and self.occurred_at and self.event):
            raise ValueError("format json needs message_id, user_id, occurred_at and event")


Decode = Callable[[bytes], Event]


def decoder(source: Source, *, loaded_at: datetime) -> Decode:
    """Return the function that turns a line of `source` into an event or raises `Reject`."""
    if source.format == "segment":
        return partial(decode_segment, loaded_at=loaded_at)
    return partial(decode_mapped, source=source)


def decode_mapped(line: bytes, *, source: Source) -> Event:
    """Turn one JSON object into a track event by the source's mapping. Raises `Reject`."""
    check_line(line)
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Reject("invalid_json", str(error)) from None
    if not isinstance(record, dict):
        raise Reject("invalid_shape", "not an object")
    if source.event is None or source.occurred_at is None:
        raise TypeError("a json source has an event and a time")
    name = record.get(source.event.field)
    if not isinstance(name, str) or not name:
        raise Reject("no_event", f"{source.event.field} does not name an event")
    user_id = _text(record, source.user_id)
    anonymous_id = _text(record, source.anonymous_id)
    if user_id is None and anonymous_id is None:
        raise Reject("no_user", f"neither {source.user_id} nor {source.anonymous_id}")
    missing = [field for field in source.message_id if record.get(field) is None]
    if missing:
        raise Reject("no_message_id", f"{', '.join(missing)} are missing, which identify a line")
    moment = _moment(record.get(source.occurred_at.field), source.occurred_at)
    kept = {field: record[field] for field in source.properties if record.get(field) is not None}
    return Event(
        message_id=short("/".join(str(record[field]) for field in source.message_id), field="message id"),
        type="track",
        event=short(source.event.names.get(name, name), field=source.event.field),
        user_id=user_id,
        anonymous_id=anonymous_id,
        account_id=_text(record, source.account_id),
        previous_id=None,
        occurred_at=moment,
        timestamp=moment,
        original_timestamp=None,
        sent_at=None,
        received_at=None,
        properties=msgspec.json.encode(kept).decode(),
        context="{}",
    )


def _text(record: dict[str, Any], field: str | None) -> str | None:
    value = record.get(field) if field else None
    if value in (None, "", 0):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Reject("invalid_id", f"{field} is neither a string nor a number")
    return short(str(value), field=str(field))


def _moment(value: object, time: EventTime) -> datetime:
    if time.unit == "rfc3339":
        parsed = instant(value, field=time.field) if isinstance(value, str) else None
        if parsed is None:
            raise Reject("invalid_timestamp", f"{time.field} is not an RFC 3339 time")
        return parsed
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Reject("invalid_timestamp", f"{time.field} is not a number of {time.unit}")
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + value * UNITS[time.unit]
    except (OverflowError, ValueError):
        moment = LATEST
    if not EARLIEST <= moment < LATEST:
        raise Reject("invalid_timestamp", f"{time.field} is out of range")
    return moment
