"""What a request of a Segment client holds: its key, and the lines that go to the inbox. Pure.

A line is the event as the client sent it. The edge adds when it was received, the type that the path states, and an id
where there is none; it leaves out the key. Whatever is wrong with one event is for the drain to reject, with a reason.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from upnext.edge.refusal import Refused
from upnext.events.event import MAX_BYTES

MAX_EVENTS = 2500
KEPT_OF_TOO_LARGE = 64 * 1024
TYPES = {
    "t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias",
    "track": "track", "identify": "identify", "page": "page", "screen": "screen", "group": "group", "alias": "alias",
}  # fmt: skip
"""The type of event that a path states, by its last part."""
BATCHES = ("batch", "b", "import")
# As upnext/edge/keys.py makes them.
_KEY = re.compile(r"[ws]k_[A-Za-z0-9_-]{32}")
BOTS = ("bot", "crawler", "spider", "headlesschrome")

Fields = dict[str, msgspec.Raw]
_fields = msgspec.json.Decoder(Fields).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str | None).decode
_encode = msgspec.json.encode


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
        return read(_with_halves_as_text(body, kind), kind)
    if len(items) > MAX_EVENTS:
        raise Refused(413, "too_many_events", f"{len(items)} events; at most {MAX_EVENTS} in a request")
    return Call(key, items, None, fields.get("context"), fields.get("sentAt"))


def _with_halves_as_text(body: bytes, kind: str) -> bytes:
    """Return a batch in which each event that escapes half of a surrogate pair is a text. Raises `Refused`.

    JSON allows the escape and msgspec refuses the whole body for it. A text is no event, so it alone is rejected.
    """
    refused = Refused(400, "invalid_json", "the body is not JSON")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        raise refused from None
    stated = parsed.get("batch") if isinstance(parsed, dict) and kind in BATCHES else None
    items = stated if isinstance(stated, list) else []
    halves = [nth for nth, item in enumerate(items) if not _is_text(item)]
    if not halves:
        raise refused
    for nth in halves:
        items[nth] = json.dumps(items[nth])
    return json.dumps(parsed).encode()


def _is_text(item: Any) -> bool:
    try:
        json.dumps(item, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def lines_of(
    call: Call,
    rules: Rules,
    *,
    received_at: datetime,
    ids: Iterator[str],
    is_bot: bool = False,
    address: str | None = None,
) -> list[bytes]:
    """Return the lines of the events to whose storing the user has not objected.

    `ids` gives new ids of messages; `address` is the client's where it is kept, and one that the client states wins.
    """
    added: dict[str, Any] = {"receivedAt": received_at}
    if call.type is not None:
        added["type"] = call.type
    if call.sent_at is not None:
        added["sentAt"] = call.sent_at
    under = _merged(_encode({"ip": address} if address else {}), call.context) if call.context or address else None
    over = msgspec.Raw(b'{"upnext":{"bot":true}}') if is_bot else None
    return [
        _without_key(_line(item, rules, added, under, over, ids), call.key)
        for item in call.items
        if not _objects(bytes(item), rules.consent)
    ]


def _without_key(line: bytes, key: str | None) -> bytes:
    """Return a line without the key, which an event that is kept as it came may hold.

    A text that only stands in the place of a key is left, because removing it could change what the event says.
    """
    return line.replace(key.encode(), b"") if key is not None and _KEY.fullmatch(key) else line


def _line(
    item: msgspec.Raw, rules: Rules, added: Mapping[str, Any], under: Any, over: Any, ids: Iterator[str]
) -> bytes:
    if len(bytes(item)) > MAX_BYTES:
        return bytes(item)[:KEPT_OF_TOO_LARGE]
    try:
        fields: dict[str, Any] = _fields(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return bytes(item)
    fields.pop("writeKey", None)
    if under is not None:
        fields["context"] = _merged(under, fields.get("context"))
    if rules.strips_queries and b"?" in bytes(item):
        fields.update(_without_queries(fields))
    if over is not None:
        fields["context"] = _merged(fields.get("context"), over)
    if bytes(fields.get("messageId", b"null")) in (b"null", b'""'):
        fields["messageId"] = next(ids)
    # Clients state when it happened by their own clock; with sentAt, the decoder corrects this one.
    if "timestamp" in fields and "originalTimestamp" not in fields:
        fields["originalTimestamp"] = fields["timestamp"]
    return _encode({**fields, **added})


def _merged(under: Any, over: Any) -> Any:
    """Return the fields of two objects, those of `over` where both have one; what is no object gives way."""
    parts: list[Fields] = []
    for part in (under, over):
        try:
            parts.append(_fields(part if part is not None else b"{}"))
        except msgspec.DecodeError:
            parts.append({})
    return msgspec.Raw(_encode({**parts[0], **parts[1]}))


def _without_queries(fields: Mapping[str, Any]) -> Fields:
    """Return the context and the properties, without the queries of the page's addresses."""
    changed: Fields = {}
    for name in ("context", "properties"):
        try:
            values = msgspec.json.decode(fields.get(name, b"null"))
        except msgspec.DecodeError:
            continue
        pages = [values, values.get("page")] if isinstance(values, dict) else []
        for page in (page for page in pages if isinstance(page, dict)):
            for key in ("url", "referrer"):
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
    consent: _Consent = msgspec.field(default_factory=_Consent)


class _ConsentOf(msgspec.Struct):
    context: _ConsentContext = msgspec.field(default_factory=_ConsentContext)


_consent = msgspec.json.Decoder(_ConsentOf).decode


def _objects(item: bytes, category: str | None) -> bool:
    """Whether the user said no to a category of storing, in the form of Segment's consent."""
    if category is None or b"categoryPreferences" not in item:
        return False
    try:
        return _consent(item).context.consent.category_preferences.get(category) is False
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def is_bot(user_agent: str | None) -> bool:
    """Whether a client says that it is a program which reads pages, or says nothing."""
    told = (user_agent or "").lower()
    return not told or any(word in told for word in BOTS)
