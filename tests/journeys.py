"""Journeys of a test's own, whose membership changes are published without a build."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from tests.conftest import AS_OF, Product, rows, start
from upnext.journeys.definition import Journey
from upnext.loop import dispatch_journeys, open_tick
from upnext.project import Project
from upnext.ticks.lifecycle import Tick

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def journey(*steps: dict[str, Any], **values: Any) -> Journey:
    """Return a journey on upgrade_seekers that sends `catch_up` at once, but for what is said."""
    declared = {
        "description": "A journey.", "owner": "growth@otto.example", "segment": "upgrade_seekers",
        "existing_members": "ignore", "reentry": "never", "exit_on_leaving": True, "holdout": 0, "late": "send",
        "goal": {"any_of": ["subscribed to premium plan"], "within": "14 days"},
        "steps": list(steps) or [mail("hello")], **values,
    }  # fmt: skip
    return msgspec.convert({key: value for key, value in declared.items() if value is not None}, Journey)


def mail(name: str, **values: Any) -> dict[str, Any]:
    if "wait" not in values:
        values = {"after": "0 days", **values}
    return {"do": "email", "name": name, "subject": name, "template": "catch_up", **values}


class Journeys:
    """A warehouse with journeys of the test's own; membership changes are published without a build."""

    def __init__(self, project: Project, product: Product) -> None:
        self.project = project
        self.product = product

    def declare(self, **journeys: Journey) -> None:
        self.project.journeys = journeys
        start(self.project, *journeys)

    def dispatch(self, at: datetime = AS_OF) -> Any:
        return dispatch_journeys(self.project, at)

    def person(self, *users: str, **traits: Any) -> None:
        for user in users:
            self.product.identify(user, AS_OF - 20 * DAY, email=f"{user}@customer.example", **traits)

    def tick(self, at: datetime, change: str = "entered", *users: str, segment: str = "upgrade_seekers") -> None:
        with open_tick(self.project, at, is_explicit=True) as tick:
            self.change(tick, dict.fromkeys(users, change), segment)

    def change(self, tick: Tick, changes: dict[str, str], segment: str = "upgrade_seekers") -> None:
        self.write(
            "insert into segments.membership_changes (tick_id, segment, user_id, change, as_of)"
            " select :tick_id, :segment, user_id, change, :as_of"
            " from unnest(cast(:users as text[]), cast(:changes as text[])) as t (user_id, change)",
            users=list(changes),
            changes=list(changes.values()),
            tick_id=tick.tick_id,
            segment=segment,
            as_of=tick.as_of,
        )

    def merge(self, at: datetime, changes: dict[str, str] | None = None, **survivors: str) -> None:
        """Publish that users are others, whatever that changes in the segment."""
        for absorbed, survivor in survivors.items():
            self.product.store("alias", at - HOUR, user_id=survivor, previous_id=absorbed)
        with open_tick(self.project, at, is_explicit=True) as tick:
            self.project.dbt.invoke(
                ["run", "--select", "identity_links", "--vars",
                 f"{{tick_id: {tick.tick_id}, as_of: '{tick.as_of.isoformat()}'}}"]
            )  # fmt: skip
            self.change(tick, changes or {})

    def write(self, statement: str, **values: Any) -> None:
        with self.project.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def entries(self, columns: str = "user_id, status, reason") -> list[Any]:
        return rows(self.project, f"select {columns} from journeys.entries order by entered_at, entry_id")

    def sent(self, step: str) -> list[str]:
        """Who was sent the message of a step."""
        sent = "select user_id from journeys.messages where step = :step and status = 'sent' order by 1"
        return [user for (user,) in rows(self.project, sent, step=step)]

    def messages(self, columns: str = "step, status, reason") -> list[Any]:
        return rows(self.project, f"select {columns} from journeys.messages order by due_at, user_id, step")
