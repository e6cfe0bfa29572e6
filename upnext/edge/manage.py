"""Adding, listing and disabling keys, from the command line."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Engine

from upnext.edge.config import check_origin
from upnext.edge.keys import Kind, hash_of, new_key
from upnext.edge.sql import SQL
from upnext.errors import UpnextError


def add_key(
    engine: Engine,
    *,
    kind: Kind,
    source: str,
    origins: Sequence[str],
    identity: str,
    events_per_second: int,
    now: datetime,
) -> tuple[int, str]:
    """Make a key, and return its number and the key itself, which is shown this once."""
    if kind == "server" and origins:
        raise UpnextError("a server key has no origins: browsers may not use it")
    key = new_key(kind)
    values = {
        "kind": kind, "source": source, "hash": hash_of(key), "origins": [check_origin(one) for one in origins],
        "identity": identity, "events_per_second": events_per_second, "now": now,
    }  # fmt: skip
    with engine.begin() as connection:
        return int(connection.scalar(SQL["add_key"], values) or 0), key


def list_keys(engine: Engine) -> list[dict[str, Any]]:
    """Return all keys, without the keys themselves."""
    with engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(SQL["list_keys"])]


def disable_key(engine: Engine, key_id: int, *, now: datetime) -> None:
    """Disable a key; the edge refuses it within 10 seconds. Raises `UpnextError` where there is none."""
    with engine.begin() as connection:
        if connection.scalar(SQL["disable_key"], {"key_id": key_id, "now": now}) is None:
            raise UpnextError(f"there is no key {key_id}; `upnext keys list` shows them")
