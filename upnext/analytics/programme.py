"""The programme: journeys and experiences as a whole, as one experiment against the global holdout."""

from datetime import datetime
from typing import Any

from sqlalchemy.engine import Engine

from upnext.analytics.sql import SQL


def record(engine: Engine, declared: dict[str, Any] | None, *, share: float, as_of: datetime) -> None:
    """Record what the programme is for (its JSON `goal`, `minimum_lift`, `revenue`; None: nothing), and its holdout.

    The holdout of a time without a programme is recorded too: whom it left out is compared with nobody of another.
    """
    with engine.begin() as connection:
        if declared is None:
            connection.execute(SQL["forget_programme"])
        else:
            connection.execute(SQL["record_programme"], declared)
        connection.execute(SQL["record_share"], {"share": share, "as_of": as_of})


def read(engine: Engine) -> dict[str, Any] | None:
    """Return the number of the programme at the newest analysis, a row of `analytics.programme_number`."""
    with engine.connect() as connection:
        row = connection.execute(SQL["newest_programme"]).mappings().one_or_none()
    return None if row is None else dict(row)
