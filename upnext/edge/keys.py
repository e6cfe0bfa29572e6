"""Keys: who may send events, and ask for calls to action. The warehouse keeps their hashes alone."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from upnext.edge.requests import login_of

Kind = Literal["write", "server"]
PREFIXES: dict[Kind, str] = {"write": "wk_", "server": "sk_"}
MAX_KEY = 200
REFRESHED_AFTER = 10.0
TRIED_AGAIN_AFTER = 2.0


@dataclass(frozen=True)
class Key:
    """A key in use: `write` keys are for clients that anybody can read, `server` keys are secrets."""

    key_id: int
    kind: Kind
    source: str
    origins: tuple[str, ...] = ()
    identity: Literal["required", "optional"] = "required"
    events_per_second: int = 500


def new_key(kind: Kind) -> str:
    """Return a new key, which is shown once."""
    return PREFIXES[kind] + secrets.token_urlsafe(24)


def hash_of(key: str) -> bytes:
    """Return what the warehouse keeps of a key. Keys are random, so a plain hash is enough."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def key_of_header(authorization: str | None) -> str | None:
    """Return the key that a client states as the user of basic authentication, or as a bearer token."""
    scheme, _, stated = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return stated.strip() or None
    login = login_of(authorization)
    return None if login is None else login[0] or None


class KeyRing:
    """The keys in use, read again when they are 10 seconds old. While the warehouse is away the last ones hold."""

    def __init__(
        self, load: Callable[[], Awaitable[Sequence[Any]]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._clock = clock
        self._keys: dict[bytes, Key] | None = None
        self._due_at = clock()
        self._reading: asyncio.Task[None] | None = None

    async def find(self, key: str | None) -> Key | None:
        """Return the key in use that a client states; None for one that is unknown or disabled.

        Raises `OSError` as long as none could be read.
        """
        keys = await self._current()
        return keys.get(hash_of(key)) if key is not None and len(key) <= MAX_KEY else None

    async def origins(self) -> set[str]:
        """Return the origins of all keys in use. Raises `OSError` as long as none could be read."""
        return {origin for key in (await self._current()).values() for origin in key.origins}

    async def _current(self) -> dict[bytes, Key]:
        is_first = self._reading is None and self._clock() >= self._due_at
        if is_first:
            self._reading = asyncio.create_task(self._read())
        # Whoever asks meanwhile goes by the keys that were read before, if there are any.
        if self._reading is not None and (is_first or self._keys is None):
            await asyncio.shield(self._reading)
        if self._keys is None:
            raise OSError("no keys could be read")
        return self._keys

    async def _read(self) -> None:
        try:
            self._keys = _by_hash(await self._load())
        except (psycopg.Error, OSError):
            self._due_at = self._clock() + TRIED_AGAIN_AFTER
        else:
            self._due_at = self._clock() + REFRESHED_AFTER
        finally:
            self._reading = None


def _by_hash(rows: Sequence[Any]) -> dict[bytes, Key]:
    return {
        bytes(row.hash): Key(row.key_id, row.kind, row.source, tuple(row.origins), row.identity, row.events_per_second)
        for row in rows
    }
