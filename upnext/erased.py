"""Tombstones of people who were erased: keyed hashes, by which nothing of them is loaded again and nobody mails them.

Somebody who comes back is readmitted: what happens from then on is loaded, what happened before is not.

The keys are those of `UPNEXT_ERASURE_KEYS`, or one that is made once and kept in Upnext's home. A dump of the warehouse
without them tells nothing: whoever guesses an id cannot check the guess.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from email_validator import EmailNotValidError, validate_email
from sqlalchemy.engine import Connection

from upnext.errors import UpnextError
from upnext.kept import kept
from upnext.settings import Settings
from upnext.sql import SQL

USER, VISITOR, ADDRESS = "user", "visitor", "address"
VISITOR_PREFIX = "visitor:"
KEYS_FILE = "erasure_keys"
TELLING = 6
"""Characters of a text that is taken for somebody's id or address wherever it stands."""
# The texts and numbers of a line of JSON or CSV.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.|"")*"|[^\s,;:|{}\[\]"]+')


@dataclass(frozen=True)
class Keys:
    """The keys, newest first. They are read, or made, when a tombstone needs them."""

    read: Callable[[], Sequence[str]]

    @classmethod
    def of(cls, settings: Settings) -> "Keys":
        """Return the keys that the settings name."""
        return cls(lambda: settings.erasure_keys or kept(settings.home, KEYS_FILE))

    def hashes(self, kind: str, text: str) -> list[bytes]:
        """Return the hashes of an id, or of the spellings of an address, by each key."""
        return [_hash(key, kind, spelled) for key in self.read() for spelled in _spellings(kind, text)]


@dataclass(frozen=True)
class Tombstones:
    """Who was erased, as far as hashes tell, and since when they are readmitted: None for those who are not."""

    hashes: Mapping[bytes, datetime | None] = field(default_factory=dict)
    keys: Sequence[str] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.hashes)

    def names(self, kind: str, text: str | None, *, at: datetime | None = None) -> bool:
        """Whether an id or an address is of somebody who was erased, and at this instant was not readmitted yet."""
        if text is None:
            return False
        spellings = _spellings(kind, text)
        return any(self._holds(_hash(key, kind, spelled), at) for key in self.keys for spelled in spellings)

    def _holds(self, hashed: bytes, at: datetime | None) -> bool:
        if hashed not in self.hashes:
            return False
        readmitted_at = self.hashes[hashed]
        return readmitted_at is None or at is None or at < readmitted_at

    def are_in(self, payload: bytes, id_fields: Collection[str]) -> bool:
        """Whether a line, of whatever shape, has such an id or address as one of its values (see `names_in`)."""
        texts = names_in(payload, id_fields)
        return any(self.names(kind, text) for text in texts for kind in (USER, VISITOR, ADDRESS))


def tombstones(connection: Connection, keys: Keys) -> Tombstones:
    """Return the tombstones. Raises `UpnextError` where they were made with a key that is not at hand."""
    rows = connection.execute(SQL["tombstones"]).all()
    if not rows:
        return Tombstones()
    known = list(keys.read())
    if {row.key for row in rows} - {_name_of(key) for key in known}:
        raise UpnextError(
            "people were erased from this warehouse with a key that is not at hand: set UPNEXT_ERASURE_KEYS, or put"
            f" back the file '{KEYS_FILE}' of the home in which they were erased"
        )
    return Tombstones({row.hash: row.readmitted_at for row in rows}, known)


def bury(connection: Connection, keys: Keys, people: Sequence[tuple[str, str]], *, at: datetime) -> None:
    """Write a tombstone for each (kind, text)."""
    key = keys.read()[0]
    rows = [{"hash": _hash(key, kind, text), "key": _name_of(key), "at": at} for kind, text in people]
    connection.execute(SQL["bury"], rows)


def readmit(connection: Connection, keys: Keys, asked: Sequence[str], *, at: datetime) -> None:
    """Readmit ids and addresses of people who were erased, from an instant on; `visitor:ID` is a visitor's id.

    Raises `UpnextError`, and changes nothing, where one of them was not erased.
    """
    buried = tombstones(connection, keys)
    unknown = [text for text in asked if not is_buried(buried, text)]
    if unknown:
        raise UpnextError(f"nobody was erased by the id or address '{unknown[0]}'; nothing has changed")
    hashes = [one for text in asked for kind, name in _may_be(text) for one in keys.hashes(kind, name)]
    connection.execute(SQL["readmit"], {"hashes": hashes, "at": at})


def is_buried(buried: Tombstones, asked: str) -> bool:
    """Whether a text is an id or an address of somebody who was erased; `visitor:ID` is a visitor's id."""
    return any(buried.names(*one) for one in _may_be(asked))


def _may_be(asked: str) -> list[tuple[str, str]]:
    """Return what a text that somebody typed may name, as (kind, text)."""
    if asked.startswith(VISITOR_PREFIX):
        return [kind_and_id(asked)]
    return [(kind, asked) for kind in (USER, VISITOR, ADDRESS)]


def kind_and_id(user_id: str) -> tuple[str, str]:
    """Return whether an id of the warehouse is that of a user or of a visitor, and the id as events have it."""
    kind = VISITOR if user_id.startswith(VISITOR_PREFIX) else USER
    return kind, user_id.removeprefix(VISITOR_PREFIX)


def names_in(payload: bytes, id_fields: Collection[str]) -> Iterator[str]:
    """Yield what may name somebody in a line of any shape; a text that is JSON itself is looked into.

    A short text or a number may be anything: it names somebody only as the value of an id's field, or where the line is
    no JSON, so that nobody can tell.
    """
    try:
        rest = [(msgspec.json.decode(payload), False)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield from tokens(payload)
        return
    while rest:
        value, is_id = rest.pop()
        if isinstance(value, dict):
            rest += [(inner, name in id_fields) for name, inner in value.items()]
            rest += [(name, False) for name in value]
        elif isinstance(value, list):
            rest += [(inner, False) for inner in value]
        elif is_id or (isinstance(value, str) and len(value) >= TELLING and not value.isdigit()):
            yield str(value)
            if isinstance(value, str) and value.startswith("{"):
                with suppress(msgspec.DecodeError, RecursionError):
                    rest.append((msgspec.json.decode(value), False))


def tokens(payload: bytes) -> Iterator[str]:
    """Yield the texts and numbers of a line of JSON or CSV, whether or not it is well formed."""
    for token in _TOKEN.findall(payload):
        if token[:1] == b'"':
            try:
                yield str(msgspec.json.decode(token))
            except msgspec.DecodeError:
                yield token[1:-1].replace(b'""', b'"').decode(errors="replace")
        else:
            yield token.decode(errors="replace")


def _spellings(kind: str, text: str) -> set[str]:
    """Return what an id or an address may also be written as: a domain of other letters than ASCII has two names."""
    if kind != ADDRESS:
        return {text}
    text = text.lower()
    if "@" not in text or (text.isascii() and "xn--" not in text):
        return {text}
    try:
        known = validate_email(text, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError:
        return {text}
    return {text, known.normalized.lower(), (known.ascii_email or text).lower()}


def _hash(key: str, kind: str, text: str) -> bytes:
    said = f"{kind}:{text.lower() if kind == ADDRESS else text}"
    secret = hashlib.sha256(key.encode()).digest()
    return hashlib.blake2b(said.encode(errors="surrogatepass"), key=secret, digest_size=32).digest()


def _name_of(key: str) -> str:
    return hashlib.sha256(f"name of {key}".encode()).hexdigest()[:16]
