"""Exposures and outcomes straight into the warehouse, with a truth that is known: no mail, no replay."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from upnext.experiences.definition import Experience, arm_of, as_json
from upnext.journeys.definition import Journey, version
from upnext.journeys.definition import as_json as journey_json
from upnext.project import Project

Event = tuple[str, str, datetime, dict[str, str]]
"""User, name, instant and properties."""


def experience(**changes: Any) -> Experience:
    """An experience on the members of upgrade_seekers, half of them in control."""
    value = {
        "description": "x", "owner": "o", "segment": "upgrade_seekers", "surface": "web", "slot": "homepage_banner",
        "trigger": {"when": "page_view"}, "priority": 1, "control": 0.5,
        "goal": {"any_of": ["subscribed to premium plan"], "within": "7 days"},
        "variants": {"a": {"copy": "A", "url": "/a"}}, **changes,
    }  # fmt: skip
    return msgspec.convert(value, Experience)


def store(
    project: Project,
    *,
    as_of: datetime,
    assigned_at: datetime,
    experiences: dict[str, Experience],
    users: dict[str, Iterable[str]],
    events: Iterable[Event],
    journeys: dict[str, Journey] | None = None,
    entries: Iterable[tuple[str, str, str]] = (),
) -> None:
    """Replace what is stored by these experiences with their `users`, drawn by hash, and by these events.

    `entries` are journey, user and status.
    """
    tables = "raw.events, experiences.definitions, experiences.shares, experiences.assignments, journeys.messages,"
    tables += " journeys.entries, journeys.definitions, journeys.steps"
    with project.engine.begin() as connection:
        connection.execute(sa.text(f"truncate {tables} cascade"))
        forget(connection)
        connection.execute(
            sa.text("insert into segments.ticks (as_of, published_at) values (:as_of, :as_of)"), {"as_of": as_of}
        )
        cursor = connection.connection.cursor()
        _copy(
            cursor,
            "experiences.definitions (experience, definition)",
            [(name, msgspec.json.encode(as_json(one)).decode()) for name, one in experiences.items()],
        )
        connection.execute(
            sa.text(
                "insert into experiences.shares select experience, '-infinity', definition -> 'weights'"
                " from experiences.definitions"
            )
        )
        _copy(
            cursor,
            "experiences.assignments (experience, user_id, variant, assigned_at)",
            [
                (name, user, arm_of(name, one, user), assigned_at)
                for name, one in experiences.items()
                for user in users[name]
            ],
        )
        declared = journeys or {}
        _copy(
            cursor,
            "journeys.definitions (journey, version, definition, first_dispatched_at)",
            [
                (name, version(one), msgspec.json.encode(journey_json(one)).decode(), assigned_at)
                for name, one in declared.items()
            ],
        )
        _copy(
            cursor,
            "journeys.entries (journey, version, user_id, entered_at, reached_at, status, cause, seed, arm)",
            [
                (
                    name,
                    version(declared[name]),
                    user,
                    assigned_at,
                    assigned_at,
                    status,
                    user,
                    f"{name}/{user}",
                    {"held_out": "held_out", "excluded": None}.get(status, "treated"),
                )
                for name, user, status in entries
            ],
        )
        _copy(
            cursor,
            "raw.events (source, message_id, type, event, user_id, person_id, occurred_at, load_id, properties)",
            [
                ("study", str(nth), "track", event, user, user, at, 0, msgspec.json.encode(properties).decode())
                for nth, (user, event, at, properties) in enumerate(events)
            ],
        )
        connection.execute(sa.text("analyze raw.events, experiences.assignments, journeys.entries"))


def forget(connection: Connection) -> None:
    """Let the next analysis recompute everybody."""
    tables = ["experiment_users", "daily_moments"]
    connection.execute(sa.text("update features.states set tick_id = 0 where model = any(:tables)"), {"tables": tables})


def _copy(cursor: Any, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with cursor.copy(f"copy {table} from stdin") as copy:
        for row in rows:
            copy.write_row(row)
