"""The traits of users, from identify calls: to report copy that names an unknown trait."""

from typing import Any

from sqlalchemy.engine import Connection

from upnext.journeys.sql import SQL

_EXAMPLES: dict[str, Any] = {"number": 12, "boolean": True, "array": [], "object": {}}


def known_traits(connection: Connection) -> dict[str, Any]:
    """Return the traits that users have, by name, each with a made-up value of its type, never a real one."""
    return {row.name: _EXAMPLES.get(row.type, row.name) for row in connection.execute(SQL["traits"])}
