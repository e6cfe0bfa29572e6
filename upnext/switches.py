"""The started journeys and experiences: they do nothing until a user starts them."""

import getpass
import os
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.engine import Connection

from upnext.sql import SQL


class Started(NamedTuple):
    """The time when a journey or an experience was started, and the user who started it."""

    since: datetime
    by: str


def started(connection: Connection) -> dict[str, Started]:
    """Return the journeys and experiences that are started, by name."""
    return {row.name: Started(row.since, row.started_by) for row in connection.execute(SQL["started"])}


def switch(connection: Connection, name: str, *, is_started: bool, at: datetime, by: str) -> bool:
    """Start or stop a journey or an experience, and record the user; False if nothing changes."""
    values = {"name": name, "is_started": is_started, "at": at, "by": by}
    return connection.execute(SQL["switch"], values).rowcount == 1


def this_user() -> str:
    """Return the name of whoever runs this process: for the edges of the system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
