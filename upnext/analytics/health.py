"""Checks of results: sample-ratio mismatch, exposures without assignment, silent arms, goals before exposure."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy.engine import Engine

from upnext.analytics.decision import SRM_ALARM
from upnext.analytics.sql import SQL

CHECKS = {
    "sample_ratios_hold": "Each arm was seen by as many users as it should have been (p at least 0.001).",
    "exposures_are_assigned": "In the last week every user saw only the arm that they were assigned to.",
    "no_arm_is_silent": "Each arm that should have been seen ten times in the last week was seen.",
    "goals_follow_exposures": "Of last week's first exposures, at most one in twenty came after the goal.",
    "sums_are_of_one_currency": "What metrics add up is of one currency, by the events' property `currency`.",
    "metrics_move": "Each event that metrics are made of, and that came ten times a day, came in the last three days.",
}


def run_checks(
    engine: Engine, *, as_of: datetime, events: Collection[str], summed_events: Collection[str] = ()
) -> dict[str, dict[str, float]]:
    """Return the findings of each check by name: the p-value, or the count.

    `events` are the events that metrics read, `summed_events` those with a property that metrics sum.
    """
    values = {"as_of": as_of, "alarm": SRM_ALARM, "events": sorted(events), "summed_events": sorted(summed_events)}
    with engine.connect() as connection:
        return {
            check: {row.name: float(row.found) for row in connection.execute(SQL[check], values)} for check in CHECKS
        }
