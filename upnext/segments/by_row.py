"""Segments that depend on one row of the features alone: a tick evaluates them in one statement for each table.

dbt runs the model of such a segment only if its file has changed, its last change was held, its last evaluation failed,
or its view is gone. To run hundreds of models takes longer than to evaluate all their conditions.
"""

from collections.abc import Mapping

from sqlalchemy.engine import Engine

from upnext.segments.definition import Condition
from upnext.segments.sql import SQL


def store_conditions(engine: Engine, conditions: Mapping[str, Condition]) -> list[str]:
    """Store what the files say now, and return the segments that this tick evaluates together."""
    values = {
        "segments": list(conditions),
        "features": [condition.features for condition in conditions.values()],
        "conditions": [condition.sql for condition in conditions.values()],
        "hashes": [condition.text_hash for condition in conditions.values()],
    }
    with engine.begin() as connection:
        connection.execute(SQL["forget_conditions"], values)
        connection.execute(SQL["store_conditions"], values)
        connection.execute(SQL["choose_together"])
        return list(connection.scalars(SQL["evaluated_together"]))
