"""The traits of users, from identify calls: to report copy that names an unknown trait, and to preview copy."""

from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from upnext.journeys.sql import SQL

_EXAMPLES: dict[str, Any] = {"number": 12, "boolean": True, "array": [], "object": {}}


def known_traits(connection: Connection) -> dict[str, Any]:
    """Return the traits that users have, by name, each with a made-up value of its type, never a real one."""
    return {row.name: _EXAMPLES.get(row.type, row.name) for row in connection.execute(SQL["traits"])}


def traits_and_features(
    connection: Connection, user_id: str, *, as_of: datetime
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the traits of a user at an instant, and the row of features; None where there is no such user."""
    found = connection.execute(SQL["person"], {"user_id": user_id, "as_of": as_of}).one_or_none()
    return None if found is None else (found.traits, found.features)
