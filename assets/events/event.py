"""The event: one row of `raw.events`, and how a line of the Segment spec becomes one. Pure."""

import hashlib
import re
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

TYPES = frozenset({"track", "identify", "group", "page", "screen", "alias"})
MAX_BYTES = 32 * 1024
MAX_DEPTH = 100
MAX_KEY_BYTES = 1000
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_HUGE_NUMBER = re.compile(rb"\d[eE][+-]?\d{4,}")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(rb"[\[{]|[\]}]")


class Event(NamedTuple):
    """An event in the order of the columns that are copied; `properties` and `context` are JSON text."""

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
    properties: str
    context: str


class Reject(Exception):  # noqa: N818 - an outcome, not a failure
    """A line that does not fit: a short reason code, and a detail for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class _Line(msgspec.Struct, rename="camel"):
    type: str
    message_id: msgspec.Raw = msgspec.Raw(b"null")
    event: str | None = None
    user_id: msgspec.Raw = msgspec.Raw(b"null")
    anonymous_id: msgspec.Raw = msgspec.Raw(b"null")
    group_id: msgspec.Raw = msgspec.Raw(b"null")
    previous_id: msgspec.Raw = msgspec.Raw(b"null")
    timestamp: str | None = None
    original_timestamp: str | None = None
    sent_at: str | None = None
    received_at: str | None = None
    properties: msgspec.Raw = msgspec.Raw(b"null")
    traits: msgspec.Raw = msgspec.Raw(b"null")
    context: msgspec.Raw = msgspec.Raw(b"null")


class _Context(msgspec.Struct, rename="camel"):
    group_id: msgspec.Raw = msgspec.Raw(b"null")


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_context = msgspec.json.Decoder(_Context).decode
_decode_any = msgspec.json.Decoder().decode


def check_line(line: bytes) -> None:
    """Raise `Reject` where a line could not be stored as JSON in Postgres."""
    if len(line) > MAX_BYTES:
        raise Reject("too_large", f"{len(line)} bytes; at most {MAX_BYTES}")
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise Reject("invalid_utf8", f"byte {error.start} is not UTF-8") from None
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(line) > MAX_DEPTH:
        raise Reject("too_deep", f"nested deeper than {MAX_DEPTH}")
    if b"\\u" in line:
        if _NUL.search(line):
            raise Reject("nul_character", "holds the character U+0000, which Postgres cannot store")
        try:
            _decode_any(line)
        except msgspec.DecodeError as error:
            raise Reject("invalid_json", str(error)) from None
    if _HUGE_NUMBER.search(line) and _HUGE_NUMBER.search(_STRING.sub(b'""', line)):
        raise Reject("number_out_of_range", "holds a number that Postgres cannot store")


def decode_segment(line: bytes, *, loaded_at: datetime) -> Event:
    """Turn one line of the Segment spec into an event. Raises `Reject`.

    `loaded_at` is the time of an event that carries none. Source of the shape: segment.com/docs/connections/spec.
    """
    check_line(line)
    try:
        parsed = _decode_line(line)
    except msgspec.ValidationError as error:
        raise Reject("invalid_shape", str(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Reject("invalid_json", str(error)) from None
    if parsed.type not in TYPES:
        raise Reject("unknown_type", f"type is '{parsed.type[:80]}'; known: {', '.join(sorted(TYPES))}")
    if parsed.type == "track" and not parsed.event:
        raise Reject("no_event", "a track without the name of its event")
    user_id = identifier(parsed.user_id, field="userId")
    anonymous_id = identifier(parsed.anonymous_id, field="anonymousId")
    if user_id is None and anonymous_id is None:
        raise Reject("no_user", "neither userId nor anonymousId")
    timestamp = instant(parsed.timestamp, field="timestamp")
    original_timestamp = instant(parsed.original_timestamp, field="originalTimestamp")
    sent_at = instant(parsed.sent_at, field="sentAt")
    received_at = instant(parsed.received_at, field="receivedAt")
    details = parsed.traits if parsed.type in ("identify", "group") else parsed.properties
    context = json_object(parsed.context, field="context")
    account_id = identifier(parsed.group_id, field="groupId")
    if account_id is None and "groupId" in context:
        account_id = identifier(_decode_context(context).group_id, field="context.groupId")
    return Event(
        message_id=identifier(parsed.message_id, field="messageId") or content_id(line),
        type=parsed.type,
        event=short(parsed.event, field="event") if parsed.type == "track" and parsed.event else None,
        user_id=user_id,
        anonymous_id=anonymous_id,
        account_id=account_id,
        previous_id=identifier(parsed.previous_id, field="previousId"),
        occurred_at=occurred_at(
            timestamp=timestamp,
            original_timestamp=original_timestamp,
            sent_at=sent_at,
            received_at=received_at,
            loaded_at=loaded_at,
        ),
        timestamp=timestamp,
        original_timestamp=original_timestamp,
        sent_at=sent_at,
        received_at=received_at,
        properties=json_object(details, field="properties"),
        context=context,
    )


def occurred_at(
    *,
    timestamp: datetime | None,
    original_timestamp: datetime | None,
    sent_at: datetime | None,
    received_at: datetime | None,
    loaded_at: datetime,
) -> datetime:
    """Return when an event happened, the client's clock corrected by ours where all three times are known."""
    if received_at and sent_at and original_timestamp:
        try:
            corrected = received_at - (sent_at - original_timestamp)
        except OverflowError:
            corrected = LATEST
        if not EARLIEST <= corrected < LATEST:
            raise Reject("invalid_timestamp", "receivedAt - (sentAt - originalTimestamp) is out of range")
        return corrected
    return timestamp or original_timestamp or received_at or loaded_at


def identifier(raw: msgspec.Raw, *, field: str) -> str | None:
    """Return an id as text: a string as it is, a number as its decimal text; null, "" and 0 are no id."""
    text = bytes(raw)
    if text in (b"null", b'""', b"0"):
        return None
    is_number = text[:1].isdigit() or text[:1] == b"-"
    if not is_number and not text.startswith(b'"'):
        raise Reject("invalid_id", f"{field} is neither a string nor a number")
    return short(text.decode() if is_number else _decode_any(text), field=field)


def short(text: str, *, field: str) -> str:
    """Return a key as it is. Raises `Reject` where it is too long to be one."""
    if len(text.encode()) > MAX_KEY_BYTES:
        raise Reject("too_large", f"{field} is longer than {MAX_KEY_BYTES} bytes")
    return text


def instant(text: str | None, *, field: str) -> datetime | None:
    """Parse an RFC 3339 time; a naive one is UTC. Raises `Reject` where it is no time from 1970 on."""
    if text is None:
        return None
    try:
        value = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        raise Reject("invalid_timestamp", f"{field} '{text[:40]}' is not an RFC 3339 time") from None
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    if not EARLIEST <= value < LATEST:
        raise Reject("invalid_timestamp", f"{field} '{text[:40]}' is out of range")
    return value


def json_object(raw: msgspec.Raw, *, field: str) -> str:
    """Return the text of a JSON object, `{}` for null. Raises `Reject` for anything else."""
    text = bytes(raw)
    if text == b"null":
        return "{}"
    if not text.startswith(b"{"):
        raise Reject("invalid_shape", f"{field} is not an object")
    return text.decode()


def content_id(line: bytes) -> str:
    """Return the id of an event that has none: the same line again gives the same id."""
    return hashlib.sha256(line).hexdigest()


def _depth(line: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", line)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
