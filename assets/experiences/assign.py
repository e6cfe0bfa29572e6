"""Assigning members to the arms of their segment's experiences: by hash, once, for good."""

from datetime import datetime
from pathlib import Path

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from assets.experiences.definition import Experience, as_json
from orchestration.declarations import line_of, load_folder
from orchestration.errors import UpnextError, nearest
from orchestration.ticks import MERGED_SINCE, consumed, newest_published, record_consumed

CONSUMER = "experiences"
EXPERIENCES = Path(__file__).parent

_RECORD = sa.text("""
    insert into experiences.definitions (experience, definition) values (:experience, cast(:definition as jsonb))
    on conflict (experience) do update set definition = excluded.definition
    where experiences.definitions.definition is distinct from excluded.definition
""")

_FORGET = sa.text("delete from experiences.definitions where experience <> all(:experiences)")

# By a merge the earliest assignment of a person stands; who was in two arms is told from others.
_MERGE = sa.text(f"""
    with merged as ({MERGED_SINCE}),

    assigned as (
        select assignments.experience, merged.user_id, assignments.variant, assignments.assigned_at
        from merged
        inner join experiences.assignments on assignments.user_id = merged.absorbed
        union all
        select experience, user_id, variant, assigned_at
        from experiences.assignments
        where user_id in (select user_id from merged)
    )

    insert into experiences.assignments (experience, user_id, variant, assigned_at, is_in_both_arms)
    select
        experience,
        user_id,
        (array_agg(variant order by assigned_at, variant)) [1],
        min(assigned_at),
        count(distinct variant) > 1
    from assigned
    group by experience, user_id
    on conflict (experience, user_id) do update
    set
        variant = excluded.variant,
        assigned_at = excluded.assigned_at,
        is_in_both_arms = experiences.assignments.is_in_both_arms or excluded.is_in_both_arms
""")  # noqa: S608 - made of a constant

_ASSIGN = sa.text("""
    insert into experiences.assignments (experience, user_id, variant, assigned_at)
    select definitions.experience, members.user_id, arms.variant, :as_of
    from experiences.definitions
    inner join segments.current_members as members on members.segment = definitions.definition ->> 'segment'
    inner join lateral jsonb_to_recordset(definitions.definition -> 'ranges')
        as arms (variant text, low double precision, high double precision)
        on upnext.bucket('experience:' || definitions.experience, members.user_id) >= arms.low
        and upnext.bucket('experience:' || definitions.experience, members.user_id) < arms.high
    where not exists (
        select from experiences.assignments
        where assignments.experience = definitions.experience and assignments.user_id = members.user_id
    )
    on conflict (experience, user_id) do nothing
""")


def load_experiences(segments: set[str], folder: Path = EXPERIENCES) -> dict[str, Experience]:
    """Return the declared experiences by name. Raises `UpnextError` for an unknown segment."""
    experiences = load_folder(folder, Experience)
    for name, experience in experiences.items():
        if experience.segment not in segments:
            path = folder / f"{name}.yml"
            hint = nearest(experience.segment, segments)
            raise UpnextError(f"{path}:{line_of(path, ['segment'])}: unknown segment '{experience.segment}'{hint}")
    return experiences


def assign(engine: Engine, experiences: dict[str, Experience], *, as_of: datetime) -> int:
    """Give each current member a variant of each experience of the segment, and return how many were new."""
    rows = [
        {"experience": name, "definition": msgspec.json.encode(as_json(experience)).decode()}
        for name, experience in experiences.items()
    ]
    with engine.begin() as connection:
        if rows:
            connection.execute(_RECORD, rows)
        connection.execute(_FORGET, {"experiences": list(experiences)})
        published_tick = newest_published(connection)
        since = consumed(connection, CONSUMER)
        if published_tick:
            connection.execute(_MERGE, {"consumed_tick": since.tick_id if since is not None else 0})
        assigned = connection.execute(_ASSIGN, {"as_of": as_of}).rowcount
        record_consumed(connection, CONSUMER, published_tick, as_of)
    return assigned
