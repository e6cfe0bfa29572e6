"""What a request of a Segment client holds: its key, and the lines that go to the inbox. Pure.

A line is the event as the client sent it. The edge adds when it was received, the type that the path states, and an id
where there is none; it leaves out the key. Whatever is wrong with one event is for the drain to reject, with a reason.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from upnext.edge.refusal import Refused
from upnext.events.event import MAX_BYTES

MAX_EVENTS = 2500
MAX_LINES = 8 * 1024 * 1024
"""Bytes of the lines that one request becomes: what a batch states for all its events is part of each line."""
KEPT_OF_TOO_LARGE = 64 * 1024
TYPES = {
    "t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias",
    "track": "track", "identify": "identify", "page": "page", "screen": "screen", "group": "group", "alias": "alias",
}  # fmt: skip
"""The type of event that a path states, by its last part."""
BATCHES = ("batch", "b", "import")
# As upnext/edge/keys.py makes them.
_KEY = re.compile(rb"[ws]k_[A-Za-z0-9_-]{32}")
# An address with a query has one of these; the last begins an escape of the other two.
_MARKS = (b"?", b"#", b"\\u00")
BOTS = ("bot", "crawler", "spider", "headlesschrome")

Fields = dict[str, msgspec.Raw]
_fields = msgspec.json.Decoder(Fields).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str | None).decode
_encode = msgspec.json.encode
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class Call:
    """A request's body: the key that it names, its events, and what a batch states for all of them."""

    key: str | None
    items: list[msgspec.Raw]
    type: str | None
    context: msgspec.Raw | None = None
    sent_at: msgspec.Raw | None = None


@dataclass(frozen=True)
class Rules:
    """What the edge does to events: whether it cuts queries off addresses, and the consent that it asks for."""

    strips_queries: bool = True
    consent: str | None = None


def read(body: bytes, kind: str) -> Call:
    """Read the body of a request to the path that ends with `kind`. Raises `Refused` for what is no JSON object."""
    try:
        fields = _fields(body)
        key = _text(fields.get("writeKey", b"null"))
        if kind not in BATCHES:
            return Call(key, [msgspec.Raw(body)], TYPES[kind])
        items = _items(fields.get("batch", b"null"))
    except RecursionError:
        raise Refused(400, "too_deep", "the body is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise Refused(400, "invalid_shape", f"the body does not have the form of a {kind} call: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return read(_with_broken_as_text(body, kind), kind)
    _check_count(items)
    context, sent_at = fields.get("context"), fields.get("sentAt")
    if len(body) + len(items) * sum(len(bytes(part)) for part in (context, sent_at) if part is not None) > MAX_LINES:
        raise Refused(413, "too_large", "the context of the batch is too large for so many events")
    return Call(key, items, None, context, sent_at)


def _check_count(items: Sized) -> None:
    if len(items) > MAX_EVENTS:
        raise Refused(413, "too_many_events", f"{len(items)} events; at most {MAX_EVENTS} in a request")


def _with_broken_as_text(body: bytes, kind: str) -> bytes:
    """Return a batch in which each event that holds half of a surrogate pair, or NaN, is a text. Raises `Refused`.

    JSON allows to escape a half, Python's clients write NaN, and msgspec refuses the whole body for either. A text is
    no event, so it alone is rejected.
    """
    refused = Refused(400, "invalid_json", "the body is not JSON")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        raise refused from None
    stated = parsed.get("batch") if isinstance(parsed, dict) and kind in BATCHES else None
    items = stated if isinstance(stated, list) else []
    _check_count(items)
    broken = [nth for nth, item in enumerate(items) if not _is_json(item)]
    if not broken:
        raise refused
    for nth in broken:
        items[nth] = json.dumps(items[nth])
    return json.dumps(parsed).encode()


def _is_json(item: Any) -> bool:
    try:
        json.dumps(item, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return False
    return True


def lines_of(
    call: Call,
    rules: Rules,
    *,
    received_at: datetime,
    ids: Iterator[str],
    is_bot: bool = False,
    is_public: bool = False,
    address: str | None = None,
) -> list[bytes]:
    """Return the lines of the events to whose storing the user has not objected.

    `ids` gives new ids of messages; `address` is the client's where it is kept, and one that the client states wins.
    Where the key `is_public`, an alias is marked as unproven: anybody could say that one user is another.
    Raises `Refused` where the context of the whole batch cannot be read.
    """
    added: dict[str, Any] = {"receivedAt": received_at}
    if call.type is not None:
        added["type"] = call.type
    if call.sent_at is not None:
        added["sentAt"] = call.sent_at
    try:
        under: Fields = {**_fields(_encode({"ip": address} if address else {})), **_object(call.context)}
    except _BROKEN:
        raise Refused(400, "invalid_shape", "the context of the batch cannot be read") from None
    marks = {"bot": True} if is_bot else {}
    of_all = b"" if call.context is None else b'{"context":' + bytes(call.context) + b"}"
    return [
        _line(item, rules, added, under, {**marks, **_unproven(item, call.type)} if is_public else marks, ids)
        for item in call.items
        if not _objects(bytes(item), of_all, rules.consent)
    ]


def _line(
    item: msgspec.Raw,
    rules: Rules,
    added: Mapping[str, Any],
    under: Fields,
    marks: Mapping[str, bool],
    ids: Iterator[str],
) -> bytes:
    text = bytes(item)
    if len(text) > MAX_BYTES:
        return _without_keys(text[:KEPT_OF_TOO_LARGE])
    try:
        fields: dict[str, Any] = _fields(item)
        fields.pop("writeKey", None)
        if under or marks:
            over = {"upnext": marks} if marks else {}
            fields["context"] = msgspec.Raw(_encode({**under, **_object(fields.get("context")), **over}))
            text += bytes(fields["context"])
        if rules.strips_queries and any(mark in text for mark in _MARKS):
            fields.update(_without_queries(fields))
        if bytes(fields.get("messageId", b"null")) in (b"null", b'""'):
            fields["messageId"] = next(ids)
        # Clients state when it happened by their own clock; with sentAt, the decoder corrects this one.
        if "timestamp" in fields and "originalTimestamp" not in fields:
            fields["originalTimestamp"] = fields["timestamp"]
        return _encode({**fields, **added})
    except _BROKEN:
        return _without_keys(bytes(item))


def _unproven(item: msgspec.Raw, kind: str | None) -> Mapping[str, bool]:
    """Return the mark of an alias, whose type the call's path states, or else the event."""
    if kind is not None:
        return {"unproven": True} if kind == "alias" else {}
    try:
        # Decoded, because JSON can spell it in more than one way.
        return {"unproven": True} if _text(_object(item).get("type", b"null")) == "alias" else {}
    except _BROKEN:
        return {}


def _without_keys(line: bytes) -> bytes:
    """Return an event that is kept as it came, without what has the form of a key."""
    return _KEY.sub(b"", line)


def _object(part: msgspec.Raw | None) -> Fields:
    """Return the fields of an object; none of what is no object. Raises for what is no JSON."""
    try:
        return _fields(part if part is not None else b"{}")
    except msgspec.ValidationError:
        return {}


def _without_queries(fields: Mapping[str, Any]) -> Fields:
    """Return the context and the properties, without the queries of the page's addresses."""
    changed: Fields = {}
    for name in ("context", "properties"):
        values = msgspec.json.decode(fields.get(name, b"null"))
        pages = [values, values.get("page")] if isinstance(values, dict) else []
        for page in (page for page in pages if isinstance(page, dict)):
            for key in ("url", "referrer", "path"):
                if isinstance(page.get(key), str):
                    page[key] = without_query(page[key])
            if isinstance(page.get("search"), str):
                page["search"] = ""
        if pages:
            changed[name] = msgspec.Raw(_encode(values))
    return changed


def without_query(address: str) -> str:
    """Return an address without its query and fragment.

    >>> without_query("https://otto.example/plans?email=ada@otto.example#top")
    'https://otto.example/plans'
    """
    try:
        return urlunsplit(urlsplit(address)._replace(query="", fragment=""))
    except ValueError:
        return address.partition("?")[0]


class _Consent(msgspec.Struct, rename="camel"):
    category_preferences: dict[str, Any] = {}


class _ConsentContext(msgspec.Struct):
    consent: _Consent | None = None


class _ConsentOf(msgspec.Struct):
    context: _ConsentContext = msgspec.field(default_factory=_ConsentContext)


_consent = msgspec.json.Decoder(_ConsentOf).decode


def _objects(item: bytes, of_all: bytes, category: str | None) -> bool:
    """Whether the user said no to a category of storing, in the form of Segment's consent.

    What an event says of it stands in the place of what its batch says.
    """
    if category is None:
        return False
    stated = _consent_in(item) or _consent_in(of_all)
    return stated is not None and stated.category_preferences.get(category) is False


def _consent_in(item: bytes) -> _Consent | None:
    if b"consent" not in item:
        return None
    try:
        return _consent(item).context.consent
    except _BROKEN:
        return None


def is_bot(user_agent: str | None) -> bool:
    """Whether a client says that it is a program which reads pages, or says nothing."""
    # A phone of that make is no program.
    told = (user_agent or "").lower().replace("cubot", "")
    return not told or any(word in told for word in BOTS)
