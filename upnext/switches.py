"""What has been started: journeys and experiences do nothing until somebody says so."""

import getpass
import os
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

_STARTED = sa.text("select name, since, started_by from upnext.started")
_SWITCH = sa.text("""
    insert into upnext.switches (name, is_started, changed_at, changed_by)
    select :name, :is_started, :at, :by
    where (exists (select from upnext.started where name = :name)) is distinct from cast(:is_started as boolean)
""")


class Started(NamedTuple):
    """Since when something is at work, and who started it."""

    since: datetime
    by: str


def started(connection: Connection) -> dict[str, Started]:
    """Return the journeys and experiences that are started, by name."""
    return {row.name: Started(row.since, row.started_by) for row in connection.execute(_STARTED)}


def switch(connection: Connection, name: str, *, is_started: bool, at: datetime, by: str) -> bool:
    """Start or stop something, and note who did; False where it is so already."""
    values = {"name": name, "is_started": is_started, "at": at, "by": by}
    return connection.execute(_SWITCH, values).rowcount == 1


def this_user() -> str:
    """Return the name of whoever runs this process: for the edges of the system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
