"""Which traits users have, by what identify calls have said: for copy that names one that nobody has."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

# Of the newest calls: enough to know a trait by, and few enough to look at while somebody waits.
_TRAITS = sa.text("""
    select distinct on (traits.key) traits.key as name, jsonb_typeof(traits.value) as type
    from (
        select properties from raw.events where type = 'identify' order by load_id desc limit 20000
    ) as calls
    cross join lateral jsonb_each(calls.properties) as traits
    where jsonb_typeof(traits.value) <> 'null'
    order by traits.key
""")
_EXAMPLES: dict[str, Any] = {"number": 12, "boolean": True, "array": [], "object": {}}


def known_traits(connection: Connection) -> dict[str, Any]:
    """Return the traits that users have, by name, each with a made-up value of its type; none of anybody's own."""
    return {row.name: _EXAMPLES.get(row.type, row.name) for row in connection.execute(_TRAITS)}
