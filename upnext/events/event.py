"""The event: one row of `raw.events`, and how a line of the Segment spec becomes one. Pure."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import msgspec

TYPES = frozenset({"track", "identify", "group", "page", "screen", "alias"})
KEPT_CALLS = ("identify", "alias", "group")
"""Calls that identities, traits and accounts are resolved from. However old, they are kept."""
MAIL_PROVIDER = "mail provider "
"""What the anonymous id of a mail provider begins with, as `upnext.said_by` knows it."""
MAX_BYTES = 32 * 1024
MAX_DEPTH = 100
MAX_KEY_BYTES = 1000
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
CLOCK_TOLERANCE = timedelta(minutes=5)

NAIVE = "naive"
FUTURE = "future"
SKEWED = "skewed"

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(rb"[\[{]|[\]}]")
_PREFIXES = {"visitor:": "visitors", "erased:": "people who were erased"}
_RESERVED = tuple(_PREFIXES)
_FIELD = re.compile(r" - at `\$\.(\w+)`$")

Id = str | int | float | None


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event in the order of the columns that are copied; `properties` and `context` are JSON in UTF-8.

    `flags` names anomalies of its times, None if there are none: `naive` (a time without a zone, taken as UTC),
    `future` (it occurred after it was loaded), `skewed` (sentAt and receivedAt are over 5 minutes apart).
    """

    message_id: str
    type: str
    event: str | None
    user_id: str | None
    anonymous_id: str | None
    account_id: str | None
    previous_id: str | None
    occurred_at: datetime
    timestamp: datetime | None
    original_timestamp: datetime | None
    sent_at: datetime | None
    received_at: datetime | None
    properties: bytes
    context: bytes
    flags: list[str] | None


def said_by(event: Event) -> str:
    """Return the person that an event names, as `upnext.said_by` does; "" for a mail provider, which is nobody."""
    if event.user_id is not None:
        return event.user_id
    if event.anonymous_id is None or event.anonymous_id.startswith(MAIL_PROVIDER):
        return ""
    return f"visitor:{event.anonymous_id}"


class Reject(Exception):  # noqa: N818 - an outcome, not a failure
    """A line that does not fit: a short reason code, and a detail for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class _Line(msgspec.Struct, rename="camel", gc=False):
    type: str
    message_id: Id = None
    event: str | None = None
    user_id: Id = None
    anonymous_id: Id = None
    group_id: Id = None
    previous_id: Id = None
    timestamp: datetime | None = None
    original_timestamp: datetime | None = None
    sent_at: datetime | None = None
    received_at: datetime | None = None
    properties: msgspec.Raw = msgspec.Raw(b"null")
    traits: msgspec.Raw = msgspec.Raw(b"null")
    context: msgspec.Raw = msgspec.Raw(b"null")
    name: msgspec.Raw = msgspec.Raw(b"null")
    category: msgspec.Raw = msgspec.Raw(b"null")


class _Context(msgspec.Struct, rename="camel"):
    group_id: Id = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_context = msgspec.json.Decoder(_Context).decode
_decode_any = msgspec.json.Decoder().decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_REASONS = {
    **dict.fromkeys(("messageId", "userId", "anonymousId", "groupId", "previousId"), "invalid_id"),
    **dict.fromkeys(("timestamp", "originalTimestamp", "sentAt", "receivedAt"), "invalid_timestamp"),
}


def check_line(line: bytes) -> None:
    """Raise `Reject` for a line that is not portable JSON: too large, too deep, numbers beyond a double.

    This parses the whole line, because the typed decoding only skims the raw parts (properties, context).
    """
    if len(line) > MAX_BYTES:
        raise Reject("too_large", f"{len(line)} bytes; at most {MAX_BYTES}")
    if not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise Reject("invalid_utf8", f"byte {error.start} is not UTF-8") from None
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(line) > MAX_DEPTH:
        raise Reject("too_deep", f"nested deeper than {MAX_DEPTH}")
    if b"\\u0000" in line and _NUL.search(line):
        raise Reject("nul_character", "holds the character U+0000, which Postgres cannot store")
    try:
        _decode_any(line)
    except msgspec.ValidationError as error:
        raise Reject("number_out_of_range", str(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Reject("invalid_json", str(error)) from None


def decode_segment(line: bytes, *, loaded_at: datetime) -> Event:
    """Turn one line of the Segment spec into an event. Raises `Reject`.

    `loaded_at` is the time of an event that carries none. Source of the shape: segment.com/docs/connections/spec.
    """
    check_line(line)
    try:
        parsed = _decode_line(line)
    except msgspec.ValidationError as error:
        where = _FIELD.search(str(error))
        raise Reject(_REASONS.get(where[1] if where else "", "invalid_shape"), str(error)) from None
    if parsed.type not in TYPES:
        raise Reject("unknown_type", f"type is '{parsed.type[:80]}'; known: {', '.join(sorted(TYPES))}")
    is_track = parsed.type == "track"
    if is_track and not parsed.event:
        raise Reject("no_event", "a track without the name of its event")
    user_id = user_identifier(parsed.user_id, field="userId")
    anonymous_id = identifier(parsed.anonymous_id, field="anonymousId")
    if user_id is None and anonymous_id is None:
        raise Reject("no_user", "neither userId nor anonymousId")
    flags: list[str] = []
    timestamp = instant(parsed.timestamp, field="timestamp", flags=flags)
    original_timestamp = instant(parsed.original_timestamp, field="originalTimestamp", flags=flags)
    sent_at = instant(parsed.sent_at, field="sentAt", flags=flags)
    received_at = instant(parsed.received_at, field="receivedAt", flags=flags)
    moment = occurred_at(
        timestamp=timestamp,
        original_timestamp=original_timestamp,
        sent_at=sent_at,
        received_at=received_at,
        loaded_at=loaded_at,
    )
    if moment > loaded_at:
        flags.append(FUTURE)
    if sent_at and received_at and abs(received_at - sent_at) > CLOCK_TOLERANCE:
        flags.append(SKEWED)
    context = json_object(parsed.context, field="context")
    account_id = identifier(parsed.group_id, field="groupId")
    if account_id is None and b"groupId" in context:
        account_id = _account_of(context)
    return Event(
        message_id=identifier(parsed.message_id, field="messageId") or content_id(line),
        type=parsed.type,
        event=short(parsed.event, field="event") if is_track and parsed.event else None,
        user_id=user_id,
        anonymous_id=anonymous_id,
        account_id=account_id,
        previous_id=user_identifier(parsed.previous_id, field="previousId"),
        occurred_at=moment,
        timestamp=timestamp,
        original_timestamp=original_timestamp,
        sent_at=sent_at,
        received_at=received_at,
        properties=_properties_of(parsed),
        context=context,
        flags=flags or None,
    )


def _properties_of(parsed: _Line) -> bytes:
    """Return what is kept as properties: the traits of identify and group calls, and the name of a page among others.

    Servers state the name and category of a page beside its properties, browsers within them.
    """
    is_of_traits = parsed.type in ("identify", "group")
    properties = json_object(parsed.traits if is_of_traits else parsed.properties, field="properties")
    if parsed.type not in ("page", "screen"):
        return properties
    named = (("name", parsed.name), ("category", parsed.category))
    stated = {key: value for key, value in named if bytes(value) != b"null"}
    return msgspec.json.encode({**stated, **_decode_fields(properties)}) if stated else properties


def occurred_at(
    *,
    timestamp: datetime | None,
    original_timestamp: datetime | None,
    sent_at: datetime | None,
    received_at: datetime | None,
    loaded_at: datetime,
) -> datetime:
    """Return when an event happened, the client's clock corrected by ours where all three times are known.

    No event is sent before it happened, so the correction is never negative: it happened by the time it was received.
    """
    if received_at and sent_at and original_timestamp:
        delay = max(sent_at - original_timestamp, timedelta())
        if delay > received_at - EARLIEST:
            raise Reject("invalid_timestamp", "receivedAt - (sentAt - originalTimestamp) is before 1970")
        return received_at - delay
    return timestamp or original_timestamp or received_at or loaded_at


def identifier(value: Id, *, field: str) -> str | None:
    """Return an id as text: a string as it is, a number as its decimal text; null, "" and 0 are no id."""
    if not value:
        return None
    if isinstance(value, str):
        return short(value, field=field)
    if isinstance(value, float):
        if abs(value) >= 2**53:
            raise Reject("invalid_id", f"{field} is a number too large to be exact")
        value = int(value) if value.is_integer() else value
    return short(str(value), field=field)


def user_identifier(value: Id, *, field: str) -> str | None:
    """Return the id of a user as text. Raises `Reject` for one like those that visitors and nobodies have."""
    found = identifier(value, field=field)
    if found is not None and found.startswith(_RESERVED):
        prefix = f"{found.partition(':')[0]}:"
        whose = _PREFIXES[prefix]
        raise Reject("invalid_id", f"{field} begins with '{prefix}', as the ids of {whose} do; no user's id may")
    return found


def short(text: str, *, field: str) -> str:
    """Return a key as it is. Raises `Reject` if it is too long."""
    if len(text) * 4 > MAX_KEY_BYTES and len(text.encode()) > MAX_KEY_BYTES:
        raise Reject("too_large", f"{field} is longer than {MAX_KEY_BYTES} bytes")
    return text


def instant(value: datetime | None, *, field: str, flags: list[str]) -> datetime | None:
    """Return a time in UTC, flagged where it names no zone. Raises `Reject` where it is not from 1970 on."""
    if value is None:
        return None
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
        if NAIVE not in flags:
            flags.append(NAIVE)
    if not EARLIEST <= value < LATEST:
        raise Reject("invalid_timestamp", f"{field} {value.isoformat()} is out of range")
    return value


def json_object(raw: msgspec.Raw, *, field: str) -> bytes:
    """Return a JSON object, `{}` for null. Raises `Reject` for anything else."""
    text = bytes(raw)
    if text == b"null":
        return b"{}"
    if not text.startswith(b"{"):
        raise Reject("invalid_shape", f"{field} is not an object")
    return text


def content_id(line: bytes) -> str:
    """Return the id of an event that has none: the same line again gives the same id."""
    return hashlib.sha256(line).hexdigest()


def _account_of(context: bytes) -> str | None:
    try:
        return identifier(_decode_context(context).group_id, field="context.groupId")
    except msgspec.ValidationError:
        raise Reject("invalid_id", "context.groupId is neither a string nor a number") from None


def _depth(line: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", line)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
