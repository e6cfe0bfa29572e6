"""Whether the warehouse is a copy, restored from a backup: it would send again what the other one has sent since."""

from datetime import datetime

from sqlalchemy.engine import Connection, Engine

from upnext.errors import UpnextError
from upnext.sql import SQL


def check_origin(engine: Engine, *, at: datetime) -> None:
    """Raise `UpnextError` where the warehouse is a copy that nobody has adopted; the first call names it the origin."""
    with engine.begin() as connection:
        if connection.scalar(SQL["is_a_copy"]):
            raise UpnextError(
                "this warehouse is a copy of another one, and would send again what that one has sent since: if it is"
                " to go on in its place, say so by `upnext adopt`; otherwise let it send nothing"
            )
        connection.execute(SQL["claim_origin"], {"at": at})


def is_a_copy(connection: Connection) -> bool:
    """Whether the warehouse is a copy that nobody has adopted."""
    return bool(connection.scalar(SQL["is_a_copy"]))


def adopt(connection: Connection, *, sent_until: datetime, at: datetime) -> int:
    """Let this copy send; leave unsent what was due at `sent_until`, and return how many messages these are."""
    connection.execute(SQL["adopt"], {"at": at})
    return connection.execute(SQL["leave_unsent"], {"until": sent_until}).rowcount
